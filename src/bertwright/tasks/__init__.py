"""What is asked of the model: the `Task` contract, its table, and how a task is kept in a model folder.

    task = ClassifyTask(text_column="sentence")
    task = task.learn(task.read(Path("train.tsv")))
    model = load_model(Path("pretrained"), TaskObjective(task).heads(config))
    save_fine_tuned(model, Path("run/model"), wordpiece=wordpiece, task=task, max_length=128)
    task, max_length = load_task(Path("run/model"))

Paper: 4 and figure 4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertwright.batch import Batch, StepOutput
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError, nearest
from bertwright.json_values import from_dict, read_json
from bertwright.model.bert import Bert
from bertwright.model.folder import TASK_FILE
from bertwright.model.heads import Head
from bertwright.model.weights import save_model
from bertwright.tasks.base import Example, Feature, Prediction, Task
from bertwright.tasks.choice import ChoiceTask
from bertwright.tasks.own import own_name, own_task
from bertwright.tasks.qa import QATask
from bertwright.tasks.regression import RegressTask
from bertwright.tasks.sentence import ClassifyTask
from bertwright.tasks.tagging import TagTask
from bertwright.text.wordpiece import WordPiece

__all__ = [
    "TASKS",
    "TASK_FILE",
    "ChoiceTask",
    "ClassifyTask",
    "Example",
    "Feature",
    "Prediction",
    "QATask",
    "RegressTask",
    "TagTask",
    "Task",
    "TaskObjective",
    "get_task",
    "load_task",
    "save_fine_tuned",
    "task_files",
    "task_from_json",
    "task_to_json",
]

TASKS: dict[str, type[Task]] = {task.name: task for task in (ClassifyTask, RegressTask, ChoiceTask, QATask, TagTask)}
"""Every task by name; add yours here to have it trained, scored, predicted and checked."""


@dataclass(frozen=True)
class TaskObjective:
    """A task as the training loop sees it, an objective like those of pre-training."""

    task: Task

    def heads(self, config: BertConfig) -> dict[str, Head]:
        """Return the task's fresh head by name."""
        return self.task.heads(config)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return, for each loss, how many things it will sum over this batch."""
        return self.task.counts(batch)

    def __call__(self, model: Bert, batch: Batch) -> StepOutput:
        """Run the model with the task's head and score its output."""
        return self.task.loss(model.head_logits(self.task.head_key(model.config), batch)[1], batch)


def get_task(name: str, *, where: object = None) -> type[Task]:
    """Return a task's class; `where` names the file that asks for it in messages.

    Args:
        name: of the table, or `MODULE:CLASS` of a task of one's own, whose module is imported; see `tasks.own`.
        where: the file that asks for it.

    Raises:
        BertwrightError: there is no such task; the nearest is named.
    """
    if ":" in name:
        return own_task(name, where=where)
    try:
        return TASKS[name]
    except KeyError:
        what = f"unknown task {name!r}{nearest(name, TASKS)}"
        fix = f"use one of: {', '.join(TASKS)}, or MODULE:CLASS of your own"
        raise BertwrightError(what, where=where, fix=fix) from None


def task_to_json(task: Task) -> dict[str, Any]:
    """Return a task's name, or `MODULE:CLASS` where it is not of the table, and its options as JSON values."""
    name = task.name if TASKS.get(task.name) is type(task) else own_name(type(task))
    return {"name": name, "options": task.options()}


def task_from_json(values: Mapping[str, Any], *, where: object = None) -> Task:
    """Rebuild a task from what `task_to_json` returned; `where` names the file in messages."""
    name, options = values.get("name"), values.get("options")
    if not isinstance(name, str) or not isinstance(options, dict):
        raise BertwrightError("expected the keys 'name' (text) and 'options' (an object)", where=where)
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return from_dict(get_task(name, where=where), options, where=where)


def save_fine_tuned(model: Bert, folder: Path, *, wordpiece: WordPiece, task: Task, max_length: int) -> None:
    """Write a model folder that answers by itself: weights, vocabulary, and task.json.

    Args:
        model: with the task's head.
        folder: created or replaced, whole or not at all.
        wordpiece: the vocabulary.
        task: what the model was fine-tuned for.
        max_length: longest input it was fine-tuned with, tokens.
    """
    values = {**task_to_json(task), "max_length": max_length}
    files = {TASK_FILE: json.dumps(values, indent=2, ensure_ascii=False) + "\n"}
    save_model(model, folder, wordpiece=wordpiece, extra_config=task.config_keys(), extra_files=files)


def load_task(folder: Path) -> tuple[Task, int] | None:
    """Return a model folder's task and its longest input in tokens, or None if it was not fine-tuned here."""
    path = folder / TASK_FILE
    if not path.exists():
        return None
    values = read_json(path)
    max_length = values.get("max_length")
    if not isinstance(max_length, int) or max_length < 3:
        raise BertwrightError(f"max_length must be a whole number of at least 3, not {max_length!r}", where=path)
    return task_from_json(values, where=path), max_length


def task_files(folder: Path, model: Bert) -> dict[str, str]:
    """Return the text of a model folder's task.json by its name, or nothing if the model lacks the task's head.

    A task of somebody's own is not asked which head it has: that would run its code.
    """
    path = folder / TASK_FILE
    if path.exists() and ":" in str(read_json(path).get("name")):
        kept = not set(model.heads) <= {"mlm", "nsp"}
    else:
        task = load_task(folder)
        kept = task is not None and task[0].head_name in model.heads
    return {TASK_FILE: path.read_text(encoding="utf-8")} if kept else {}
