"""A look at labelled data before anything is trained on it: what a person would want to have known.

    check = check_examples(task, train, task.encode(train, wordpiece, 128), wordpiece, dev=dev)
    check.facts["truncated"]     # share of the inputs that will be cut
    check.contradictions         # the same text under two labels, with the rows

Nothing here refuses anything; `read` has done that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from bertwright.tasks.base import Example, Feature, Task, by_example
from bertwright.text.wordpiece import WordPiece

SHOWN = 5
"""Examples shown token by token, and pairs of rows of each complaint."""

Aligned = list[tuple[str, str]]
"""Tokens of an input, each with what the model is to say there; mostly nothing."""


@dataclass(frozen=True)
class Check:
    """What was found."""

    facts: dict[str, Any]
    """Figures by name."""
    balance: dict[str, int]
    """How often each right answer occurs, the most frequent first, where answers recur at all."""
    contradictions: list[tuple[str, str]] = field(default_factory=list)
    """Rows with the same input and different answers."""
    overlaps: list[tuple[str, str]] = field(default_factory=list)
    """Rows of train and dev with the same input."""
    shown: list[Aligned] = field(default_factory=list)
    """The first examples as the model will see them, each with its first input."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            **self.facts,
            "balance": self.balance,
            "contradictory_rows": self.contradictions,
            "overlapping_rows": self.overlaps,
            "shown": self.shown,
        }


def check_examples(
    task: Task,
    train: Sequence[Example],
    features: Sequence[Feature] = (),
    wordpiece: WordPiece | None = None,
    *,
    dev: Sequence[Example] = (),
) -> Check:
    """Look at examples.

    Args:
        task: what has learnt from them.
        train: labelled.
        features: what the task made of them; without them nothing is said of lengths.
        wordpiece: the vocabulary it did so with.
        dev: labelled, or none.
    """
    facts: dict[str, Any] = {"examples": len(train)}
    if dev:
        facts["dev_examples"] = len(dev)
    answers = Counter(answer for example in train for answer in task.answers(example))
    balance = dict(answers.most_common()) if len(answers) <= max(20, len(train) // 10) else {}
    rows = defaultdict(list)
    for example in train:
        rows[_asked(example)].append(example)
    again = [same for same in rows.values() if len(same) > 1]
    contradictions = [
        (_row(same[0]), _row(other)) for same in again for other in same[1:] if other.label != same[0].label
    ]
    overlaps = [(_row(rows[_asked(each)][0]), _row(each)) for each in dev if _asked(each) in rows]
    facts |= {"repeated": sum(len(same) - 1 for same in again), "contradictory": len(contradictions)}
    if dev:
        facts["also_in_dev"] = len(overlaps)
    if not features or wordpiece is None:
        return Check(facts, balance, contradictions[:SHOWN], overlaps[:SHOWN])
    lengths = sorted(len(feature.input_ids) for feature in features)
    facts |= {
        "inputs": len(features),
        "truncated": sum(feature.truncated for feature in features) / len(features),
        "median_length": lengths[len(lengths) // 2],
        "longest": lengths[-1],
        "unknown_tokens": sum(feature.input_ids.count(wordpiece.unk_id) for feature in features) / sum(lengths),
    }
    firsts = (features[places[0]] for _, places in by_example(features))
    shown = [_aligned(task, feature, wordpiece) for feature in islice(firsts, SHOWN)]
    return Check(facts, balance, contradictions[:SHOWN], overlaps[:SHOWN], shown)


def _aligned(task: Task, feature: Feature, wordpiece: WordPiece) -> Aligned:
    marks = task.marks(feature)
    return [(wordpiece.tokens[token], marks.get(row, "")) for row, token in enumerate(feature.input_ids)]


def _asked(example: Example) -> tuple[Any, ...]:
    return example.text, example.text_pair, example.choices


def _row(example: Example) -> str:
    return example.where or example.text[:40]
