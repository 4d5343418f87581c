"""Records of files: an object a line of JSON, or a row of Parquet; every mistake is named with its place.

    for where, record in json_lines(Path("train.jsonl")):
        ...
    extension_of(Path("train.jsonl.gz"), (".jsonl", ".parquet"))      # '.jsonl'

Half a surrogate pair, which no text can hold, becomes U+FFFD; how many there were is said once for a file.
"""

from __future__ import annotations

import json
import logging
import re
import reprlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bertwright.errors import BertwrightError
from bertwright.json_values import unique_keys
from bertwright.text.corpus import read_lines

Record = tuple[str, dict[str, Any]]
"""File and row, for messages, and what is there."""

_PARQUET_ROWS = 1024
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 60, 60
_log = logging.getLogger(__name__)


def extension_of(path: Path, known: Sequence[str]) -> str:
    """Return the one of the `known` extensions that a file has, in front of a compressor's if there is one.

    Raises:
        BertwrightError: it has another one.
    """
    name = path.name.lower()
    for packed in (".gz", ".xz", ".zst"):
        name = name.removesuffix(packed)
    if (extension := Path(name).suffix) in known:
        return extension
    fix = f"save it as one of {', '.join(known)} and name it so"
    raise BertwrightError("the name does not say how this file is to be read", where=path, fix=fix)


def json_file(path: Path) -> Any:
    """Read a file that is one JSON value.

    Raises:
        BertwrightError: it is missing, damaged, or no JSON.
    """
    value, halves = _parsed("".join(read_lines(path)), path, "if it is one object a line, name it .jsonl")
    _say(halves, path)
    return value


def json_lines(path: Path) -> Iterator[Record]:
    """Yield the object in each line that is not blank.

    Raises:
        BertwrightError: the file is missing or damaged, or a line is no JSON object.
    """
    halves = 0
    for number, line in enumerate(read_lines(path), start=1):
        if line.isspace():
            continue
        where = f"{path}, row {number:,}"
        fix = "write one JSON object a line; name a file that is one object .json"
        if "\r" in line:
            fix = "its lines end in CR alone: tr '\\r' '\\n' < OLD > NEW makes them end in LF"
        record, mended = _parsed(line, where, fix)
        if not isinstance(record, dict):
            fix = "write one object a line, without brackets around them"
            raise BertwrightError(f"expected a JSON object, found {_SHORT.repr(record)}", where=where, fix=fix)
        halves += mended
        yield where, record
    _say(halves, path)


def parquet_rows(path: Path, choose: Callable[[list[str]], Sequence[str]]) -> Iterator[Record]:
    """Yield rows with the columns that `choose` takes of all that there are; it may raise, too.

    Raises:
        BertwrightError: the package for it is missing, or the file is, or it is damaged.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        fix = "pip install 'bertwright[data]'"
        raise BertwrightError("Parquet files need the package pyarrow", where=path, fix=fix) from None
    number = 0
    try:
        with parquet.ParquetFile(str(path)) as file:
            columns = list(choose(file.schema_arrow.names))
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number:,}", record
    except BertwrightError:
        raise
    except FileNotFoundError:
        raise BertwrightError("no such file", where=path, fix="check the spelling") from None
    # Of what pyarrow raises, only some is its own: a time out of Python's range is an OverflowError, for one.
    except (pyarrow.ArrowException, ArithmeticError, NotImplementedError, OSError, ValueError) as error:
        what = f"not readable as Parquet ({error!s:.120})"
        where = f"{path}, after row {number:,}" if number else path
        raise BertwrightError(what, where=where, fix="make or download the file again") from None


def _parsed(text: str, where: object, fix: str) -> tuple[Any, int]:
    """Return a JSON value, and how many halves of surrogate pairs were mended in it."""
    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
        if "\\u" not in text:
            return value, 0
        mended, halves = _HALF_PAIR.subn("\ufffd", json.dumps(value, ensure_ascii=False))
        return (json.loads(mended, object_pairs_hook=unique_keys), halves) if halves else (value, 0)
    except BertwrightError as error:
        raise BertwrightError(error.what, where=where, fix=error.fix) from None
    except (ValueError, RecursionError) as error:
        what = f"not valid JSON ({str(error) or 'it is nested too deep':.120})"
        raise BertwrightError(what, where=where, fix=fix) from None


def _say(halves: int, path: Path) -> None:
    if halves:
        _log.warning("%s: %d halves of surrogate pairs became U+FFFD", path, halves)
