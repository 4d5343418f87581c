"""Questions about a context, from the files of SQuAD 1.1 and 2.0, CMRC 2018 and DRCD, and from rows of such.

The extension decides how a file is read (`.gz`, `.xz` or `.zst` may follow the first two):

- `.json`: SQuAD's layout, `data` of `paragraphs` of `qas`, which CMRC 2018 and DRCD share; also `data` of plain rows.
- `.jsonl`: one row a line, `{"id", "question", "context", "answers": {"text": [...], "answer_start": [...]}}`.
- `.parquet`: the same rows, as Hugging Face's hub keeps them.

A question without answers is unanswerable. Accepted, and counted in one warning each, are

- an `answer_start` that does not fit: the nearest place where the text does stand counts;
- an answer that its context does not hold: it counts in scores and is never learnt (193 of CMRC 2018's dev file;
  `QATask.read` wants another one beside it that the context holds);
- an empty question (2 of CMRC 2018's trial file);
- half a surrogate pair, which becomes U+FFFD.

    examples = read_questions(Path("dev-v1.1.json"))
    examples[0].label[0]                      # Answer(text='Denver Broncos', start=177, end=191)

Paper: 4.2 and 4.3. Differs: google-research/bert run_squad.py leaves out training questions whose answer it cannot
find; here they are an error.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bertwright.errors import BertwrightError, nearest
from bertwright.tasks.base import Example
from bertwright.tasks.records import extension_of, json_file, json_lines
from bertwright.text.parquet import parquet_rows

_log = logging.getLogger(__name__)
_ROWS_FIX = 'a row looks like {"question": ..., "context": ..., "answers": {"text": [...], "answer_start": [...]}}'
_COLUMNS = ("id", "question", "context", "answers", "is_impossible")
_KINDS = {str: "text", list: "a list", dict: "an object", bool: "true or false", int: "a whole number"}


class Answer(NamedTuple):
    """One right answer."""

    text: str
    """As the file has it: what scores compare with."""
    start: int
    """Where it begins in the context, characters; -1 if the context does not hold it."""
    end: int
    """Where it ends there; the context may have it in other case and spacing. -1 likewise."""


def read_questions(path: Path, *, labelled: bool = True) -> list[Example]:
    """Read a file of questions.

    Args:
        path: a `.json`, `.jsonl` or `.parquet` file.
        labelled: False where `answers` and `is_impossible` are unknown, or not to be looked at.

    Returns:
        Examples with the question as `text`, the context as `text_pair`, and the answers as `label`, a tuple.

    Raises:
        BertwrightError: what is wrong with the file, with the row or the place in the JSON.
    """
    items = _ITEMS[extension_of(path, tuple(_ITEMS))]
    reader = _Reader(path, labelled)
    for where, record, context in items(path):
        reader.add(where, record, context)
    return reader.finish()


def locate(context: str, text: str, start: int) -> Answer | None:
    """Find an answer: where it is said to begin, else at its nearest occurrence, else in other case and spacing.

    Args:
        context: what it is quoted from.
        text: as the file has it.
        start: where the file says that it begins, characters.

    Returns:
        The text and its place in the context; None if that does not hold it, or, but for case and white space, holds
        it more than once.
    """
    if start >= 0 and context.startswith(text, start):
        return Answer(text, start, start + len(text))
    places, place = [], context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    if places:
        place = min(places, key=lambda place: abs(place - start))
        return Answer(text, place, place + len(text))
    squeezed = [
        (small, place) for place, letter in enumerate(context) if not letter.isspace() for small in letter.lower()
    ]
    letters, wanted = "".join(small for small, _ in squeezed), "".join(text.lower().split())
    first = letters.find(wanted)
    if first < 0 or letters.find(wanted, first + 1) >= 0:
        return None
    return Answer(text, squeezed[first][1], squeezed[first + len(wanted) - 1][1] + 1)


_Item = tuple[str, dict[str, Any], str | None]
"""Where it is, a question, and its context unless that is one of its keys."""


def _nested(path: Path) -> Iterator[_Item]:
    document = json_file(path)
    root = "" if isinstance(document, list) else "data"
    articles = document if isinstance(document, list) else _value(_object(document, str(path)), "data", list, str(path))
    for i, given in enumerate(articles):
        where = f"{path}, {root}[{i}]"
        article = _object(given, where)
        if "question" in article:
            yield where, article, None
            continue
        for j, paragraph in enumerate(_value(article, "paragraphs", list, where)):
            inner = f"{where}.paragraphs[{j}]"
            context = _value(_object(paragraph, inner), "context", str, inner)
            for k, question in enumerate(_value(paragraph, "qas", list, inner)):
                yield f"{inner}.qas[{k}]", _object(question, f"{inner}.qas[{k}]"), context


def _json_rows(path: Path) -> Iterator[_Item]:
    return ((where, record, None) for where, record in json_lines(path))


def _parquet_rows(path: Path) -> Iterator[_Item]:
    return ((where, record, None) for where, record in parquet_rows(path, partial(_columns, path)))


def _columns(path: Path, names: Sequence[str]) -> list[str]:
    for key in ("question", "context"):
        _value(dict.fromkeys(names, ""), key, str, str(path))
    return [name for name in names if name in _COLUMNS]


_ITEMS = {".json": _nested, ".jsonl": _json_rows, ".parquet": _parquet_rows}
"""What reads a file, by its extension."""


@dataclass
class _Reader:
    """Turns questions into examples, and counts what was odd about them."""

    path: Path
    labelled: bool
    examples: list[Example] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    """Where each id was met."""
    context: str = ""
    """The last context; neighbouring questions share it, in memory too."""
    moved: int = 0
    missing: int = 0
    blank: int = 0

    def add(self, where: str, record: dict[str, Any], context: str | None) -> None:
        question = _value(record, "question", str, where)
        if context is None:
            context = _value(record, "context", str, where)
        if context != self.context:
            self.context = context
        if not self.context.strip():
            raise BertwrightError("the context is empty", where=where, fix="fill it in, or take the question out")
        self.blank += not question.strip()
        label = self.answers(where, record) if self.labelled else None
        self.examples.append(Example(question, self.context, label, where, self.id_of(where, record)))

    def id_of(self, where: str, record: dict[str, Any]) -> str | None:
        given = record.get("id")
        if given is None:
            return None
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise BertwrightError(f"'id' must be text, not {_shown(given)}", where=where)
        name = str(given)
        known = self.places.setdefault(name, where)
        if known is not where:
            raise BertwrightError(f"the id {name!r} is there twice", where=where, fix=f"it is also at {known}")
        return name

    def answers(self, where: str, record: dict[str, Any]) -> tuple[Answer, ...]:
        given = list(_answers(record, where))
        impossible = record.get("is_impossible")
        if impossible is not None and not isinstance(impossible, bool):
            raise BertwrightError(f"'is_impossible' must be true or false, not {_shown(impossible)}", where=where)
        if impossible is not None and impossible == bool(given):
            what = f"'is_impossible' is {_shown(impossible)}, but there are {len(given) or 'no'} answers"
            raise BertwrightError(what, where=where, fix="correct the one or the other")
        found = [locate(self.context, text, start) for text, start in given]
        self.missing += found.count(None)
        self.moved += sum(
            one is not None and (one.start, one.end) != (start, start + len(text))
            for one, (text, start) in zip(found, given, strict=True)
        )
        return tuple(one or Answer(text, -1, -1) for one, (text, _) in zip(found, given, strict=True))

    def finish(self) -> list[Example]:
        if not self.examples:
            raise BertwrightError("the file has no questions", where=self.path)
        for count, what in (
            (self.moved, "%s: %d answer_start did not match their text and were moved"),
            (self.missing, "%s: %d answers do not stand in their context; they count in scores and are never learnt"),
            (self.blank, "%s: %d questions are empty"),
        ):
            if count:
                _log.warning(what, self.path, count)
        return self.examples


def _answers(record: dict[str, Any], where: str) -> Iterator[tuple[str, int]]:
    """Yield answers as the file has them: a list of objects, or an object of two lists."""
    given = record.get("answers")
    if isinstance(given, dict):
        texts, starts = (_value(given, key, list, f"{where}, answers") for key in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise BertwrightError(f"{len(texts)} answers have {len(starts)} answer_start", where=where)
        given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    elif not isinstance(given, list):
        _value(record, "answers", list, where, fix="a question that nothing answers has an empty list")
    for number, answer in enumerate(given or ()):
        place = f"{where}.answers[{number}]"
        text = _value(_object(answer, place), "text", str, place)
        if not text.strip():
            fix = "a question that nothing answers has an empty list of answers"
            raise BertwrightError("the answer is empty", where=place, fix=fix)
        yield text, _value(answer, "answer_start", int, place)


def _value(record: dict[str, Any], key: str, kind: type, where: str, fix: str | None = None) -> Any:
    if key not in record:
        found = f"there is {', '.join(map(repr, record))}" if record else "it is empty"
        raise BertwrightError(f"no key {key!r}{nearest(key, record)}; {found}"[:300], where=where, fix=fix or _ROWS_FIX)
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BertwrightError(f"{key!r} must be {_KINDS[kind]}, not {_shown(value)}", where=where, fix=fix)
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BertwrightError(f"expected a JSON object, not {_shown(value)}", where=where)
    return value


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, default=str)[:40]
