"""Texts of a dev set that are in the corpus: a model that has seen them scores better than it is.

A text counts as found if a run of its words is in the corpus: 13 words in a row, or 8 of a text that has fewer than 13;
of Chinese text 40 characters, or 20. Case, punctuation and space do not matter. Shorter texts cannot be judged.

    sought = Sought(read_strings(Path("dev.csv")))
    sought.find(units_of(documents))     # [(number of the text, number of the document), ...]
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertwright.data.check.shingles import Units, units_of, windows
from bertwright.errors import BertwrightError
from bertwright.text.corpus import read_lines
from bertwright.text.parquet import parquet_rows

RUNS = {False: (13, 8), True: (40, 20)}
"""Units in a row that must be equal, by whether the text is one of characters: of long texts, of short ones."""
LONGEST_CELL = 1 << 24
"""Characters that a cell of a CSV file may have."""
_FILTER_BITS = 22


class Text(NamedTuple):
    """A text of a dev set."""

    file: int
    """Which of the files it is from."""
    where: str
    text: str


def read_strings(path: Path, number: int = 0) -> list[Text]:
    """Read the strings of a file, each once: cells of tables, all that .json and .jsonl hold, lines of others.

    Args:
        path: of labelled or raw text; it may be compressed.
        number: of the file, for `Text.file`.

    Raises:
        BertwrightError: it cannot be read, or is no valid JSON or CSV.
    """
    names = path.name.lower().split(".")
    suffix = names[-2] if names[-1] in ("gz", "xz", "zst") and len(names) > 2 else names[-1]
    if suffix == "json":
        strings = _strings(_json("".join(read_lines(path)), path))
        found: Iterator[tuple[str, str]] = (
            (f"{path}, {place}" if place else str(path), text) for place, text in strings
        )
    elif suffix == "jsonl":
        rows = ((row, line) for row, line in _rows(path) if line.strip())
        found = ((_at(path, row), text) for row, line in rows for _, text in _strings(_json(line, path, row)))
    elif suffix == "csv":
        found = ((_at(path, row), cell) for row, cells in _comma_rows(path) for cell in cells)
    elif suffix == "parquet":
        records = parquet_rows(path, lambda columns: columns)
        found = ((where, text) for where, record in records for _, text in _strings(record))
    else:
        found = ((_at(path, row), cell) for row, line in _rows(path) for cell in line.split("\t"))
    texts: dict[str, Text] = {}
    for where, text in found:
        if text := text.strip():
            texts.setdefault(text, Text(number, where, text))
    if not texts:
        raise BertwrightError("there is no text in this file", where=path, fix="name a file of examples")
    return list(texts.values())


def _rows(path: Path) -> Iterator[tuple[int, str]]:
    return enumerate(read_lines(path), start=1)


def _at(path: Path, row: int) -> str:
    return f"{path}, row {row:,}"


def _json(text: str, path: Path, row: int = 0) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        where = _at(path, row) if row else path
        raise BertwrightError(f"not valid JSON ({error})", where=where) from None


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every string in a JSON value after its place, such as `data[0].title`."""
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        match pending.pop():
            case (place, str(text)):
                yield place, text
            case (place, list(items)):
                pending += reversed([(f"{place}[{number}]", item) for number, item in enumerate(items)])
            case (place, dict(items)):
                pending += reversed([(f"{place}.{key}".lstrip("."), item) for key, item in items.items()])


def _comma_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(read_lines(path))
    limit = csv.field_size_limit(LONGEST_CELL)  # of the whole process, hence put back
    row = 1
    try:
        for cells in reader:
            yield row, cells
            row = reader.line_num + 1
    except csv.Error as error:
        raise BertwrightError(f"not valid CSV ({error})", where=_at(path, row)) from None
    finally:
        csv.field_size_limit(limit)


class Sought:
    """Texts to look for in a corpus.

    Args:
        texts: of dev sets; they are held as 16 bytes for each of their words.
    """

    def __init__(self, texts: Sequence[Text]) -> None:
        units = units_of([text.text.replace("\n", " ") for text in texts])
        self.sizes = _sizes(units)
        """For each text, how many units in a row must be equal; 0: it is too short."""
        self._runs: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for size in sorted({*self.sizes.tolist()} - {0}):
            found = windows(units, size)
            asked = self.sizes[found.texts] == size
            hashes, owners = found.hashes[asked], found.texts[asked]
            order = np.argsort(hashes, kind="stable")
            self._runs[size] = hashes[order], owners[order]
        self._filter = np.zeros(1 << _FILTER_BITS, bool)
        for hashes, _ in self._runs.values():
            self._filter[_bucket(hashes)] = True

    def find(self, units: Units) -> list[tuple[int, int]]:
        """Return which texts are in documents: the number of each, and of the first document it is in.

        Args:
            units: of the documents.
        """
        found: dict[int, int] = {}
        for size, (sought, owners) in self._runs.items():
            hashes, documents = windows(units, size)
            maybe = self._filter[_bucket(hashes)]
            hashes, places = np.unique(hashes[maybe], return_index=True)  # each run where it occurs first
            documents = documents[maybe][places]
            first, last = (np.searchsorted(sought, hashes, side) for side in ("left", "right"))
            for start, end, document in zip(first.tolist(), last.tolist(), documents.tolist(), strict=True):
                for owner in owners[start:end].tolist():
                    found[owner] = min(found.get(owner, document), document)
        return sorted(found.items())


def _sizes(units: Units) -> np.ndarray:
    lengths = units.lengths
    before = np.append(0, np.cumsum(units.is_character))
    characters = np.diff(before[units.ends], prepend=0)
    sizes = np.zeros(len(lengths), np.int64)
    for of_characters, runs in RUNS.items():
        kind = (2 * characters >= lengths) == of_characters
        for run in sorted(runs):
            sizes[kind & (lengths >= run)] = run
    return sizes


def _bucket(hashes: np.ndarray) -> np.ndarray:
    return hashes >> np.uint64(64 - _FILTER_BITS)
