"""From a position to a batch: the whole state of the data is one integer.

`position` counts the examples consumed since the start of a run: epoch `position // len(split)`, place
`position % len(split)` in that epoch's order. The order is a permutation keyed by (seed, epoch), the masks are keyed by
(seed, epoch, example), so a resumed run, or one on other hardware, sees the same batches. How much is masked and how
large a batch is may depend on the step as well (`data.course`).

    loader = PretrainLoader(shards.split("train"), wordpiece=shards.wordpiece, batch_tokens=32_768)
    step = loader.batches_at(0)
    step = loader.batches_at(step.next_position)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int, UInt

from bertwright.batch import Batch, LazyBatches
from bertwright.config import LEFT_TO_RIGHT, MaskingConfig, ObjectiveName
from bertwright.data.counter import generator
from bertwright.data.course import Course
from bertwright.data.masking import MaskVocabulary, mask_tokens, next_tokens
from bertwright.data.shards import Split
from bertwright.errors import BertwrightError
from bertwright.text.wordpiece import WordPiece

_ORDER = 1  # the stream of epoch permutations, apart from all other uses of the seed
_SHORTEST = 3  # tokens of the shortest example there can be
_EVAL_SEED = 0


@dataclass(frozen=True)
class StepBatch:
    """What one optimizer step trains on."""

    micro_batches: Sequence[Batch]
    """The step's examples, shortest first, cut so that each holds at most `micro_batch_tokens`."""
    next_position: int
    """Where the next step starts."""
    num_tokens: int
    """Tokens of all micro-batches, specials included."""
    num_examples: int
    """Sequences of all micro-batches."""


class PretrainLoader:
    """Batches of a split for pre-training.

    Each batch's `targets` hold `masked_rows` and `masked_labels`, both int64 [M], and for `mlm+nsp` and `ltr+nsp`
    `next_sentence_label`, int64 [B]: 0 where B follows A, 1 where it is random. For `ltr` nothing is masked: the rows
    are all but each sequence's last, the labels the tokens that follow them.

    Args:
        split: of an open `ShardSet`.
        wordpiece: the vocabulary of the shards.
        masking: the dials of masking; of no use to `ltr`.
        batch_tokens: most tokens in one step, unless a single example is longer.
        micro_batch_tokens: most tokens in one micro-batch, likewise.
        seed: of order and masks.
        objective: `mlm` and `ltr` may also be trained on shards of pairs; their labels are then left out.
        max_length_limit: longest sequence the model takes.
        static_masks: how many different masks an example has, in turn from epoch to epoch; 0: new ones in every epoch.
        course: what changes from step to step; where not given, nothing does.

    Raises:
        BertwrightError: the split is empty, has no pairs for next-sentence labels, is longer than the model takes, or
            does not know the words that `masking` asks for.
    """

    def __init__(
        self,
        split: Split,
        *,
        wordpiece: WordPiece,
        masking: MaskingConfig | None = None,
        batch_tokens: int = 32_768,
        micro_batch_tokens: int = 8_192,
        seed: int = 0,
        objective: ObjectiveName = "mlm+nsp",
        max_length_limit: int | None = None,
        static_masks: int = 0,
        course: Course | None = None,
    ) -> None:
        if not len(split):
            raise BertwrightError(f"the shards hold no examples for {split.name!r}", fix="build them from more text")
        self._tokens, _, nsp = objective.partition("+")
        self._paired = bool(nsp)
        if self._paired and split.config.objective != "mlm+nsp":
            raise BertwrightError(
                f"the shards hold single segments, but objective {objective!r} needs pairs",
                fix=f"train with `--objective {self._tokens}`, or build the shards with `--objective mlm+nsp`",
            )
        if max_length_limit is not None and split.config.max_length > max_length_limit:
            raise BertwrightError(
                f"the shards' examples reach {split.config.max_length} tokens, the model takes {max_length_limit}",
                fix=f"build the shards with `--max-length {max_length_limit}`",
            )
        self.split = split
        self.batch_tokens = batch_tokens
        self.micro_batch_tokens = micro_batch_tokens
        self.seed = seed
        self.static_masks = static_masks
        self.course = course
        self.causal = objective in LEFT_TO_RIGHT
        self._lengths = split.lengths()
        self._masking = masking or MaskingConfig()
        self._masks_words = split.masks_words(self._masking)
        self._vocabulary = MaskVocabulary.of(wordpiece)
        self._cls_id, self._sep_id = wordpiece.cls_id, wordpiece.sep_id
        # Two orders, for the batch that crosses from one epoch into the next.
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def batches_at(self, position: int, step: int = 0) -> StepBatch:
        """Return the batch of the step that starts at a position; which step it is matters to a `course` alone."""
        masking, batch_tokens = self._masking, self.batch_tokens
        if self.course is not None:
            masking = replace(masking, mask_prob=self.course.mask_prob(step))
            batch_tokens = round(self.course.batch_share(step) * batch_tokens)
        examples, epochs = self._examples_at(position, batch_tokens)
        return StepBatch(
            micro_batches=self._micro_batches(examples, epochs, self.seed, self.micro_batch_tokens, masking),
            next_position=position + len(examples),
            num_tokens=int(self._lengths[examples].sum(dtype=np.int64)),
            num_examples=len(examples),
        )

    def eval_batches(self, max_tokens: int) -> Sequence[Batch]:
        """Return the same batches every time, for any run's seed: the first `max_tokens` of one fixed shuffle."""
        order = generator(_EVAL_SEED, _ORDER, 0).permutation(len(self.split))
        examples = order[: _num_within(self._lengths[order], max_tokens)]
        epochs = np.zeros_like(examples)
        return self._micro_batches(examples, epochs, _EVAL_SEED, self.micro_batch_tokens, self._masking)

    def _draw_order(self, epoch: int) -> Int[np.ndarray, "E"]:
        return generator(self.seed, _ORDER, epoch).permutation(len(self.split))

    def _examples_at(self, position: int, batch_tokens: int) -> tuple[Int[np.ndarray, "B"], Int[np.ndarray, "B"]]:
        """Return the numbers and epochs of consecutive examples, as many as `batch_tokens` holds and at least one."""
        epoch, index = divmod(position, len(self.split))
        window = batch_tokens // _SHORTEST + 1
        examples = self._order(epoch)[index : index + window]
        epochs = np.full(len(examples), epoch)
        while len(examples) < window:
            epoch += 1
            following = self._order(epoch)[: window - len(examples)]
            examples = np.concatenate([examples, following])
            epochs = np.concatenate([epochs, np.full(len(following), epoch)])
        count = _num_within(self._lengths[examples], batch_tokens)
        return examples[:count], epochs[:count]

    def _micro_batches(
        self,
        examples: Int[np.ndarray, "B"],
        epochs: Int[np.ndarray, "B"],
        seed: int,
        limit: int,
        masking: MaskingConfig,
    ) -> Sequence[Batch]:
        # Sequences of like length together: attention works on buckets of them.
        by_length = np.argsort(self._lengths[examples], kind="stable")
        examples, epochs = examples[by_length], epochs[by_length]
        cuts = _cut(self._lengths[examples], limit)
        return LazyBatches([partial(self._batch, examples[i:j], epochs[i:j], seed, masking) for i, j in pairwise(cuts)])

    def _batch(
        self, examples: Int[np.ndarray, "B"], epochs: Int[np.ndarray, "B"], seed: int, masking: MaskingConfig
    ) -> Batch:
        lengths = self._lengths[examples].astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        input_ids = np.full(starts[-1], self._sep_id, dtype=np.int64)
        token_type_ids = np.zeros(starts[-1], dtype=np.int64)
        input_ids[starts[:-1]] = self._cls_id
        goes_on = np.zeros(starts[-1], dtype=bool) if self._masks_words else None
        raw = self.split.gather(examples)
        for (a, b, _, a_goes_on, b_goes_on), start, end in zip(raw, starts.tolist(), starts[1:].tolist(), strict=False):
            a_end = start + 1 + len(a)
            input_ids[start + 1 : a_end] = a
            if b is not None:
                input_ids[a_end + 1 : end - 1] = b
                token_type_ids[a_end + 1 : end] = 1
            if goes_on is not None:
                goes_on[start + 1 : a_end] = a_goes_on
                if b is not None:
                    goes_on[a_end + 1 : end - 1] = b_goes_on
        if self.causal:
            masked = next_tokens(input_ids, starts)
        else:
            masked = mask_tokens(
                input_ids,
                examples,
                epochs % self.static_masks if self.static_masks else epochs,
                starts,
                seed=seed,
                config=masking,
                vocabulary=self._vocabulary,
                goes_on=goes_on,
            )
        targets = {"masked_rows": torch.from_numpy(masked.rows), "masked_labels": torch.from_numpy(masked.labels)}
        if self._paired:
            targets["next_sentence_label"] = torch.tensor([example.next_sentence_label for example in raw])
        return Batch(
            input_ids=torch.from_numpy(masked.input_ids),
            token_type_ids=torch.from_numpy(token_type_ids),
            position_ids=torch.from_numpy(np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)),
            cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
            max_length=int(lengths.max()),
            targets=targets,
        )


@dataclass(frozen=True)
class Phase:
    """A part of a run that has data of its own."""

    name: str
    """`short` (cropped examples), `whole` or `long`."""
    loader: PretrainLoader
    """Its batches."""
    until: int
    """The first step that is no longer part of it."""
    held_out: PretrainLoader | None = None
    """What it is evaluated on."""
    from_start: bool = False
    """Whether it begins with the first of its examples, instead of going on where the phase before it was."""


class Phases:
    """Phases of a run, one after the other, as one stream.

    Args:
        phases: in order; the last one's `until` is the number of steps.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = phases

    def at(self, step: int) -> Phase:
        """Return the phase that a step belongs to; the last one from its end on."""
        return next((phase for phase in self.phases if step < phase.until), self.phases[-1])

    def batches_at(self, position: int, step: int) -> StepBatch:
        """Return the batch of a step, which starts at a position of its phase."""
        found, following = self.at(step).loader.batches_at(position, step), self.at(step + 1)
        changes = following is not self.at(step) and following.from_start
        return replace(found, next_position=0) if changes else found


def _num_within(lengths: UInt[np.ndarray, "B"], max_tokens: int) -> int:
    """Return how many sequences from the front fit into a budget, at least one."""
    return max(1, int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), max_tokens, side="right")))


def _cut(lengths: UInt[np.ndarray, "B"], limit: int) -> list[int]:
    """Cut a row of sequences into as few runs as a token limit allows, of about equal size; return where they start.

    Filling each run to the limit would leave a small one at the end, so the limit is lowered as far as the same number
    of runs still holds everything.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    num_runs = len(_fill(ends, limit)) - 1
    even = -(-int(ends[-1]) // num_runs) + int(lengths.max())
    return _fill(ends, min(limit, even))


def _fill(ends: Int[np.ndarray, "B"], limit: int) -> list[int]:
    cuts = [0]
    while cuts[-1] < len(ends):
        done = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, done + limit, side="right"))))
    return cuts
