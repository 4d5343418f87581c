"""Records of words with tags, or of texts with named stretches: JSON Lines, JSON, Parquet, Label Studio's export.

    read_records(Path("train.jsonl"), labelled=True)   # what `tagged_files` makes examples of

The keys are in the description of `tagged_files`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from bertwright.errors import BertwrightError
from bertwright.tasks.base import Example
from bertwright.tasks.records import extension_of, json_file, json_lines
from bertwright.tasks.words import Entity, Sentence, checked_words
from bertwright.text.parquet import parquet_rows

RECORD_EXTENSIONS = (".jsonl", ".json", ".parquet")
"""Files of an example a record."""

_TOKENS, _TAGS = ("tokens", "words"), ("tags", "ner_tags", "labels")
_SPANS = ("entities", "spans", "label", "labels")
_KEYS = {*_TOKENS, *_TAGS, *_SPANS, "text", "data", "annotations"}
_TRIMMED = "entities had white space at an end, which was taken off"
_SEVERAL = "texts had several annotations; the first counts"
_OTHER = "results of Label Studio are no named stretches and were left out"
_log = logging.getLogger(__name__)


def read_records(path: Path, *, labelled: bool) -> list[Example | Sentence]:
    """Read a file of `RECORD_EXTENSIONS`.

    Args:
        path: the file.
        labelled: whether tags or entities are read.

    Returns:
        A `Sentence` of each record that has words, an example of each that has a text.

    Raises:
        BertwrightError: what is wrong with the file, with its row.
    """
    notes: Counter[str] = Counter()
    made = [_made(record, where, labelled, notes) for where, record in _records(path)]
    for note, count in notes.items():
        if count:
            _log.warning("%s: %d %s", path, count, note)
    return made


def _made(record: Any, where: str, labelled: bool, notes: Counter[str]) -> Example | Sentence:
    if not isinstance(record, dict):
        raise BertwrightError(f"expected an object, found {_short(record)}", where=where)
    if "data" in record and "annotations" in record:
        record = _of_label_studio(record, where, labelled, notes)
    if (key := _first_key(record, _TOKENS)) is not None:
        words = checked_words(record[key], where)
        return Sentence(where, words, _tags(record, len(words), where) if labelled else [], [])
    text = record.get("text")
    if not isinstance(text, str) or not text.strip():
        found = f"the text is {_short(text)}" if "text" in record else f"the keys are {_short([*record])}"
        raise BertwrightError(f"expected words under 'tokens', or a text under 'text'; {found}", where=where)
    entities = _entities(text, record, where, notes) if labelled else None
    return Example(text, label=entities, where=where)


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    extension = extension_of(path, RECORD_EXTENSIONS)
    if extension == ".parquet":
        yield from parquet_rows(path, lambda names: [name for name in names if name in _KEYS])
    elif extension == ".jsonl":
        yield from json_lines(path)
    else:
        records = json_file(path)
        if not isinstance(records, list):
            raise BertwrightError("expected a list of records", where=path, fix="one record a line is called .jsonl")
        yield from ((f"{path}, record {number:,}", record) for number, record in enumerate(records, start=1))


def _tags(record: Mapping[str, Any], count: int, where: str) -> list[str]:
    tags = record[_require_key(record, _TAGS, where)]
    if not isinstance(tags, list) or len(tags) != count:
        found = f"{len(tags)} tags" if isinstance(tags, list) else _short(tags)
        raise BertwrightError(f"there are {count} words, but {found}", where=where, fix="give each word one tag")
    if strange := [tag for tag in tags if not isinstance(tag, str)]:
        fix = "numbers mean nothing without their names: write the tags themselves, such as B-PER"
        raise BertwrightError(f"a tag must be text, not {_short(strange[0])}", where=where, fix=fix)
    return tags


def _entities(text: str, record: Mapping[str, Any], where: str, notes: Counter[str]) -> tuple[Entity, ...]:
    """Return the named stretches of a text in order, without white space at their ends."""
    spans = record[_require_key(record, _SPANS, where)]
    if not isinstance(spans, list):
        raise BertwrightError(f"expected a list of entities, not {_short(spans)}", where=where)
    given = [_entity(span, text, where) for span in spans]
    found = []
    for start, end, label in given:
        piece = text[start:end]
        if not piece.strip():
            raise BertwrightError(f"the entity {start} to {end} ({label}) is {_short(piece)}: no text", where=where)
        found.append(Entity(end - len(piece.lstrip()), start + len(piece.rstrip()), label))
    for one, other in pairwise(sorted(found)):
        if other.start < one.end:
            what = f"two entities overlap: {one.label} {text[one.start : one.end]!r:.40} and {other.label} " \
                   f"{text[other.start : other.end]!r:.40}, at {other.start}"  # fmt: skip
            raise BertwrightError(what, where=where, fix="a word has one tag: keep one of the two")
    notes[_TRIMMED] += sum(one != other for one, other in zip(given, found, strict=True))
    return tuple(sorted(found))


def _entity(span: Any, text: str, where: str) -> Entity:
    """Take `{"start", "end", "label"}` or `[start, end, label]` apart; what it quotes must stand there."""
    values = span
    if isinstance(span, dict):
        start, end = (span.get(key, span.get(f"{key}_offset")) for key in ("start", "end"))
        label = span.get("label", span.get("labels"))
        values = [start, end, label[0] if isinstance(label, list) and len(label) == 1 else label]
    if not isinstance(values, list) or len(values) != 3 or not isinstance(values[2], str) or not values[2].strip():
        what = f"expected an entity with start, end and one label, not {_short(span)}"
        raise BertwrightError(what, where=where, fix='write {"start": 0, "end": 5, "label": "PER"}')
    start, end, label = values
    if any(not isinstance(place, int) or isinstance(place, bool) for place in (start, end)):
        raise BertwrightError(f"start and end are numbers of characters, not in {_short(span)}", where=where)
    if not 0 <= start < end <= len(text):
        what = f"the entity {start} to {end} ({label}) is empty or leaves the text of {len(text)} characters"
        raise BertwrightError(what, where=where)
    said, found = span.get("text") if isinstance(span, dict) else None, text[start:end]
    if isinstance(said, str) and said.replace("\\n", "\n") != found:
        what = f"characters {start} to {end} are {_short(found)}, not {_short(said)}"
        raise BertwrightError(what, where=where, fix="look whether the text was changed after it was annotated")
    return Entity(start, end, label.strip())


def _of_label_studio(record: Mapping[str, Any], where: str, labelled: bool, notes: Counter[str]) -> dict[str, Any]:
    """Return a task's text and entities as other files have them."""
    data = record["data"] if isinstance(record["data"], dict) else {}
    texts = [value for value in data.values() if isinstance(value, str)]
    text = data.get("text", texts[0] if len(texts) == 1 else None)
    if not isinstance(text, str):
        raise BertwrightError(f"expected a text under 'data', 'text'; there is {_short([*data])}", where=where)
    if not labelled:
        return {"text": text}
    given = record["annotations"] if isinstance(record["annotations"], list) else []
    done = [each for each in given if isinstance(each, dict) and not each.get("was_cancelled")]
    if not done or not isinstance(results := done[0].get("result"), list):
        raise BertwrightError("this text has no annotation", where=where, fix="annotate it, or take it out")
    values = [each.get("value") if isinstance(each, dict) else None for each in results]
    spans = [value for value in values if isinstance(value, dict) and "labels" in value and "start" in value]
    notes[_SEVERAL] += len(done) > 1
    notes[_OTHER] += len(results) - len(spans)
    return {"text": text, "entities": spans}


def _first_key(record: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if key in record), None)


def _require_key(record: Mapping[str, Any], keys: Sequence[str], where: str) -> str:
    if (key := _first_key(record, keys)) is None:
        raise BertwrightError(
            f"none of {', '.join(map(repr, keys))} is there; the keys are {_short([*record])}", where=where
        )
    return key


def _short(value: object) -> str:
    return f"{value!r:.50}"
