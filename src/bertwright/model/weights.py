"""Weights on disk: one table between our tensor names and Hugging Face's, and strict loading and saving by it.

save_model(model, Path("run/model"), wordpiece=wordpiece)
model = load_model(Path("run/model"))                               # with the heads the file holds
model = load_model(Path("run/model"), heads={"classify": head})     # the encoder, under a fresh head
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bertwright.config import BertConfig, from_dict, read_json
from bertwright.errors import BertwrightError
from bertwright.files import new_folder
from bertwright.model.bert import Bert
from bertwright.model.heads import ClassificationHead, Head, MaskedLMHead, NextSentenceHead
from bertwright.text.wordpiece import WordPiece

log = logging.getLogger(__name__)

NAMES: list[tuple[str, tuple[str, ...]]] = [
    ("embeddings.word", ("bert.embeddings.word_embeddings",)),
    ("embeddings.position", ("bert.embeddings.position_embeddings",)),
    ("embeddings.token_type", ("bert.embeddings.token_type_embeddings",)),
    ("embeddings.norm", ("bert.embeddings.LayerNorm",)),
    (
        "layers.N.attention.qkv",
        tuple(f"bert.encoder.layer.N.attention.self.{part}" for part in ("query", "key", "value")),
    ),
    ("layers.N.attention.output", ("bert.encoder.layer.N.attention.output.dense",)),
    ("layers.N.attention_norm", ("bert.encoder.layer.N.attention.output.LayerNorm",)),
    ("layers.N.up", ("bert.encoder.layer.N.intermediate.dense",)),
    ("layers.N.down", ("bert.encoder.layer.N.output.dense",)),
    ("layers.N.output_norm", ("bert.encoder.layer.N.output.LayerNorm",)),
    ("pooler.dense", ("bert.pooler.dense",)),
    ("heads.mlm.transform", ("cls.predictions.transform.dense",)),
    ("heads.mlm.norm", ("cls.predictions.transform.LayerNorm",)),
    ("heads.mlm.decoder", ("cls.predictions",)),
    ("heads.nsp.classifier", ("cls.seq_relationship",)),
    ("heads.classify.classifier", ("classifier",)),
]
"""Ours, and Hugging Face's: several where ours is their concatenation. N is the layer's number."""

ARCHITECTURES: dict[frozenset[str], str] = {
    frozenset(): "BertModel",
    frozenset({"mlm"}): "BertForMaskedLM",
    frozenset({"nsp"}): "BertForNextSentencePrediction",
    frozenset({"mlm", "nsp"}): "BertForPreTraining",
    frozenset({"classify"}): "BertForSequenceClassification",
}
"""Hugging Face's class for each set of heads."""

VOCABULARY_FILES = frozenset(
    {"vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
)
_WEIGHTS = re.compile(r"(model.*\.safetensors|pytorch_model.*\.bin)(\.index\.json)?$")
_TIED = re.compile(r"cls\.predictions\.decoder\.(weight|bias)$|.*\.position_ids$")
_SAFE_CONFIG = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
"""Keys that change the numbers, with the one value that is ours."""


def save_model(
    model: Bert, folder: Path, *, wordpiece: WordPiece | None = None, extra_config: Mapping[str, Any] | None = None,
    extra_files: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write a model folder that Hugging Face's library loads as it is; it appears whole or not at all.

    Saved over a model folder, it replaces weights, configuration and card. Other files stay, such as the vocabulary;
    where the heads have changed, the vocabulary alone.

    Args:
        model: of which weights are written in fp32.
        folder: new, empty, or a model folder.
        wordpiece: its vocabulary files are written beside the weights.
        extra_config: keys added to `config.json`, such as `id2label`.
        extra_files: further texts by file name, such as the task.

    Raises:
        DiskFullError: there was no room; a folder already there is intact.
        BertwrightError: the folder holds something else.
    """
    with new_folder(folder) as new:
        _keep_other_files(folder, new, model)
        tensors = to_hugging_face(model)
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        config = hugging_face_config(model) | dict(extra_config or {})
        (new / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.copymode(new / "config.json", new / "model.safetensors")  # safetensors would let its owner alone read it
        if wordpiece is not None:
            wordpiece.save(new)
        (new / "README.md").write_text(_card(model, wordpiece), encoding="utf-8")
        for name, text in (extra_files or {}).items():
            (new / name).write_text(text, encoding="utf-8")


def _keep_other_files(old: Path, new: Path, model: Bert) -> None:
    if not old.exists() or (old.is_dir() and not any(old.iterdir())):
        return
    config = read_json(old / "config.json") if (old / "config.json").is_file() else {}
    if "architectures" not in config:
        raise BertwrightError("something else is here already", where=old, fix="choose another folder")
    same_heads = config["architectures"] == hugging_face_config(model)["architectures"]
    for file in old.iterdir():
        if file.is_dir() and same_heads:
            shutil.copytree(file, new / file.name)
        elif file.is_file() and (same_heads or file.name in VOCABULARY_FILES) and not _WEIGHTS.match(file.name):
            shutil.copy2(file, new)


def load_model(
    folder: Path, heads: Mapping[str, Head] | None = None, *, config: BertConfig | None = None, seed: int = 0
) -> Bert:
    """Load a model folder in Hugging Face's layout.

    Args:
        folder: with `config.json` and `model.safetensors`.
        heads: fresh heads to put on the encoder. `mlm` and `nsp` take their weights from the file where it has them,
            and are named in the log where not; any other head starts fresh. Where not given: every head the file holds.
        config: the folder's own, perhaps with another dropout; read from `config.json` where not given.
        seed: of the weights that start fresh.

    Raises:
        BertwrightError: a missing file, a missing, extra or misshapen tensor, NaN or infinity, or a configuration whose
            numbers would not be the same here.
    """
    config = config or read_config(folder)
    tensors = _read_tensors(folder)
    present = _heads_in(tensors)
    if heads is None:
        path = folder / "model.safetensors"
        heads = {name: _make_head(name, config, tensors, path) for name in sorted(present)}
        taken = present
    else:
        taken = present & set(heads) & {"mlm", "nsp"}
    model = Bert(config, heads, seed=seed)
    reads_pooler = any(heads[name].pooled for name in taken)
    state: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, parameter in model.state_dict().items():
        if ours == "heads.mlm.decoder_weight" or (ours.startswith("heads.") and ours.split(".")[1] not in taken):
            continue
        theirs = hugging_face_names(ours)
        if ours.startswith("pooler.") and not reads_pooler and not any(name in tensors for name in theirs):
            log.warning("%s has no pooler: it starts fresh, so pooled outputs mean nothing before training", folder)
            continue
        state[ours] = _gather(theirs, tensors, parameter.shape, folder)
        used.update(theirs)
    extra = sorted(name for name in tensors if name not in used and _head_of(name) in (None, *taken))
    if extra:
        raise BertwrightError(f"unknown tensors {', '.join(extra[:5])}", where=folder / "model.safetensors")
    model.load_state_dict(state, strict=False)
    fresh = sorted(set(heads) - taken)
    if fresh:
        log.info("%s: heads that start fresh: %s", folder, ", ".join(fresh))
    return model.eval()


def read_config(folder: Path) -> BertConfig:
    """Read the encoder's shape from a model folder's `config.json`.

    Raises:
        BertwrightError: the file is missing, or holds a value under which numbers would differ.
    """
    path = folder / "config.json"
    if not path.exists():
        raise BertwrightError(
            "no model folder (config.json is missing)",
            where=folder,
            fix="give a folder such as RUN/model, made by pretrain or finetune",
        )
    values = read_json(path)
    if values.get("kind") in ("pretrain", "finetune"):
        raise BertwrightError(
            "this is a run folder, its model lies inside", where=folder, fix=f"use {folder / 'model'}"
        )
    for key, ours in _SAFE_CONFIG.items():
        if values.get(key, ours) != ours:
            raise BertwrightError(f"{key} = {values[key]!r} is not supported; {ours!r} is", where=path)
    if values.get("model_type", "bert") != "bert":
        raise BertwrightError(f"model_type is {values['model_type']!r}, not 'bert'", where=path)
    fields = {field.name for field in dataclasses.fields(BertConfig)}
    return from_dict(BertConfig, {key: value for key, value in values.items() if key in fields}, where=path)


def read_wordpiece(folder: Path, config: BertConfig) -> WordPiece:
    """Read the vocabulary of a model folder.

    Raises:
        BertwrightError: it has more entries than the model has embeddings.
    """
    wordpiece = WordPiece.load(folder)
    if wordpiece.vocab_size > config.vocab_size:
        raise BertwrightError(
            f"the vocabulary has {wordpiece.vocab_size:,} entries, the model only {config.vocab_size:,}",
            where=folder,
            fix="put back the vocab.txt that the model was trained with",
        )
    return wordpiece


def hugging_face_config(model: Bert) -> dict[str, Any]:
    """Return the keys of Hugging Face's `config.json`."""
    architecture = ARCHITECTURES.get(frozenset(model.heads), "BertModel")
    return {
        "architectures": [architecture],
        "model_type": "bert",
        **dataclasses.asdict(model.config),
        "position_embedding_type": "absolute",
        "dtype": "float32",
    }


def to_hugging_face(model: Bert) -> dict[str, Tensor]:
    """Return the weights, fp32 and on the CPU, under Hugging Face's names, and like there without the tied decoder."""
    tensors: dict[str, Tensor] = {}
    without_pooler = set(model.heads) == {"mlm"}  # Hugging Face's BertForMaskedLM has none
    for ours, tensor in model.state_dict().items():
        if ours == "heads.mlm.decoder_weight" or (without_pooler and ours.startswith("pooler.")):
            continue
        theirs = hugging_face_names(ours)
        for name, part in zip(theirs, tensor.detach().float().cpu().chunk(len(theirs)), strict=True):
            tensors[name] = part.contiguous()
    return tensors


def hugging_face_names(ours: str) -> tuple[str, ...]:
    """Return Hugging Face's names of one of our tensors: several where ours is their concatenation."""
    layer = re.search(r"^layers\.(\d+)\.", ours)
    generic = re.sub(r"^layers\.\d+\.", "layers.N.", ours).replace("decoder_", "decoder.")
    module, _, kind = generic.rpartition(".")
    for name, theirs in NAMES:
        if name == module:
            number = layer.group(1) if layer else ""
            return tuple(f"{their.replace('.N.', f'.{number}.')}.{kind}" for their in theirs)
    if module.startswith("heads."):  # a task's own head keeps its own name
        return (generic.removeprefix("heads."),)
    raise AssertionError(f"no row of the name table covers {ours}")


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read every tensor, under today's names: `bert.` in front, `weight` and `bias` instead of `gamma` and `beta`."""
    path = folder / "model.safetensors"
    if not path.exists():
        raise BertwrightError("model.safetensors is missing", where=folder)
    try:
        raw = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BertwrightError(f"cannot be read ({error})", where=path, fix="copy the file again") from None
    tensors = {}
    for name, tensor in raw.items():
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        if re.match(r"(embeddings|encoder|pooler)\.", name):
            name = f"bert.{name}"
        if _TIED.match(name):
            continue
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise BertwrightError(f"tensor {name!r} holds NaN, infinity or no floating-point numbers", where=path)
        tensors[name] = tensor
    decoder, words = raw.get("cls.predictions.decoder.weight"), tensors.get("bert.embeddings.word_embeddings.weight")
    if decoder is not None and words is not None and not torch.equal(decoder, words):
        raise BertwrightError("the masked-LM decoder is not the word embedding, as it is in BERT", where=path)
    return tensors


def _gather(names: tuple[str, ...], tensors: dict[str, Tensor], shape: torch.Size, folder: Path) -> Tensor:
    missing = [name for name in names if name not in tensors]
    if missing:
        raise BertwrightError(f"tensor {missing[0]!r} is missing", where=folder / "model.safetensors")
    expected = (shape[0] // len(names), *shape[1:])
    for name in names:
        if tuple(tensors[name].shape) != expected:
            found = tuple(tensors[name].shape)
            raise BertwrightError(
                f"tensor {name!r} has shape {found}, but config.json asks for {expected}",
                where=folder / "model.safetensors",
            )
    return torch.cat([tensors[name].float() for name in names])


def _head_of(name: str) -> str | None:
    """Return the head a Hugging Face tensor belongs to, or None for the encoder's."""
    if name.startswith("bert."):
        return None
    prefixes = {"cls.predictions": "mlm", "cls.seq_relationship": "nsp", "classifier": "classify"}
    return next((head for prefix, head in prefixes.items() if name.startswith(f"{prefix}.")), name.split(".")[0])


def _heads_in(tensors: dict[str, Tensor]) -> set[str]:
    return {head for head in map(_head_of, tensors) if head is not None}


def _make_head(name: str, config: BertConfig, tensors: dict[str, Tensor], where: Path) -> Head:
    if name == "mlm":
        return MaskedLMHead(config)
    if name == "nsp":
        return NextSentenceHead(config)
    if name == "classify":
        biases = tensors.get("classifier.bias")
        return ClassificationHead(config, num_labels=1 if biases is None else biases.shape[0])
    raise BertwrightError(f"no head is known for the tensors {name}.*", where=where)


def _card(model: Bert, wordpiece: WordPiece | None) -> str:
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    casing = (
        ""
        if wordpiece is None
        else f"- vocabulary: {wordpiece.vocab_size:,} entries, {'un' if wordpiece.rules.lowercase else ''}cased\n"
    )
    return (
        "---\nlibrary_name: transformers\ntags: [bert, bertwright]\n---\n# BERT\n\n"
        f"- {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
        f"{config.num_attention_heads} attention heads, {parameters:,} parameters\n"
        f"{casing}- heads: {', '.join(model.heads) or 'none'}\n\nMade with Bertwright.\n"
    )
