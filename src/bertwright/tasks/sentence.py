"""Classification of a sentence, or of a pair of them, from the pooled [CLS] vector.

    task = ClassifyTask(text_column="sentence")
    task = task.learn(task.read(Path("train.tsv")))
    task.labels  # ('0', '1')

Paper: 4.1. Differs: google-research/bert run_classifier.py has the labels of each data set in its code; here they are
learnt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bertwright.batch import Batch, StepOutput
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError, nearest
from bertwright.model.heads import ClassificationHead, Head
from bertwright.tasks.base import Example, Feature, Prediction, Task, log_truncated, require_label
from bertwright.tasks.losses import classification_loss
from bertwright.tasks.metrics import classification_details, classification_scores
from bertwright.tasks.tables import read_table
from bertwright.text.wordpiece import WordPiece


@dataclass(frozen=True, kw_only=True)
class ClassifyTask(Task):
    """One of several labels for a text: dropout and one linear layer on the pooled [CLS], softmax cross-entropy."""

    name: ClassVar[str] = "classify"
    best_by: ClassVar[str] = "accuracy"

    labels: tuple[str, ...] = ()
    """The labels in the order of the logits; empty until `learn` has seen the training examples."""
    text_column: str = "text"
    """Column of the text."""
    text_pair_column: str | None = None
    """Column of the second text, for pairs."""
    label_column: str = "label"
    """Column of the label."""

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels):
            raise BertwrightError(f"labels must differ from each other: {', '.join(self.labels)}")

    def read(self, path: Path, *, labelled: bool = True) -> list[Example]:
        """Read a CSV, TSV or JSON Lines file; a label that training has not seen is refused."""
        columns = {"text": self.text_column, "text_pair": self.text_pair_column, "label": self.label_column}
        wanted = {role: name for role, name in columns.items() if name is not None and (labelled or role != "label")}
        examples = []
        for row in read_table(path, wanted):
            text, text_pair, label = (row.values.get(role) for role in columns)
            assert text is not None
            label = None if label is None else label.strip()
            examples.append(Example(text, text_pair, label, row.where))
        if self.labels:
            self._targets(examples)
        return examples

    def learn(self, examples: Sequence[Example]) -> ClassifyTask:
        """Return the task with the labels of the training examples, sorted: as numbers if all are, as text otherwise.

        Raises:
            BertwrightError: there are not two different labels to tell apart.
        """
        labels = sorted({require_label(example) for example in examples})
        if all(map(_is_number, labels)):
            labels.sort(key=float)
        if len(labels) < 2:
            where = examples[0].where.rpartition(", row")[0] if examples and examples[0].where else None
            found = f"only the label {labels[0]!r} occurs" if labels else "no example has a label"
            raise BertwrightError(
                f"{found}: there is nothing to tell apart",
                where=where,
                fix=f"give examples of at least two labels; column {self.label_column!r} was read (--label-column)",
            )
        return replace(self, labels=tuple(labels))

    def example(self, text: str, text_pair: str | None = None, *, where: str | None = None) -> Example:
        """Make an example of a text, or of two if the task is about pairs."""
        if (text_pair is None) != (self.text_pair_column is None):
            wanted = "one text" if self.text_pair_column is None else "a pair of texts"
            raise BertwrightError(f"this model classifies {wanted}", where=where)
        for part in (text, text_pair):
            if part is not None and not part.strip():
                raise BertwrightError("the text is empty", where=where)
        return Example(text, text_pair, where=where)

    def encode(self, examples: Sequence[Example], wordpiece: WordPiece, max_length: int) -> list[Feature]:
        """Turn each example into one feature: [CLS] text [SEP], or [CLS] text [SEP] pair [SEP]."""
        features = []
        for index, (example, target) in enumerate(zip(examples, self._targets(examples), strict=True)):
            encoding = wordpiece.encode(example.text, example.text_pair, max_length=max_length)
            features.append(
                Feature(encoding.input_ids, encoding.token_type_ids, target, index, truncated=encoding.truncated)
            )
        log_truncated(features, max_length)
        return features

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Lay features end to end; `targets["labels"]` is int64 [B]."""
        targets = [feature.target for feature in features]
        return Batch.pack(
            [feature.input_ids for feature in features],
            [feature.token_type_ids for feature in features],
            {} if None in targets else {"labels": torch.tensor(targets)},
        )

    def head(self, config: BertConfig) -> Head:
        """Return dropout and a linear layer on the pooled [CLS]."""
        assert self.labels, "learn the labels first"
        return ClassificationHead(config, len(self.labels))

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of examples."""
        return {"loss": batch.num_sequences}

    def loss(self, logits: Float[Tensor, "B K"], batch: Batch) -> StepOutput:
        """Sum cross-entropy and right answers over the batch."""
        return classification_loss(logits, batch.targets["labels"])

    def decode(
        self, logits: Sequence[Float[Tensor, "_ K"]], features: Sequence[Feature], examples: Sequence[Example]
    ) -> list[Prediction]:
        """Return the likeliest label of each example and its probability."""
        if not logits:
            return []
        scores, indices = torch.cat(list(logits)).float().softmax(-1).max(-1)
        return [
            {"label": self.labels[index], "score": score}
            for index, score in zip(indices.tolist(), scores.tolist(), strict=True)
        ]

    def score(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, float]:
        """Return `accuracy`, `f1` (of the last of two labels, else the mean over labels) and `macro_f1`."""
        return classification_scores(*self._compared(predictions, examples), self.labels)

    def details(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, Any]:
        """Return `labels`, the `confusion` matrix and the scores `per_class`."""
        return classification_details(*self._compared(predictions, examples), self.labels)

    def config_keys(self) -> dict[str, Any]:
        """Return `id2label` and `label2id`."""
        ids = {label: index for index, label in enumerate(self.labels)}
        return {"id2label": {str(index): label for label, index in ids.items()}, "label2id": ids}

    def _targets(self, examples: Sequence[Example]) -> list[int | None]:
        """Return each label's place among the labels; one that training has not seen is refused."""
        ids = {label: index for index, label in enumerate(self.labels)}
        for example in examples:
            if example.label is not None and example.label not in ids:
                raise BertwrightError(
                    f"unknown label {example.label!r}{nearest(example.label, ids)}; the labels are {', '.join(ids)}",
                    where=example.where,
                    fix="mend the row, or train again on a file that has this label",
                )
        return [None if example.label is None else ids[example.label] for example in examples]

    def _compared(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> tuple[list[str], list[str]]:
        gold = [require_label(example) for example in examples]
        return gold, [prediction["label"] for prediction in predictions]


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False
