"""A model from one format into another, with the proof that its numbers are the same.

    conversion = convert("chinese_L-12_H-768_A-12", Path("chinese"), to="hf")
    conversion.largest_difference          # 0.0: both folders were run on the same inputs
    conversion.rows                        # every tensor: where it came from, where it went

Reference: google-research/bert `modeling.py` for the names and shapes of its variables.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bertwright.batch import Batch
from bertwright.config import Activation, PoolingMode
from bertwright.errors import BertwrightError
from bertwright.files import new_folder
from bertwright.model.bert import Bert
from bertwright.model.folder import Described, describe, google_config, read_wordpiece
from bertwright.model.heads import Head
from bertwright.model.hub import local_folder
from bertwright.model.names import to_google
from bertwright.model.pooling import Pooling, pooling_files, read_pooling
from bertwright.model.tf_bundle import write_bundle
from bertwright.model.weights import Sheet, SheetRow, load_model, load_with_sheet, save_model, to_hugging_face
from bertwright.tasks import task_files
from bertwright.text.wordpiece import WordPiece

log = logging.getLogger(__name__)

Format = Literal["hf", "google", "sentence-transformers"]
"""What can be written: Hugging Face's folder, Google's TensorFlow 1 files, a sentence-transformers folder."""

GOOGLE_PREFIX = "bert_model.ckpt"
"""What Google calls its checkpoints."""

_PROBES = ("BERT reads a sentence from both sides.", "机器学习需要数据。", "a", "naïve café 🙂 “quotes” 12,345")


@dataclass(frozen=True)
class Conversion:
    """What was done."""

    sheet: Sheet
    """How the source was read."""
    rows: tuple[SheetRow, ...]
    """Every tensor of the source; `target` is its name in the new folder."""
    heads: tuple[str, ...]
    """Heads in the new folder."""
    largest_difference: float
    """Between any hidden state or logit of the source and of what was written, on the same inputs."""

    def to_json(self) -> dict[str, Any]:
        """Return the proof sheet as JSON values."""
        return {
            "source": str(self.sheet.checkpoint.file),
            "format": self.sheet.checkpoint.format,
            "heads": list(self.heads),
            "largest_difference": self.largest_difference,
            "ignored_config_keys": list(self.sheet.described.ignored),
            "tensors": [vars(row) for row in self.rows],
        }


def convert(
    source: str | Path,
    out: Path,
    *,
    to: Format = "hf",
    pooling: PoolingMode | None = None,
    hidden_act: Activation | None = None,
    lenient: bool = False,
) -> Conversion:
    """Read a model in any format and write it in another; then read that again and run both.

    Args:
        source: a model folder of any kind, or a name on the hub.
        out: folder to write; it must not exist, or be empty.
        to: the format.
        pooling: for `sentence-transformers`: as the source says unless given, or `mean`.
        hidden_act: what `gelu` means in a checkpoint that was trained with Google's later code: `gelu_new`.
        lenient: only warn where heads are missing that the source's configuration promises.

    Raises:
        BertwrightError: the source is damaged or has something that the format cannot hold; nothing is written then.
    """
    folder, out = local_folder(source), out.resolve()  # "." is another folder once it has been replaced
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BertwrightError("something is here already", where=out, fix="choose another folder")
    if out.is_relative_to(folder.resolve()):
        raise BertwrightError("this lies in the source, which is never changed", where=out, fix="choose another folder")
    folder, found = read_pooling(folder) or (folder, Pooling())
    described = describe(folder)
    config = described.config
    if hidden_act is not None:
        config = replace(config, hidden_act=_gelu(described, hidden_act))
    if to == "hf" and found != Pooling():
        log.warning("%s: its pooling is left out; --to sentence-transformers keeps it", folder)
    heads: dict[str, Head] | None = {} if to == "sentence-transformers" else None
    model, sheet = load_with_sheet(folder, heads, config=config, lenient=lenient)
    wordpiece = read_wordpiece(folder, config)
    match to:
        case "hf":
            names = _write_hugging_face(model, wordpiece, out, task_files(folder, model))
        case "sentence-transformers":
            found = found if pooling is None else replace(found, modes=(pooling,), dense=())
            found = replace(found, max_length=found.max_length or config.max_position_embeddings)
            names = _write_hugging_face(model, wordpiece, out, pooling_files(found, config.hidden_size))
        case "google":
            names = _write_google(model, wordpiece, out)
    difference = largest_difference(model, load_model(out), wordpiece)
    rows = tuple(_written(row, names.get(row.target or "")) for row in sheet.rows)
    return Conversion(sheet, rows, tuple(model.heads), difference)


def _written(row: SheetRow, target: str | None) -> SheetRow:
    """Return a row with the tensor's name in the new folder; None: it was read, but nothing there reads it."""
    return replace(row, target=target, note=row.note if target or row.target is None else "no head reads it")


def _gelu(described: Described, hidden_act: Activation) -> Activation:
    """Return what `gelu` means in Google's file; nothing else is anybody's to choose."""
    if described.path.name != "bert_config.json" or described.config.hidden_act != "gelu" or "gelu" not in hidden_act:
        raise BertwrightError(f"its hidden_act {described.config.hidden_act!r} leaves no choice", where=described.path,
                              fix="--hidden-act gelu_new is for Google's files that say gelu")  # fmt: skip
    return hidden_act


def _write_hugging_face(model: Bert, wordpiece: WordPiece, out: Path, extra_files: Mapping[str, str]) -> dict[str, str]:
    save_model(model, out, wordpiece=wordpiece, extra_files=extra_files)
    return {name: name for name in to_hugging_face(model)}


def _write_google(model: Bert, wordpiece: WordPiece, out: Path) -> dict[str, str]:
    """Write Google's files; return the name of each variable by Hugging Face's."""
    values = google_config(model.config)
    if strange := sorted(set(model.heads) & {"tag", "choice"}):
        raise BertwrightError(f"google-research/bert has no such head: {', '.join(strange)}",
                              fix="keep Hugging Face's format: --to hf")  # fmt: skip
    names, tensors = {}, {}
    for name, tensor in to_hugging_face(model).items():
        google = to_google(name)
        assert google is not None, name
        names[name], transposed = google
        tensors[names[name]] = tensor.T.contiguous() if transposed else tensor
    with new_folder(out) as new:
        write_bundle(new / GOOGLE_PREFIX, tensors)
        (new / "bert_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        wordpiece.save(new, max_length=model.config.max_position_embeddings)
    return names


def largest_difference(one: Bert, other: Bert, wordpiece: WordPiece) -> float:
    """Run two models on the same few inputs, English and Chinese, short and long.

    Returns:
        The largest difference between any of their hidden states, pooled vectors and logits, fp32.

    Raises:
        BertwrightError: they do not have the same heads.
    """
    if set(one.heads) != set(other.heads):
        raise BertwrightError(f"heads {sorted(one.heads)} on one side, {sorted(other.heads)} on the other")
    longest = one.config.max_position_embeddings
    encodings = [wordpiece.encode(text, max_length=longest) for text in (*_PROBES, " ".join(_PROBES * 40))]
    last_type = one.config.type_vocab_size - 1
    batch = Batch.pack(
        [encoding.input_ids for encoding in encodings],
        [[min(place % 2, last_type) for place in range(len(encoding.input_ids))] for encoding in encodings],
    )
    batch = replace(batch, targets={"masked_rows": torch.arange(batch.num_tokens)})
    with torch.inference_mode():
        pairs = list(zip(_outputs(one, batch), _outputs(other, batch), strict=True))
        difference = float(torch.stack([(mine - theirs).abs().max() for mine, theirs in pairs]).max())
    if not math.isfinite(difference):
        raise BertwrightError("the model's outputs are NaN or infinite: nothing can be compared")
    return difference


def _outputs(model: Bert, batch: Batch) -> list[Tensor]:
    states = model.hidden_states(batch)
    is_read = any(head.pooled for head in model.heads.values()) or not (model.heads or model.pooler.is_drawn)
    pooled = [states.pooler_output] if is_read else []
    return [*model.layer_outputs(batch), *pooled, *(logits for _, logits in sorted(model(batch).items()))]
