"""How documents become examples: segment pairs with a next-sentence label, or single segments.

Nothing is copied: the documents of a shard lie end to end in one token array, and an example is two ranges of it.
A truncated segment is still one range, so the ranges say everything.
Reference: google-research/bert `create_pretraining_data.py`; paper 3.1 (Task #2) and A.2.

    examples = build_examples([[7, 12, 9], [30, 4]], DataConfig(), generator(0))    # sentence lengths per document
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain

import numpy as np
from jaxtyping import Int, Shaped

from bertwright.config import DataConfig

EXAMPLE_DTYPE = np.dtype(
    [("a_start", "<u4"), ("a_length", "<u2"), ("b_start", "<u4"), ("b_length", "<u2"), ("next_sentence_label", "u1")]
)
"""One example: where its segments lie in the shard's tokens; `next_sentence_label` 0: B follows A, 1: B is random."""

Examples = Shaped[np.ndarray, "E"]
"""A table of `EXAMPLE_DTYPE`."""


def num_specials(config: DataConfig) -> int:
    """Tokens that [CLS] and [SEP] take up in every example."""
    return 3 if config.objective == "mlm+nsp" else 2


def build_examples(documents: Sequence[Sequence[int]], config: DataConfig, rng: np.random.Generator) -> Examples:
    """Cut the documents of one shard into examples.

    With `objective="mlm+nsp"`, sentences gather in a chunk until a target length is reached; segment A ends at a
    sentence boundary drawn inside the chunk. Then B is either the rest of the chunk or starts at a random sentence of
    another document, in which case the rest of the chunk is used again. What is too long loses tokens from the longer
    segment.

    The two rules differ for a chunk of one sentence alone. `google` always gives it a random B, so more than half of
    the labels are 1. `paper` tosses a fair coin for every example; if B shall follow, B is the next sentence, or, where
    there is none, the lone sentence is itself the B of the sentence before it. A document of one sentence cannot be
    followed: under `paper` it serves only as a random B.

    With `objective="mlm"`, examples are single segments of as many whole sentences as fit; a sentence that is longer by
    itself is cut. No token is lost.

    Args:
        documents: the length in tokens of every sentence, by document; none may be empty.
        config: lengths, rule and objective.
        rng: the only source of randomness.

    Returns:
        Examples in document order. Pairs need two documents: of fewer, there are none.

    Differs: google-research/bert draws the short target length once a document (here once an example), and tries ten
    times to find another document (here always found).
    """
    offsets = [0, *accumulate(chain.from_iterable(documents))]
    ends = list(accumulate(len(document) for document in documents))
    bounds = list(zip([0, *ends], ends, strict=False))
    draw = _uniforms(rng).__next__
    if config.objective == "mlm":
        rows = _single_segments(offsets, bounds, config, draw)
    else:
        rows = _segment_pairs(offsets, bounds, config, draw) if len(documents) > 1 else []
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    return _truncate(table, config.max_length - num_specials(config), rng)


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    # A thousand numbers at once cost a twentieth of a thousand single ones.
    while True:
        yield from rng.random(1024).tolist()


def _target_length(config: DataConfig, draw: Callable[[], float]) -> int:
    longest = config.max_length - num_specials(config)
    return 2 + int(draw() * (longest - 1)) if draw() < config.short_seq_prob else longest


def _single_segments(
    offsets: list[int], bounds: list[tuple[int, int]], config: DataConfig, draw: Callable[[], float]
) -> list[int]:
    rows: list[int] = []
    for first, last in bounds:
        start, end = offsets[first], offsets[last]
        while start < end:
            reach = start + _target_length(config, draw)
            boundary = offsets[bisect_right(offsets, reach, first, last + 1) - 1]
            stop = boundary if boundary > start else reach
            rows += (start, stop, 0, 0, 0)
            start = stop
    return rows


def _segment_pairs(
    offsets: list[int], bounds: list[tuple[int, int]], config: DataConfig, draw: Callable[[], float]
) -> list[int]:
    rows: list[int] = []
    even_odds = config.next_sentence_rule == "paper"
    for document, (first, last) in enumerate(bounds):
        if even_odds and last - first < 2:
            continue
        start = first
        while start < last:
            target = _target_length(config, draw)
            end = bisect_left(offsets, offsets[start] + target, start + 1, last)
            middle = start + 1 + int(draw() * (end - start - 1))
            lone = end - start == 1
            if (lone and not even_odds) or draw() < 0.5:
                length = offsets[middle] - offsets[start]
                b_start, b_end = _random_segment(offsets, bounds, document, target - length, draw)
                rows += (offsets[start], offsets[middle], b_start, b_end, 1)
                start = middle
                continue
            if lone:
                # Only under even odds: the chunk grows by the next sentence, at a document's end by the one before.
                start, middle, end = (start, end, end + 1) if end < last else (start - 1, start, end)
            rows += (offsets[start], offsets[middle], offsets[middle], offsets[end], 0)
            start = end
    return rows


def _random_segment(
    offsets: list[int], bounds: list[tuple[int, int]], document: int, target: int, draw: Callable[[], float]
) -> tuple[int, int]:
    other = int(draw() * (len(bounds) - 1))
    first, last = bounds[other + (other >= document)]
    start = first + int(draw() * (last - first))
    return offsets[start], offsets[bisect_left(offsets, offsets[start] + target, start + 1, last)]


def _truncate(table: Int[np.ndarray, "E 5"], longest: int, rng: np.random.Generator) -> Examples:
    """Shorten the longer segment, token by token from its front or back at random, until the pair fits.

    The tokens are not really taken one by one: the lengths that remain are known, and how many of the lost tokens
    came from the front is binomial.
    """
    a_start, a_end, b_start, b_end, label = table.T
    a_length, b_length = a_end - a_start, b_end - b_start
    b_kept = np.minimum(b_length, np.maximum(longest // 2, longest - a_length))
    fits = a_length + b_length <= longest
    b_kept = np.where(fits, b_length, b_kept)
    a_kept = np.where(fits, a_length, longest - b_kept)
    examples = np.empty(len(table), dtype=EXAMPLE_DTYPE)
    examples["a_start"] = a_start + rng.binomial(a_length - a_kept, 0.5)
    examples["b_start"] = b_start + rng.binomial(b_length - b_kept, 0.5)
    examples["a_length"], examples["b_length"], examples["next_sentence_label"] = a_kept, b_kept, label
    return examples
