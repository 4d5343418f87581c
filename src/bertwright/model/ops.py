"""Operations whose stock form wastes a processor's time, each with the plain form it is tested against.

* `dropout` and `dropout_add`: torch draws one 64-bit number per element on one thread; 16 bits are enough.
* `linear_cross_entropy`: the product with the vocabulary, its softmax and its gradients, a block of rows at a time.
* `in_order`: to count the different rows that heads read, torch waits for a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_CHUNK_ELEMENTS = 2**22
"""Logits whose softmax is taken at once; sized to stay in the last-level cache."""
BLOCK_ELEMENTS = 2**26
"""Logits that there are at once, 256 MiB in fp32: masked LM needs fewer, predicting every token four times as many."""


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each element with probability p and scale the others by 1 / (1 - p)."""
    if not training or p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p, training=True)
    return x * keep_mask(x, p)


def dropout_add(x: Float[Tensor, "N H"], residual: Float[Tensor, "N H"], p: float, training: bool) -> Tensor:
    """Return `residual + dropout(x)`."""
    if not training or p == 0.0:
        return residual + x
    if x.device.type != "cpu":
        return residual + F.dropout(x, p, training=True)
    return torch.addcmul(residual, x, keep_mask(x, p))


def keep_mask(x: Tensor, p: float) -> Tensor:
    """Return, in x's shape and dtype, 0 with probability p and 1 / (1 - p) otherwise, from torch's global generator.

    The probability is rounded to a multiple of 2**-16, and the scale is that of the rounded one: the mean is exact.
    """
    size = x.numel()
    draws = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[:size].view(x.shape)
    dropped = round(p * 2**16)
    keep = torch.ge(bits, dropped - 2**15, out=torch.empty_like(x))  # straight into x's dtype: no boolean in between
    return keep.mul_(2**16 / (2**16 - dropped))


def in_order(rows: Int[Tensor, "R"]) -> tuple[Int[Tensor, "U"], Int[Tensor, "R"]]:
    """Return rows in ascending order, and where among them each of those given is.

    On a CPU a row that was given twice is there once; on a GPU twice, and nobody waits to count.
    """
    if rows.device.type == "cpu":
        ordered, places = torch.unique(rows, return_inverse=True)
        return ordered, places
    ordered, order = rows.sort(stable=True)
    return ordered, torch.empty_like(order).scatter_(0, order, torch.arange(order.shape[0], device=order.device))


def linear_cross_entropy(
    hidden: Float[Tensor, "M H"], weight: Float[Tensor, "V H"], bias: Float[Tensor, "V"], labels: Int[Tensor, "M"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "M"], Bool[Tensor, "M"]]:
    """Return the summed cross-entropy of `hidden @ weight.T + bias`, that of each row, and whether its label is on top.

    The sum alone has a gradient.

    Args:
        hidden: in the compute dtype; the product is taken in it, softmax and loss in fp32.
        weight: cast to hidden's dtype.
        bias: likewise.
        labels: int64, every one a class.
    """
    total, losses, right = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight.to(hidden.dtype), bias.to(hidden.dtype), labels
    )
    return total, losses, right


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are taken with the loss, up to the factor that `backward` is told: no logits are kept for it."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        needs_grad = any(ctx.needs_input_grad)
        rows = max(1, BLOCK_ELEMENTS // weight.shape[0])
        losses, right = torch.empty_like(labels, dtype=torch.float32), torch.empty_like(labels, dtype=torch.bool)
        d_hidden = torch.empty_like(hidden) if needs_grad else hidden
        d_weight, d_bias = (torch.zeros_like(x, dtype=torch.float32) if needs_grad else x for x in (weight, bias))
        every = (hidden, labels, d_hidden, losses, right)
        for some, some_labels, d_some, *found in zip(*(x.split(rows) for x in every), strict=True):
            logits = F.linear(some, weight, bias)
            _cross_entropy(logits, some_labels, *found, needs_grad=needs_grad)
            if needs_grad:
                torch.mm(logits, weight, out=d_some)
                d_weight += logits.T @ some
                d_bias += logits.sum(0, dtype=torch.float32)
            del logits  # before the next block's are made
        if needs_grad:
            ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype), d_bias.to(bias.dtype))
        ctx.mark_non_differentiable(losses, right)
        return losses.sum(), losses, right

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        d_hidden, d_weight, d_bias = (each * gradients[0].to(each.dtype) for each in ctx.saved_tensors)
        return d_hidden, d_weight, d_bias, None


def _cross_entropy(logits: Tensor, labels: Tensor, losses: Tensor, right: Tensor, *, needs_grad: bool) -> None:
    """Write down losses and right answers; leave the gradient of the losses' sum where the logits were, if asked to."""
    rows = max(1, _CHUNK_ELEMENTS // logits.shape[1])
    every = (logits, labels, losses, right)
    for some_logits, some_labels, some_losses, some_right in zip(*(x.split(rows) for x in every), strict=True):
        column = some_labels.unsqueeze(1)
        top, best = some_logits.max(1, keepdim=True)
        some_right.copy_((best == column).squeeze(1))
        probs = torch.softmax(some_logits, 1, dtype=torch.float32)
        log_sum_exp = top.float() - probs.gather(1, best).log()  # the top probability is at least 1 / V: a safe log
        some_losses.copy_((log_sum_exp - some_logits.gather(1, column).float()).squeeze(1))
        if needs_grad:  # d total / d logits = softmax - one-hot
            probs.scatter_add_(1, column, probs.new_full(column.shape, -1.0))
            some_logits.copy_(probs)
