"""The bricks: a linear map and a layer normalisation whose fp32 weights follow the dtype of what flows through them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_gelu_tanh = functools.partial(F.gelu, approximate="tanh")


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _linear(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_python": F.gelu,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": _linear,
}
"""By `hidden_act`. Differs: google-research/bert first released erf GELU under the name `gelu`, later tanh."""


class Linear(nn.Linear):
    """`x @ weight.T + bias` in x's dtype; weight and bias stay fp32 masters."""

    def forward(self, x: Float[Tensor, "N in"]) -> Float[Tensor, "N out"]:
        """Return the product in x's dtype."""
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class LayerNorm(nn.LayerNorm):
    """Layer normalisation with fp32 statistics and weights, in and out in x's dtype."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__(hidden_size, eps=eps)

    def forward(self, x: Float[Tensor, "N H"]) -> Float[Tensor, "N H"]:
        """Return x with zero mean and unit variance per row, scaled and shifted."""
        if x.device.type == "cpu":  # the CPU kernel mixes dtypes: bf16 rows, fp32 weights
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)
