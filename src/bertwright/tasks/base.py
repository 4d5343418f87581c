"""The `Task` contract: what is asked of the model, and nothing about how it is trained or served.

A task is a frozen dataclass; its fields are its options. Saved by name and options in the model folder, it is the same
object in `finetune`, `evaluate`, `predict` and in a server: what is scored is what is served. The life of an example:

    read -> learn -> encode -> collate -> (model with the task's head) -> loss        while training
    read          -> encode -> collate -> (model with the task's head) -> decode -> score

A new task is one subclass; the conformance suite runs over every member of `bertwright.tasks.TASKS`.
"""

from __future__ import annotations

import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from bertwright.batch import Batch, StepOutput
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.model.heads import Head
from bertwright.text.wordpiece import WordPiece

_log = logging.getLogger(__name__)

Prediction = dict[str, Any]
"""An answer in plain Python values, ready for JSON, under the keys of Hugging Face's pipelines."""


@dataclass(frozen=True)
class Example:
    """What a person asks about: raw text, and the right answer where it is known."""

    text: str
    """Segment A."""
    text_pair: str | None = None
    """Segment B."""
    label: Any = None
    """The right answer in the task's own terms; None if unknown."""
    where: str | None = None
    """File and row it came from, for messages."""


@dataclass(frozen=True)
class Feature:
    """One input of the model; a task may make several of one example."""

    input_ids: list[int]
    """Vocabulary ids with [CLS] and [SEP]."""
    token_type_ids: list[int]
    """0 in segment A, 1 in segment B."""
    target: Any
    """The right answer as the loss needs it; None if unknown."""
    example_index: int
    """Which of the encoded examples it was made of."""
    truncated: bool = False
    """Whether tokens were cut off to fit."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What is asked of the model. Paper: 4."""

    name: ClassVar[str]
    """Key in `TASKS`, in task.json, and of the head in `Bert.heads`."""
    best_by: ClassVar[str]
    """The score, larger being better, by which fine-tuning chooses the weights it keeps."""

    @abstractmethod
    def read(self, path: Path, *, labelled: bool = True) -> list[Example]:
        """Read examples from a file.

        Args:
            path: a file in one of the task's formats.
            labelled: False where the right answers are unknown; they are then not looked for.

        Raises:
            BertwrightError: what is wrong with the file, with its row, column and value.
        """

    def learn(self, examples: Sequence[Example]) -> Task:
        """Return the task with what it has to know from the training examples, such as the set of labels."""
        return self

    @abstractmethod
    def example(self, text: str, text_pair: str | None = None, *, where: str | None = None) -> Example:
        """Make an example of what a user typed; `where` names it in messages.

        Raises:
            BertwrightError: it is no legal input of this task.
        """

    @abstractmethod
    def encode(self, examples: Sequence[Example], wordpiece: WordPiece, max_length: int) -> list[Feature]:
        """Turn examples into inputs of at most `max_length` tokens; what had to be cut is counted and logged."""

    @abstractmethod
    def collate(self, features: Sequence[Feature]) -> Batch:
        """Lay features end to end; `targets` holds the right answers if all of them are known."""

    @abstractmethod
    def head(self, config: BertConfig) -> Head:
        """Return the one added layer, with fresh weights."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, int]:
        """Return, for each loss, how many things it will sum over this batch."""

    @abstractmethod
    def loss(self, logits: Float[Tensor, "R K"], batch: Batch) -> StepOutput:
        """Score the head's output against `batch.targets`: sums and counts, which nobody has divided yet."""

    @abstractmethod
    def decode(
        self, logits: Sequence[Float[Tensor, "_ K"]], features: Sequence[Feature], examples: Sequence[Example]
    ) -> list[Prediction]:
        """Turn the head's output into one answer per example.

        Args:
            logits: the head's rows of each feature, fp32: a single row where the head reads [CLS].
            features: as `encode` made them.
            examples: as `encode` was given them.
        """

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, float]:
        """Compare answers with the right ones: the official metrics by name."""

    def details(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, Any]:
        """Return what a report shows beside the scores, as JSON values."""
        return {}

    def config_keys(self) -> dict[str, Any]:
        """Return what Hugging Face's `config.json` says of such a model, such as `id2label`."""
        return {}

    def options(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dataclasses.asdict(self)


def log_truncated(features: Sequence[Feature], max_length: int) -> None:
    """Say how many inputs were cut to `max_length` tokens, if any."""
    cut = sum(feature.truncated for feature in features)
    if cut:
        _log.warning("%d of %d inputs were longer than %d tokens and were cut", cut, len(features), max_length)


def require_label(example: Example) -> Any:
    """Return an example's label.

    Raises:
        BertwrightError: it has none.
    """
    if example.label is None:
        raise BertwrightError(
            "the example has no label", where=example.where, fix="score and train on labelled examples"
        )
    return example.label
