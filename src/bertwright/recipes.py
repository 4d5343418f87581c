"""Named configurations: the paper's two sizes and the 24 small ones of Turc et al. 2019, each also as `modern`.

    recipe = get_recipe("mini")
    model, train = recipe.model, PretrainConfig(**recipe.train)
    recipe = get_recipe("modern-mini")                     # the same size, trained as one would today

`base` and `large` are the paper's (3). The small ones, all with heads 64 wide and a feed-forward layer of 4H, are those
of *Well-Read Students Learn Better* (table 1); four of them have well-known names: `tiny`, `mini`, `small`, `medium`.
Every recipe trains with the paper's hyper-parameters unless its `train` says otherwise.

`modern-SIZE` is that size with everything in `DEPARTURES`, which is all that it does otherwise than the paper; `modern`
is `modern-base`. Objective, embeddings, attention, feed-forward and heads are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from bertwright.config import DIALS_OF_MASKS, LEFT_TO_RIGHT, BertConfig
from bertwright.errors import BertwrightError, nearest


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A name for a shape and for the training settings that differ from the paper's."""

    name: str
    summary: str
    """One line for people."""
    model: BertConfig
    train: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `PretrainConfig` whose default this recipe changes."""

    def train_for(self, objective: str) -> dict[str, Any]:
        """Return `train` without the dials of masks where an objective masks nothing."""
        masks = DIALS_OF_MASKS if objective in LEFT_TO_RIGHT else ()
        return {name: value for name, value in self.train.items() if name not in masks}


def _size(layers: int, hidden_size: int) -> BertConfig:
    return BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden_size,
        num_attention_heads=hidden_size // 64,
        intermediate_size=4 * hidden_size,
    )


def _small_sizes() -> dict[str, Recipe]:
    known = {(2, 128): "tiny", (4, 256): "mini", (4, 512): "small", (8, 512): "medium"}
    recipes = {}
    for layers in (2, 4, 6, 8, 10, 12):
        for hidden_size in (128, 256, 512, 768):
            name = known.get((layers, hidden_size), f"{layers}x{hidden_size}")
            summary = f"L={layers} H={hidden_size} A={hidden_size // 64}"
            recipes[name] = Recipe(name=name, summary=summary, model=_size(layers, hidden_size))
    return recipes


RECIPES: dict[str, Recipe] = {
    "base": Recipe(name="base", summary="the paper's BERT_BASE: L=12 H=768 A=12", model=_size(12, 768)),
    "large": Recipe(name="large", summary="the paper's BERT_LARGE: L=24 H=1024 A=16", model=_size(24, 1_024)),
    **_small_sizes(),
}
"""By name; `12x768` of the small sizes is `base`."""


class Departure(NamedTuple):
    """One thing that `modern` does otherwise than the paper."""

    why: str
    """What it is, what it replaces, and what it is good for."""
    source: str
    """Who found it."""
    train: Mapping[str, Any] = {}
    """Fields of `PretrainConfig`."""
    model: Mapping[str, Any] = {}
    """Fields of `BertConfig`."""


DEPARTURES: dict[str, Departure] = {
    "pre-norm": Departure(
        "Normalise what goes into each sub-layer, not the sum after it, nor the embeddings: gradients reach all layers"
        " alike, so higher rates and hardly any warm-up will do. Transformers calls it megatron-bert.",
        "Xiong et al. 2020, On Layer Normalization in the Transformer Architecture; Shoeybi et al. 2019, Megatron-LM",
        model={"norm_first": True},
    ),
    "no dropout": Departure(
        "0 instead of 0.1: what sees its data a few times at most has nothing to overfit, and learns more a step.",
        "Lan et al. 2020, ALBERT; Geiping and Goldstein 2022, Cramming",
        {"dropout": 0.0},
    ),
    "falling masks": Departure(
        "30 % of the tokens are predicted at first, 15 % at the end, instead of 15 % always: more to learn from each"
        " sequence early, text like what comes later at the end. Held-out losses are at 15 % at every step.",
        "Wettig et al. 2023, Should You Mask 15% in Masked Language Modeling; Ankner et al. 2023, Dynamic Masking Rate"
        " Schedules for MLM Pretraining",
        {"mask_prob": 0.3, "mask_prob_end": 0.15},
    ),
    "batch ramp": Departure(
        "Batches grow from an eighth to their full size over the first 30 % of the steps: early gradients agree so well"
        " that small batches show them, and more steps come out of the same tokens.",
        "McCandlish et al. 2018, An Empirical Model of Large-Batch Training; Geiping and Goldstein 2022, Cramming",
        {"batch_ramp_ratio": 0.3, "batch_ramp_start": 0.125},
    ),
    "trapezoid": Departure(
        "The rate stays up after warm-up and falls in the last 20 % of the steps, instead of falling all the way.",
        "Zhai et al. 2022, Scaling Vision Transformers; Haegele et al. 2024, Scaling Laws and Compute-Optimal Training"
        " Beyond Fixed Training Durations",
        {"schedule": "trapezoid", "decay_ratio": 0.2, "warmup_ratio": 0.02},
    ),
    "Muon": Departure(
        "Matrices of the layers take steps along orthogonal matrices, so that rare directions are learnt as well as"
        " frequent ones. Everything else stays with Adam.",
        "Jordan et al. 2024, Muon; Liu et al. 2025, Muon is Scalable for LLM Training",
        {"optimizer": "muon", "muon_lr": 2e-3},
    ),
    "Adam for short runs": Departure(
        "Bias correction, a shorter memory of squares (beta2 0.98, not 0.999), and a rate of 1e-3, not 1e-4: the"
        " paper's values are for a million steps.",
        "Liu et al. 2019, RoBERTa; Mosbach et al. 2021, On the Stability of Fine-tuning BERT;"
        " docs/results/first-pretraining.md",
        {"bias_correction": True, "beta2": 0.98, "lr": 1e-3},
    ),
}
"""Every departure of `modern` from the paper, by name: settings that do not stand here are the paper's."""
MODERN = "modern"
"""The recipe that is all departures; before a `-`, of any size."""


def _modern(name: str, recipe: Recipe) -> Recipe:
    model = {key: value for each in DEPARTURES.values() for key, value in each.model.items()}
    train = {key: value for each in DEPARTURES.values() for key, value in each.train.items()}
    summary = f"{recipe.summary}, trained as one would today"
    return Recipe(name=name, summary=summary, model=replace(recipe.model, **model), train={**recipe.train, **train})


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name: one of `RECIPES`, `modern-` before any of them, or `modern`, which is `modern-base`.

    Raises:
        BertwrightError: no recipe has that name; the nearest one and all others are listed.
    """
    size = "base" if name == MODERN else name.removeprefix(f"{MODERN}-")
    if size != name and size in RECIPES:
        return _modern(name, RECIPES[size])
    if name not in RECIPES:
        near = nearest(name, [*RECIPES, MODERN, *(f"{MODERN}-{each}" for each in RECIPES)])
        raise BertwrightError(
            f"unknown recipe {name!r}{near}",
            fix=f"choose one of: {', '.join(RECIPES)}; or {MODERN}, or {MODERN}- before any of them",
        )
    return RECIPES[name]


class Preset(NamedTuple):
    """Settings of `bertwright finetune TASK --preset NAME`."""

    tasks: tuple[str, ...]
    """What they are for."""
    settings: dict[str, Any]
    """Flags by name."""


PRESETS: dict[str, Preset] = {
    "glue": Preset(("classify", "regress"), {"batch_size": 32, "epochs": 3, "lr": 3e-5, "max_length": 128}),
    "squad": Preset(("qa",), {"batch_size": 32, "epochs": 3, "lr": 5e-5, "max_length": 384, "stride": 128}),
    "squad2": Preset(("qa",), {"batch_size": 48, "epochs": 2, "lr": 5e-5, "max_length": 384, "stride": 128}),
    "cmrc": Preset(
        ("qa",),
        {"batch_size": 32, "epochs": 2, "lr": 3e-5, "max_length": 384, "max_answer_length": 100, "rules": "cmrc"},
    ),
    "swag": Preset(("choice",), {"batch_size": 16, "epochs": 3, "lr": 2e-5, "max_length": 128}),
    "conll": Preset(("tag",), {"batch_size": 16, "epochs": 4, "lr": 5e-5, "max_length": 256, "document_context": True}),
}
"""By name.

Paper: 4.1 (GLUE; of its four rates 3e-5), 4.2, 4.3, 4.4. For CoNLL it names none: these are from the grid of A.3, with
the document context of 5.3; run_squad.py has the stride and the lengths. CMRC's are SQuAD's, for longer answers.
"""

GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "paper": {"batch_size": (16, 32), "lr": (5e-5, 3e-5, 2e-5), "epochs": (2, 3, 4)},
}
"""Values to try, all with all, of `bertwright finetune TASK --grid NAME`. Paper: A.3."""


def get_preset(name: str, *, task: str) -> dict[str, Any]:
    """Return the settings of a preset for a task.

    Raises:
        BertwrightError: no preset has that name (the nearest one and all others are listed), or it is for other tasks.
    """
    if name not in PRESETS:
        raise BertwrightError(
            f"unknown preset {name!r}{nearest(name, PRESETS)}", fix=f"choose one of: {', '.join(PRESETS)}"
        )
    if task not in PRESETS[name].tasks:
        fitting = ", ".join(other for other in PRESETS if task in PRESETS[other].tasks)
        raise BertwrightError(f"preset {name} is for {' and '.join(PRESETS[name].tasks)}, not for {task}",
                              fix=f"choose one of: {fitting}" if fitting else "leave out --preset")  # fmt: skip
    return PRESETS[name].settings
