"""What a model folder says of its model: configuration, vocabulary and card, in Hugging Face's words or Google's.

described = describe(Path("uncased_L-12_H-768_A-12"))
described.config.num_hidden_layers     # 12
described.ignored                      # keys that change no number here
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.json_values import from_dict, read_json
from bertwright.model.bert import Bert
from bertwright.model.heads import ChoiceHead, ClassificationHead, TokenClassificationHead
from bertwright.model.names import ARCHITECTURES, PRE_NORM_TYPE, architecture_of, plain_class, pre_norm_class
from bertwright.text.wordpiece import WordPiece

VOCABULARY_FILES = frozenset(
    {"vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
)
CONFIG_FILES = ("config.json", "bert_config.json")
"""Hugging Face's, and Google's."""
TASK_FILE = "task.json"
"""Where a model folder keeps its task, which goes with its head."""
LABEL_KEYS = ("id2label", "label2id", "problem_type")
"""What `config.json` says of a classifier's outputs."""

_OURS = {
    "position_embedding_type": "absolute",
    "add_cross_attention": False,
    "directionality": "bidi",
    "pruned_heads": {},
    "quantization_config": None,
    "norm_first": False,
}
"""Keys that change the numbers, with the one value that is ours."""
_GELU_KEY = "bertwright_hidden_act"
"""In a `bert_config.json` written here: which form of gelu it is, both of which are `gelu` to Google's code."""
_OTHER_MODELS = {"num_hidden_groups": "ALBERT", "embedding_size": "ELECTRA or ALBERT", "attention_window": "Longformer",
                 "relative_attention": "DeBERTa", "rope_theta": "a BERT with rotary positions"}  # fmt: skip
"""Keys that BERT does not have, and who has them."""
_MULTIPLES = (1, 8, 16, 32, 64, 128)
"""Embeddings may be padded up to the next multiple of one of these, and no further."""


@dataclass(frozen=True)
class Described:
    """A model folder's configuration."""

    path: Path
    """The file it was read from."""
    config: BertConfig
    """The encoder's shape."""
    architecture: str | None = None
    """Hugging Face's class, where the file names one that is known here."""
    other_class: str | None = None
    """The class, where it is not known here."""
    is_tied: bool = True
    """Whether the masked-LM decoder is the word embedding, as it is in BERT."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """What it says of a classifier's outputs, under `LABEL_KEYS`."""
    ignored: tuple[str, ...] = ()
    """Its other keys: they change no number here."""


def describe(folder: Path) -> Described:
    """Read a model folder's `config.json` or `bert_config.json`.

    Raises:
        BertwrightError: the file is missing, damaged, of another model, or holds a value under which numbers would
            differ.
    """
    path = next((folder / name for name in CONFIG_FILES if (folder / name).exists()), None)
    if path is None:
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
    kind = values.get("model_type", "bert")
    if kind not in ("bert", PRE_NORM_TYPE):
        raise BertwrightError(f"model_type is {kind!r}, not 'bert'", where=path)
    for key, ours in _OURS.items():
        if values.get(key, ours) not in (ours, None):
            raise BertwrightError(f"{key} = {values[key]!r} is not supported; {ours!r} is", where=path)
    for key, whose in _OTHER_MODELS.items():
        if key in values and not (key == "embedding_size" and values[key] == values.get("hidden_size")):
            raise BertwrightError(f"{key} belongs to {whose}, not to BERT", where=path)
    fields = {each.name for each in dataclasses.fields(BertConfig)} - {"norm_first"}  # which model_type says
    taken = {key: value for key, value in values.items() if key in fields and value is not None}
    taken |= {"norm_first": True} if kind == PRE_NORM_TYPE else {}
    taken |= {"hidden_act": values[_GELU_KEY]} if _GELU_KEY in values else {}
    config = from_dict(BertConfig, taken, where=path)
    if not isinstance(values.get("id2label") or {}, dict):
        raise BertwrightError("id2label must name each output by its number", where=path)
    labels = {key: values[key] for key in LABEL_KEYS if values.get(key) is not None}
    known = fields | _OURS.keys() | set(LABEL_KEYS) | {"architectures", "model_type", "tie_word_embeddings", _GELU_KEY}
    ignored = tuple(sorted(values.keys() - known))
    architecture = _architecture(values, path)
    other = None if architecture else (values.get("architectures") or [None])[0]
    is_tied = values.get("tie_word_embeddings") is not False
    return Described(path, config, architecture, other, is_tied, labels, ignored)


def _architecture(values: Mapping[str, Any], path: Path) -> str | None:
    named = values.get("architectures")
    named = [None] if named in (None, []) else named
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str | None):
        raise BertwrightError(f"architectures must name one class, not {named!r}", where=path)
    name: str | None = named[0] if named[0] is None else plain_class(named[0])
    if name is not None and name not in ARCHITECTURES:
        if "model_type" in values:  # a class of somebody's own around a BERT: its head will be listed
            return None
        raise BertwrightError(f"it is made for {name}, which is not known here", where=path,
                              fix=f"known: {', '.join(ARCHITECTURES)}")  # fmt: skip
    return name


def read_config(folder: Path) -> BertConfig:
    """Read the encoder's shape from a model folder; see `describe`."""
    return describe(folder).config


def read_wordpiece(folder: Path, config: BertConfig) -> WordPiece:
    """Read the vocabulary of a model folder.

    Raises:
        BertwrightError: it is not of the size that the model has embeddings for.
    """
    wordpiece = WordPiece.load(folder)
    size, rows = wordpiece.vocab_size, config.vocab_size
    if rows not in {-(-size // multiple) * multiple for multiple in _MULTIPLES}:
        raise BertwrightError(
            f"the vocabulary has {size:,} entries, the model {rows:,} embeddings",
            where=folder,
            fix="put back the vocab.txt that the model was trained with",
        )
    return wordpiece


def require_both_sides(config: BertConfig, purpose: str, fix: str = "use one that reads both ways") -> None:
    """Refuse a left-to-right model where it would be used as if it read both ways."""
    if config.is_decoder:
        raise BertwrightError(f"this model reads from left to right (is_decoder) and cannot {purpose}", fix=fix)


def require_left_to_right(config: BertConfig, purpose: str, fix: str) -> None:
    """Refuse a model that reads both ways where what comes next would be no secret to it."""
    if not config.is_decoder:
        raise BertwrightError(f"this model reads both ways and cannot {purpose}", fix=fix)


def hugging_face_config(model: Bert) -> dict[str, Any]:
    """Return the keys of Hugging Face's `config.json`."""
    shape = dataclasses.asdict(model.config)
    if not model.config.pool_last:  # a key of ours, which others need not see
        del shape["pool_last"]
    name, norm_first = architecture_of(model.heads, is_decoder=model.config.is_decoder), shape.pop("norm_first")
    return {
        "architectures": [pre_norm_class(name) if norm_first else name],
        "model_type": PRE_NORM_TYPE if norm_first else "bert",
        **shape,
        "position_embedding_type": "absolute",
        "dtype": "float32",
        **({} if "id2label" in model.labels else _numbered_labels(model)),
        **model.labels,
    }


def _numbered_labels(model: Bert) -> dict[str, Any]:
    """Return names for a classifier's outputs: without them Hugging Face's library takes it that there are two."""
    for head in model.heads.values():
        if isinstance(head, ClassificationHead | TokenClassificationHead) and not isinstance(head, ChoiceHead):
            names = {str(number): f"LABEL_{number}" for number in range(head.num_labels)}
            return {"id2label": names, "label2id": {name: int(number) for number, name in names.items()}}
    return {}


def google_config(config: BertConfig) -> dict[str, Any]:
    """Return the keys of Google's `bert_config.json`.

    Raises:
        BertwrightError: Google's code could not compute this model.
    """
    for key, possible in (("hidden_act", ("gelu", "gelu_new", "relu", "tanh", "linear")), ("layer_norm_eps", (1e-12,)),
                          ("is_decoder", (False,)), ("norm_first", (False,))):  # fmt: skip
        if getattr(config, key) not in possible:
            raise BertwrightError(
                f"{key} is {getattr(config, key)!r}; google-research/bert computes {' or '.join(map(repr, possible))}",
                fix="keep Hugging Face's format: --to hf",
            )
    left_out = ("layer_norm_eps", "is_decoder", "pool_last", "norm_first", "pad_token_id")
    values = {key: value for key, value in dataclasses.asdict(config).items() if key not in left_out}
    return values | ({"hidden_act": "gelu", _GELU_KEY: "gelu_new"} if config.hidden_act == "gelu_new" else {})


def model_card(model: Bert, wordpiece: WordPiece | None) -> str:
    """Return the text of a model folder's README.md."""
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    casing = (
        ""
        if wordpiece is None
        else f"- vocabulary: {wordpiece.vocab_size:,} entries, {'un' if wordpiece.rules.lowercase else ''}cased\n"
    )
    causal = "- reads from left to right: a token sees itself and those before it\n" if config.is_decoder else ""
    causal += "- pools the last token; Hugging Face's classes would pool [CLS]\n" if config.pool_last else ""
    causal += (
        "- layer normalisation before each sub-layer: `megatron-bert` to Hugging Face\n" if config.norm_first else ""
    )
    return (
        "---\nlibrary_name: transformers\ntags: [bert, bertwright]\n---\n# BERT\n\n"
        f"- {config.num_hidden_layers} layers, hidden size {config.hidden_size}, "
        f"{config.num_attention_heads} attention heads, {parameters:,} parameters\n"
        f"{casing}{causal}- heads: {', '.join(model.heads) or 'none'}\n\nMade with Bertwright.\n"
    )
