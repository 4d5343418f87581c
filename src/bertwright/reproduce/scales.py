"""How large an experiment is made: its sizes, and every dial of its trainings. `base` is the paper's own.

    scale = get_scale("tiny")
    pretrain_config(scale, Settings(steps=2_000), Pretraining(objective="ltr"), seed=0).steps    # 2000

The dials of `tiny` and `mini` are those under which small models learn something within minutes or hours on a
processor; see `docs/results/first-pretraining.md`. They are the same for every row of a table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bertwright.config import BertConfig, FinetuneConfig, Precision, PretrainConfig
from bertwright.errors import BertwrightError, nearest
from bertwright.reproduce.experiments import SIZES, Pretraining


class Shape(NamedTuple):
    """The size of an encoder; its feed-forward layer is 4H wide."""

    layers: int
    hidden_size: int
    heads: int

    def __str__(self) -> str:
        return f"L={self.layers} H={self.hidden_size} A={self.heads}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Dials that differ from the scale's own."""

    steps: int | None = None
    """Optimizer steps of a pre-training run; by default the scale's."""
    batch_tokens: int | None = None
    """Tokens in a step's batch of pre-training; likewise, as all below."""
    micro_batch_tokens: int | None = None
    """Most tokens in a micro-batch, in pre-training and fine-tuning."""
    lr: float | None = None
    """Peak learning rate of pre-training."""
    short_ratio: float | None = None
    """Share of the steps of pre-training, at the start, on examples cropped to 32 tokens."""
    checkpoint_every: int | None = None
    """Steps between two checkpoints and two evaluations of pre-training."""
    finetune_lr: float | None = None
    """Peak learning rate of fine-tuning; of a frozen encoder's BiLSTM it is left alone."""
    finetune_epochs: int | None = None
    """Passes over the training examples in fine-tuning."""
    finetune_batch_size: int | None = None
    """Examples in a step of fine-tuning."""
    finetune_examples: int | None = None
    """Training examples of a task at most, drawn once and for all; 0: all of them."""
    dev_examples: int = 0
    """Dev examples of a task at most, likewise."""
    precision: Precision = "auto"
    """`fp32`, `bf16` (weights stay fp32), or `auto`: bf16 where the processor multiplies it natively."""
    threads: int = 0
    """Processor threads; 0 leaves torch's choice."""

    def __post_init__(self) -> None:
        for name in ("finetune_examples", "dev_examples"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise BertwrightError(f"{name} must not be negative, not {value}")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A size of experiment."""

    name: str
    """As `--scale` takes it."""
    shape: Shape
    """Of every row that says nothing else."""
    ladder: tuple[Shape, ...]
    """The sizes that stand for those of table 6, in its order."""
    initializer_range: float
    """Standard deviation that weights start from."""
    pretrain: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `PretrainConfig` that differ from the paper's."""
    finetune: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `FinetuneConfig`, for all tasks."""
    of_task: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further ones by task."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """Further ones for a BiLSTM on a frozen encoder."""
    finetune_examples: int = 0
    """Training examples of a task at most; 0: all."""


def _ladder(hidden_size: int, wider: int) -> tuple[Shape, ...]:
    """Return a ladder of small sizes: layers as in table 6 divided by three, two widths, heads 64 wide but for one."""
    heads = hidden_size // 64
    return (
        Shape(1, hidden_size, heads),
        Shape(2, hidden_size, max(1, heads // 4)),
        Shape(2, hidden_size, heads),
        Shape(4, hidden_size, heads),
        Shape(4, wider, wider // 64),
        Shape(8, wider, wider // 64),
    )


_SMALL: dict[str, Any] = {
    "warmup_ratio": 0.1, "dropout": 0.0, "bias_correction": True, "beta2": 0.98, "short_ratio": 0.3,
    "eval_every": 500, "checkpoint_every": 500,
}  # fmt: skip

SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            name="tiny",
            shape=Shape(2, 128, 2),
            ladder=_ladder(128, 192),
            initializer_range=0.05,
            pretrain={**_SMALL, "steps": 5_000, "batch_tokens": 4_096, "micro_batch_tokens": 4_096, "lr": 1e-3},
            finetune={"lr": 3e-4},
            of_task={"MRPC": {"epochs": 5}, "CoNLL-2003": {"epochs": 5, "batch_size": 16}},
            features={"lr": 2e-3, "epochs": 10},
            finetune_examples=20_000,
        ),
        Scale(
            name="mini",
            shape=Shape(4, 256, 4),
            ladder=_ladder(256, 320),
            initializer_range=0.05,
            pretrain={**_SMALL, "steps": 5_000, "batch_tokens": 8_192, "lr": 1e-3},
            finetune={"lr": 2e-4},
            of_task={"MRPC": {"epochs": 5}, "CoNLL-2003": {"epochs": 5, "batch_size": 16}},
            features={"lr": 1e-3, "epochs": 10},
            finetune_examples=20_000,
        ),
        Scale(
            name="base",
            shape=Shape(*SIZES[3]),
            ladder=tuple(Shape(*size) for size in SIZES),
            initializer_range=0.02,
            of_task={"SQuAD": {"lr": 5e-5}, "CoNLL-2003": {"lr": 5e-5, "epochs": 4, "batch_size": 16}},
            features={"lr": 1e-3, "epochs": 20},
        ),
    )
}
"""By name.

Paper: A.2 (pre-training), A.3 (fine-tuning), 4.2 (SQuAD). For CoNLL-2003 and its BiLSTM the paper names no dials.
"""


def get_scale(name: str) -> Scale:
    """Return a scale by name.

    Raises:
        BertwrightError: none has that name; the nearest one and all others are listed.
    """
    if name not in SCALES:
        raise BertwrightError(
            f"unknown scale {name!r}{nearest(name, SCALES)}", fix=f"choose one of: {', '.join(SCALES)}"
        )
    return SCALES[name]


def shape_of(scale: Scale, pretraining: Pretraining) -> Shape:
    """Return the size that a row has at a scale."""
    return scale.shape if pretraining.rung is None else scale.ladder[pretraining.rung]


def model_config(scale: Scale, pretraining: Pretraining) -> BertConfig:
    """Return a row's encoder, as `pretrain` takes it."""
    layers, hidden_size, heads = shape_of(scale, pretraining)
    return BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden_size,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        initializer_range=scale.initializer_range,
    )


def pretrain_config(scale: Scale, settings: Settings, pretraining: Pretraining, *, seed: int) -> PretrainConfig:
    """Return every dial of a row's pre-training; how often it is saved fits the parts at which it is looked at."""
    mask, _, random = pretraining.masks
    names = ("steps", "batch_tokens", "micro_batch_tokens", "lr", "short_ratio", "checkpoint_every")
    dials = {**scale.pretrain, **_given(settings, names)}
    if settings.checkpoint_every is not None:
        dials["eval_every"] = settings.checkpoint_every
    config = PretrainConfig(**dials, objective=pretraining.objective, mask_token_prob=mask / 100,
                            random_token_prob=random / 100, seed=seed, **_machine(settings))  # fmt: skip
    return dataclasses.replace(config, log_every=max(1, min(50, config.steps // 10)))


def finetune_config(
    scale: Scale, settings: Settings, task: str, *, frozen: bool, seed: int, max_length: int
) -> FinetuneConfig:
    """Return every dial of a fine-tuning.

    Args:
        scale: whose dials are taken.
        settings: what differs.
        task: one of `sources`.
        frozen: whether a BiLSTM reads features of an encoder that is not trained.
        seed: of the added layer, order and dropout.
        max_length: longest input, tokens.
    """
    changed = {
        "lr": settings.finetune_lr,
        "epochs": settings.finetune_epochs,
        "batch_size": settings.finetune_batch_size,
    }
    dials = {**scale.finetune, **scale.of_task.get(task, {}), **(scale.features if frozen else {})}
    dials |= {name: value for name, value in changed.items() if value is not None and not (frozen and name == "lr")}
    dials |= _given(settings, ("micro_batch_tokens",)) | _machine(settings)
    # A run that comes to nothing counts as it is: a second chance for some rows would not be the same for all.
    return FinetuneConfig(**dials, freeze="encoder" if frozen else "", restarts=0, seed=seed, max_length=max_length)


def _given(settings: Settings, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}


def _machine(settings: Settings) -> dict[str, Any]:
    return {"precision": settings.precision, "threads": settings.threads}
