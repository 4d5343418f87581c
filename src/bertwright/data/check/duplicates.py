"""Documents that are there twice, or nearly: exact copies by a hash, near ones by MinHash with banding, all in numpy.

Two documents are as similar as their sets of shingles (5 words or characters in a row) overlap: shared ones divided by
all (Jaccard). A signature keeps, for each of 128 hash functions, the smallest hash of a document's shingles; a share of
them is equal in two documents that is their similarity, give or take 0.04. Documents are compared if one of 16 bands of
8 functions is equal throughout.
Reference: Broder 1997 (resemblance); Indyk and Motwani 1998 (banding); Li and König 2010 (the low bits are enough).

    table = Fingerprints()
    table.add(fingerprints(units_of(texts), files, rows))
    table.duplicates().near

Memory: 224 bytes a document, for 524,288 of them at most. Of more, every second one is let go, and again every second:
by a hash that copies share, and near copies mostly, so that shares remain what they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, Shaped, UInt32

from bertwright.data.check.shingles import Units, wholes, windows
from bertwright.data.counter import hashed

SHINGLE = 5
"""Units of a shingle. Documents with fewer have exact copies alone."""
SIMILAR = 0.8
"""Estimated similarity from which documents are called near copies.

Of pairs as similar as 0.9, 99.9 % are found; of 0.85, 94 %; of 0.8, half; of 0.7, 0.6 %."""
MOST_DOCUMENTS = 1 << 19
"""Held for comparison."""

_BANDS, _ROWS = 16, 8
_NUM_HASHES = _BANDS * _ROWS
_FIRST_SEED = 0x5EED
_COMPARED_AT_ONCE = 1 << 15
_CHANCE = 1 / 256
"""Two different hashes have the same low byte."""

DTYPE = np.dtype(
    [
        ("text", "<u8"), ("sample", "<u8"), ("bands", "<u4", _BANDS), ("low", "u1", _NUM_HASHES), ("units", "<u4"),
        ("file", "<u4"), ("row", "<u8"),
    ]
)  # fmt: skip
"""One document: a hash of it all, one to sample by, its signature, and where it is."""

Rows = Shaped[np.ndarray, "D"]
"""Documents as `DTYPE`."""


def fingerprints(units: Units, files: Int64[np.ndarray, "D"], rows: Int64[np.ndarray, "D"]) -> Rows:
    """Return what is needed to compare documents.

    Args:
        units: of each document.
        files: the number of the file each is in.
        rows: where it begins there.
    """
    made = np.zeros(len(files), DTYPE)
    made["text"] = made["sample"] = wholes(units)
    made["units"], made["file"], made["row"] = units.lengths, files, rows
    hashes, texts = windows(units, SHINGLE)
    if len(hashes):
        starts = np.flatnonzero(np.diff(texts, prepend=-1))
        smallest = _signatures((hashes >> np.uint64(32)).astype(np.uint32), starts)
        with_shingles = texts[starts]
        made["low"][with_shingles] = smallest & np.uint32(0xFF)
        made["sample"][with_shingles] = hashed(smallest[:, 0])
        bands = smallest.reshape(-1, _BANDS, _ROWS)
        made["bands"][with_shingles] = hashed(*(bands[:, :, row] for row in range(_ROWS))) >> np.uint64(32)
    return made


def _signatures(shingles: UInt32[np.ndarray, "W"], starts: Int64[np.ndarray, "D"]) -> UInt32[np.ndarray, "D K"]:
    seeds = hashed(_FIRST_SEED, np.arange(2 * _NUM_HASHES)).astype(np.uint32)
    smallest = np.empty((len(starts), _NUM_HASHES), np.uint32)
    mixed = np.empty_like(shingles)
    for column, (factor, flip) in enumerate(seeds.reshape(-1, 2)):
        np.multiply(shingles, factor | np.uint32(1), out=mixed)  # both steps only reorder the 32-bit numbers
        np.bitwise_xor(mixed, flip, out=mixed)
        smallest[:, column] = np.minimum.reduceat(mixed, starts)
    return smallest


@dataclass(frozen=True)
class Pair:
    """Two documents."""

    first: tuple[int, int]
    """File number and row of the earlier one."""
    second: tuple[int, int]
    similarity: float


@dataclass(frozen=True)
class Duplicates:
    """What was found."""

    compared: int
    """Documents that were held, a sample if the corpus has more."""
    exact: int
    """Those of them that say the same as an earlier one."""
    near: int
    """Those of them that say nearly the same as an earlier one, exact copies not counted."""
    is_sample: bool
    exact_pairs: list[Pair] = field(default_factory=list)
    """The first few, in reading order."""
    near_pairs: list[Pair] = field(default_factory=list)
    """Likewise."""


class Fingerprints:
    """Holds fingerprints in bounded memory and finds the duplicates among them.

    Args:
        most: documents held.
    """

    def __init__(self, most: int = MOST_DOCUMENTS) -> None:
        self._most = most
        self._table = np.zeros(0, DTYPE)
        self._held = 0
        self._level = 0
        """Of 2 to the power of this many documents, one is held."""

    @property
    def capacity(self) -> int:
        """Documents there is memory for at present."""
        return len(self._table)

    def add(self, rows: Rows) -> None:
        """Take the fingerprints of the documents that come next in reading order."""
        for start in range(0, len(rows), self._most):
            self._add(rows[start : start + self._most])

    def _add(self, rows: Rows) -> None:
        rows = rows[self._stays(rows)]
        while self._held + len(rows) > self._most:
            self._level += 1
            kept = self._table[: self._held][self._stays(self._table[: self._held])]
            self._table[: len(kept)], self._held = kept, len(kept)
            rows = rows[self._stays(rows)]
        if self._held + len(rows) > len(self._table):
            larger = np.zeros(min(self._most, max(2 * len(self._table), self._held + len(rows))), DTYPE)
            larger[: self._held] = self._table[: self._held]
            self._table = larger
        self._table[self._held : self._held + len(rows)] = rows
        self._held += len(rows)

    def _stays(self, rows: Rows) -> np.ndarray:
        stays: np.ndarray = (rows["sample"] & np.uint64((1 << self._level) - 1)) == 0
        return stays

    def duplicates(self, shown: int = 5) -> Duplicates:
        """Compare the documents held.

        Args:
            shown: pairs named of each kind.
        """
        held = self._table[: self._held]
        order = np.argsort(held["text"], kind="stable")
        again = np.append(False, np.diff(held["text"][order]) == 0) if len(held) else np.zeros(0, bool)
        firsts = np.maximum.accumulate(np.where(again, 0, np.arange(len(held))))
        copies = sorted(zip(order[again].tolist(), order[firsts[again]].tolist(), strict=True))
        others = np.sort(order[~again])
        near = _near(held, others[held["units"][others] >= SHINGLE])
        return Duplicates(
            compared=len(held),
            exact=len(copies),
            near=len(near),
            is_sample=self._level > 0,
            exact_pairs=[_pair(held, first, second, 1.0) for second, first in copies[:shown]],
            near_pairs=[_pair(held, near[second][1], second, near[second][0]) for second in sorted(near)[:shown]],
        )


def _near(held: Rows, places: Int64[np.ndarray, "P"]) -> dict[int, tuple[float, int]]:
    """Return, for each document that is a near copy of an earlier one, how similar it is to the most similar found."""
    near: dict[int, tuple[float, int]] = {}
    for firsts, seconds in _candidates(held["bands"], places):
        for start in range(0, len(firsts), _COMPARED_AT_ONCE):
            one, other = (each[start : start + _COMPARED_AT_ONCE] for each in (firsts, seconds))
            equal = (held["low"][one] == held["low"][other]).mean(axis=1)
            similarity = (equal - _CHANCE) / (1 - _CHANCE)
            for place in np.flatnonzero(similarity >= SIMILAR).tolist():
                found = (float(similarity[place]), int(one[place]))
                near[int(other[place])] = max(near.get(int(other[place]), (0.0, 0)), found)
    return near


def _candidates(
    bands: UInt32[np.ndarray, "D B"], places: Int64[np.ndarray, "P"]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs that share a band: each document with the first that has it, and with the one before it."""
    for band in range(_BANDS):
        keys = bands[places, band]
        order = np.argsort(keys, kind="stable")
        again = np.append(False, np.diff(keys[order]) == 0) if len(keys) else np.zeros(0, bool)
        heads = np.maximum.accumulate(np.where(again, 0, np.arange(len(keys))))
        seconds = np.flatnonzero(again)
        before = seconds[heads[seconds] != seconds - 1]
        yield places[order[heads[seconds]]], places[order[seconds]]
        yield places[order[before - 1]], places[order[before]]


def _pair(held: Rows, first: int, second: int, similarity: float) -> Pair:
    one, other = ((int(held["file"][place]), int(held["row"][place])) for place in (first, second))
    return Pair(one, other, similarity)
