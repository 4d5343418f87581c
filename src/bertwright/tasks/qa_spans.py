"""Which part of a context a span head means: every pair of a first and a last token, over all windows, is tried.

    spans = find_spans(rows, windows, longest=30)
    total, start, end = spans.best()
    context[start:end], spans.probability(total)

Paper: 4.2. Differs: google-research/bert run_squad.py tries the 20 best first and the 20 best last tokens of a window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Window(NamedTuple):
    """What `decode` needs to find its way back from a feature's tokens to the context."""

    first_row: int
    """The feature's first token of the context."""
    offsets: np.ndarray
    """Start and end in the context, characters, of each token from there on: int32, [n, 2]."""
    may_start: np.ndarray | None
    """Of each, whether this window shows most of its surroundings: bool, [n]; None if there is no other window."""


class Spans(NamedTuple):
    """Every span of an example's windows: axis n its first token, axis L how many tokens come after that."""

    sums: np.ndarray
    """Of the logits of first and last token, [n, L]; -inf where there is no such span."""
    offsets: np.ndarray
    """Start and end of tokens in the context, characters, [n, 2], one window behind the other."""
    null: float
    """The least sum of [CLS]'s logits."""
    log_total: float
    """Logarithm of what a span's exp(sum) is divided by to become a probability."""

    def best(self) -> tuple[float, int, int]:
        """Return the greatest sum, the first of equals, and where this span begins and ends, characters."""
        if not self.sums.size:
            return -np.inf, 0, 0
        first, more = divmod(int(self.sums.argmax()), self.sums.shape[1])
        best = float(self.sums[first, more])
        if best == -np.inf:
            return best, 0, 0
        return best, int(self.offsets[first, 0]), int(self.offsets[first + more, 1])

    def remove(self, start: int, end: int) -> None:
        """Take out all spans that overlap with these characters."""
        longest = self.sums.shape[1]
        ends = _band(self.offsets[:, 1], longest, 0)
        self.sums[(self.offsets[:, :1] < end) & (ends > start)] = -np.inf

    def probability(self, total: float) -> float:
        """Return the probability of a span with this sum of logits."""
        return math.exp(min(total - self.log_total, 0.0))


def find_spans(rows: Sequence[np.ndarray], windows: Sequence[Window], longest: int) -> Spans:
    """Lay out all spans of at most `longest` tokens.

    Args:
        rows: of each window the logits of all its tokens, [tokens, 2].
        windows: where the context is in them.
        longest: tokens of a span at most, L.
    """
    null = min((row[0] for row in rows), key=lambda pair: float(pair.sum()))
    firsts, lasts, sums = [null[:1]], [null[1:]], []
    for row, window in zip(rows, windows, strict=True):
        first, last = row[window.first_row : window.first_row + len(window.offsets)].T
        if window.may_start is not None:
            first = np.where(window.may_start, first, -np.inf)
        firsts.append(first)
        lasts.append(last)
        sums.append(first[:, None] + _band(last, longest, -np.inf))
    together = np.concatenate(sums) if len(sums) > 1 else sums[0]
    together[np.isnan(together)] = -np.inf  # a model that has diverged quotes nothing
    offsets = np.concatenate([window.offsets for window in windows])
    return Spans(together, offsets, float(null.sum()), _log_sum(firsts) + _log_sum(lasts))


def _band(values: np.ndarray, width: int, fill: float) -> np.ndarray:
    """Return, for each value, itself and those behind it, [n, width], `fill` where they end."""
    padded = np.concatenate([values, np.full(width, fill, values.dtype)])
    return np.lib.stride_tricks.sliding_window_view(padded, width)[: len(values)]


def _log_sum(parts: Sequence[np.ndarray]) -> float:
    values = np.concatenate(parts)
    greatest = values.max()
    return float(greatest + np.log(np.exp(values - greatest).sum()))


def most_context(starts: Sequence[int], room: int, length: int) -> np.ndarray:
    """Return, for each token, which window shows most of its surroundings, the first of equals.

    Paper: google-research/bert run_squad.py `_check_is_max_context`: the smaller of the numbers of tokens before and
    behind it, plus a hundredth of the window's.
    """
    best, owner = np.full(length, -np.inf), np.zeros(length, dtype=np.int32)
    for number, start in enumerate(starts):
        end = min(start + room, length)
        before = np.arange(end - start)
        score = np.minimum(before, before[::-1]) + 0.01 * (end - start)
        better = score > best[start:end]
        best[start:end][better] = score[better]
        owner[start:end][better] = number
    return owner
