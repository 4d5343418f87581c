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
    examples[0].label[0]                      # Answer(text='Denver Broncos', start=177)

Paper: 4.2 and 4.3. Differs: google-research/bert run_squad.py leaves out training questions whose answer it cannot
find; here they are an error.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bertwright.errors import BertwrightError, nearest
from bertwright.tasks.base import Example
from bertwright.text.corpus import read_lines

_log = logging.getLogger(__name__)
_ROWS_FIX = 'a row looks like {"question": ..., "context": ..., "answers": {"text": [...], "answer_start": [...]}}'
_COLUMNS = ("id", "question", "context", "answers", "is_impossible")
_PARQUET_ROWS = 1024
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_KINDS = {str: "text", list: "a list", dict: "an object", bool: "true or false", int: "a whole number"}


class Answer(NamedTuple):
    """One right answer."""

    text: str
    """As the context has it; of one that the context does not hold, as the file has it."""
    start: int
    """Where it begins in the context, characters; -1 if the context does not hold it."""


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
    name = path.name.lower()
    for packed in (".gz", ".xz", ".zst"):
        name = name.removesuffix(packed)
    for extension, items in ((".json", _nested), (".jsonl", _json_rows), (".parquet", _parquet_rows)):
        if name.endswith(extension):
            reader = _Reader(path, labelled)
            for where, record, context in items(path):
                reader.add(where, record, context)
            return reader.finish()
    fix = "save it as one of .json, .jsonl, .parquet and name it so"
    raise BertwrightError("the name does not say whether this is JSON, JSON Lines or Parquet", where=path, fix=fix)


def locate(context: str, text: str, start: int) -> Answer | None:
    """Find an answer: where it is said to begin, else at its nearest occurrence, else in other case and spacing.

    Args:
        context: what it is quoted from.
        text: as the file has it.
        start: where the file says that it begins, characters.

    Returns:
        The text and the place that the context really has; None if it does not hold the text, or, but for case and
        white space, holds it more than once.
    """
    if start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    places, place = [], context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    if places:
        return Answer(text, min(places, key=lambda place: abs(place - start)))
    squeezed = [
        (small, place) for place, letter in enumerate(context) if not letter.isspace() for small in letter.lower()
    ]
    letters, wanted = "".join(small for small, _ in squeezed), "".join(text.lower().split())
    first = letters.find(wanted)
    if first < 0 or letters.find(wanted, first + 1) >= 0:
        return None
    begin, end = squeezed[first][1], squeezed[first + len(wanted) - 1][1] + 1
    return Answer(context[begin:end], begin)


_Item = tuple[str, dict[str, Any], str | None]
"""Where it is, a question, and its context unless that is one of its keys."""


def _nested(path: Path) -> Iterator[_Item]:
    try:
        document = json.loads("".join(read_lines(path)), object_pairs_hook=_unique)
    except BertwrightError:
        raise
    except (ValueError, RecursionError) as error:
        fix = "if it is one object a line, name it .jsonl" if "Extra data" in str(error) else None
        raise _not_json(error, path, fix) from None
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
    for number, line in enumerate(read_lines(path), start=1):
        if line.isspace():
            continue
        where = f"{path}, row {number:,}"
        try:
            record = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise _not_json(
                error, where, "write one JSON object a line; name a file that is one object .json"
            ) from None
        yield where, _object(record, where), None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of a key that is there twice, nobody knows which value is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} is there twice in one object")
    return found


def _not_json(error: Exception, where: object, fix: str | None) -> BertwrightError:
    return BertwrightError(f"not valid JSON ({str(error) or 'it is nested too deep':.120})", where=where, fix=fix)


def _parquet_rows(path: Path) -> Iterator[_Item]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        fix = "pip install 'bertwright[data]'"
        raise BertwrightError("Parquet files need the package pyarrow", where=path, fix=fix) from None
    number = 0
    try:
        with parquet.ParquetFile(str(path)) as file:
            names = dict.fromkeys(file.schema_arrow.names, "")
            for key in ("question", "context"):
                _value(names, key, str, str(path))
            wanted = [name for name in names if name in _COLUMNS]
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number:,}", record, None
    except BertwrightError:
        raise
    except FileNotFoundError:
        raise BertwrightError("no such file", where=path, fix="check the spelling") from None
    except (pyarrow.ArrowException, ArithmeticError, NotImplementedError, OSError, ValueError) as error:
        what = f"not readable as Parquet ({error!s:.120})"
        where = f"{path}, after row {number:,}" if number else path
        raise BertwrightError(what, where=where, fix="make or download the file again") from None


@dataclass
class _Reader:
    """Turns questions into examples, and counts what was odd about them."""

    path: Path
    labelled: bool
    examples: list[Example] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    """Where each id was met."""
    given: str = ""
    """The last context as the file has it."""
    context: str = ""
    """The last context; neighbouring questions share it, in memory too."""
    moved: int = 0
    missing: int = 0
    blank: int = 0
    mended: int = 0

    def add(self, where: str, record: dict[str, Any], context: str | None) -> None:
        question = self.whole(_value(record, "question", str, where))
        if context is None:
            context = _value(record, "context", str, where)
        if context is not self.given and context != self.given:
            self.given, self.context = context, self.whole(context)
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
        name = self.whole(str(given))
        known = self.places.setdefault(name, where)
        if known is not where:
            raise BertwrightError(f"the id {name!r} is there twice", where=where, fix=f"it is also at {known}")
        return name

    def answers(self, where: str, record: dict[str, Any]) -> tuple[Answer, ...]:
        given = [answer._replace(text=self.whole(answer.text)) for answer in _answers(record, where)]
        impossible = record.get("is_impossible")
        if impossible is not None and not isinstance(impossible, bool):
            raise BertwrightError(f"'is_impossible' must be true or false, not {_shown(impossible)}", where=where)
        if impossible is not None and impossible == bool(given):
            what = f"'is_impossible' is {_shown(impossible)}, but there are {len(given) or 'no'} answers"
            raise BertwrightError(what, where=where, fix="correct the one or the other")
        found = [locate(self.context, *answer) for answer in given]
        self.missing += found.count(None)
        self.moved += sum(one is not None and one != other for one, other in zip(found, given, strict=True))
        return tuple(one or other._replace(start=-1) for one, other in zip(found, given, strict=True))

    def whole(self, text: str) -> str:
        if text.isascii() or not _HALF_PAIR.search(text):
            return text
        self.mended += 1
        return _HALF_PAIR.sub("\ufffd", text)

    def finish(self) -> list[Example]:
        if not self.examples:
            raise BertwrightError("the file has no questions", where=self.path)
        for count, what in (
            (self.moved, "%s: %d answer_start did not match their text and were moved"),
            (self.missing, "%s: %d answers do not stand in their context; they count in scores and are never learnt"),
            (self.blank, "%s: %d questions are empty"),
            (self.mended, "%s: half a surrogate pair became U+FFFD in %d texts"),
        ):
            if count:
                _log.warning(what, self.path, count)
        return self.examples


def _answers(record: dict[str, Any], where: str) -> Iterator[Answer]:
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
        yield Answer(text, _value(answer, "answer_start", int, place))


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
