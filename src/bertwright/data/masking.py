"""Which tokens are predicted and what stands in their place, drawn anew in every epoch; or from left to right, all.

A mask is a pure function of (seed, epoch, example): whichever batch, rank or restart an example turns up in, it is the
same. A whole batch is masked in a few numpy passes. Paper: 3.1 (Task #1) and A.1.

What is chosen is words: all tokens of a word or none. Where nobody says what a word is, every token is one.

    tables = MaskVocabulary.of(wordpiece)
    masked = mask_tokens(ids, examples, epochs, starts, seed=0, config=MaskingConfig(), vocabulary=tables)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt64

from bertwright.config import MaskingConfig
from bertwright.data.counter import below, hashed, uniform
from bertwright.text.wordpiece import WordPiece

_PLACE, _KIND, _REPLACEMENT = 1, 2, 3  # separate streams of one example's randomness


class Masked(NamedTuple):
    """A batch and what is to be predicted in it."""

    input_ids: Int[np.ndarray, "N"]
    """What the model sees."""
    rows: Int[np.ndarray, "M"]
    """Rows of the N axis at which something is predicted, ascending."""
    labels: Int[np.ndarray, "M"]
    """What stood there, or from left to right what stands after it."""


@dataclass(frozen=True)
class MaskVocabulary:
    """What masking knows of a vocabulary."""

    mask_id: int
    """Id of [MASK]."""
    maskable: Bool[np.ndarray, "V"]
    """Tokens that may be predicted: all but [PAD], [CLS], [SEP] and [MASK]."""
    replacements: Int[np.ndarray, "W"]
    """Tokens that may stand in as random ones: neither special nor [unused]."""

    @classmethod
    def of(cls, wordpiece: WordPiece) -> MaskVocabulary:
        """Read the tables off a vocabulary."""
        maskable = np.ones(wordpiece.vocab_size, dtype=bool)
        maskable[[wordpiece.pad_id, wordpiece.cls_id, wordpiece.sep_id, wordpiece.mask_id]] = False
        plain = maskable & np.array([re.fullmatch(r"\[unused\d+\]", token) is None for token in wordpiece.tokens])
        plain[wordpiece.unk_id] = False
        return cls(mask_id=wordpiece.mask_id, maskable=maskable, replacements=np.flatnonzero(plain))


def mask_tokens(
    input_ids: Int[np.ndarray, "N"],
    examples: Int[np.ndarray, "B"],
    epochs: Int[np.ndarray, "B"],
    starts: Int[np.ndarray, "B+1"],
    *,
    seed: int,
    config: MaskingConfig,
    vocabulary: MaskVocabulary,
    goes_on: Bool[np.ndarray, "N"] | None = None,
) -> Masked:
    """Choose and hide `max(1, round(mask_prob * n))` of the n ordinary tokens of every sequence.

    The words of a sequence are gone through in random order. One is chosen unless that leads further away from the
    wanted number than leaving it. Of words of one token, that chooses exactly the wanted number. If every word is too
    long for that, the shortest is chosen: no sequence is without a target.

    Args:
        input_ids: packed ids, [CLS] and [SEP] included; left as they are.
        examples: the number of each sequence's example in its split.
        epochs: the epoch each sequence is drawn for.
        starts: where each sequence starts, and N at the end.
        seed: of the run.
        config: the shares, and whether what stands in a token's place is drawn for every token or every word.
        vocabulary: the tables of the vocabulary that the ids come from.
        goes_on: whether each token goes on with the word of the token before it; what follows [CLS] or [SEP] begins
            one in any case. None: every token is a word.

    Differs: google-research/bert counts [CLS] and [SEP] among the n; the paper masks 15 % of the WordPiece tokens. It
        leaves every word that would exceed the wanted number, so long words are predicted less often than short ones,
        and a sequence of long words has no target. Its words are pieces and their `##`, never Chinese ones.
    """
    lengths = np.diff(starts)
    assert len(lengths) <= 2**16, "a micro-batch holds at most 65,536 sequences"
    keys = hashed(seed, epochs, examples)
    rows = np.flatnonzero(vocabulary.maskable[input_ids])
    sequences = np.repeat(np.arange(len(lengths)), lengths)[rows]
    counts = np.bincount(sequences, minlength=len(lengths))
    wanted = np.minimum(counts, np.maximum(1, np.rint(counts * config.mask_prob).astype(np.int64)))
    begins = np.ones(len(rows), dtype=bool)
    if goes_on is not None:
        begins = ~goes_on[rows] | (np.diff(rows, prepend=-2) > 1) | (rows == starts[sequences])
    firsts, sequences, sizes = rows[begins], sequences[begins], np.diff(np.flatnonzero(begins), append=len(rows))

    bounds = np.searchsorted(sequences, np.arange(len(lengths) + 1))
    order = _shuffled(hashed(_PLACE, keys[sequences], firsts - starts[sequences]), sequences, bounds)
    chosen = np.sort(order[_choose(sizes[order], wanted, bounds)])
    sizes, firsts = sizes[chosen], np.repeat(firsts[chosen], sizes[chosen])
    rows = firsts + np.arange(len(firsts)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    sequences = np.repeat(sequences[chosen], sizes)

    keys, positions = keys[sequences], rows - starts[sequences]
    kind = uniform(hashed(_KIND, keys, (firsts if config.mask_draw == "word" else rows) - starts[sequences]))
    masked = kind < config.mask_token_prob
    replaced = ~masked & (kind < config.mask_token_prob + config.random_token_prob)
    pick = below(hashed(_REPLACEMENT, keys[replaced], positions[replaced]), len(vocabulary.replacements))
    shown = input_ids.copy()
    shown[rows[masked]] = vocabulary.mask_id
    shown[rows[replaced]] = vocabulary.replacements[pick.astype(np.int64)]
    return Masked(shown, rows, input_ids[rows])


def next_tokens(input_ids: Int[np.ndarray, "N"], starts: Int[np.ndarray, "B1"]) -> Masked:
    """Ask for every next token inside each sequence, from that after [CLS] to the final [SEP]; hide nothing.

    Args:
        input_ids: packed ids, [CLS] and [SEP] included.
        starts: where each sequence starts, and N at the end.
    """
    rows = np.delete(np.arange(starts[-1]), starts[1:] - 1)
    return Masked(input_ids, rows, input_ids[rows + 1])


def _shuffled(
    hashes: UInt64[np.ndarray, "W"], sequences: Int[np.ndarray, "W"], bounds: Int[np.ndarray, "_"]
) -> Int[np.ndarray, "W"]:
    """Return the numbers of the words, those of each sequence together and in the order of their hashes.

    One sort does all of them: the sequence stands in the high bits, half of the hash below it, and in the low bits, to
    be found afterwards, the number of the word in its sequence.
    """
    within = np.arange(len(sequences)) - bounds[sequences]
    packed = (sequences.astype(np.uint64) << np.uint64(48)) | (hashes >> np.uint64(32) << np.uint64(16))
    packed |= within.astype(np.uint64)
    packed.sort()
    within = (packed & np.uint64(0xFFFF)).astype(np.int64)
    return np.asarray(bounds[sequences] + within)


def _choose(
    sizes: Int[np.ndarray, "W"], wanted: Int[np.ndarray, "B"], bounds: Int[np.ndarray, "B+1"]
) -> Bool[np.ndarray, "W"]:
    """Go through the words of every sequence in their order, and tell which are chosen; see `mask_tokens`.

    Args:
        sizes: tokens of each word.
        wanted: tokens to choose of each sequence.
        bounds: where the words of each sequence begin, and W at the end.
    """
    ends = np.append(0, np.cumsum(sizes))
    # Up to the wanted number nothing is in doubt.
    chosen = np.asarray(ends[1:] <= np.repeat(ends[bounds[:-1]] + wanted, np.diff(bounds)))
    at = bounds[:-1] + np.diff(np.append(0, np.cumsum(chosen))[bounds])
    missing = wanted - (ends[at] - ends[bounds[:-1]])
    left = np.flatnonzero((missing > 0) & (at < bounds[1:]))
    while len(left):
        taken = sizes[at[left]] <= 2 * missing[left]
        chosen[at[left[taken]]] = True
        missing[left[taken]] -= sizes[at[left[taken]]]
        at[left] += 1
        left = left[(missing[left] > 0) & (at[left] < bounds[left + 1])]
    for sequence in np.flatnonzero((missing == wanted) & (wanted > 0)).tolist():
        start, end = bounds[sequence : sequence + 2]
        chosen[start + np.argmin(sizes[start:end])] = True
    return chosen
