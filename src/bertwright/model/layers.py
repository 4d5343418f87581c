"""The bricks: a linear map and a layer normalisation whose fp32 weights follow the dtype of what flows through them.

And an LSTM over packed sequences, which is always computed in fp32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bertwright.errors import BertwrightError

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


class BiLSTM(nn.LSTM):
    """An LSTM over each sequence of a batch, in both directions, fp32.

    Args:
        input_size: width of what it reads.
        output_size: of both directions together; even.
        num_layers: one on the other.
    """

    def __init__(self, input_size: int, output_size: int, num_layers: int) -> None:
        if output_size % 2:
            raise BertwrightError(f"a BiLSTM has two directions of one width: {output_size} is not even")
        super().__init__(input_size, output_size // 2, num_layers, bidirectional=True)

    def forward(  # type: ignore[override]  # sequences laid end to end in, likewise out
        self, x: Float[Tensor, "N in"], cu_seqlens: Int[Tensor, "B1"]
    ) -> Float[Tensor, "N out"]:
        """Return both directions' outputs for every token, in x's dtype."""
        sequences = x.float().split(cu_seqlens.diff().tolist())
        packed, _ = super().forward(nn.utils.rnn.pack_sequence(list(sequences), enforce_sorted=False))
        padded, lengths = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
        return torch.cat([row[:length] for row, length in zip(padded, lengths.tolist(), strict=True)]).to(x.dtype)

    def ends(self, states: Float[Tensor, "N out"], cu_seqlens: Int[Tensor, "B1"]) -> Float[Tensor, "B out"]:
        """Return what each direction says where it has read all: at the last token, and at the first one."""
        there, back = states.chunk(2, dim=-1)
        return torch.cat([there[cu_seqlens[1:].long() - 1], back[cu_seqlens[:-1].long()]], dim=-1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights as torch does, uniformly."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
