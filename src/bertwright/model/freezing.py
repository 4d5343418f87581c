"""Which parts of a model a person means by `embeddings,layers:0-5`.

frozen_modules(model, "encoder")        # the embeddings and every layer
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import nn

from bertwright.errors import BertwrightError

if TYPE_CHECKING:
    from bertwright.model.bert import Bert


def frozen_modules(model: Bert, parts: str) -> list[nn.Module]:
    """Return the modules that a list of parts names.

    Args:
        model: whose modules.
        parts: `embeddings`, `layers:0-5` (or `layers:3`), `pooler`, `encoder`, with commas; empty for none.

    Raises:
        BertwrightError: there is no such part.
    """
    found: list[nn.Module] = []
    for part in filter(None, (name.strip() for name in parts.split(","))):
        if part == "encoder":
            found += [model.embeddings, *model.layers, model.norm]
        elif part in ("embeddings", "pooler"):
            found.append(getattr(model, part))
        else:
            found += model.layers[_layer_range(part, len(model.layers))]
    return found


def _layer_range(part: str, num_layers: int) -> slice:
    match = re.fullmatch(r"layers:(\d+)(?:-(\d+))?", part)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
    if match is None or not first <= last < num_layers:
        raise BertwrightError(
            f"no part of this model is called {part!r}",
            fix=f"freeze encoder, embeddings, pooler, or layers:0-{num_layers - 1} and the like, with commas",
        )
    return slice(first, last + 1)
