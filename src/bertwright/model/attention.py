"""Scaled dot-product attention over packed sequences: one function, several implementations.

Paper: 3; Vaswani et al. 2017, 3.2.

Queries may stand on fewer rows than keys: the last layer needs outputs only where a head reads them.

    layout = AttentionLayout.of(batch.cu_seqlens, query_rows=None)
    context = ATTENTION["bucketed"](query, key, value, layout, dropout_p=0.1)

* `reference`: one big masked softmax, for tests; memory grows with N squared.
* `bucketed`: sequences of like length stacked, then product, softmax, product. The quickest on CPUs.
* `flash`: CUDA's variable-length kernel, with dropout; the same numbers whenever it is run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bertwright.model.ops import dropout

_ALIGNED = 32
"""Keys are stacked to a multiple of this: CPU softmax is up to six times slower on rows that fill no whole vectors."""
_UNIFORM_RUN = 8
"""This many sequences of one aligned length get a bucket of their own: nothing to pad, nothing to mask."""


@dataclass(frozen=True)
class Bucket:
    """Sequences of like length, neighbours once sequences are ordered from short to long."""

    num_sequences: int
    query_length: int
    """Queries of the sequence that has most."""
    key_length: int
    """Keys of the longest sequence, rounded up to whole vectors."""
    num_queries: int
    """Rows of all its sequences."""
    num_keys: int
    pad_queries: tuple[Tensor, Tensor] | None
    """Rows to stack, and the way back; None where every sequence has `query_length` queries."""
    pad_keys: tuple[Tensor, Tensor] | None
    """Likewise; None where every sequence has `key_length` keys."""
    key_bias: Tensor | None
    """0 on the keys that a query may see, -inf on padding and on later tokens; `[b or 1, 1, queries or 1, keys]`."""


@dataclass(frozen=True)
class AttentionLayout:
    """Which rows belong to which sequence, on the query side and on the key side; computed once per batch."""

    query_cu_seqlens: Int[Tensor, "B1"]
    key_cu_seqlens: Int[Tensor, "B1"]
    causal: bool = False
    """Whether a query sees only its own row and those before it; queries then stand on every row."""
    max_length: int | None = None
    """Tokens of the longest sequence, where the caller knows them: else a GPU has to be asked, and waited for."""

    @classmethod
    def of(
        cls,
        cu_seqlens: Int[Tensor, "B1"],
        query_rows: Int[Tensor, "R"] | None = None,
        *,
        causal: bool = False,
        max_length: int | None = None,
    ) -> AttentionLayout:
        """Describe a batch whose queries stand on `query_rows` (ascending), or on every row."""
        if query_rows is None:
            return cls(cu_seqlens, cu_seqlens, causal, max_length)
        assert not causal, "causal attention wants a query on every row"
        query_cu_seqlens = torch.searchsorted(query_rows, cu_seqlens.to(query_rows.dtype)).to(torch.int32)
        return cls(query_cu_seqlens, cu_seqlens, max_length=max_length)

    @cached_property
    def max_lengths(self) -> tuple[int, int]:
        """Most queries and most keys of any sequence; or a number that is no smaller."""
        if self.max_length is not None:
            return self.max_length, self.max_length
        return int(self.query_cu_seqlens.diff().max()), int(self.key_cu_seqlens.diff().max())

    @cached_property
    def plan(self) -> tuple[tuple[Tensor, Tensor] | None, tuple[Tensor, Tensor] | None, list[Bucket]]:
        """How `bucketed` rearranges queries and keys by length (None: already in order), and its buckets."""
        device = self.key_cu_seqlens.device
        query_starts, key_starts = (
            cu.cpu().numpy().astype(np.int64) for cu in (self.query_cu_seqlens, self.key_cu_seqlens)
        )
        query_lengths, key_lengths = np.diff(query_starts), np.diff(key_starts)
        order = np.argsort(key_lengths, kind="stable")
        if (order == np.arange(order.size)).all():
            sort_queries = sort_keys = None
        else:
            sort_queries, sort_keys = (
                _there_and_back(_ragged_rows(starts[order], lengths[order]), device)
                for starts, lengths in ((query_starts, query_lengths), (key_starts, key_lengths))
            )
        query_lengths, key_lengths = query_lengths[order], key_lengths[order]
        cuts = _cut_by_length(key_lengths)
        buckets = [
            _make_bucket(query_lengths[start:end], key_lengths[start:end], device, causal=self.causal)
            for start, end in pairwise(cuts)
        ]
        return sort_queries, sort_keys, buckets


Attention = Callable[
    [Float[Tensor, "R A D"], Float[Tensor, "N A D"], Float[Tensor, "N A D"], AttentionLayout, float],
    Float[Tensor, "R A D"],
]


def reference(query: Tensor, key: Tensor, value: Tensor, layout: AttentionLayout, dropout_p: float) -> Tensor:
    """The definition: every query against every key, with those of other sequences masked."""
    query_sequence, key_sequence = (
        torch.repeat_interleave(torch.arange(cu.shape[0] - 1, device=cu.device), cu.diff().long())
        for cu in (layout.query_cu_seqlens, layout.key_cu_seqlens)
    )
    scores = torch.einsum("rad,nad->arn", query, key) * query.shape[-1] ** -0.5
    hidden = query_sequence[:, None] != key_sequence[None, :]
    if layout.causal:
        hidden = hidden | torch.ones_like(hidden).triu(1)
    scores = scores.masked_fill(hidden, float("-inf"))
    probs = dropout(torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype), dropout_p, dropout_p > 0)
    return torch.einsum("arn,nad->rad", probs, value)


def bucketed(query: Tensor, key: Tensor, value: Tensor, layout: AttentionLayout, dropout_p: float) -> Tensor:
    """Stack sequences of like length and attend within each stack."""
    sort_queries, sort_keys, buckets = layout.plan
    query = query * query.shape[-1] ** -0.5
    if sort_queries is not None and sort_keys is not None:
        query, key, value = _take(query, sort_queries), _take(key, sort_keys), _take(value, sort_keys)
    queries = query.split([bucket.num_queries for bucket in buckets])
    keys, values = (rows.split([bucket.num_keys for bucket in buckets]) for rows in (key, value))
    contexts = [_attend(*parts, dropout_p) for parts in zip(queries, keys, values, buckets, strict=True)]
    context = contexts[0] if len(contexts) == 1 else torch.cat(contexts)
    return context if sort_queries is None else _take(context, sort_queries[::-1])


def flash(query: Tensor, key: Tensor, value: Tensor, layout: AttentionLayout, dropout_p: float) -> Tensor:
    """CUDA's variable-length flash attention; bf16 or fp16 only, heads of at most 256 columns, a multiple of 8."""
    context: Tensor = _Flash.apply(query, key, value, layout, dropout_p)  # type: ignore[no-untyped-call]
    return context


class _Flash(torch.autograd.Function):
    """torch's own operator and its gradient; the latter in the form that adds in a fixed order.

    By itself it adds up the gradient of queries as blocks of keys get done, so that no two runs give the same bits.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: AttentionLayout, dropout_p: float
    ) -> Tensor:
        ctx.rows = layout.query_cu_seqlens, layout.key_cu_seqlens, *layout.max_lengths
        ctx.dropout_p, ctx.causal = dropout_p, layout.causal
        context, log_sum_exp, random_state, unused, _ = torch.ops.aten._flash_attention_forward(
            query, key, value, *ctx.rows, dropout_p, layout.causal, False
        )
        ctx.save_for_backward(query, key, value, context, log_sum_exp, random_state, unused)
        result: Tensor = context
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        *kept, random_state, unused = ctx.saved_tensors
        with _fixed_order():
            d_query, d_key, d_value = torch.ops.aten._flash_attention_backward(
                gradients[0], *kept, *ctx.rows, ctx.dropout_p, ctx.causal, random_state, unused
            )
        return d_query, d_key, d_value, None, None


@contextmanager
def _fixed_order() -> Iterator[None]:
    """Ask for sums that come out the same every time."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    filled, settings.fill_uninitialized_memory = settings.fill_uninitialized_memory, False  # all of it is written
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = filled


ATTENTION: dict[str, Attention] = {"reference": reference, "bucketed": bucketed, "flash": flash}


def choose_attention(query: Float[Tensor, "R A D"]) -> Attention:
    """Return the quickest implementation for a query's device, dtype and width of heads."""
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16):
        return bucketed
    width = query.shape[-1]
    return flash if width % 8 == 0 and width <= 256 and _has_flash(query.device) else bucketed


@functools.cache
def _has_flash(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _attend(query: Tensor, key: Tensor, value: Tensor, bucket: Bucket, dropout_p: float) -> Tensor:
    heads, width = query.shape[1:]
    stacked_query = _stack(query, bucket.pad_queries, bucket.num_sequences, bucket.query_length)
    stacked_key, stacked_value = (
        _stack(x, bucket.pad_keys, bucket.num_sequences, bucket.key_length) for x in (key, value)
    )
    scores = torch.bmm(stacked_query, stacked_key.transpose(1, 2))
    if bucket.key_bias is not None:
        by_sequence = scores.view(bucket.num_sequences, heads, *scores.shape[1:])
        scores = (by_sequence + bucket.key_bias.to(scores.dtype)).view_as(scores)
    probs = dropout(torch.softmax(scores, -1), dropout_p, dropout_p > 0)
    context = torch.bmm(probs, stacked_value)
    rows = context.view(bucket.num_sequences, heads, bucket.query_length, width).transpose(1, 2)
    rows = rows.reshape(bucket.num_sequences * bucket.query_length, heads, width)
    if bucket.pad_queries is None:
        return rows
    unpadded: Tensor = _Unpad.apply(rows, bucket.pad_queries[1])  # type: ignore[no-untyped-call]
    return unpadded


def _stack(x: Float[Tensor, "n A D"], pad: tuple[Tensor, Tensor] | None, sequences: int, length: int) -> Tensor:
    """Rows of one bucket as `[b * A, length, D]`."""
    if pad is not None:
        x = _take(x, pad)
    heads, width = x.shape[1:]
    return x.view(sequences, length, heads, width).transpose(1, 2).reshape(sequences * heads, length, width)


def _take(x: Tensor, there_and_back: tuple[Tensor, ...]) -> Tensor:
    """Select rows `there`; the gradient selects rows `back`.

    The stock gradient of a row selection adds rows one by one on a single thread. Rows selected twice must be padding,
    whose gradient is zero.
    """
    taken: Tensor = _Take.apply(x, *there_and_back)  # type: ignore[no-untyped-call]
    return taken


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradients[0].index_select(0, back), None, None


class _Unpad(torch.autograd.Function):
    """Select the rows of a stack that are no padding; padding's gradient is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, own: Tensor) -> Tensor:
        ctx.save_for_backward(own)
        ctx.num_rows = x.shape[0]
        return x.index_select(0, own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (own,) = ctx.saved_tensors
        gradient = gradients[0]
        return gradient.new_zeros(ctx.num_rows, *gradient.shape[1:]).index_copy_(0, own, gradient), None


def _cut_by_length(lengths: np.ndarray) -> list[int]:
    """Cut sequences, shortest first, into buckets of one aligned length; return where each starts, and their number."""
    aligned = _align(lengths)
    cuts = {0, lengths.size, *(np.flatnonzero(np.diff(aligned)) + 1).tolist()}
    for length in np.unique(aligned):
        start, end = (int(np.searchsorted(lengths, length, side=side)) for side in ("left", "right"))
        if end - start >= _UNIFORM_RUN:
            cuts.add(start)
    return sorted(cuts)


def _align(lengths: np.ndarray) -> np.ndarray:
    return -(-lengths // _ALIGNED) * _ALIGNED


def _make_bucket(query_lengths: np.ndarray, key_lengths: np.ndarray, device: torch.device, *, causal: bool) -> Bucket:
    key_length, query_length = int(_align(key_lengths).max()), int(query_lengths.max())
    pad_keys, key_bias = _padding(key_lengths, key_length, device), None
    if pad_keys is not None:
        own = np.arange(key_length) < key_lengths[:, None]
        key_bias = torch.from_numpy(np.where(own, 0.0, -np.inf).astype(np.float32))[:, None, None, :].to(device)
    if causal:
        later = torch.full((query_length, key_length), float("-inf"), device=device).triu(1)
        key_bias = later if key_bias is None else key_bias + later
    return Bucket(
        num_sequences=key_lengths.size,
        query_length=query_length,
        key_length=key_length,
        num_queries=int(query_lengths.sum()),
        num_keys=int(key_lengths.sum()),
        pad_queries=_padding(query_lengths, query_length, device),
        pad_keys=pad_keys,
        key_bias=key_bias,
    )


def _padding(lengths: np.ndarray, stacked: int, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Rows that stack ragged sequences to one length, and the rows of that stack that are no padding."""
    if (lengths == stacked).all():
        return None
    starts = np.cumsum(lengths) - lengths
    column = np.arange(stacked)
    own = column < lengths[:, None]
    there = np.where(own, starts[:, None] + column, 0)
    return torch.from_numpy(there.reshape(-1)).to(device), torch.from_numpy(np.flatnonzero(own)).to(device)


def _ragged_rows(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenate `range(start, start + length)` over sequences."""
    first = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return first + np.arange(lengths.sum())


def _there_and_back(rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    back = np.empty_like(rows)
    back[rows] = np.arange(rows.size)
    return torch.from_numpy(rows).to(device), torch.from_numpy(back).to(device)
