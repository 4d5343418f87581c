"""The best of several endings: each is a sequence of its own, one score comes from its [CLS], and a softmax chooses.

    task = ChoiceTask(text_column="sent1", stem_column="sent2", choice_columns=("ending0", "ending1", "ending2"))
    ask = {"prompt": "The pan is hot.", "stem": "She", "choices": ["takes a cloth.", "grips it.", "sings."]}
    Predictor(model, wordpiece, task).predict([ask])  # [{'choice': 0, 'answer': 'takes a cloth.', ...}]

Every sequence is `[CLS] prompt [SEP] stem ending [SEP]`; how many endings there are may differ from row to row.

Paper: 4.4. Differs: where an input is cut, its stem gives before its ending does; with `windows` a long prompt is seen
whole, through the same windows for all its endings, and the mean of an ending's scores counts, in training as in
prediction.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bertwright.batch import Batch, StepOutput
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError, nearest
from bertwright.messages import Problem
from bertwright.model.heads import ChoiceHead, Head
from bertwright.options import ChoiceOptions
from bertwright.tasks.base import Example, Feature, Logits, Prediction, Task, by_example, log_truncated, require_label
from bertwright.tasks.c3_files import read_c3
from bertwright.tasks.losses import choice_loss
from bertwright.tasks.metrics import calibration_details, classification_details, fit_temperature
from bertwright.tasks.tables import Row, read_table, shown
from bertwright.text.encoding import window_starts
from bertwright.text.wordpiece import WordPiece

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ChoiceTask(ChoiceOptions, Task):
    """One of several endings of a prompt, by a softmax over the scores of its own."""

    name: ClassVar[str] = "choice"

    temperature: float = 1.0
    """What scores are divided by before the softmax, so that probabilities are right on dev; `calibrate` sets it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise BertwrightError(f"temperature must be positive, not {self.temperature!r}")
        if len(self.choice_columns) == 1 or len(set(self.choice_columns)) != len(self.choice_columns):
            given = ", ".join(self.choice_columns)
            raise BertwrightError(f"choice_columns must name two columns or more, each once, not {given!r}")

    @property
    def head_name(self) -> str:
        """Key of the head."""
        return "choice"

    @property
    def best_by(self) -> str:
        """The score by which fine-tuning chooses."""
        return "accuracy"

    @property
    def together(self) -> bool:
        """Whether the loss needs all features of an example in one batch: it compares the endings."""
        return True

    def read(self, path: Path, *, labelled: bool = True) -> list[Example]:
        """Read a CSV, TSV, JSON Lines or Parquet file, or C3's JSON; rows with two like endings are counted."""
        columns: dict[str, str | None] = {"text": self.text_column, "stem": self.stem_column}
        if self.choice_columns:
            columns |= {f"choice:{place}": name for place, name in enumerate(self.choice_columns)}
        else:
            columns["choices"] = self.choices_column
        columns["label"] = self.label_column if labelled else None
        wanted = {role: name for role, name in columns.items() if name is not None}
        raw = [role for role in wanted if role not in ("text", "stem")]
        is_c3 = path.name.lower().endswith(".json")
        rows = read_c3(path) if is_c3 else read_table(path, wanted, header=self.columns, raw=raw)
        choices = [self._choices_of(row) for row in rows]
        places = self._places_of(rows, choices) if labelled else [None] * len(rows)
        if alike := sum(len(set(own)) < len(own) for own in choices):
            _log.warning("%s: in %d rows two choices are the same", path, alike)
        return [
            Example(row.values["text"], row.values.get("stem"), place, row.where, choices=own)
            for row, own, place in zip(rows, choices, places, strict=True)
        ]

    def _choices_of(self, row: Row) -> tuple[str, ...]:
        """Return the endings of a row."""
        if self.choice_columns:
            cells = [row.values[f"choice:{place}"] for place in range(len(self.choice_columns))]
            while cells and isinstance(cells[-1], str) and not cells[-1].strip():
                cells.pop()
            return _checked(cells, [f"column {name!r}" for name in self.choice_columns], row.where)
        given = row.values["choices"]
        if not isinstance(given, list):
            raise BertwrightError(
                f"column {self.choices_column!r} must hold a list of texts, not {shown(given)}",
                where=row.where,
                fix="where every choice has a column of its own, name them with --choice-columns",
            )
        names = [f"choice {place + self.first_label} of column {self.choices_column!r}" for place in range(len(given))]
        return _checked(given, names, row.where)

    def _places_of(self, rows: Sequence[Row], choices: Sequence[Sequence[str]]) -> list[int]:
        """Return the place of each row's right ending.

        A file's labels are numbers, letters or texts throughout: whichever names an ending in most rows. So a `2` among
        numbers is the second or third ending, also where the text of the first one is 2.
        """
        column, first = self.label_column, self.first_label
        labels = [row.values["label"] for row in rows]
        for row, label in zip(rows, labels, strict=True):
            if isinstance(label, str):
                _check_text(label, f"column {column!r}", row.where)
        ways = {
            way: [find(label, own) for label, own in zip(labels, choices, strict=True)]
            for way, find in (("number", partial(_by_number, first=first)), ("letter", _by_letter), ("text", _by_text))
        }
        named = {way: sum(place is not None for place in places) for way, places in ways.items()}
        way = max(named, key=named.__getitem__)
        if way == "number" and named["text"] == len(rows) and ways["text"] != ways["number"]:
            _log.warning(
                "the labels in column %r are taken for numbers, though each is the text of a choice too", column
            )
        found = []
        for row, label, own, place in zip(rows, labels, choices, ways[way], strict=True):
            if place is None:
                last = first + len(own) - 1
                what = f"column {column!r} holds {shown(label)}, which does not name one of the {len(own)} choices"
                fix = f"write its number, {first} to {last} (--first-label), in all rows, or in all its letter or text"
                raise BertwrightError(f"{what} by its {way}", where=row.where, fix=fix)
            found.append(place)
        return found

    def example(self, given: Any, *, where: str | None = None) -> Example:
        """Make an example of (prompt, choices) or of `{"prompt": ..., "choices": [...]}`, with a `stem` if need be."""
        keys = ("prompt", "choices") if self.stem_column is None else ("prompt", "stem", "choices")
        if isinstance(given, list | tuple) and len(given) == len(keys):
            given = dict(zip(keys, given, strict=True))
        if not isinstance(given, Mapping):
            raise BertwrightError(f"expected {_named(keys)}, not {shown(given)}", where=where)
        if strange := [key for key in given if key not in keys]:
            what = f"unknown key {shown(strange[0])}{nearest(shown(strange[0]), keys)}; expected {_named(keys)}"
            raise BertwrightError(what, where=where)
        if absent := [key for key in keys if key not in given]:
            raise BertwrightError(f"{absent[0]!r} is missing; expected {_named(keys)}", where=where)
        choices = given["choices"]
        if not isinstance(choices, list | tuple):
            raise BertwrightError(f"'choices' must be a list of texts, not {shown(choices)}", where=where)
        for key in keys[:-1]:
            _check_text(given[key], f"{key!r}", where)
        texts = _checked(choices, [f"choices[{place}]" for place in range(len(choices))], where)
        return Example(given["prompt"], given.get("stem"), where=where, choices=texts)

    def typed(self, words: Sequence[str]) -> list[Any]:
        """Return the one question that words ask: the prompt, its stem if there is one, and then its endings."""
        first = 1 if self.stem_column is None else 2
        return [(*words[:first], list(words[first:]))]

    def encode(self, examples: Sequence[Example], wordpiece: WordPiece, max_length: int) -> list[Feature]:
        """Turn every ending into [CLS] prompt [SEP] stem ending [SEP]; with `windows`, into as many as show the prompt.

        Features lie choice by choice and window by window; `way_back` is the ending's place.
        """
        features, alike = [], 0
        for index, example in enumerate(examples):
            inputs = self._inputs(example, wordpiece, max_length)
            alike += any(truncated for *_, truncated in inputs) and len({str(ids) for _, ids, *_ in inputs}) < len(
                inputs
            )
            features += [
                Feature(ids, types, example.label, index, truncated=truncated, way_back=place)
                for place, ids, types, truncated in inputs
            ]
        log_truncated(features, max_length)
        if alike:
            what = "of %d of %d examples, choices look the same after they were cut; a larger max_length shows more"
            _log.warning(what, alike, len(examples))
        return features

    def _inputs(self, example: Example, wordpiece: WordPiece, max_length: int) -> list[_Input]:
        """Return the inputs of one example."""
        stem = [] if example.text_pair is None else [example.text_pair]
        encodings = [
            wordpiece.encode(example.text, " ".join([*stem, choice]), max_length=max_length)
            for choice in example.choices
        ]
        if not any(encoding.truncated for encoding in encodings):
            return [(place, each.input_ids, each.token_type_ids, False) for place, each in enumerate(encodings)]
        if self.windows:
            return self._windows(example, wordpiece, max_length)
        inputs = []
        for place, (choice, each) in enumerate(zip(example.choices, encodings, strict=True)):
            ids = each.input_ids
            if each.truncated and stem:
                room = sum(each.token_type_ids) - 1
                before, ending = _ids(stem[0], wordpiece), _ids(choice, wordpiece)
                second = (before[: max(room - len(ending), 0)] + ending)[:room]
                ids = [*ids[: len(ids) - room - 1], *second, wordpiece.sep_id]
            inputs.append((place, ids, each.token_type_ids, each.truncated))
        return inputs

    def _windows(self, example: Example, wordpiece: WordPiece, max_length: int) -> list[_Input]:
        """Return inputs with whole endings and parts of the prompt, the same parts for every ending."""
        prompt = _ids(example.text, wordpiece)
        stem = [] if example.text_pair is None else _ids(example.text_pair, wordpiece)
        endings = [stem + _ids(choice, wordpiece) for choice in example.choices]
        room = max_length - 3 - max(map(len, endings))
        try:
            starts = window_starts(len(prompt), room, min(self.stride, max(room, 0) // 2))
        except BertwrightError as error:
            raise BertwrightError(error.what, where=example.where, fix=error.fix) from None
        inputs = []
        for place, ending in enumerate(endings):
            for start in starts:
                part = prompt[start : start + room]
                ids = [wordpiece.cls_id, *part, wordpiece.sep_id, *ending, wordpiece.sep_id]
                inputs.append((place, ids, [0] * (len(part) + 2) + [1] * (len(ending) + 1), False))
        return inputs

    def targets(self, features: Sequence[Feature]) -> dict[str, Tensor]:
        """Return of each example `labels` and `num_choices`, and `num_windows` of each choice."""
        groups = [(features[places[0]].target, _by_choice(features, places)) for _, places in by_example(features)]
        return {
            "labels": torch.tensor([label for label, _ in groups]),
            "num_choices": torch.tensor([len(choices) for _, choices in groups]),
            "num_windows": torch.tensor([len(windows) for _, choices in groups for windows in choices]),
        }

    def head(self, config: BertConfig) -> Head:
        """Return dropout and a linear layer with one output on the pooled [CLS]."""
        return ChoiceHead(config)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the number of examples."""
        return {"loss": batch.targets["labels"].shape[0]}

    def loss(self, logits: Float[Tensor, "R K"], batch: Batch) -> StepOutput:
        """Sum cross-entropy over each example's own endings, and right answers, over the examples."""
        windows = logits.float().split(batch.targets["num_windows"].tolist())
        scores = torch.stack([each.mean(0) for each in windows])
        return choice_loss(scores, batch.targets["num_choices"], batch.targets["labels"])

    def decode(self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example]) -> list[Prediction]:
        """Return the likeliest ending's place, `choice`, its text, `answer`, its `score`, and the `scores` of all."""
        found = []
        for (index, _), own in zip(by_example(features), _scores(logits, features), strict=True):
            scores = (own / self.temperature).softmax(0).tolist()
            choice = max(range(len(scores)), key=scores.__getitem__)
            text = examples[index].choices[choice]
            found.append({"choice": choice, "answer": text, "score": scores[choice], "scores": scores})
        return found

    def calibrate(self, logits: Logits, features: Sequence[Feature], examples: Sequence[Example]) -> ChoiceTask:
        """Return the task with the temperature under which the dev examples are likeliest."""
        rows = pad_sequence(_scores(logits, features), batch_first=True, padding_value=-math.inf).numpy()
        gold = np.array([require_label(example) for example in examples])
        return replace(self, temperature=fit_temperature(rows, gold))

    def score(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, float]:
        """Return `accuracy`."""
        gold, answers = _compared(predictions, examples)
        return {"accuracy": sum(map(int.__eq__, gold, answers)) / len(gold)}

    def details(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> dict[str, Any]:
        """Return the places as `labels`, the `confusion` matrix, the scores `per_class` and the `calibration`.

        They show a model that prefers a place, or data whose right answers do.
        """
        gold, answers = _compared(predictions, examples)
        places = [str(place) for place in range(max(len(example.choices) for example in examples))]
        details = classification_details(list(map(str, gold)), list(map(str, answers)), places)
        scores = [prediction["score"] for prediction in predictions]
        calibration = calibration_details(scores, list(map(int.__eq__, gold, answers)))
        return {**details, "calibration": {"temperature": self.temperature, **calibration}}

    def chance_loss(self, examples: Sequence[Example]) -> float:
        """Return the mean loss of guessing: the places of the endings say nothing to the model."""
        return sum(math.log(len(example.choices)) for example in examples) / len(examples)

    def degenerate(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> str | None:
        """Say so if every answer stands in the same place though the right ones do not."""
        gold, answers = _compared(predictions, examples)
        if len(set(gold)) > 1 and len(set(answers)) == 1:
            right = gold.count(answers[0]) / len(gold)
            return Problem("problem_one_choice", choice=answers[0], share=right)
        return None

    def marks(self, feature: Feature) -> dict[int, str]:
        """Return `right` at the [CLS] of the right ending."""
        return {0: "right"} if feature.way_back == feature.target else {}

    def error(self, prediction: Prediction, example: Example) -> float:
        """Return the probability given to the wrong ending."""
        return 0.0 if prediction["choice"] == example.label else float(prediction["score"])

    def learn(self, examples: Sequence[Example]) -> ChoiceTask:
        """Return the task itself, after a look that every example has its label."""
        for example in examples:
            require_label(example)
        return self


_Input = tuple[int, list[int], list[int], bool]
"""An ending's place, the ids and token types of one sequence with it, and whether tokens were cut off."""


def _ids(text: str, wordpiece: WordPiece) -> list[int]:
    return wordpiece.encode(text).input_ids[1:-1]


def _by_choice(features: Sequence[Feature], places: Sequence[int]) -> list[list[int]]:
    """Return the places of each ending's features, of one example's."""
    return [list(group) for _, group in groupby(places, lambda place: features[place].way_back)]


def _scores(logits: Logits, features: Sequence[Feature]) -> list[Float[Tensor, "C"]]:
    """Return one score for each ending of each example, fp32: the mean of its windows."""
    return [
        torch.stack([torch.cat([logits[place] for place in group]).mean() for group in _by_choice(features, places)])
        for _, places in by_example(features)
    ]


def _compared(predictions: Sequence[Prediction], examples: Sequence[Example]) -> tuple[list[int], list[int]]:
    return [require_label(example) for example in examples], [prediction["choice"] for prediction in predictions]


def _checked(choices: Sequence[Any], names: Sequence[str], where: str | None) -> tuple[str, ...]:
    """Return the endings; each must be a text, and there must be two."""
    for name, choice in zip(names, choices, strict=False):
        _check_text(choice, name, where)
    if len(choices) < 2:
        found = f"only one choice, {shown(choices[0])}" if choices else "no choices"
        raise BertwrightError(f"{found}; there is nothing to choose between", where=where, fix="give two or more")
    return tuple(choices)


def _check_text(value: Any, name: str, where: str | None) -> None:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BertwrightError(f"{name} is empty", where=where, fix="fill it in, or take the row out")
    if not isinstance(value, str):
        raise BertwrightError(f"{name} must be text, not {shown(value)}", where=where)


def _by_number(label: Any, choices: Sequence[str], *, first: int) -> int | None:
    """Return the place of an ending by its number; 2.0 is 2, as spreadsheets and pandas write it."""
    if isinstance(label, bool) or not isinstance(label, str | int | float):
        return None
    try:
        place = float(label) - first
    except (ValueError, OverflowError):
        return None
    return int(place) if place.is_integer() and 0 <= place < len(choices) else None


def _by_letter(label: Any, choices: Sequence[str]) -> int | None:
    """Return the place of an ending by its letter, A being the first."""
    letter = label.strip() if isinstance(label, str) else ""
    return _LETTERS.index(letter) if len(letter) == 1 and letter in _LETTERS[: len(choices)] else None


def _by_text(label: Any, choices: Sequence[str]) -> int | None:
    """Return the place of the one ending with this text."""
    places = [
        place for place, choice in enumerate(choices) if isinstance(label, str) and choice.strip() == label.strip()
    ]
    return places[0] if len(places) == 1 else None


def _named(keys: Sequence[str]) -> str:
    return " and ".join([", ".join(map(repr, keys[:-1])), repr(keys[-1])])
