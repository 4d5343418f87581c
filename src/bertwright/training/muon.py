"""Muon: steps along the orthogonal matrix that is nearest to the gradient's mean, for the matrices of the layers.

Jordan et al. 2024, *Muon: An optimizer for hidden layers in neural networks*; Liu et al. 2025, *Muon is Scalable for
LLM Training*, for the size of its steps, which is that of AdamW's. No part of the paper.

    muon = MatrixMuon(matrices, config)
    muon.step(1.0, gradient_scale)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Muon

from bertwright.config import TrainConfig


class MatrixMuon:
    """torch's Muon over matrices by name. A fused product is several matrices, each orthogonal by itself.

    Args:
        parameters: matrices; one of query, key and value together is three.
        config: see `TrainConfig`.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: TrainConfig) -> None:
        self.parameters = dict(parameters)
        self.momentum = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        """The decaying mean of each gradient, by name."""
        self._lr = config.muon_lr
        # Parts share the memory of what they are parts of: a step on them is one on it.
        self._parts = {name: _parts(name, parameter.detach()) for name, parameter in parameters.items()}
        self._optimizer = Muon(
            [part for parts in self._parts.values() for part in parts],
            lr=config.muon_lr,
            weight_decay=config.weight_decay,
            momentum=config.muon_momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        for name, parts in self._parts.items():
            for part, momentum in zip(parts, _parts(name, self.momentum[name]), strict=True):
                self._optimizer.state[part] = {"momentum_buffer": momentum}

    @torch.no_grad()
    def step(self, share: float, gradient_scale: Tensor) -> None:
        """Update every matrix that has a gradient.

        Args:
            share: of the peak learning rate.
            gradient_scale: what the gradients are divided by.
        """
        for name, parameter in self.parameters.items():
            gradient = None if parameter.grad is None else parameter.grad / gradient_scale
            for place, part in enumerate(self._parts[name]):
                part.grad = None if gradient is None else _parts(name, gradient)[place]
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr * share
        self._optimizer.step()
        self._optimizer.zero_grad()


def _parts(name: str, matrix: Tensor) -> tuple[Tensor, ...]:
    return matrix.chunk(3) if name.endswith(".qkv.weight") else (matrix,)
