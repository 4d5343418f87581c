"""Records of JSON files, an object a line; every mistake is named with its place. Those of Parquet: `text.parquet`.

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertwright.errors import BertwrightError
from bertwright.json_values import unique_keys
from bertwright.text.corpus import read_lines

Record = tuple[str, dict[str, Any]]
"""File and row, for messages, and what is there."""

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
