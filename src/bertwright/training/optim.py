"""The optimizer of the paper: Adam with decoupled weight decay, warm-up, linear decay and clipping. Paper: A.2.

google-research/bert `optimization.py` has no bias correction, decays neither biases nor layer normalisation, and clips
the global gradient norm; `TrainConfig` holds each as a dial. Another dial leaves the layers' matrices to Muon.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from bertwright.config import TrainConfig
from bertwright.training.distributed import local
from bertwright.training.muon import MatrixMuon

_PAST_CORRECTION = 1e9
"""A step count at which Adam's bias correction is exactly 1: how the fused kernel is told to leave it out."""


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the learning rate of a step (from 0): up linearly during warm-up, then down linearly to 0 at `steps`.

    A `trapezoid` stays up until the last `decay_ratio` of the steps. Zhai et al. 2022, *Scaling Vision Transformers*;
    Haegele et al. 2024, *Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations*.

    Differs: google-research/bert `optimization.py` decays from the first step on, so its rate jumps down by the share
    of the warm-up where that ends.
    """
    warmup = round(config.warmup_ratio * steps)
    if step < warmup:
        return config.lr * step / warmup
    decay = max(1, steps - warmup if config.schedule == "linear" else round(config.decay_ratio * steps))
    return config.lr * min(steps - step, decay) / decay


def is_muons(name: str, parameter: Tensor, config: TrainConfig) -> bool:
    """Tell whether Muon trains a parameter: a matrix of a layer, where the configuration asks for Muon.

    Args:
        name: as `Bert.named_parameters` calls it.
        parameter: of that name.
        config: with the optimizer.
    """
    return config.optimizer == "muon" and name.startswith("layers.") and parameter.ndim == 2


class BertAdam:
    """Adam over a model's parameters, one fused call per group; the gradient is clipped inside it.

    What `is_muons` is left to Muon, which keeps one moment of it and no square.

    Args:
        model: its parameters that require gradients are trained.
        config: see `TrainConfig`.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.config = config
        self.parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        muons = {name: each for name, each in self.parameters.items() if is_muons(name, each, config)}
        self._muon = MatrixMuon(muons, config) if muons else None
        others = {name: parameter for name, parameter in self.parameters.items() if name not in muons}
        self.exp_avg = {name: torch.zeros_like(parameter) for name, parameter in others.items()}
        self.exp_avg_sq = {name: torch.zeros_like(parameter) for name, parameter in others.items()}
        decayed = [name for name, parameter in others.items() if parameter.ndim >= 2]
        plain = [name for name, parameter in others.items() if parameter.ndim < 2]  # biases and norms
        self._groups = [(decayed, config.weight_decay), (plain, 0.0)]

    def gradient_norm(self) -> Tensor:
        """Return the norm of all gradients that this process keeps, fp32; see `Group.norm`."""
        gradients = [local(parameter.grad) for parameter in self.parameters.values() if parameter.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def step(self, step: int, lr: float, gradient_norm: Tensor) -> None:
        """Update every parameter that has a gradient.

        Args:
            step: optimizer steps taken before this one.
            lr: learning rate.
            gradient_norm: as `gradient_norm` returned it, for clipping.
        """
        clip = self.config.clip_norm
        scale = (gradient_norm / clip).clamp(min=1.0) if clip else torch.ones_like(gradient_norm)
        count = float(step) if self.config.bias_correction else _PAST_CORRECTION
        for names, weight_decay in self._groups:
            names = [name for name in names if self.parameters[name].grad is not None]
            with torch.no_grad():
                adamw(
                    [local(self.parameters[name]) for name in names],
                    [local(self.parameters[name].grad) for name in names],  # type: ignore[arg-type]
                    [local(self.exp_avg[name]) for name in names],
                    [local(self.exp_avg_sq[name]) for name in names],
                    max_exp_avg_sqs=[],
                    state_steps=[torch.full((), count, device=scale.device) for _ in names],  # nothing waits for a GPU
                    fused=True,
                    grad_scale=scale,
                    amsgrad=False,
                    beta1=self.config.beta1,
                    beta2=self.config.beta2,
                    lr=lr,
                    weight_decay=weight_decay,
                    eps=self.config.eps,
                    maximize=False,
                )
        if self._muon is not None:
            self._muon.step(lr / self.config.lr, scale)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return all moments by name."""
        muons = {} if self._muon is None else self._muon.momentum
        return (
            {f"exp_avg.{name}": tensor for name, tensor in self.exp_avg.items()}
            | {f"exp_avg_sq.{name}": tensor for name, tensor in self.exp_avg_sq.items()}
            | {f"momentum.{name}": tensor for name, tensor in muons.items()}
        )

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy in what `state` returned."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
