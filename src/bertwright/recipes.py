"""Named configurations: the paper's two sizes and the 24 small ones of Turc et al. 2019.

    recipe = get_recipe("mini")
    model, train = recipe.model, PretrainConfig(**recipe.train)

`base` and `large` are the paper's (3). The small ones, all with heads 64 wide and a feed-forward layer of 4H, are those
of *Well-Read Students Learn Better* (table 1); four of them have well-known names: `tiny`, `mini`, `small`, `medium`.
Every recipe trains with the paper's hyper-parameters unless its `train` says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bertwright.config import BertConfig
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


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        BertwrightError: no recipe has that name; the nearest one and all others are listed.
    """
    if name not in RECIPES:
        raise BertwrightError(
            f"unknown recipe {name!r}{nearest(name, RECIPES)}", fix=f"choose one of: {', '.join(RECIPES)}"
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
                              fix=f"choose one of: {fitting}")  # fmt: skip
    return PRESETS[name].settings
