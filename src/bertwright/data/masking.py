"""Which tokens are predicted and what stands in their place, drawn anew in every epoch; or from left to right, all.

A mask is a pure function of (seed, epoch, example): whichever batch, rank or restart an example turns up in, it is the
same. A whole batch is masked in a few numpy passes. Paper: 3.1 (Task #1) and A.1.

    tables = MaskVocabulary.of(wordpiece)
    masked = mask_tokens(ids, examples, epochs, starts, seed=0, config=MaskingConfig(), vocabulary=tables)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

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
) -> Masked:
    """Choose and hide exactly `max(1, round(mask_prob * n))` of the n ordinary tokens of every sequence.

    Args:
        input_ids: packed ids, [CLS] and [SEP] included; left as they are.
        examples: the number of each sequence's example in its split.
        epochs: the epoch each sequence is drawn for.
        starts: where each sequence starts, and N at the end.
        seed: of the run.
        config: the shares.
        vocabulary: the tables of the vocabulary that the ids come from.

    Differs: google-research/bert counts [CLS] and [SEP] among the n; the paper masks 15 % of the WordPiece tokens.
    """
    lengths = np.diff(starts)
    assert len(lengths) <= 2**16, "a micro-batch holds at most 65,536 sequences"
    keys = hashed(seed, epochs, examples)
    sequences = np.repeat(np.arange(len(lengths)), lengths)
    rows = np.flatnonzero(vocabulary.maskable[input_ids])
    sequences = sequences[rows]
    positions = rows - starts[sequences]

    # Of each sequence, the places with the smallest hashes. One sort does all of them: the sequence stands in the high
    # bits and the position, needed afterwards, in the low ones.
    order = hashed(_PLACE, keys[sequences], positions) >> np.uint64(32)
    packed = (sequences.astype(np.uint64) << np.uint64(48)) | (order << np.uint64(16)) | positions.astype(np.uint64)
    packed.sort()
    counts = np.bincount(sequences, minlength=len(lengths))
    wanted = np.minimum(counts, np.maximum(1, np.rint(counts * config.mask_prob).astype(np.int64)))
    rank = np.arange(len(packed)) - np.repeat(np.cumsum(counts) - counts, counts)
    packed = packed[rank < np.repeat(wanted, counts)]
    sequences = (packed >> np.uint64(48)).astype(np.int64)
    rows = np.sort(starts[sequences] + (packed & np.uint64(0xFFFF)).astype(np.int64))

    keys, positions = keys[sequences], rows - starts[sequences]
    kind = uniform(hashed(_KIND, keys, positions))
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
