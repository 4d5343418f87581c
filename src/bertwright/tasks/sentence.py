"""Classification of a sentence, or of a pair of them, from the pooled [CLS] vector.

    task = ClassifyTask(text_column="sentence")
    task = task.learn(task.read(Path("train.tsv")))
    task.labels  # ('0', '1')

Paper: 4.1. Differs: google-research/bert run_classifier.py has the labels of each data set in its code; here they are
learnt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from bertwright.batch import Batch, StepOutput
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError, nearest
from bertwright.messages import Problem
from bertwright.model.heads import ClassificationHead, Head
from bertwright.options import ClassifyOptions
from bertwright.tasks.base import Example, Feature, Logits, Prediction, require_label
from bertwright.tasks.losses import classification_loss, multi_label_loss
from bertwright.tasks.metrics import (
    calibration_details,
    classification_details,
    classification_scores,
    fit_temperature,
    multi_label_details,
    multi_label_scores,
)
from bertwright.tasks.tables import Row, shown
from bertwright.tasks.texts import TextTask


@dataclass(frozen=True, kw_only=True)
class ClassifyTask(ClassifyOptions, TextTask):
    """One of several labels for a text, by softmax, or any number of them, each by a sigmoid."""

    name: ClassVar[str] = "classify"

    labels: tuple[str, ...] = ()
    """The labels in the order of the logits; empty until `learn` has seen the training examples."""
    temperature: float = 1.0
    """What logits are divided by, so that probabilities are right on dev; `calibrate` sets it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.labels)) != len(self.labels):
            raise BertwrightError(f"labels must differ from each other: {', '.join(self.labels)}")
        if self.metric in (("f1", "mcc") if self.multi_label else ("micro_f1",)):
            raise BertwrightError(f"{self.metric} is no score of this task", fix="choose another metric")
        if not self.label_separator:
            raise BertwrightError("label_separator must not be empty")
        if not self.temperature > 0:
            raise BertwrightError(f"temperature must be positive, not {self.temperature!r}")

    @property
    def best_by(self) -> str:
        """The score by which fine-tuning chooses."""
        return self.metric or ("micro_f1" if self.multi_label else "accuracy")

    @property
    def raw_label(self) -> bool:
        """Whether a label's cell may be empty or a list."""
        return self.multi_label

    def label_of(self, row: Row) -> Any:
        """Return the label, or with `multi_label` the labels, sorted."""
        value = row.values["label"]
        if not self.multi_label:
            return value.strip()
        names = value if isinstance(value, list) else [value]
        for name in names:
            if isinstance(name, bool) or not isinstance(name, str | int | float):
                what = f"column {self.label_column!r} must hold labels, not {shown(value)}"
                raise BertwrightError(what, where=row.where)
        if isinstance(value, str):
            names = value.split(self.label_separator)
        return tuple(sorted({str(name).strip() for name in names} - {""}))

    def target_of(self, example: Example) -> Any:
        """Return the label's place among the labels, or a 0 or 1 for each label; one never seen is refused."""
        if example.label is None or not self.labels:
            return None
        given = example.label if self.multi_label else (example.label,)
        for label in given:
            if label not in self._places:
                raise BertwrightError(
                    f"unknown label {label!r}{nearest(label, self.labels)}; the labels are {', '.join(self.labels)}",
                    where=example.where,
                    fix="mend the row, or train again on a file that has this label",
                )
        if not self.multi_label:
            return self._places[given[0]]
        target = [0] * len(self.labels)
        for label in given:
            target[self._places[label]] = 1
        return target

    def learn(self, examples: Sequence[Example]) -> ClassifyTask:
        """Return the task with the labels of the training examples, sorted: as numbers if all are, as text otherwise.

        Raises:
            BertwrightError: there are not two different labels to tell apart, or too many for the metric.
        """
        given = [require_label(example) for example in examples]
        labels = sorted({label for each in given for label in each} if self.multi_label else set(given))
        if all(map(_is_number, labels)):
            labels.sort(key=float)
        if len(labels) < (1 if self.multi_label else 2):
            where = examples[0].where.rpartition(", row")[0] if examples and examples[0].where else None
            found = f"only the label {labels[0]!r} occurs" if labels else "no example has a label"
            raise BertwrightError(
                f"{found}: there is nothing to tell apart",
                where=where,
                fix=f"give examples of at least two labels; column {self.label_column!r} was read (--label-column)",
            )
        if self.metric == "f1" and len(labels) > 2:
            what = f"f1 is the score of the second of two labels, and there are {len(labels)}"
            raise BertwrightError(what, fix="use --metric macro_f1, the mean over labels")
        return replace(self, labels=tuple(labels))

    def head(self, config: BertConfig) -> Head:
        """Return dropout and a linear layer on the pooled [CLS]."""
        assert self.labels, "learn the labels first"
        return ClassificationHead(config, len(self.labels))

    def loss(self, logits: Float[Tensor, "R K"], batch: Batch) -> StepOutput:
        """Sum cross-entropy, softmax or binary, and right answers over the examples."""
        loss = multi_label_loss if self.multi_label else classification_loss
        return loss(self.averaged(logits, batch), batch.targets["labels"])

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of examples, or of decisions about a label of an example."""
        return {"loss": batch.targets["labels"].numel()}

    def probabilities(self, logits: Logits, features: Sequence[Feature]) -> Float[Tensor, "E K"]:
        """Return every label's probability for each example."""
        rows = self.logits_of(logits, features) / self.temperature
        return rows.sigmoid() if self.multi_label else rows.softmax(-1)

    def decode(self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example]) -> list[Prediction]:
        """Return the likeliest label of each example and its probability, or its labels and the `scores` of all."""
        if not logits:
            return []
        probabilities = self.probabilities(logits, features)
        if self.multi_label:
            named = [dict(zip(self.labels, row, strict=True)) for row in probabilities.tolist()]
            return [{"labels": [label for label in row if row[label] > 0.5], "scores": row} for row in named]
        scores, indices = probabilities.max(-1)
        return [
            {"label": self.labels[index], "score": score}
            for index, score in zip(indices.tolist(), scores.tolist(), strict=True)
        ]

    def calibrate(self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example]) -> ClassifyTask:
        """Return the task with the temperature under which the dev examples are likeliest."""
        rows = self.logits_of(logits, features).numpy()
        gold = np.array([self.target_of(example) for example in examples])
        if self.multi_label:  # a sigmoid is a softmax over the logit and 0
            rows, gold = np.stack([np.zeros(rows.size), rows.reshape(-1)], 1), gold.reshape(-1)
        return replace(self, temperature=fit_temperature(rows, gold))

    def score(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, float]:
        """Return `accuracy`, `f1` (of the last label, if there are two), `macro_f1` (the mean over labels) and `mcc`.

        With `multi_label`: `accuracy` (the labels are exactly the right ones), `micro_f1` and `macro_f1`.
        """
        if self.multi_label:
            return multi_label_scores(*self._compared(predictions, examples), self.labels)
        return classification_scores(*self._compared(predictions, examples), self.labels)

    def details(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, Any]:
        """Return `labels`, the `confusion` matrix, the scores `per_class` and the `calibration`."""
        gold, predicted = self._compared(predictions, examples)
        if self.multi_label:
            details = multi_label_details(gold, predicted, self.labels)
            answers = zip(gold, predictions, strict=True)
            chances = [(label in own, each["scores"][label]) for own, each in answers for label in self.labels]
            scores = [max(chance, 1 - chance) for _, chance in chances]
            right = [there == (chance > 0.5) for there, chance in chances]
        else:
            details = classification_details(gold, predicted, self.labels)
            scores = [prediction["score"] for prediction in predictions]
            right = [one == other for one, other in zip(gold, predicted, strict=True)]
        return {**details, "calibration": {"temperature": self.temperature, **calibration_details(scores, right)}}

    def degenerate(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> str | None:
        """Say so if every answer is the same though the right ones are not."""
        gold, predicted = self._compared(predictions, examples)
        if len(set(map(str, gold))) > 1 and len(set(map(str, predicted))) == 1:
            right = gold.count(type(gold[0])(predicted[0])) / len(gold)
            return Problem("problem_one_label", label=predicted[0], share=right)
        return None

    def chance_loss(self, examples: Sequence[Example]) -> float | None:
        """Return the entropy of the labels."""
        if self.multi_label:
            return None
        counts = Counter(example.label for example in examples).values()
        return sum(count / len(examples) * math.log(len(examples) / count) for count in counts)

    def error(self, prediction: Prediction, example: Example) -> float:
        """Return the probability given to the wrong label, or how many labels are wrong."""
        if self.multi_label:
            return float(len(set(prediction["labels"]) ^ set(example.label)))
        return 0.0 if prediction["label"] == example.label else float(prediction["score"])

    def answers(self, example: Example) -> list[str]:
        """Return the label or labels."""
        if example.label is None:
            return []
        return list(example.label) if self.multi_label else [example.label]

    def marks(self, feature: Feature) -> dict[int, str]:
        """Return the label at [CLS]."""
        if self.multi_label:
            return {0: " ".join(label for label, there in zip(self.labels, feature.target, strict=True) if there)}
        return {0: self.labels[feature.target]}

    def gold(self, example: Example) -> Any:
        """Return the label, or the list of labels."""
        return list(example.label) if self.multi_label and example.label is not None else example.label

    def config_keys(self) -> dict[str, Any]:
        """Return `id2label`, `label2id` and `problem_type`."""
        ids = self._places
        kind = "multi_label_classification" if self.multi_label else "single_label_classification"
        return {"id2label": {str(index): label for label, index in ids.items()}, "label2id": ids, "problem_type": kind}

    @cached_property
    def _places(self) -> dict[str, int]:
        return {label: place for place, label in enumerate(self.labels)}

    def _compared(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> tuple[list[Any], list[Any]]:
        gold = [require_label(example) for example in examples]
        key = "labels" if self.multi_label else "label"
        return gold, [prediction[key] for prediction in predictions]


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False
