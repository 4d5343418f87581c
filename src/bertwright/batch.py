"""The two shapes that travel between floors: a batch without padding, and a loss that nobody has divided yet.

Axes, here and everywhere: N packed tokens, B sequences, B1 = B + 1, T padded length, H hidden, A heads, D head width,
V vocabulary, M masked tokens, R needed rows, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Sequences laid end to end: no token in it is padding.

    Sequence b occupies rows `cu_seqlens[b]` up to, not including, `cu_seqlens[b + 1]` of every `[N]` tensor.
    """

    input_ids: Int[Tensor, "N"]
    """Vocabulary ids, int64."""
    token_type_ids: Int[Tensor, "N"]
    """0 in segment A, 1 in segment B, int64."""
    position_ids: Int[Tensor, "N"]
    """Place within the sequence, from 0, int64."""
    cu_seqlens: Int[Tensor, "B1"]
    """Where each sequence starts, and N at the end, int32."""
    max_length: int
    """Tokens of the longest sequence."""
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    """What the objective or task predicts, by name; rows index the N axis."""

    @classmethod
    def pack(
        cls,
        input_ids: list[np.ndarray] | list[list[int]],
        token_type_ids: list[np.ndarray] | list[list[int]],
        targets: Mapping[str, Tensor] | None = None,
    ) -> Batch:
        """Lay sequences end to end.

        Args:
            input_ids: one array of ids per sequence; none may be empty.
            token_type_ids: likewise, of the same lengths.
            targets: kept as they are.
        """
        lengths = np.array([len(ids) for ids in input_ids], dtype=np.int64)
        assert lengths.size and lengths.min() > 0, "a batch needs at least one sequence, and none of length 0"
        starts = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        return cls(
            input_ids=torch.from_numpy(np.concatenate(input_ids).astype(np.int64)),
            token_type_ids=torch.from_numpy(np.concatenate(token_type_ids).astype(np.int64)),
            position_ids=torch.from_numpy(positions),
            cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
            max_length=int(lengths.max()),
            targets=targets or {},
        )

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.input_ids.shape[0]

    @property
    def num_sequences(self) -> int:
        """B."""
        return self.cu_seqlens.shape[0] - 1

    @property
    def first_rows(self) -> Int[Tensor, "B"]:
        """The row of every sequence's [CLS], int64."""
        return self.cu_seqlens[:-1].long()

    @property
    def last_rows(self) -> Int[Tensor, "B"]:
        """The row of every sequence's last token, its final [SEP], int64."""
        return self.cu_seqlens[1:].long() - 1

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device; a GPU copies it while others go on."""
        there = torch.device(device)
        return self._with(lambda tensor: _moved(tensor, there))

    def pinned(self) -> Batch:
        """Return the batch in memory that a GPU reads by itself."""
        return self._with(torch.Tensor.pin_memory)

    def padded(self, multiple: int) -> Batch:
        """Return the batch with sequences behind it that nobody reads, so that N is a multiple: for few shapes.

        The added sequences are no longer than those that are there, and see themselves alone.

        Args:
            multiple: of tokens; 1 leaves the batch as it is.
        """
        missing = -self.num_tokens % multiple
        if not missing:
            return self
        ids, device = self.input_ids.new_zeros(missing), self.input_ids.device
        places = torch.arange(missing, device=device) % self.max_length
        ends = torch.arange(self.max_length, missing + self.max_length, self.max_length, device=device)
        ends = self.num_tokens + ends.clamp(max=missing).to(self.cu_seqlens.dtype)
        return replace(
            self,
            input_ids=torch.cat([self.input_ids, ids]),
            token_type_ids=torch.cat([self.token_type_ids, ids]),
            position_ids=torch.cat([self.position_ids, places]),
            cu_seqlens=torch.cat([self.cu_seqlens, ends]),
        )

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            input_ids=change(self.input_ids),
            token_type_ids=change(self.token_type_ids),
            position_ids=change(self.position_ids),
            cu_seqlens=change(self.cu_seqlens),
            targets={name: change(tensor) for name, tensor in self.targets.items()},
        )


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class LazyBatches(Sequence[Batch]):
    """Batches that are made when they are asked for: of those of a step, a process needs only its own.

    Args:
        makers: one for each batch.
    """

    def __init__(self, makers: Sequence[Callable[[], Batch]]) -> None:
        self._makers = makers

    def __len__(self) -> int:
        return len(self._makers)

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice) -> LazyBatches: ...

    def __getitem__(self, index: int | slice) -> Batch | LazyBatches:
        return LazyBatches(self._makers[index]) if isinstance(index, slice) else self._makers[index]()

    def __iter__(self) -> Iterator[Batch]:
        return (make() for make in self._makers)


class LossTerm(NamedTuple):
    """A sum and how many things it sums. Only the training loop divides, by the count over micro-batches and ranks."""

    total: Float[Tensor, ""]
    """Sum over the counted things, fp32."""
    count: int  # type: ignore[assignment]  # tuple.count is of no use here
    """How many."""


class TokenScores(NamedTuple):
    """What became of every predicted token, in the order of the batch's `masked_rows`."""

    losses: Float[Tensor, "M"]
    """Cross-entropy of each, fp32, without a gradient."""
    right: Bool[Tensor, "M"]
    """Whether the likeliest entry of the vocabulary was the right one."""


class StepOutput(NamedTuple):
    """What an objective says about one batch."""

    losses: dict[str, LossTerm]
    """Terms that are minimised: their means are added."""
    metrics: dict[str, LossTerm]
    """Terms that are only reported, such as the number of right answers."""
    tokens: TokenScores | None = None
    """The same token by token, of an objective that predicts tokens; for an evaluation to sort them."""
