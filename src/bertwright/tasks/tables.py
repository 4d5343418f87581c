"""Rows of labelled text from CSV, TSV, JSON Lines and Parquet files; every mistake is named with its row and column.

The extension decides how a file is read (`.gz`, `.xz` or `.zst` may follow it, but for Parquet):

- `.csv`: commas; fields with commas or line ends inside double quotes (RFC 4180), as spreadsheets and pandas write it.
- `.tsv`, `.txt`: tabs and line ends separate and every quote is an ordinary character, as in the files of GLUE.
- `.jsonl`: one object a line.
- `.parquet`: needs the extra `data`.

The first line of a CSV or TSV file names its columns unless `header` does. Blank lines are skipped; rows of which every
cell is empty are left out and counted in the log. Rows are counted as an editor counts lines, in Parquet from 1.

    for row in read_table(Path("train.tsv"), {"text": "sentence", "label": "label"}):
        print(row.where, row.values["text"], row.values["label"])

Differs: google-research/bert run_classifier.py reads TSV alone, by column number, and stops on a short row with a
traceback.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bertwright.errors import BertwrightError, nearest
from bertwright.tasks.records import Record, extension_of, json_lines
from bertwright.text.corpus import read_lines
from bertwright.text.parquet import parquet_rows

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")
"""What `read_table` accepts."""

LONGEST_CELL = 1 << 24
"""Characters that a cell of a CSV file may have; more of them lie behind a quote that nobody closed."""

_SEPARATORS = (("\t", "rename it to .tsv"), (";", "save it with commas"), (",", "rename it to .csv"))
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 60, 60
_log = logging.getLogger(__name__)


class Row(NamedTuple):
    """One row of a table."""

    where: str
    """File and row, for messages."""
    values: dict[str, Any]
    """Its text by role; of a raw role, what the file holds."""


def read_table(
    path: Path, columns: Mapping[str, str], *, header: Sequence[str] = (), raw: Collection[str] = ()
) -> list[Row]:
    """Read the wanted columns of a file.

    Args:
        path: UTF-8, with or without a byte order mark, or GB18030.
        columns: a column of the file by role, such as `{"text": "sentence"}`; each must have a value in every row.
        header: names of the columns of a CSV or TSV file whose first line is data already.
        raw: roles whose values are given as the file holds them, lists and empty ones too; no value at all is "".

    Raises:
        BertwrightError: the file is missing, empty, binary or malformed; a column is missing; a value is empty.
    """
    extension = table_extension(path)
    if extension == ".parquet":
        records = parquet_rows(path, partial(_checked_columns, path, columns))
    elif extension == ".jsonl":
        records = json_lines(path)
    else:
        rows = _comma_rows(path) if extension == ".csv" else _tab_rows(path)
        records = _named(rows, path, columns, header)
    table = [Row(where, _pick(where, record, columns, raw)) for where, record in records]
    if not table:
        raise BertwrightError("the file has no rows", where=path)
    return table


def table_extension(path: Path) -> str:
    """Return the one of `EXTENSIONS` that a file has, in front of a compressor's if there is one.

    Raises:
        BertwrightError: it has another one.
    """
    return extension_of(path, EXTENSIONS)


def _tab_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip(" \n"):  # of tabs alone: a row of empty cells
            fields = line.split("\t")
            fields[-1] = fields[-1].removesuffix("\n")
            yield number, fields


def _comma_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(read_lines(path), strict=True)
    number = 1
    limit = csv.field_size_limit(LONGEST_CELL)  # of the whole process, hence put back
    try:
        for fields in reader:
            if len(fields) > 1 or not all(map(_is_blank, fields)):
                yield number, fields
            number = reader.line_num + 1
    except csv.Error as error:
        fix = "look for a double quote that is not closed, or not doubled inside a quoted field"
        fix = _fix("\r", fix) if "new-line" in str(error) else fix
        raise BertwrightError(f"not valid CSV ({error})", where=_at(path, number), fix=fix) from None
    finally:
        csv.field_size_limit(limit)


def _named(
    rows: Iterator[tuple[int, list[str]]], path: Path, columns: Mapping[str, str], header: Sequence[str]
) -> Iterator[Record]:
    names = list(header)
    if names:
        _check_header(names, "--columns", columns)
    else:
        number, first = next(rows, (1, []))
        if not first:
            raise BertwrightError("the file is empty", where=path)
        names = [name.strip() for name in first]
        _check_header(names, _at(path, number), columns)
    empty = 0
    for number, fields in rows:
        if len(fields) != len(names):
            raise _uneven(len(names), fields, _at(path, number))
        if header and fields == names:
            fix = "leave out --columns, which is for files whose first line is data"
            raise BertwrightError("this line names the columns", where=_at(path, number), fix=fix)
        if all(map(_is_blank, fields)):
            empty += 1
            continue
        yield _at(path, number), dict(zip(names, fields, strict=True))
    if empty:
        _log.warning("%s: left out %d rows of which every cell is empty", path, empty)


def _uneven(expected: int, fields: Sequence[str], where: str) -> BertwrightError:
    fix = "save it as .jsonl, or as .csv with double quotes around texts that hold commas, tabs or line ends"
    if len(fields) == 1:
        fix = next((_other(one, to) for one, to in _SEPARATORS if fields[0].count(one) == expected - 1), fix)
    return BertwrightError(f"expected {expected} columns, found {len(fields)}", where=where, fix=fix)


def _check_header(header: Sequence[str], where: str, columns: Mapping[str, str]) -> None:
    for role, name in columns.items():
        if name not in header:
            raise _missing(name, role, where, header)
        if header.count(name) > 1:
            raise BertwrightError(f"{header.count(name)} columns are named {name!r}", where=where)


def _checked_columns(path: Path, columns: Mapping[str, str], header: Sequence[str]) -> list[str]:
    _check_header(header, str(path), columns)
    return sorted(set(columns.values()))


def _missing(name: str, role: str, where: str, known: Sequence[str]) -> BertwrightError:
    kind, _, several = role.partition(":")
    fix = f"name the right one with --{kind.replace('_', '-')}-column{'s' if several else ''}"
    if len(known) == 1:
        fix = next((_other(one, remedy) for one, remedy in _SEPARATORS if one in known[0]), _fix(known[0], fix))
    elif any("\r" in each for each in known):
        fix = _fix("\r", fix)
    names = [each if len(each) <= 60 else f"{each[:60]}..." for each in known[:20]]
    found = ", ".join(map(repr, names)) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return BertwrightError(f"no column {name!r}{nearest(name, names)}; there is {found}", where=where, fix=fix)


def _other(separator: str, remedy: str) -> str:
    return f"the columns look separated by {separator!r}: {remedy}"


def _fix(line: str, fix: str) -> str:
    """Return what to do about a line, unless it is many: of a file that ends its lines as old Macs did."""
    return "its lines end in CR alone: tr '\\r' '\\n' < OLD > NEW makes them end in LF" if "\r" in line else fix


def _pick(where: str, record: Mapping[str, Any], columns: Mapping[str, str], raw: Collection[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for role, name in columns.items():
        if name not in record:
            raise _missing(name, role, where, list(record))
        value = record[name]
        if value is None or (isinstance(value, float) and math.isnan(value)):  # what pandas writes for nothing
            value = ""
        if role in raw:
            values[role] = value
            continue
        if isinstance(value, bool | int | float) and role == "label" and value not in (math.inf, -math.inf):
            value = json.dumps(value)
        if not isinstance(value, str):
            raise BertwrightError(f"column {name!r} must hold text, not {shown(value)}", where=where)
        if _is_blank(value):
            raise BertwrightError(f"column {name!r} is empty", where=where, fix="fill it in, or take the row out")
        values[role] = value
    return values


def shown(value: Any) -> str:
    """Return a value for a message, long and deep ones with their beginning alone."""
    return _SHORT.repr(value)


def _is_blank(cell: str) -> bool:
    return not cell or cell.isspace()  # no copy, as `strip` makes of a long text


def _at(path: Path, number: int) -> str:
    return f"{path}, row {number:,}"
