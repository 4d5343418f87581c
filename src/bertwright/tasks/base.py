"""The `Task` contract: what is asked of the model, and nothing about how it is trained or served.

A task is a frozen dataclass; its fields are its options. Saved by name and options in the model folder, it is the same
object in `finetune`, `evaluate`, `predict` and in a server: what is scored is what is served. The life of an example:

    read -> learn -> encode -> collate -> (model with the task's head) -> loss        while training
    read          -> encode -> pack    -> (model with the task's head) -> decode -> score

A long text becomes several features; `decode` puts what they say together again. A new task is one subclass; the
conformance suite runs over every member of `bertwright.tasks.TASKS`.
"""

from __future__ import annotations

import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bertwright.batch import Batch, StepOutput
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.model.heads import Head
from bertwright.model.layers import BiLSTM
from bertwright.options import HeadOptions
from bertwright.text.wordpiece import WordPiece

_log = logging.getLogger(__name__)

POOLED_HEADS = ("classify", "choice")
"""Heads of tasks that read the pooled vector."""

Prediction = dict[str, Any]
"""An answer in plain Python values, ready for JSON, under the keys of Hugging Face's pipelines."""
Logits = Sequence[Float[Tensor, "_ K"]]
"""What the head says of each feature: a row for every row of it that the head reads, fp32."""


@dataclass(frozen=True)
class Example:
    """What a person asks about: raw text, and the right answer where it is known."""

    text: str
    """Segment A: the sentence, the question, what choices go on from, the text to tag."""
    text_pair: str | None = None
    """Segment B: the second sentence, the context of a question."""
    label: Any = None
    """The right answer in the task's own terms, hashable; None if unknown."""
    where: str | None = None
    """File and row it came from, for messages."""
    id: str | None = None
    """What its file calls it, where predictions are handed in under names."""
    choices: tuple[str, ...] = ()
    """Of multiple choice: what can be chosen."""
    words: tuple[tuple[int, int], ...] = ()
    """Of tagging: start and end in `text`, characters, of each word that gets a tag."""


@dataclass(frozen=True)
class Feature:
    """One input of the model; a task may make several of one example, next to each other."""

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
    rows: list[int] | None = None
    """Tokens that the head reads, ascending; None: those it reads by itself."""
    way_back: Any = None
    """What `decode` needs to find its way back from tokens to text."""


@dataclass(frozen=True, kw_only=True)
class Task(HeadOptions, ABC):
    """What is asked of the model. Paper: 4."""

    name: ClassVar[str] = "own"
    """Key in `TASKS` and in task.json; of no use to a task of one's own, which is known by its module and class."""
    usual_length: ClassVar[int] = 128
    """Longest input, tokens, where the user does not say."""
    reads_text_files: ClassVar[bool] = False
    """Whether `read` takes .txt files, which otherwise hold a text a line."""

    @property
    @abstractmethod
    def head_name(self) -> str:
        """Key of the head in `Bert.heads`, unless it is one that Hugging Face's classes do not have; see `heads`."""

    @property
    @abstractmethod
    def best_by(self) -> str:
        """The score, larger being better, by which fine-tuning chooses the weights it keeps."""

    @property
    def together(self) -> bool:
        """Whether the loss needs all features of an example in one batch."""
        return False

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
    def example(self, given: Any, *, where: str | None = None) -> Example:
        """Make an example of what a user asked; `where` names it in messages.

        Args:
            given: a text, a pair of texts, or a mapping with the keys of Hugging Face's pipelines.
            where: its name in messages.

        Raises:
            BertwrightError: it is no legal input of this task.
        """

    def examples(self, given: Sequence[Any]) -> list[Example]:
        """Make an example of each of the things that a user asked."""
        return [self.example(each, where=f"text {number:,}") for number, each in enumerate(given, start=1)]

    def typed(self, words: Sequence[str]) -> list[Any]:
        """Return what words on a command line ask, each for `example`: every one a text, unless the task takes more."""
        return list(words)

    @abstractmethod
    def encode(self, examples: Sequence[Example], wordpiece: WordPiece, max_length: int) -> list[Feature]:
        """Turn examples into inputs of at most `max_length` tokens; what had to be cut is counted and logged."""

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Lay features end to end; `targets` holds the right answers if all of them are known."""
        batch = pack(features)
        if any(feature.target is None for feature in features):
            return batch
        return dataclasses.replace(batch, targets={**batch.targets, **self.targets(features)})

    @abstractmethod
    def targets(self, features: Sequence[Feature]) -> dict[str, Tensor]:
        """Return the right answers of a batch as the loss needs them; every feature's is known."""

    @abstractmethod
    def head(self, config: BertConfig) -> Head:
        """Return the one added layer, with fresh weights."""

    def head_key(self, config: BertConfig) -> str:
        """Return the head's key in `Bert.heads`, and so the name of its weights.

        One on a BiLSTM, or on the pooled last token, has a name of its own: under the usual one Hugging Face's classes
        would take it for theirs and give other answers.
        """
        if self.bilstm:
            return f"{self.head_name}_bilstm"
        return f"{self.head_name}_last" if config.pool_last and self.head_name in POOLED_HEADS else self.head_name

    def heads(self, config: BertConfig) -> dict[str, Head]:
        """Return the one added layer by its key, on a BiLSTM where there shall be one. Paper: 5.1."""
        head = self.head(config)
        if self.bilstm:
            head.bilstm = BiLSTM(config.hidden_size, config.hidden_size, self.bilstm)
        return {self.head_key(config): head}

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, int]:
        """Return, for each loss, how many things it will sum over this batch."""

    @abstractmethod
    def loss(self, logits: Float[Tensor, "R K"], batch: Batch) -> StepOutput:
        """Score the head's output against `batch.targets`: sums and counts, which nobody has divided yet."""

    @abstractmethod
    def decode(self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example]) -> list[Prediction]:
        """Turn the head's output into one answer per example.

        Args:
            logits: the head's rows of each feature, fp32: a single row where the head reads [CLS].
            features: as `encode` made them.
            examples: as `encode` was given them.
        """

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, float]:
        """Compare answers with the right ones: the official metrics by name."""

    def calibrate(self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example]) -> Task:
        """Return the task with what it sets by the dev examples, such as a threshold or a temperature."""
        return self

    def chance_loss(self, examples: Sequence[Example]) -> float | None:
        """Return the mean loss of somebody who knows how frequent the right answers are and nothing else."""
        return None

    def degenerate(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> str | None:
        """Return why these answers say that training came to nothing, in words that follow "the model "; or None.

        A `messages.Problem` says it in both languages.
        """
        return None

    def details(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, Any]:
        """Return what a report shows beside the scores, as JSON values."""
        return {}

    def gold(self, example: Example) -> Any:
        """Return the right answer as a JSON value that can be laid beside a prediction; None if unknown."""
        return example.label

    def answers(self, example: Example) -> list[str]:
        """Return what of the right answer may recur in other examples and so have a share of them: labels."""
        return [] if example.label is None else [str(example.label)]

    def marks(self, feature: Feature) -> dict[int, str]:
        """Return what the model is to say, by the place of the token where it does: at [CLS] unless it is more."""
        return {0: str(feature.target)}

    @abstractmethod
    def error(self, prediction: Prediction, example: Example) -> float:
        """Return how wrong an answer is: 0 if it is right, and the more the worse, for the list of the worst errors."""

    def config_keys(self) -> dict[str, Any]:
        """Return what Hugging Face's `config.json` says of such a model, such as `id2label`."""
        return {}

    def options(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dataclasses.asdict(self)


def pack(features: Sequence[Feature]) -> Batch:
    """Lay features end to end without their right answers; `targets["token_rows"]` are rows that the head reads."""
    batch = Batch.pack([each.input_ids for each in features], [each.token_type_ids for each in features])
    if all(feature.rows is None for feature in features):
        return batch
    starts = batch.cu_seqlens.tolist()
    rows = [start + row for start, feature in zip(starts, features, strict=False) for row in feature.rows or ()]
    return dataclasses.replace(batch, targets={"token_rows": torch.tensor(rows, dtype=torch.int64)})


def by_example(features: Sequence[Feature]) -> Iterator[tuple[int, list[int]]]:
    """Yield each example's index and the places of its features."""
    for index, places in groupby(range(len(features)), lambda place: features[place].example_index):
        yield index, list(places)


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


def texts_given(given: Any, keys: tuple[str, str], *, where: str | None = None) -> tuple[str, str | None]:
    """Take a text, a pair of texts, or a mapping with these keys apart.

    Args:
        given: what a user asked.
        keys: of the first and of the second text.
        where: its name in messages.

    Raises:
        BertwrightError: it is none of these, or a text is empty.
    """
    first: Any
    second: Any
    if isinstance(given, str):
        first, second = given, None
    elif isinstance(given, Mapping):
        if unknown := [key for key in given if key not in keys]:
            raise BertwrightError(f"unknown key {unknown[0]!r}; expected {keys[0]!r} and {keys[1]!r}", where=where)
        first, second = given.get(keys[0]), given.get(keys[1])
    elif isinstance(given, list | tuple) and len(given) == 2:
        first, second = given
    else:
        raise BertwrightError(f"expected a text or a pair of texts, not {str(given)[:60]!r}", where=where)
    for text in (first, second):
        if text is not None and not isinstance(text, str):
            raise BertwrightError(f"expected text, not {text!r:.60}", where=where)
    if first is None or not first.strip() or (second is not None and not second.strip()):
        raise BertwrightError("the text is empty", where=where)
    return first, second
