"""Rows of labelled text from CSV, TSV and JSON Lines files; every mistake in a file is named with its row and column.

The extension decides how a file is read (`.gz`, `.xz` or `.zst` may follow it):

- `.csv`: commas; fields with commas or line ends inside double quotes (RFC 4180), as spreadsheets and pandas write it.
- `.tsv`: tabs and line ends separate and every quote is an ordinary character, as in the files of GLUE.
- `.jsonl`: one object a line.

The first line of a CSV or TSV file names its columns unless `header` does. Blank lines are skipped. Rows are counted as
an editor counts lines, from 1.

    for row in read_table(Path("train.tsv"), {"text": "sentence", "label": "label"}):
        print(row.where, row.values["text"], row.values["label"])

Differs: google-research/bert run_classifier.py reads TSV alone, by column number, and stops on a short row with a
traceback.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bertwright.errors import BertwrightError, nearest
from bertwright.text.corpus import read_lines

EXTENSIONS = (".csv", ".tsv", ".jsonl")
"""What `read_table` accepts."""


class Row(NamedTuple):
    """One row of a table."""

    where: str
    """File and row, for messages."""
    values: dict[str, str]
    """Its text by role."""


_Record = tuple[str, dict[str, Any]]


def read_table(path: Path, columns: Mapping[str, str], *, header: Sequence[str] | None = None) -> list[Row]:
    """Read the wanted columns of a file.

    Args:
        path: UTF-8, with or without a byte order mark, or GB18030.
        columns: a column of the file by role, such as `{"text": "sentence"}`; each must have a value in every row.
        header: names of the columns of a CSV or TSV file whose first line is data already.

    Raises:
        BertwrightError: the file is missing, empty, binary or malformed; a column is missing; a value is empty.
    """
    extension = table_extension(path)
    if extension == ".jsonl":
        records = _json_records(path)
    else:
        rows = _tab_rows(path) if extension == ".tsv" else _comma_rows(path)
        records = _named(rows, path, columns, header)
    table = [Row(where, _pick(where, record, columns)) for where, record in records]
    if not table:
        raise BertwrightError("the file has no rows", where=path)
    return table


def table_extension(path: Path) -> str:
    """Return the one of `EXTENSIONS` that a file has, in front of a compressor's if there is one.

    Raises:
        BertwrightError: it has another one.
    """
    name = path.name.lower()
    for packed in (".gz", ".xz", ".zst"):
        name = name.removesuffix(packed)
    for extension in EXTENSIONS:
        if name.endswith(extension):
            return extension
    fix = f"save it as one of {', '.join(EXTENSIONS)} and name it so"
    raise BertwrightError("the name does not say whether this is CSV, TSV or JSON Lines", where=path, fix=fix)


def _json_records(path: Path) -> Iterator[_Record]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BertwrightError(f"not valid JSON ({error})", where=_at(path, number)) from None
        if not isinstance(record, dict):
            raise BertwrightError(f"expected a JSON object, found {line.strip()[:40]}", where=_at(path, number))
        yield _at(path, number), record


def _tab_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip(" \n"):
            yield number, line.removesuffix("\n").split("\t")


def _comma_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(read_lines(path), strict=True)
    number = 1
    try:
        for fields in reader:
            if any(map(str.strip, fields)):
                yield number, fields
            number = reader.line_num + 1
    except csv.Error as error:
        fix = "look for a double quote that is not closed, or not doubled inside a quoted field"
        raise BertwrightError(f"not valid CSV ({error})", where=_at(path, number), fix=fix) from None


def _named(
    rows: Iterator[tuple[int, list[str]]], path: Path, columns: Mapping[str, str], header: Sequence[str] | None
) -> Iterator[_Record]:
    if header is None:
        number, first = next(rows, (1, []))
        if not first:
            raise BertwrightError("the file is empty", where=path)
        header = [name.strip() for name in first]
        _check_header(header, _at(path, number), columns)
    for number, fields in rows:
        if len(fields) != len(header):
            raise BertwrightError(
                f"expected {len(header)} columns, found {len(fields)}",
                where=_at(path, number),
                fix="save it as .jsonl, or as .csv with double quotes around texts that hold commas, tabs or line ends",
            )
        yield _at(path, number), dict(zip(header, fields, strict=True))


def _check_header(header: Sequence[str], where: str, columns: Mapping[str, str]) -> None:
    for role, name in columns.items():
        if name not in header:
            raise _missing(name, role, where, header)
        if header.count(name) > 1:
            raise BertwrightError(f"{header.count(name)} columns are named {name!r}", where=where)


def _missing(name: str, role: str, where: str, known: Sequence[str]) -> BertwrightError:
    fix = f"name the right one with --{role.replace('_', '-')}-column"
    for delimiter, remedy in (("\t", "rename it to .tsv"), (";", "save it with commas"), (",", "rename it to .csv")):
        if len(known) == 1 and delimiter in known[0]:
            fix = f"the columns look separated by {delimiter!r}: {remedy}"
    found = ", ".join(map(repr, known))
    return BertwrightError(f"no column {name!r}{nearest(name, known)}; there is {found}", where=where, fix=fix)


def _pick(where: str, record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, str]:
    values = {}
    for role, name in columns.items():
        if name not in record:
            raise _missing(name, role, where, list(record))
        value = "" if record[name] is None else record[name]
        if isinstance(value, bool | int | float) and role == "label":
            value = json.dumps(value)
        if not isinstance(value, str):
            raise BertwrightError(f"column {name!r} must hold text, not {json.dumps(value)[:40]}", where=where)
        if not value.strip():
            raise BertwrightError(f"column {name!r} is empty", where=where, fix="fill it in, or take the row out")
        values[role] = value
    return values


def _at(path: Path, number: int) -> str:
    return f"{path}, row {number:,}"
