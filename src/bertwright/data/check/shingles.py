"""Texts as numbers that can be compared: a hash for each word, and for each run of words.

A unit is a word (letters and digits between other characters, in lower case) or a single Chinese character or kana.
Punctuation and space are no part of it, so that texts which differ in these alone are the same.

    units = units_of(["The cat sat.", "the  cat, sat"])
    windows(units, 3).hashes        # twice the same number
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from bertwright.data.counter import hashed
from bertwright.text.characters import KINDS, SCRIPTS, CharacterKinds, code_points

_LINE_END = ord("\n")
_SINGLE = np.array([kind in ("han", "kana") for kind in KINDS])
_IN_WORD = np.array([kind in (*SCRIPTS, "digits") and kind not in ("han", "kana") for kind in KINDS])
_PLACES = 64
_BASE = 0x9E3779B97F4A7C15
_kinds = CharacterKinds()


class Units(NamedTuple):
    """The units of several texts, end to end."""

    hashes: UInt64[np.ndarray, "U"]
    """The same number for the same word."""
    is_character: Bool[np.ndarray, "U"]
    """Whether it is a single character and not a word."""
    ends: Int64[np.ndarray, "T"]
    """For each text, how many units there are up to its end."""

    @property
    def lengths(self) -> Int64[np.ndarray, "T"]:
        """Units of each text."""
        return np.diff(self.ends, prepend=0)


class Windows(NamedTuple):
    """Runs of so many units, none across two texts."""

    hashes: UInt64[np.ndarray, "W"]
    texts: Int64[np.ndarray, "W"]
    """The text each is in."""


def units_of(texts: Sequence[str]) -> Units:
    r"""Return the units of texts, none of which holds a `\n`."""
    points = code_points("".join(text + "\n" for text in texts).casefold())
    kinds = _kinds.of(points)
    single, in_word = _SINGLE[kinds], _IN_WORD[kinds]
    begins = in_word.copy()
    begins[1:] &= ~in_word[:-1]
    begins |= single
    number = np.cumsum(begins)
    ends = number[points == _LINE_END]
    used = np.flatnonzero(single | in_word)
    if not len(used):
        return Units(np.zeros(0, np.uint64), np.zeros(0, bool), ends)
    starts = np.flatnonzero(begins)
    places = (used - starts[number[used] - 1]) % _PLACES
    sums = np.add.reduceat(points[used] * _weights()[places], np.flatnonzero(begins[used]))
    return Units(hashed(sums), single[starts], ends)


def joined(units: Units, ends: Int64[np.ndarray, "T"]) -> Units:
    """Return the same units as fewer texts.

    Args:
        units: of sentences, say.
        ends: for each document, how many sentences there are up to its end.
    """
    return units._replace(ends=np.append(0, units.ends)[ends])


def windows(units: Units, size: int) -> Windows:
    """Return every run of `size` units."""
    count = len(units.hashes) - size + 1
    if count < 1:
        return Windows(np.zeros(0, np.uint64), np.zeros(0, np.int64))
    texts = np.repeat(np.arange(len(units.ends)), units.lengths)
    sums = _prefix_sums(units.hashes)
    hashes = (sums[size:] - sums[:-size]) * _powers(pow(_BASE, -1, 2**64), len(sums))[:count]
    whole = texts[size - 1 :] == texts[:count]
    return Windows(hashed(hashes[whole]), texts[:count][whole])


def wholes(units: Units) -> UInt64[np.ndarray, "T"]:
    """Return one number for each text: the same for the same units in the same order."""
    sums = _prefix_sums(units.hashes)
    starts = np.append(0, units.ends[:-1]) if len(units.ends) else units.ends
    inverse = _powers(pow(_BASE, -1, 2**64), len(sums))
    return hashed((sums[units.ends] - sums[starts]) * inverse[starts], units.lengths)


def _prefix_sums(hashes: UInt64[np.ndarray, "U"]) -> UInt64[np.ndarray, "U+1"]:
    """Return the sums of the first 0, 1, 2, ... hashes, each times its own power of a base.

    The difference of two of them, divided by the power of where it starts, depends on what lies between alone: so runs
    of 40 units cost no more than runs of 5.
    """
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * _powers(_BASE, len(hashes)), out=sums[1:])
    return sums


def _powers(base: int, size: int) -> UInt64[np.ndarray, "U"]:
    return _table_of_powers(base, 1 << max(size - 1, 1).bit_length())[:size]


@cache
def _table_of_powers(base: int, size: int) -> UInt64[np.ndarray, "U"]:
    factors = np.full(size, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


@cache
def _weights() -> UInt64[np.ndarray, "P"]:
    return hashed(np.arange(_PLACES)) | np.uint64(1)
