"""torch.compile for what layers do to each row by itself: dropout, normalisation and feed-forward in few GPU kernels.

    compile_layers(model)                          # on a CUDA device; the arithmetic of a CPU gains nothing by it

Attention stays as it is, since its shapes change with every batch, and so does the last layer, which works on the rows
that heads read. All other layers see one width and few numbers of rows: the encoder gives its batches a tail that
nobody reads (`Batch.padded`). No part of a layer that is compiled falls back to plain torch: that is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bertwright.model.bert import Bert, Layer, PreNormLayer

COMPILED_ROWS = 512
"""A compiled layer works on a multiple of so many rows: one or two in a hundred are for nobody."""
_MOST_SHAPES = 1_024
"""Shapes that are compiled before torch gives up; those of a run are the multiples up to its micro-batches."""


def compile_layers(model: Bert, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the layers of a model, in place, when they are first run.

    Args:
        model: its weights stay where they are, and may be replaced.
        backend: of `torch.compile`.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_SHAPES)
    torch._dynamo.config.accumulated_recompile_limit = max(
        torch._dynamo.config.accumulated_recompile_limit, _MOST_SHAPES
    )
    # Kernels tuned by the clock may add in another order after a restart: a resumed run must not.
    options: dict[str, Any] | None = {"deterministic": True} if backend == "inductor" else None
    for layer in list(model.layers)[:-1]:
        assert isinstance(layer, Layer | PreNormLayer)
        layer.__dict__["after_attention"] = torch.compile(
            layer.after_attention, fullgraph=True, dynamic=False, backend=backend, options=options
        )
    model.row_multiple = COMPILED_ROWS
