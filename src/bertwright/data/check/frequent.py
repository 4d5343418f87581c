"""The most frequent of more texts than fit into memory.

lines = Frequent(1 << 16)
lines.add({"Share this page": 3, "Once upon a time": 1})
lines.top(10)                # [("Share this page", 3), ("Once upon a time", 1)]
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping


class Frequent:
    """Counts of texts; when there are twice `size` of them, those that occur least are forgotten.

    So a count is at most `missed` too low, never too high (Manku and Motwani 2002, lossy counting).

    Args:
        size: texts remembered.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._counts: dict[str, int] = {}
        self.missed = 0
        """Occurrences of one text that may have been forgotten, at most."""

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts."""
        held = self._counts
        for text, count in counts.items():
            held[text] = held.get(text, 0) + count
            if len(held) >= 2 * self._size:
                best = heapq.nsmallest(self._size + 1, held.items(), key=_rank)
                self.missed += best.pop()[1]
                held = self._counts = dict(best)

    def top(self, count: int, *, fewest: int = 1) -> list[tuple[str, int]]:
        """Return the most frequent texts and how often each occurs, those left out that occur less than `fewest`."""
        enough = (item for item in self._counts.items() if item[1] >= fewest)
        return heapq.nsmallest(count, enough, key=_rank)


def _rank(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
