"""From a vector for every token to one for the text, and the folders in which sentence-transformers writes down how.

pooling = read_pooling(Path("all-MiniLM-L6-v2"))      # mean, then scaled to length 1
vectors = pooling(hidden, batch.cu_seqlens)           # [N, H] -> [B, H]
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bertwright.config import PoolingMode
from bertwright.errors import BertwrightError
from bertwright.json_values import read_json
from bertwright.model.checkpoint_files import open_checkpoint

log = logging.getLogger(__name__)

_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""sentence-transformers' older keys, in the order in which it lays vectors end to end."""
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Tanh": torch.tanh, "Identity": lambda x: x, "GELU": F.gelu, "ReLU": F.relu, "Sigmoid": torch.sigmoid,
}  # fmt: skip


@dataclass(frozen=True)
class Dense:
    """A linear layer after pooling."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, "out"] | None
    activation: str

    def __call__(self, x: Float[Tensor, "B in"]) -> Float[Tensor, "B out"]:
        """Return the layer's output."""
        bias = None if self.bias is None else self.bias.to(x.device)
        return _ACTIVATIONS[self.activation](F.linear(x, self.weight.to(x.device), bias))


@dataclass(frozen=True)
class Pooling:
    """How token vectors become one vector."""

    modes: tuple[PoolingMode, ...] = ("mean",)
    """What is laid end to end, mostly one."""
    dense: tuple[Dense, ...] = ()
    """Layers after it."""
    normalize: bool = False
    """Scale the result to length 1."""
    max_length: int | None = None
    """Longest input, tokens, where the folder says one."""
    lowercase: bool = False
    """Lower the text before the tokenizer sees it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What config_sentence_transformers.json says else, such as prompts: kept for writing."""

    def __call__(self, hidden: Float[Tensor, "N H"], cu_seqlens: Int[Tensor, "B1"]) -> Float[Tensor, "B D"]:
        """Return one vector for each sequence."""
        x = torch.cat([pool(hidden, cu_seqlens, mode) for mode in self.modes], dim=-1)
        for layer in self.dense:
            x = layer(x)
        return F.normalize(x, dim=-1) if self.normalize else x


def pool(hidden: Float[Tensor, "N H"], cu_seqlens: Int[Tensor, "B1"], mode: PoolingMode) -> Float[Tensor, "B H"]:
    """Return one vector for each sequence, [CLS] and [SEP] included, as sentence-transformers computes it.

    Args:
        hidden: a vector for every token.
        cu_seqlens: where each sequence starts, and N at the end.
        mode: `cls`: the first token's; `lasttoken`; `mean`; `max`: of every component; `mean_sqrt_len_tokens`: the sum
            over the root of the length; `weightedmean`: later tokens weigh more, 1, 2, 3, ...
    """
    cu_seqlens = cu_seqlens.long()
    lengths = cu_seqlens.diff()
    if mode == "cls":
        return hidden[cu_seqlens[:-1]]
    if mode == "lasttoken":
        return hidden[cu_seqlens[1:] - 1]
    if mode == "max":
        return torch.stack([rows.amax(0) for rows in hidden.split(lengths.tolist())])
    sequence = torch.repeat_interleave(torch.arange(lengths.numel(), device=hidden.device), lengths)
    empty = hidden.new_zeros(lengths.numel(), hidden.shape[1])
    weights = hidden.new_ones(hidden.shape[0])
    if mode == "weightedmean":
        weights = (torch.arange(hidden.shape[0], device=hidden.device) - cu_seqlens[sequence] + 1).to(hidden.dtype)
    total = empty.index_add(0, sequence, hidden * weights[:, None])
    divisor = torch.zeros_like(empty[:, 0]).index_add(0, sequence, weights)
    return total / (divisor.sqrt() if mode == "mean_sqrt_len_tokens" else divisor)[:, None]


def read_pooling(folder: Path) -> tuple[Path, Pooling] | None:
    """Read a sentence-transformers folder.

    Returns:
        The folder of the BERT, which may lie one deeper, and what comes after it; None if this is no such folder.

    Raises:
        BertwrightError: it has a module that is not supported, or a damaged file.
    """
    path = folder / "modules.json"
    if not path.exists():
        return None
    try:
        modules: Any = json.loads(path.read_text(encoding="utf-8"))
        steps = [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in modules]
    except (ValueError, TypeError, KeyError):
        raise BertwrightError("expected a list of modules, each with `type` and `path`", where=path) from None
    if not steps or steps[0][0] != "Transformer":
        raise BertwrightError("its first module is no Transformer", where=path)
    model = _inside(folder, steps[0][1], path)
    modes: tuple[PoolingMode, ...] = ("mean",)
    dense: list[Dense] = []
    normalize = False
    for kind, place in steps[1:]:
        home = _inside(folder, place, path)
        if kind == "Pooling":
            modes = _modes(home / "config.json")
        elif kind == "Dense":
            dense.append(_read_dense(home))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Dropout":
            raise BertwrightError(f"its module {kind} is not supported", where=path)
    order = [kind for kind, _ in steps[1:] if kind != "Dropout"]
    if order and order != ["Pooling", *["Dense"] * len(dense), *["Normalize"] * normalize]:
        raise BertwrightError(f"its modules come in an order that is not supported: {', '.join(order)}", where=path)
    settings = model / "sentence_bert_config.json"
    lowercase = settings.exists() and read_json(settings).get("do_lower_case") is True
    return model, Pooling(modes, tuple(dense), normalize, _max_length(model), lowercase, _settings(folder))


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config_sentence_transformers.json"
    settings = read_json(path) if path.exists() else {}
    if (name := settings.get("default_prompt_name")) is not None:
        log.warning("%s: its prompt %r is not put in front of texts here", path, name)
    return {key: value for key, value in settings.items() if key != "__version__"}


def _max_length(folder: Path) -> int | None:
    """Return the longest input, where older versions of sentence-transformers write it, or where newer ones do."""
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        value = read_json(folder / name).get(key) if (folder / name).exists() else None
        if isinstance(value, int) and 2 < value < 1_000_000:
            return value
    return None


def pooling_files(pooling: Pooling, hidden_size: int) -> dict[str, str]:
    """Return the files that make a model folder one of sentence-transformers', whichever of its versions reads it.

    Raises:
        BertwrightError: there are dense layers, which are read but not written.
    """
    if pooling.dense:
        raise BertwrightError("a dense layer after pooling is read, but not written")
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * pooling.normalize
    contents: dict[str, Any] = {
        "modules.json": [
            {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for place, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": hidden_size,
            **{key: mode in pooling.modes for key, mode in _FLAGS.items()},
            "include_prompt": True,
        },
        "config_sentence_transformers.json": {
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
            **pooling.settings,
        },
        "sentence_bert_config.json": {"max_seq_length": pooling.max_length, "do_lower_case": pooling.lowercase},
    } | ({"2_Normalize/config.json": {}} if pooling.normalize else {})
    return {name: json.dumps(values, indent=2) + "\n" for name, values in contents.items()}


def _inside(folder: Path, place: str, where: Path) -> Path:
    path = folder / place
    if Path(place).is_absolute() or ".." in Path(place).parts:
        raise BertwrightError(f"it names {place!r}, a path that leaves the folder", where=where)
    return path


def _modes(path: Path) -> tuple[PoolingMode, ...]:
    config = read_json(path)
    named = config.get("pooling_mode") or [mode for key, mode in _FLAGS.items() if config.get(key)] or "mean"
    modes = (named,) if isinstance(named, str) else tuple(named)
    for mode in modes:
        if mode not in get_args(PoolingMode):
            raise BertwrightError(f"unknown pooling {mode!r}", where=path)
    return modes


def _read_dense(folder: Path) -> Dense:
    path = folder / "config.json"
    activation = str(read_json(path).get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise BertwrightError(f"its activation {activation} is not supported", where=path)
    tensors = {stored.source: stored.read().float().clone() for stored in open_checkpoint(folder).tensors.values()}
    if "linear.weight" not in tensors:
        raise BertwrightError("tensor 'linear.weight' is missing", where=folder)
    return Dense(tensors["linear.weight"], tensors.get("linear.bias"), activation)
