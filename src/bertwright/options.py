"""What a person can say of a task: the dials of `bertwright finetune TASK`, and the fields of the task's class.

They are kept in the model folder with what the task learns beside them, so that a model answers as it was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bertwright.errors import BertwrightError

AnswerRules = Literal["squad", "cmrc"]
"""How two answers are compared: as SQuAD's script does, or as CMRC 2018's does, by Chinese characters."""
ClassMetric = Literal["accuracy", "f1", "macro_f1", "mcc", "micro_f1"]
"""A score of a classifier: `f1` is that of the last of two labels, `micro_f1` that of several labels for one text."""
TagScheme = Literal["iob2", "bioes", "plain"]
"""How a model marks entities: with B- and I-; with B-, I-, E- and S-; or not at all, one tag a word."""


FeatureMix = Literal[
    "none", "embeddings", "second-to-last", "last", "sum-last-4", "concat-last-4", "weighted-sum-last-4",
    "sum-all", "weighted-sum-all",
]  # fmt: skip
"""Which layers' outputs a head reads instead of the last one's, and how they are mixed. Paper: table 7."""


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """What every task can have between the encoder and its one added layer."""

    bilstm: int = 0
    """Layers of a BiLSTM, as wide as the encoder, that its outputs pass through first; 0: none."""

    def __post_init__(self) -> None:
        if self.bilstm < 0:
            raise BertwrightError(f"bilstm must not be negative, as {self.bilstm} is")


@dataclass(frozen=True, kw_only=True)
class TextOptions(HeadOptions):
    """Where the texts of a table are, and what becomes of long ones."""

    text_column: str = "text"
    """Column of the text."""
    text_pair_column: str | None = None
    """Column of the second text, for pairs."""
    label_column: str = "label"
    """Column of the label."""
    columns: tuple[str, ...] = ()
    """Names of the columns, for a CSV or TSV file whose first line is data already."""
    windows: bool = False
    """Look at a long text through windows and average what they say, instead of cutting it."""
    stride: int = 64
    """Tokens that two neighbouring windows share; at most half of what they show of the text."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(TextOptions):
    """One label of several for a text or a pair of texts, or with `multi_label` any number of them."""

    multi_label: bool = False
    """Any number of labels for a text: each is there or not."""
    label_separator: str = ","
    """What stands between several labels in one cell."""
    metric: ClassMetric | None = None
    """The score to choose the best epoch by; accuracy, or micro_f1 of several labels, unless given."""


@dataclass(frozen=True, kw_only=True)
class RegressOptions(TextOptions):
    """A number for a text or a pair of texts."""


@dataclass(frozen=True, kw_only=True)
class ChoiceOptions(HeadOptions):
    """The best of several endings; how many there are may differ from row to row."""

    text_column: str = "prompt"
    """Column of what the endings go on from."""
    choices_column: str = "choices"
    """Column of the endings: a list in JSON Lines or Parquet."""
    choice_columns: tuple[str, ...] = ()
    """Columns of the endings, one each; an empty last cell is no ending. They stand in for `choices_column`."""
    stem_column: str | None = None
    """Column of a text that stands in front of every ending, such as a question."""
    label_column: str = "label"
    """Column of the right ending: its number, its letter (A is the first), or its very text."""
    first_label: int = 0
    """What number the first ending has."""
    columns: tuple[str, ...] = ()
    """Names of the columns, for a CSV or TSV file whose first line is data already."""
    windows: bool = False
    """Look at a long prompt through windows and average what they say of each ending, instead of cutting it."""
    stride: int = 64
    """Tokens that two neighbouring windows share; at most half of what they show of the text."""


@dataclass(frozen=True, kw_only=True)
class QAOptions(HeadOptions):
    """The part of a context that answers a question."""

    stride: int = 128
    """Tokens that two neighbouring windows of a context share."""
    max_question_length: int = 64
    """Longest question, tokens; longer ones are cut and counted."""
    max_answer_length: int = 30
    """Longest answer, tokens."""
    rules: AnswerRules = "squad"
    """How answers are compared: `squad`, or `cmrc` for Chinese."""


@dataclass(frozen=True, kw_only=True)
class TagOptions(HeadOptions):
    """A tag for every word, or the names in a text."""

    scheme: TagScheme = "iob2"
    """How the model marks entities: iob2, bioes, or plain for tags that mark none, such as parts of speech."""
    document_context: bool = False
    """Show the model whole documents instead of sentences, as the paper does."""
    stride: int = 64
    """Tokens that two neighbouring windows of a long text share."""
    features: FeatureMix = "none"
    """Read features of these layers under a BiLSTM; with --freeze encoder, the feature-based approach of the paper."""
    lstm_layers: int = 2
    """Layers of that BiLSTM; 0: none."""
    lstm_size: int = 768
    """Its output, both directions together."""
    token_column: int = 0
    """Column of the word in CoNLL files, from 0."""
    tag_column: int = -1
    """Column of the tag in CoNLL files; -1: the last one."""
