"""The task of a model that was fine-tuned elsewhere: what its head and its config.json say.

task = adopt_task(load_model(folder), folder)
"""

from __future__ import annotations

from pathlib import Path

from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.model.folder import describe
from bertwright.model.heads import ClassificationHead, TokenClassificationHead
from bertwright.tasks.base import Task
from bertwright.tasks.choice import ChoiceTask
from bertwright.tasks.qa import QATask
from bertwright.tasks.regression import RegressTask
from bertwright.tasks.sentence import ClassifyTask
from bertwright.tasks.tagging import adopt as adopt_tags


def adopt_task(model: Bert, folder: Path) -> Task | None:
    """Return the task of a model made elsewhere, or None if it was not fine-tuned.

    Raises:
        BertwrightError: config.json does not name each of a head's outputs, or contradicts their number.
    """
    if "classify" in model.heads:
        return _text_task(model, folder)
    if "tag" in model.heads:
        head = model.heads["tag"]
        assert isinstance(head, TokenClassificationHead)
        return adopt_tags(_labels(folder, head.num_labels))
    if "span" in model.heads:
        return QATask()
    return ChoiceTask() if "choice" in model.heads else None


def _text_task(model: Bert, folder: Path) -> Task:
    head = model.heads["classify"]
    assert isinstance(head, ClassificationHead)
    described = describe(folder)
    by_size = "regression" if head.num_labels == 1 else "single_label_classification"
    kind = described.labels.get("problem_type") or by_size
    if kind == "regression" and head.num_labels == 1:
        return RegressTask(any_input=True)
    if kind not in ("single_label_classification", "multi_label_classification"):
        raise BertwrightError(
            f"a classifier of the kind {kind!r}, {head.num_labels} outputs, is not supported", where=described.path
        )
    labels = _labels(folder, head.num_labels)
    return ClassifyTask(labels=labels, multi_label=kind.startswith("multi"), any_input=True)


def _labels(folder: Path, count: int) -> tuple[str, ...]:
    """Return the names of a head's outputs in their order."""
    described = describe(folder)
    names = described.labels.get("id2label", {str(index): f"LABEL_{index}" for index in range(count)})
    if not isinstance(names, dict) or set(names) != set(map(str, range(count))):
        raise BertwrightError(f"id2label does not name the {count} outputs of the classifier", where=described.path)
    return tuple(str(names[str(index)]) for index in range(count))
