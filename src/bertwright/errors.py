"""The one family of errors that Bertwright raises for a mistake a person can mend.

Smallest use:
    raise BertwrightError("column 'text' is missing", where="train.csv", fix="name it with --text-column")
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BertwrightError(ValueError):
    """What was found, where, and what to type next.

    The command line prints it as one message without a traceback and exits with status 1; in Python it is a
    `ValueError`.

    Args:
        what: what was found and what was expected, in one sentence.
        where: the file, row, key or tensor it was found in.
        fix: what to type or change next.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        place = "" if self.where is None else f"{self.where}: "
        remedy = "" if fix is None else f"\n  → {fix}"
        super().__init__(f"{place}{what}{remedy}")


class DiskFullError(BertwrightError):
    """The disk had no room for a file; what was saved before is intact."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
