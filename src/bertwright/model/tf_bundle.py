"""TensorFlow's checkpoints (version 2, "tensor bundles") read and written without TensorFlow.

A checkpoint is `PREFIX.index`, a table of what each tensor is and where it lies, and their bare bytes in
`PREFIX.data-00000-of-00001` and so on. Every part of the index and every tensor has a checksum, and it is looked at.

    bundle = TensorBundle(Path("uncased_L-2_H-128_A-2/bert_model.ckpt"))
    bundle.read("bert/pooler/dense/kernel")
    write_bundle(Path("model.ckpt-1000"), {"global_step": torch.tensor(1000)})

Reference: tensorflow/core/util/tensor_bundle, tensorflow/core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bertwright.errors import BertwrightError, nearest
from bertwright.model.tf_table import (
    DamageError,
    Message,
    UnsupportedError,
    crc32c,
    make_table,
    mask,
    read_table,
    unmask,
    write_field,
    write_fixed32,
)

DTYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}
"""What is read and written here, by its number in tensorflow/core/framework/types.proto."""

_OTHER_KINDS = {5: "int16", 7: "string", 8: "complex64", 17: "uint16", 20: "resource", 21: "variant", 22: "uint32"}
_MOST_INDEX_BYTES = 2**26
_MOST_SHARDS = 99_999
_MOST_NAME_BYTES = 2**12
_MOST_DIMENSIONS = 64
_AGAIN = "copy or download the file again"


@dataclass(frozen=True, kw_only=True)
class BundleEntry:
    """What the index says of one tensor."""

    kind: str
    """Its type's name, such as `float32` or `string`."""
    dtype: torch.dtype | None
    """None: a type that cannot be read here."""
    shape: tuple[int, ...]
    """Its shape."""
    shard: int
    """The data file's number."""
    offset: int
    """Bytes before it in the data file."""
    size: int
    """Bytes."""
    crc32c: int
    """Checksum of these bytes."""
    partitioned: bool
    """It was saved in slices, and cannot be read here."""


class TensorBundle:
    """A checkpoint, opened: the index has been read and checked, the data files have been found.

    Args:
        prefix: the path without `.index`, such as `folder/bert_model.ckpt`.

    Raises:
        BertwrightError: a file is missing, damaged, or of a sort that is not read here.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self._index = Path(f"{prefix}.index")
        content = _read_file(self._index)
        try:
            table = dict(read_table(content))
            self._num_shards = _num_shards(table.pop(b"", None))
            found = dict(_named_entry(key, value) for key, value in table.items())
        except DamageError as error:
            fix = None if isinstance(error, UnsupportedError) else _AGAIN
            raise BertwrightError(f"cannot be read: {error}", where=self._index, fix=fix) from None
        self._check_places(found)
        self.entries = {name: entry for name, entry in found.items() if not name.startswith("\0")}
        """What each tensor is and where it lies, by name, in the order of the index (which is sorted)."""

    def read(self, name: str) -> Tensor:
        """Return one tensor, in memory of its own, after a look at its checksum.

        Args:
            name: one of `entries`.

        Raises:
            BertwrightError: there is no such tensor, it cannot be read here, or it is damaged.
        """
        if name not in self.entries:
            raise BertwrightError(f"no tensor {name!r}{nearest(name, self.entries)}", where=self._index)
        entry = self.entries[name]
        if entry.dtype is None:
            raise BertwrightError(f"tensor {name!r} is of type {entry.kind}, which is not read here", where=self._index)
        if entry.partitioned:
            raise BertwrightError(
                f"tensor {name!r} is partitioned: it was saved in slices, which are not read here",
                where=self._index,
                fix="in TensorFlow, load the checkpoint and save it again without a partitioner",
            )
        path = self._shard(entry.shard)
        content = torch.empty(entry.size, dtype=torch.uint8)
        try:
            with path.open("rb") as file:
                file.seek(entry.offset)
                complete = file.readinto(content.numpy().data) == entry.size
        except OSError as error:
            raise BertwrightError(f"cannot be read ({error.strerror})", where=path) from None
        found = crc32c(content.numpy())
        if not complete or found != entry.crc32c:
            raise BertwrightError(
                f"tensor {name!r} is damaged: its crc32c is {found:08x} instead of {entry.crc32c:08x}",
                where=path,
                fix=_AGAIN,
            )
        values = content.ne(0) if entry.dtype == torch.bool else content.view(entry.dtype)
        return values.reshape(entry.shape)

    def _shard(self, number: int) -> Path:
        return Path(f"{self.prefix}.data-{number:05d}-of-{self._num_shards:05d}")

    def _check_places(self, found: Mapping[str, BundleEntry]) -> None:
        """Make sure that every data file is there, and that its tensors lie side by side in it."""
        places = sorted((entry.shard, entry.offset, entry.size, name) for name, entry in found.items() if entry.size)
        for number, tensors in itertools.groupby(places, key=lambda place: place[0]):
            path = self._shard(number)
            try:
                size = path.stat().st_size if path.is_file() else -1
            except OSError:
                size = -1
            if size < 0:
                raise BertwrightError(
                    f"file is missing: the checkpoint has {self._num_shards} of them, numbered from 0",
                    where=path,
                    fix="copy it there too",
                )
            end, before = 0, ""
            for _, offset, length, name in tensors:
                if offset < end:
                    raise BertwrightError(f"tensors {before!r} and {name!r} overlap", where=self._index, fix=_AGAIN)
                end, before = offset + length, name
                if end > size:
                    what = f"file is cut off: tensor {name!r} ends at byte {end:,}, the file at {size:,}"
                    raise BertwrightError(what, where=path, fix=_AGAIN)


def write_bundle(prefix: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint that TensorFlow reads, with one data file. The same tensors give the same bytes.

    Args:
        prefix: the path without `.index`; its folder exists.
        tensors: by name.

    Raises:
        BertwrightError: TensorFlow knows no such name, or its checkpoints no such type; nothing has been written.
    """
    kinds = {dtype: kind for kind, dtype in DTYPES.items()}
    for name, tensor in tensors.items():
        if not name or not name.isprintable():
            raise BertwrightError(f"{name!r} is no name for a tensor", where=prefix)
        if tensor.dtype not in kinds:
            raise BertwrightError(f"tensor {name!r} is {tensor.dtype}, which is not written here", where=prefix)
    header = write_field(1, 1) + write_field(3, write_field(1, 1))  # one data file, version 1 of the format
    pairs, offset = [(b"", header)], 0
    with Path(f"{prefix}.data-00000-of-00001").open("wb") as file:
        for name in sorted(tensors, key=str.encode):
            tensor = tensors[name].detach().cpu().contiguous()
            content = tensor.reshape(-1).view(torch.uint8).numpy()
            file.write(content.data)
            shape = b"".join(write_field(2, write_field(1, size)) for size in tensor.shape)
            entry = write_field(1, kinds[tensor.dtype]) + write_field(2, shape)
            entry += write_field(4, offset) + write_field(5, content.size) + write_fixed32(6, mask(crc32c(content)))
            pairs.append((name.encode(), entry))
            offset += content.size
    Path(f"{prefix}.index").write_bytes(make_table(pairs))


def find_bundle(folder: Path) -> Path | None:
    """Return the prefix of the checkpoint in a folder, or None where there is none.

    It is `bert_model.ckpt`, as in Google's archives; or else what the text file `checkpoint` names, which TensorFlow
    writes beside its checkpoints; or else the only one.

    Raises:
        BertwrightError: there are several, or `checkpoint` names none in this folder.
    """
    prefixes = sorted(path.with_suffix("") for path in folder.glob("*.index"))
    if folder / "bert_model.ckpt" in prefixes:
        return folder / "bert_model.ckpt"
    if prefixes and (folder / "checkpoint").is_file():
        return _named_bundle(folder / "checkpoint", prefixes)
    if len(prefixes) > 1:
        names = ", ".join(prefix.name for prefix in prefixes[:10]) + ("" if len(prefixes) <= 10 else ", …")
        raise BertwrightError(f"several checkpoints: {names}", where=folder, fix=_choose(prefixes))
    return prefixes[0] if prefixes else None


def _choose(prefixes: list[Path]) -> str:
    newest = max(prefixes, key=lambda prefix: [int(number) for number in re.findall(r"\d+", prefix.name)])
    return f"name the one you mean: echo 'model_checkpoint_path: \"{newest.name}\"' > {newest.parent / 'checkpoint'}"


def _named_bundle(path: Path, prefixes: list[Path]) -> Path:
    """Read `model_checkpoint_path: "model.ckpt-1000"`, where any byte may be spelt in octal."""
    found = re.search(rb'^model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)*)"', _read_file(path), re.MULTILINE)
    raw = b"" if found is None else re.sub(rb"\\([0-7]{3}|.)", _unescape, found[1])
    name = raw.decode(errors="replace")
    if not name or not name.isprintable():
        raise BertwrightError("this file names no checkpoint", where=path, fix=_choose(prefixes))
    index, home = path.parent / f"{name}.index", path.parent.resolve()
    last = re.split(r"[/\\]", name)[-1]  # of the place where it was trained: /tmp/out, gs://bucket/out
    if path.parent / last in prefixes:
        name, index = last, path.parent / f"{last}.index"
    try:
        inside = ".." not in Path(name).parts and index.resolve().is_relative_to(home) and index.is_file()
    except (OSError, RuntimeError):  # a name too long, links in a circle
        inside = False
    if not inside:
        what = f"it names the checkpoint {name!r}, which is not in this folder"
        raise BertwrightError(what, where=path, fix=_choose(prefixes))
    return index.with_suffix("")


def _unescape(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8) & 0xFF]) if len(found[1]) == 3 else found[1]


def _read_file(path: Path) -> bytes:
    try:
        if not path.is_file():
            fix = "give the path without .index" if path.name.endswith(".index.index") else None
            raise BertwrightError("no TensorFlow checkpoint: this file is missing", where=path, fix=fix)
        with path.open("rb") as file:
            content = file.read(_MOST_INDEX_BYTES + 1)
    except OSError as error:
        raise BertwrightError(f"cannot be read ({error.strerror})", where=path) from None
    if len(content) > _MOST_INDEX_BYTES:
        raise BertwrightError(f"no part of a checkpoint: it has more than {_MOST_INDEX_BYTES:,} bytes", where=path)
    return content


def _num_shards(header: bytes | None) -> int:
    if header is None:
        raise DamageError("it has no header")
    message = Message(header)
    if message.number(2) != 0:
        raise UnsupportedError("it was written on a big-endian machine, which is not supported")
    for version in message.parts(3):
        if Message(version).number(2) > 1:
            raise UnsupportedError("it is of a later version of the format than 1")
    count = message.number(1)
    if not 1 <= count <= _MOST_SHARDS:
        raise DamageError(f"it counts {count:,} data files")
    return count


def _named_entry(key: bytes, value: bytes) -> tuple[str, BundleEntry]:
    """Return a tensor's name and entry; a key that starts with 0 is not a name, but stands for a slice of a tensor."""
    if len(key) > _MOST_NAME_BYTES:
        raise DamageError(f"a name in it has {len(key):,} bytes")
    try:
        name = key.decode(errors="backslashreplace" if key.startswith(b"\0") else "strict")
        return name, _entry(value)
    except UnicodeDecodeError:
        raise DamageError(f"the name {key!r} is not UTF-8") from None
    except DamageError as error:
        raise DamageError(f"tensor {name!r}: {error}") from None


def _entry(data: bytes) -> BundleEntry:
    message = Message(data)
    sizes = [Message(size).number(1) for shape in message.parts(2)[-1:] for size in Message(shape).parts(2)]
    kind = message.number(1)
    dtype = DTYPES.get(kind)
    entry = BundleEntry(
        kind=_OTHER_KINDS.get(kind, f"number {kind}") if dtype is None else str(dtype).removeprefix("torch."),
        dtype=dtype,
        shape=tuple(sizes),
        shard=message.number(3),
        offset=message.number(4),
        size=message.number(5),
        crc32c=unmask(message.number(6)),
        partitioned=bool(message.parts(7)),
    )
    what = f"it has {len(sizes)} axes {sizes[:8]} of {entry.kind}, and {entry.size:,} bytes"
    if len(sizes) > _MOST_DIMENSIONS or min(sizes, default=0) < 0 or math.prod(max(1, n) for n in sizes) >= 2**60:
        raise DamageError(f"{what}, which cannot be")
    if dtype is not None and not entry.partitioned and math.prod(sizes) * dtype.itemsize != entry.size:
        raise DamageError(f"{what}, which do not fit together")
    if entry.shard < 0 or entry.offset < 0 or entry.size < 0:
        raise DamageError(f"{what}, at byte {entry.offset:,} of data file {entry.shard:,}, which cannot be")
    return entry
