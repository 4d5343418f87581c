"""A number for a text or a pair of texts, from the pooled [CLS] vector; STS-B's task. Paper: 4.1.

task = RegressTask(text_column="sentence1", text_pair_column="sentence2", label_column="score")
Predictor(model, wordpiece, task).predict([("a plane takes off", "an air plane is taking off")])  # [{'score': 4.8}]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from bertwright.batch import Batch, StepOutput
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.messages import Problem
from bertwright.model.heads import ClassificationHead, Head
from bertwright.options import RegressOptions
from bertwright.tasks.base import Example, Feature, Logits, Prediction, require_label
from bertwright.tasks.losses import regression_loss
from bertwright.tasks.metrics import regression_scores
from bertwright.tasks.tables import Row
from bertwright.tasks.texts import TextTask


@dataclass(frozen=True, kw_only=True)
class RegressTask(RegressOptions, TextTask):
    """A number for a text or a pair: one output, trained on its squared error."""

    name: ClassVar[str] = "regress"

    @property
    def best_by(self) -> str:
        """The score by which fine-tuning chooses."""
        return "spearman"

    def label_of(self, row: Row) -> float:
        """Return the number."""
        value = row.values["label"]
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            fix = "to tell kinds apart, not sizes: bertwright finetune classify"
            raise BertwrightError(f"column {self.label_column!r} must hold a number, not {value!r:.60}",
                                  where=row.where, fix=fix)  # fmt: skip
        return number

    def target_of(self, example: Example) -> float | None:
        """Return the number."""
        return None if example.label is None else float(example.label)

    def learn(self, examples: Sequence[Example]) -> RegressTask:
        """Return the task itself, after a look that there is something to learn."""
        labels = {require_label(example) for example in examples}
        if len(labels) < 2:
            raise BertwrightError("every example has the same number: there is nothing to learn",
                                  fix=f"column {self.label_column!r} was read (--label-column)")  # fmt: skip
        return self

    def head(self, config: BertConfig) -> Head:
        """Return dropout and a linear layer with one output on the pooled [CLS]."""
        return ClassificationHead(config, 1)

    def loss(self, logits: Float[Tensor, "R K"], batch: Batch) -> StepOutput:
        """Sum squared errors over the examples."""
        return regression_loss(self.averaged(logits, batch), batch.targets["labels"])

    def decode(self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example]) -> list[Prediction]:
        """Return each example's number as its `score`."""
        return [{"score": number} for number in self.logits_of(logits, features)[:, 0].tolist()] if logits else []

    def score(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, float]:
        """Return `pearson`, `spearman` and `mse`."""
        gold = [require_label(example) for example in examples]
        return regression_scores(gold, [prediction["score"] for prediction in predictions])

    def details(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, Any]:
        """Return the `points` of a diagram: right numbers and answers."""
        gold = [require_label(example) for example in examples]
        return {"points": [[one, each["score"]] for one, each in zip(gold, predictions, strict=True)]}

    def degenerate(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> str | None:
        """Say so if the answers hardly differ though the right ones do."""
        gold, answers = [each.label for each in examples], [each["score"] for each in predictions]
        spread, wanted = max(answers) - min(answers), max(gold) - min(gold)
        return Problem("problem_one_number", number=answers[0]) if spread < 0.02 * wanted else None

    def chance_loss(self, examples: Sequence[Example]) -> float:
        """Return the variance."""
        labels = [float(example.label) for example in examples]
        mean = sum(labels) / len(labels)
        return sum((label - mean) ** 2 for label in labels) / len(labels)

    def error(self, prediction: Prediction, example: Example) -> float:
        """Return the distance."""
        return abs(float(prediction["score"]) - float(example.label))

    def config_keys(self) -> dict[str, Any]:
        """Return `problem_type` and the one label that stands for the number."""
        return {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "problem_type": "regression"}
