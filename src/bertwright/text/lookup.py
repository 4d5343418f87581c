"""What stands in front of WordPiece and makes it fast: text repeats, so what was made of it once is worth remembering.

ids = Cache(make_ids, 1 << 19)
ids["unaffable"]                       # made
ids["unaffable"]                       # remembered
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from bertwright.text.rules import TextRules

T = TypeVar("T")

CHINESE = r"\u3400-\u4dbf\u4e00-\u9fff"
"""The Chinese characters that make up Chinese text, for a character class; every one is a word."""
CACHED_CHARACTERS = 32
"""Longer texts are not remembered."""


class Cache(dict[str, T]):
    """From short texts to what was made of them when first asked for; it stops growing when full."""

    def __init__(self, make: Callable[[str], T], size: int) -> None:
        self._make = make
        self._size = size

    def __missing__(self, text: str) -> T:
        made = self._make(text)
        if len(text) <= CACHED_CHARACTERS and len(self) < self._size:
            self[text] = made
        return made


class Found(NamedTuple):
    """The tokens of several texts, end to end."""

    ids: np.ndarray
    """uint32."""
    lengths: np.ndarray
    """Tokens of each text."""
    joined: str
    """The texts, each with a blank after it."""
    counts: np.ndarray
    """Tokens that come from each character of `joined`; those of a chunk are counted at its first character."""
    chunks: np.ndarray
    """Where in `joined` the chunks begin and end, [number of chunks, 2]."""


class CharacterLookup:
    """Ids of texts in which most characters are words by themselves, as in Chinese: one table look-up for all of them.

    What lies between such characters and blanks goes through the cache of chunks.
    """

    _CONTEXT, _UNMET, _BLANK, _PART = -4, -3, -2, -1

    def __init__(self, rules: TextRules, of_word: Callable[[str], bytes], of_chunk: Callable[[str], bytes]) -> None:
        self._rules = rules
        self._of_word = of_word
        self._of_chunk = of_chunk
        self._kinds = np.full(0x110000, self._UNMET, np.int32)

    def find(self, texts: Sequence[str]) -> Found:
        """Look the texts' tokens up."""
        joined = " ".join(texts) + " "
        points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        kinds = self._kinds[points]
        if (kinds == self._UNMET).any():
            self._meet(np.unique(points[kinds == self._UNMET]))
            kinds = self._kinds[points]
        if (context := kinds == self._CONTEXT).any():  # what stands between the same two blanks stays together
            between = np.cumsum(kinds == self._BLANK)
            kinds[np.isin(between, between[context]) & (kinds != self._BLANK)] = self._PART
        in_chunk = kinds == self._PART
        edges = np.flatnonzero(np.diff(in_chunk, prepend=False, append=False)).reshape(-1, 2)
        chunks = [self._of_chunk(joined[start:end]) for start, end in edges.tolist()]
        counts = (kinds >= 0).astype(np.int64)
        counts[edges[:, 0]] = np.fromiter(map(len, chunks), np.int64, len(chunks)) // 4
        from_chunk = np.repeat(in_chunk, counts)
        ids = np.empty(from_chunk.size, np.uint32)
        ids[from_chunk] = np.frombuffer(b"".join(chunks), np.uint32)
        ids[~from_chunk] = kinds[kinds >= 0]
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
        return Found(ids, np.diff(np.cumsum(counts)[ends - 1], prepend=0), joined, counts, edges)

    def _meet(self, points: np.ndarray) -> None:
        for point in points.tolist():
            spelling = self._rules.spelling(chr(point))
            ids = self._of_word(spelling.strip())
            if self._rules.needs_context(chr(point)):
                self._kinds[point] = self._CONTEXT
            elif spelling == " ":
                self._kinds[point] = self._BLANK
            elif spelling.startswith(" ") and spelling.endswith(" ") and " " not in spelling.strip() and len(ids) == 4:
                self._kinds[point] = int.from_bytes(ids, "little")
            else:
                self._kinds[point] = self._PART
