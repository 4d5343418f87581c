"""JSON files, and settings as JSON: unknown keys are refused with the nearest known one, values of another type too.

save_json(PretrainConfig(steps=20_000), Path("run/config.json"))
config = load_json(PretrainConfig, Path("run/config.json"))
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from bertwright.errors import BertwrightError, nearest

C = TypeVar("C")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration's fields as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(kind: type[C], values: dict[str, Any], *, where: object = None) -> C:
    """Build a configuration from JSON values.

    Args:
        kind: a dataclass of settings.
        values: fields by name; those left out keep their default.
        where: the file the values come from, for the message.

    Raises:
        BertwrightError: an unknown key (the nearest known one is named), a value of another type, or an illegal one.
    """
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            raise BertwrightError(
                f"unknown key {name!r} for {kind.__name__}{nearest(name, hints)}",
                where=where,
                fix="remove or rename it",
            )
        if not _fits(value, hints[name]):
            raise BertwrightError(f"{name} must be {_describe(hints[name])}, not {value!r}", where=where)
    try:
        return kind(**values)
    except BertwrightError as error:
        raise BertwrightError(error.what, where=where, fix=error.fix) from None


def save_json(config: Any, path: Path) -> None:
    """Write a configuration as indented JSON with a final newline."""
    path.write_text(json.dumps(to_dict(config), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        BertwrightError: the file is missing, is no UTF-8 JSON, or holds something else than an object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except FileNotFoundError:
        raise BertwrightError("no such file", where=path) from None
    except BertwrightError as error:
        raise BertwrightError(error.what, where=path) from None
    except OSError as error:
        raise BertwrightError(f"cannot be read ({error.strerror})", where=path) from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or a number of more digits than Python reads
        raise BertwrightError(f"not valid JSON ({error})", where=path) from None
    if not isinstance(values, dict):
        raise BertwrightError(f"expected a JSON object, found {type(values).__name__}", where=path)
    return values


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's pairs as a dictionary; for `json.loads(..., object_pairs_hook=...)`.

    Raises:
        BertwrightError: a key is there twice, of which JSON readers would keep one or the other.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise BertwrightError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def load_json(kind: type[C], path: Path) -> C:
    """Read a configuration that `save_json` wrote; see `from_dict` for what is refused."""
    return from_dict(kind, read_json(path), where=path)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (types.UnionType, typing.Union):
        return any(_fits(value, member) for member in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(repr(value) for value in get_args(hint))
    if get_origin(hint) is tuple:
        return 'a list, such as ["a", "b"]'
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(hint, str(hint))
