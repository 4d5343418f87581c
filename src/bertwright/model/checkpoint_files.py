"""Weights on disk, whoever wrote them: names, shapes and types at once, a tensor's numbers when they are asked for.

    checkpoint = open_checkpoint(Path("uncased_L-12_H-768_A-12"))
    checkpoint.tensors["bert.pooler.dense.weight"].read()

Read: `model.safetensors`, `pytorch_model.bin` (tensors alone: torch's unpickler with its list of what is allowed), both
also in several files under an index, and Google's TensorFlow checkpoints. All under Hugging Face's names of today.
Nothing damaged is passed over: every file is checked whole before the first number is used.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bertwright.errors import BertwrightError
from bertwright.json_values import read_json, unique_keys
from bertwright.model.names import from_google, todays_name
from bertwright.model.tf_bundle import TensorBundle, find_bundle

AGAIN = "copy or download the file again"
FORMATS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that a model folder may keep its weights in, in the order in which they are looked for."""

_SAFETENSORS_TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
                      "BOOL": 1, "U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1}  # fmt: skip
_TORCH_TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
                "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
                "BOOL": torch.bool}  # fmt: skip
_MOST_HEADER_BYTES = 100_000_000
_SLOTS = re.compile(
    r"/(adam_[mv]|lamb_[mv]|Adam(_1)?|LAMB\w*|[mv]|Momentum|ExponentialMovingAverage|accum\w*)(_\d+)?$", re.I
)
_COUNTERS = re.compile(r"(^|/)(global_step|good_steps|loss_scale|current_loss_scale|beta[12]_power|learning_rate|"
                       r"save_counter|_CHECKPOINTABLE_OBJECT_GRAPH)(/.*)?$")  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint, not yet read."""

    source: str
    """What its file calls it."""
    shape: tuple[int, ...]
    """Its shape here: Google's matrices are already transposed."""
    dtype: torch.dtype | None
    """Its type in the file; None: one that torch does not have."""
    file: Path
    """Where it lies."""
    read: Callable[[], Tensor] = field(repr=False)
    """Returns its numbers."""
    transposed: bool = False
    """Whether its file has the transpose."""


@dataclass(frozen=True)
class Skipped:
    """A tensor that is no part of the model."""

    source: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None
    why: str


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model folder."""

    file: Path
    """The file, or the index of several."""
    format: str
    """`safetensors`, `pytorch` or `google`."""
    tensors: Mapping[str, StoredTensor]
    """By Hugging Face's name of today."""
    skipped: tuple[Skipped, ...] = ()
    """What else is in the files, and why it was left."""


def open_checkpoint(folder: Path) -> Checkpoint:
    """Find and check the weights in a model folder.

    Raises:
        BertwrightError: there are none, a file is damaged, or it holds something else than tensors.
    """
    path = next((folder / name for name in FORMATS if (folder / name).exists()), None)
    if path is None:
        if (prefix := find_bundle(folder)) is not None:
            return _open_google(prefix)
        others = [name for name in ("tf_model.h5", "flax_model.msgpack", "model.onnx") if (folder / name).exists()]
        found = f"; {others[0]} cannot be read" if others else ""
        raise BertwrightError(
            f"no weights here{found}",
            where=folder,
            fix=f"give a folder with {FORMATS[0]}, {FORMATS[2]} or *.ckpt.index",
        )
    kind = "safetensors" if "safetensors" in path.name else "pytorch"
    stored = list(_read_index(path, kind)) if path.suffix == ".json" else _open_file(path, kind)
    tensors: dict[str, StoredTensor] = {}
    for tensor in stored:
        name = todays_name(tensor.source)
        if name in tensors:
            raise BertwrightError(f"tensor {name!r} is there twice, as {tensors[name].source!r} and {tensor.source!r}",
                                  where=tensor.file)  # fmt: skip
        tensors[name] = tensor
    return Checkpoint(path, kind, tensors)


def _open_file(path: Path, kind: str) -> list[StoredTensor]:
    return _open_safetensors(path) if kind == "safetensors" else _open_pytorch(path)


def _read_index(path: Path, kind: str) -> Iterator[StoredTensor]:
    """Yield the tensors of the files that an index names; each must be just where the index says."""
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise BertwrightError("its weight_map must name a file for every tensor", where=path)
    for name in sorted(set(places.values())):
        file = _inside(path, name)
        stored = {tensor.source: tensor for tensor in _open_file(file, kind)}
        expected = {tensor for tensor, place in places.items() if place == name}
        if missing := sorted(expected - stored.keys()):
            raise BertwrightError(
                f"tensor {missing[0]!r} is missing, which {path.name} says is here", where=file, fix=AGAIN
            )
        if extra := sorted(stored.keys() - expected):
            raise BertwrightError(f"tensor {extra[0]!r} is here, of which {path.name} knows nothing", where=file)
        yield from stored.values()


def _inside(index: Path, name: str) -> Path:
    """Return the path of a file that an index names; it must lie in the index's folder, or in its download cache."""
    folder = index.parent.resolve()  # "." and a link have no parent of use
    file = index.parent / name
    if name != Path(name).name or "\\" in name or name in ("", ".", ".."):
        raise BertwrightError(f"it names {name!r}, a path that leaves the folder", where=index)
    try:
        is_there = file.exists()
    except OSError:  # the name is too long
        is_there = False
    if not is_there:
        what = f"{name} is missing, which the index names"
        raise BertwrightError(what, where=index.parent, fix=f"copy {name} there too")
    homes = [folder]
    if folder.parent.name == "snapshots":  # huggingface_hub's cache is made of links into `blobs`
        homes.append(folder.parent.parent / "blobs")
    if not any(file.resolve().is_relative_to(home) for home in homes):
        raise BertwrightError(f"{name} is a link that leaves the folder", where=index, fix="copy the file itself there")
    return file


def _open_safetensors(path: Path) -> list[StoredTensor]:
    header = _safetensors_header(path)
    try:
        opened = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise BertwrightError(f"cannot be read ({error})", where=path, fix=AGAIN) from None

    def reader(name: str) -> Callable[[], Tensor]:
        return lambda: opened.get_tensor(name)  # type: ignore[no-untyped-call]

    return [
        StoredTensor(name, tuple(entry["shape"]), _TORCH_TYPES.get(entry["dtype"]), path, reader(name))
        for name, entry in header.items()
    ]


def _safetensors_header(path: Path) -> dict[str, Any]:
    """Return the header's entries after a check of every one; the format allows neither gaps nor overlaps."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, _MOST_HEADER_BYTES):
                raise BertwrightError(f"truncated: {size:,} bytes, but a header of {length:,}", where=path, fix=AGAIN)
            text = file.read(length)
    except OSError as error:
        raise BertwrightError(f"cannot be read ({error.strerror})", where=path) from None

    try:
        header: dict[str, Any] = json.loads(text, object_pairs_hook=unique_keys)
        header.pop("__metadata__", None)
        spans = sorted((*_checked_span(name, entry, path), name) for name, entry in header.items())
    except BertwrightError as error:
        raise BertwrightError(error.what, where=path, fix=AGAIN) from None
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise BertwrightError(f"its header is damaged ({type(error).__name__})", where=path, fix=AGAIN) from None
    end = 0
    for first, last, name in spans:
        if first != end:
            what = "overlaps the tensor before it" if first < end else "leaves a gap before it"
            raise BertwrightError(
                f"tensor {name!r} {what}: it begins at byte {first:,}, not {end:,}", where=path, fix=AGAIN
            )
        end = last
    if end != size - 8 - length:
        what = f"truncated or too long: {size - 8 - length:,} bytes of numbers, but its header describes {end:,}"
        raise BertwrightError(what, where=path, fix=AGAIN)
    return header


def _checked_span(name: str, entry: dict[str, Any], path: Path) -> tuple[int, int]:
    dtype, shape, (first, last) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _SAFETENSORS_TYPES:
        raise BertwrightError(f"tensor {name!r} is of the unknown type {dtype!r}", where=path)
    if not all(type(value) is int and value >= 0 for value in (*shape, first, last)):
        raise BertwrightError(f"tensor {name!r} has shape {shape} at {[first, last]}", where=path, fix=AGAIN)
    size = _SAFETENSORS_TYPES[dtype]
    for value in shape:
        size *= value
    if last - first != size:
        what = f"tensor {name!r} of shape {tuple(shape)} needs {size:,} bytes, but has {last - first:,}"
        raise BertwrightError(what, where=path, fix=AGAIN)
    return first, last


def _open_pytorch(path: Path) -> list[StoredTensor]:
    found = _unpickle_tensors(path)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict):
        raise BertwrightError(f"it holds a {type(found).__name__}, not tensors by name", where=path)
    size = path.stat().st_size
    stored = []
    for name, tensor in found.items():
        if not isinstance(name, str):
            raise BertwrightError(f"{name!r} is not a name: tensors by name are expected", where=path)
        if not isinstance(tensor, Tensor):
            raise BertwrightError(f"{name!r} is a {type(tensor).__name__}, not a tensor", where=path)
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.device.type != "cpu":
            raise BertwrightError(f"tensor {name!r} is no ordinary one ({tensor.layout}, {tensor.device})", where=path)
        if tensor.numel() * tensor.element_size() > size:
            what = f"tensor {name!r} of shape {tuple(tensor.shape)} is larger than the whole file, {size:,} bytes"
            raise BertwrightError(what, where=path, fix=AGAIN)
        stored.append(StoredTensor(name, tuple(tensor.shape), tensor.dtype, path, tensor.detach))
    return stored


def _unpickle_tensors(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\3\4"
    except OSError as error:
        raise BertwrightError(f"cannot be read ({error.strerror})", where=path) from None
    try:
        if is_zip:
            _check_zip(path)
        with warnings.catch_warnings():  # torch's, about rare kinds of files; the error that follows says it all
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except BertwrightError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"global:?\s+(?:global\s+)?([\w.]+)", str(error), re.I)
        what = (
            f"it holds code ({named[1]}), not tensors alone" if named else "it is no file of tensors, or a damaged one"
        )
        fix = "do not open it with anything else; get the weights as model.safetensors from a source you trust"
        raise BertwrightError(what, where=path, fix=fix if named else AGAIN) from None
    except Exception as error:  # a damaged pickle may fail in any way whatever
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise BertwrightError(f"damaged ({reason})", where=path, fix=AGAIN) from None


def _check_zip(path: Path) -> None:
    """Refuse compressed members, whose bytes torch takes for numbers where it maps a file, and wrong checksums."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                fix = "unpack it and write it again with torch.save"
                raise BertwrightError(f"{member.filename} in it is compressed", where=path, fix=fix)
        if (damaged := archive.testzip()) is not None:
            raise BertwrightError(f"damaged: the checksum of {damaged} in it is another", where=path, fix=AGAIN)


def _open_google(prefix: Path) -> Checkpoint:
    bundle = TensorBundle(prefix)
    index = Path(f"{prefix}.index")
    tensors: dict[str, StoredTensor] = {}
    skipped = []
    for source, entry in bundle.entries.items():
        known = from_google(source)
        if known is None or entry.dtype is None:
            skipped.append(Skipped(source, entry.shape, entry.dtype, _why_skipped(source, bundle.entries, index)))
            continue
        name, transposed = known

        def read(source: str = source, transposed: bool = transposed) -> Tensor:
            tensor = bundle.read(source)
            return tensor.T if transposed and tensor.ndim == 2 else tensor

        if name in tensors:
            what = f"tensor {name!r} is there twice, as {tensors[name].source!r} and {source!r}"
            raise BertwrightError(what, where=index)
        shape = entry.shape[::-1] if transposed else entry.shape
        tensors[name] = StoredTensor(source, shape, entry.dtype, index, read, transposed)
    return Checkpoint(index, "google", tensors, tuple(skipped))


def _why_skipped(source: str, known: Container[str], index: Path) -> str:
    if source.rpartition("/")[0] in known or _SLOTS.search(
        source
    ):  # an optimizer's slots are called after its variable
        return "optimizer slot"
    if _COUNTERS.search(source):
        return "training counter"
    if source.startswith("bert/"):
        raise BertwrightError(f"variable {source!r} is not of a BERT that is known here", where=index)
    return "another head"
