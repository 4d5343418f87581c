"""TensorFlow's checkpoints: what was written is what is read, and whatever is wrong is one error that says where."""

import itertools
import random
import subprocess
import time

import numpy as np
import pytest
import torch

from bertwright.errors import BertwrightError
from bertwright.model import tf_bundle, tf_table
from bertwright.model.tf_bundle import DTYPES, TensorBundle, find_bundle, write_bundle
from bertwright.model.tf_table import crc32c, make_table, mask, unmask, write_field, write_fixed32

TRIALS = 1_000
PAIRS = list(itertools.product(range(32), repeat=2))
HEADER = write_field(1, 1) + write_field(3, write_field(1, 1))


def tensors():
    generator = torch.Generator().manual_seed(0)
    found = {f"kinds/{str(dtype)[6:]}": torch.tensor([0, 1, 1]).to(dtype) for dtype in DTYPES.values()}
    return found | {
        "bert/pooler/dense/kernel": torch.randn(16, 16, generator=generator),
        "bert/pooler/dense/bias": torch.randn(16, generator=generator).bfloat16(),
        "a/view": torch.randn(6, 5, generator=generator).t()[1:],
        "global_step": torch.tensor(2**40),
        "empty": torch.zeros(0, 3),
        "有/名字": torch.tensor([float("nan"), float("inf"), -0.0]),
    }


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)


def entry(dtype=1, shape=(4,), shard=0, offset=0, size=16, content=bytes(16), **extra):
    """One entry as TensorFlow writes it; `extra` comes behind."""
    sizes = b"".join(write_field(2, write_field(1, axis % 2**64)) for axis in shape)
    fields = write_field(1, dtype) + write_field(2, sizes) + write_field(3, shard % 2**64)
    fields += write_field(4, offset % 2**64) + write_field(5, size % 2**64)
    return fields + write_fixed32(6, mask(crc32c(content))) + extra.get("more", b"")


@pytest.fixture
def save(tmp_path):
    """Write an index of one's own over data files of 32 zeros."""

    def build(entries, header=HEADER, shards=1):
        pairs = [(b"", header), *((name.encode(), value) for name, value in entries.items())]
        (tmp_path / "m.index").write_bytes(make_table(pairs))
        for number in range(shards):
            (tmp_path / f"m.data-{number:05d}-of-{shards:05d}").write_bytes(bytes(32))
        return tmp_path / "m"

    return build


def refused(prefix, pattern):
    with pytest.raises(BertwrightError, match=pattern) as caught:
        bundle = TensorBundle(prefix)
        for name in bundle.entries:
            bundle.read(name)
    assert str(prefix) in str(caught.value.where)


# --- Checksums --------------------------------------------------------------------------------------------------------


def test_checksums_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(bytes(reversed(range(32)))) == 0x113FDB5C
    assert crc32c(b"") == 0
    assert unmask(mask(0x12345678)) == 0x12345678


def test_checksums_are_those_of_the_plain_loop(monkeypatch):
    monkeypatch.setattr(tf_table, "_CHUNK_SIZE", 20_000)
    data = np.random.default_rng(0).integers(0, 256, 123_456, dtype=np.uint8)
    for size in [*range(8), 298, 299, 300, 1_000, 19_999, 20_000, 20_001, 20_298, 40_300, 123_456]:
        plain = 0xFFFFFFFF
        for byte in data[:size].tolist():
            plain = tf_table._CRC_OF_BYTE[(plain ^ byte) & 0xFF] ^ plain >> 8
        kept = data[:size].copy()
        assert crc32c(data[:size]) == crc32c(data[:size].tobytes()) == plain ^ 0xFFFFFFFF
        assert (data[:size] == kept).all()


def test_the_sparse_polynomial_is_a_multiple():
    remainder = sum(1 << term for term in tf_table._TERMS)
    while remainder.bit_length() > 32:
        remainder ^= 0x11EDC6F41 << (remainder.bit_length() - 33)
    assert remainder == 0


# --- What is written is what is read ----------------------------------------------------------------------------------


def test_tensors_come_back(tmp_path):
    written = tensors()
    write_bundle(tmp_path / "m", written)
    bundle = TensorBundle(tmp_path / "m")
    assert list(bundle.entries) == sorted(written, key=str.encode)
    for name, tensor in written.items():
        assert same(bundle.read(name), tensor), name
        assert bundle.entries[name].dtype == tensor.dtype
        assert bundle.entries[name].shape == tuple(tensor.shape)
    assert bundle.entries["global_step"].size == 8


def test_what_is_read_is_ones_own(tmp_path):
    write_bundle(tmp_path / "m", {"x": torch.ones(3)})
    bundle = TensorBundle(tmp_path / "m")
    bundle.read("x").zero_()
    assert bundle.read("x").tolist() == [1, 1, 1]


def test_files_are_a_function_of_the_tensors(tmp_path):
    written = tensors()
    write_bundle(tmp_path / "a", written)
    write_bundle(tmp_path / "b", dict(reversed(written.items())))
    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(tf_table, "_BLOCK_SIZE", 500)
    written = {f"layer_{number}/kernel": torch.tensor([number]) for number in range(300)}
    write_bundle(tmp_path / "m", written)
    bundle = TensorBundle(tmp_path / "m")
    assert {name: bundle.read(name).item() for name in bundle.entries} == {
        name: tensor.item() for name, tensor in written.items()
    }


def test_nothing_at_all(tmp_path):
    write_bundle(tmp_path / "m", {})
    assert TensorBundle(tmp_path / "m").entries == {}


@pytest.mark.parametrize("name", ["", "\0x", "a\nb", "\ud800"])
def test_names_that_cannot_be(tmp_path, name):
    with pytest.raises(BertwrightError, match="no name for a tensor"):
        write_bundle(tmp_path / "m", {name: torch.ones(1)})
    assert not list(tmp_path.iterdir())


def test_types_that_cannot_be_written(tmp_path):
    with pytest.raises(BertwrightError, match=r"'x' is torch.complex64, which is not written"):
        write_bundle(tmp_path / "m", {"x": torch.ones(1, dtype=torch.complex64)})


def test_several_data_files(save):
    prefix = save({"a": entry(shard=1, offset=8), "b": entry(shard=0, offset=16)}, write_field(1, 3), shards=3)
    bundle = TensorBundle(prefix)
    assert {name: found.shard for name, found in bundle.entries.items()} == {"a": 1, "b": 0}
    assert bundle.read("a").tolist() == [0, 0, 0, 0]


def test_unknown_fields_are_passed_over(save):
    more = write_field(90, 5) + write_field(91, b"text") + bytes([92 << 3 & 127 | 129, 5, 1, 2, 3, 4, 5, 6, 7, 8])
    assert TensorBundle(save({"a": entry(more=more)})).read("a").shape == (4,)


def test_what_cannot_be_read_stays_in_its_own_corner(save):
    slices = write_field(7, write_field(1, write_field(2, 2)))
    prefix = save(
        {
            "\0\1a-slice": entry(),
            "in/slices": entry(shape=(8, 4), size=0, more=slices),
            "objects": entry(dtype=7, shape=(), offset=16, size=9),
            "odd": entry(dtype=99, shape=(3,), offset=25, size=3),
        }
    )
    bundle = TensorBundle(prefix)
    assert {name: (found.kind, found.dtype, found.partitioned) for name, found in bundle.entries.items()} == {
        "in/slices": ("float32", torch.float32, True),
        "objects": ("string", None, False),
        "odd": ("number 99", None, False),
    }
    with pytest.raises(BertwrightError, match=r"'in/slices' is partitioned: .*\n.* without a partitioner"):
        bundle.read("in/slices")
    with pytest.raises(BertwrightError, match="'objects' is of type string, which is not read here"):
        bundle.read("objects")
    with pytest.raises(BertwrightError, match=r"no tensor 'object' \(did you mean 'objects'\?\)"):
        bundle.read("object")


# --- Damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "pattern"),
    [
        ({"a": entry(offset=20)}, r"file is cut off: tensor 'a' ends at byte 36, the file at 32"),
        ({"a": entry(), "b": entry(offset=12)}, "tensors 'a' and 'b' overlap"),
        ({"a": entry(), "b": entry()}, "tensors 'a' and 'b' overlap"),
        (
            {"a": entry(shape=(5,))},
            r"tensor 'a': it has 1 axes \[5\] of float32, and 16 bytes, which do not fit together",
        ),
        ({"a": entry(shape=(10**18,))}, r"'a': .* \[1000000000000000000\] of float32, and 16 bytes, which do not fit"),
        ({"a": entry(shape=(2**40, 2**40))}, "'a': .* which cannot be"),
        ({"a": entry(shape=(2**62, 0), size=0)}, "'a': .* which cannot be"),
        ({"a": entry(shape=(-1, -4))}, r"'a': .*\[-1, -4\].* which cannot be"),
        ({"a": entry(shape=(1,) * 65, size=4)}, "'a': .* 65 axes .* which cannot be"),
        ({"a": entry(shape=(2**58,), size=2**60)}, "file is cut off: tensor 'a'"),
        ({"a": entry(dtype=7, size=2**62)}, "file is cut off: tensor 'a'"),
        ({"a": entry(offset=-1)}, "'a': .* at byte -1 of data file 0, which cannot be"),
        ({"a": entry(dtype=7, size=-1)}, "'a': .* which cannot be"),
        ({"a": entry(shard=-1)}, "'a': .* of data file -1, which cannot be"),
        ({"a": entry(shard=1)}, r"m\.data-00001-of-00001: file is missing"),
        ({"a": entry(content=b"other")}, r"m\.data.*tensor 'a' is damaged: its crc32c is [0-9a-f]{8} instead of"),
        ({"a": write_field(1, b"text")}, "tensor 'a': .*field 1 in it is not a number"),
        ({"a": write_field(2, 5)}, "tensor 'a': .*field 2 in it is a number"),
        ({"a": b"\x08"}, "tensor 'a': a number in it has no end"),
        ({"a": b"\x08" + b"\xff" * 30}, "tensor 'a': a number in it has no end"),
        ({"a": b"\x08" + b"\xff" * 9 + b"\x7f"}, "tensor 'a': a number in it has no end"),
        ({"a": b"\x12\x7f"}, "tensor 'a': a part of it is cut off"),
        ({"a": b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"}, "tensor 'a': a part of it is cut off"),
        ({"a": b"\x0b"}, "tensor 'a': .*of the unknown type 3"),
    ],
)
def test_entries_that_cannot_be(save, entries, pattern):
    refused(save(entries), pattern)


@pytest.mark.parametrize(
    ("header", "pattern"),
    [
        (write_field(1, 1) + write_field(2, 1), "big-endian"),
        (write_field(1, 0), "counts 0 data files"),
        (write_field(1, 10**12), "counts 1,000,000,000,000 data files"),
        (write_field(1, 2**64 - 1), "counts -1 data files"),
        (write_field(1, 1) + write_field(3, write_field(2, 2)), "a later version"),
        (write_field(1, 2), "data-00000-of-00002: file is missing: the checkpoint has 2 of them"),
    ],
)
def test_headers_that_cannot_be(save, header, pattern):
    refused(save({"a": entry()}, header), pattern)


def put(tmp_path, pairs, change=lambda index: index):
    (tmp_path / "m.index").write_bytes(change(make_table(pairs)))
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("pairs", "pattern"),
    [
        ([], "it has no header"),
        ([(b"a", entry())], "it has no header"),
        ([(b"", HEADER), (b"a", entry()), (b"a", entry())], "the name b'a' is there twice or out of order"),
        ([(b"", HEADER), (b"b", entry()), (b"a", entry())], "the name b'a' is there twice or out of order"),
        ([(b"", HEADER), (b"\xff", entry())], "not UTF-8"),
        ([(b"", HEADER), (b"k" * 5000, entry())], "a name in it has 5,000 bytes"),
    ],
)
def test_tables_that_cannot_be(tmp_path, pairs, pattern):
    refused(put(tmp_path, pairs), pattern)


def block(content, restarts=(0,), kind=0, damage=0):
    """One block and what stands behind it."""
    words = [*restarts, len(restarts)] if isinstance(restarts, tuple) else [restarts]
    content += b"".join(word.to_bytes(4, "little") for word in words)
    return content, bytes([kind]) + mask(crc32c(content + bytes([kind])) ^ damage).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("first", "pattern"),
    [
        (block(b"\0\0\1x", kind=1), "it is compressed"),
        (block(b"\0\0\1x", damage=1), r"the crc32c of the block at byte 0 is [0-9a-f]{8} instead of"),
        (block(b"\0\0\1x", restarts=(0, 9)), "no entry where it says so"),
        (block(b"\0\0\1x", restarts=(2**32 - 1,)), "no entry where it says so"),
        (block(b"\0\0\1x", restarts=2**32 - 1), "a block is cut off"),
        (block(b"\0\0\1x", restarts=0), "a block is cut off"),
        ((b"\1", block(b"\1", ())[1]), "crc32c"),
        (block(b"\1\0\1x"), "begin like the one before it, which is shorter"),
        (block(b"\0\1\1ab\1\1\1cd", restarts=(0, 5)), "begin like the one before it"),
        (block(b"\0\x7f\1x"), "a part of it is cut off"),
        (block(b"\0\1\x7fa"), "a part of it is cut off"),
        (block(b"\xff\xff\xff"), "a number in it has no end"),
        (
            block(b"\0\xe8\x07\0" + b"k" * 1000 + b"".join(b"\xe8\x07\2\0" + bytes(pair) for pair in PAIRS)),
            "its names are longer than it is",
        ),
    ],
)
def test_blocks_that_cannot_be(tmp_path, first, pattern):
    body, trailer = first
    where = block(b"\0\1\3\x7f\0" + write_field(0, len(body))[1:].ljust(2, b"\0"))
    start = len(body) + len(trailer)
    places = b"\0\0" + write_field(0, start)[1:] + write_field(0, len(where[0]))[1:]
    magic = make_table([])[-8:]
    (tmp_path / "m.index").write_bytes(body + trailer + b"".join(where) + places.ljust(40, b"\0") + magic)
    refused(tmp_path / "m", pattern)


def test_blocks_that_are_read_twice(tmp_path):
    table = bytearray()
    place = tf_table._add_block(table, [])
    index = tf_table._add_block(table, [(b"a", place), (b"b", place)])
    (tmp_path / "m.index").write_bytes(bytes(table) + (place + index).ljust(40, b"\0") + make_table([])[-8:])
    refused(tmp_path / "m", "its blocks overlap")


@pytest.mark.parametrize("size", [0, 1, 47, 48, 60, 500])
def test_an_index_cut_off(tmp_path, size):
    write_bundle(tmp_path / "m", tensors())
    path = tmp_path / "m.index"
    path.write_bytes(path.read_bytes()[:size])
    refused(tmp_path / "m", "m.index: cannot be read: its last bytes are not those of a table")


def test_files_missing_or_cut_off(tmp_path):
    with pytest.raises(BertwrightError, match=r"m\.index: no TensorFlow checkpoint: this file is missing"):
        TensorBundle(tmp_path / "m")
    write_bundle(tmp_path / "m", tensors())
    with pytest.raises(BertwrightError, match=r"give the path without \.index"):
        TensorBundle(tmp_path / "m.index")
    bundle, path = TensorBundle(tmp_path / "m"), tmp_path / "m.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-1])
    refused(tmp_path / "m", r"data-00000-of-00001: file is cut off: tensor '有/名字'")
    with pytest.raises(BertwrightError, match="tensor '有/名字' is damaged"):
        bundle.read("有/名字")
    path.unlink()
    refused(tmp_path / "m", r"data-00000-of-00001: file is missing")
    with pytest.raises(BertwrightError, match="No such file"):
        bundle.read("有/名字")


def test_an_index_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(tf_bundle, "_MOST_INDEX_BYTES", 100)
    (tmp_path / "m.index").write_bytes(bytes(101))
    refused(tmp_path / "m", "more than 100 bytes")


def spoil(draw, content):
    """Turn bits, put in numbers, cut or repeat: at places drawn at random."""
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5])):
        place = draw.randrange(len(content) + 1)
        match draw.randrange(6):
            case 0 | 1:
                if place < len(content):
                    content[place] ^= 1 << draw.randrange(8)
            case 2:
                content[place : place + 1] = bytes([draw.choice([0, 1, 127, 128, 255])])
            case 3:
                content[place : place + 8] = draw.randbytes(8)
            case 4:
                content = content[:place]
            case 5:
                content[place:place] = content[: draw.randrange(40)]
    return bytes(content)


@pytest.mark.parametrize("checked", [True, False], ids=["with checksums", "past the checksums"])
def test_whatever_happens_to_a_file(tmp_path, monkeypatch, checked):
    if not checked:  # the parsers behind the checksums get everything then
        for module in (tf_bundle, tf_table):
            monkeypatch.setattr(module, "crc32c", lambda content: 0)
    monkeypatch.setattr(tf_table, "_BLOCK_SIZE", 300)
    written = tensors()
    write_bundle(tmp_path / "m", written)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    draw, errors = random.Random(0), 0
    for _ in range(TRIALS):
        path = draw.choice(sorted(files)) if checked else tmp_path / "m.index"
        path.write_bytes(spoil(draw, files[path]))
        began, message = time.monotonic(), None
        try:
            bundle = TensorBundle(tmp_path / "m")
            found = {name: bundle.read(name) for name, each in bundle.entries.items() if checked or each.dtype}
            assert not checked or all(same(found[name], tensor) for name, tensor in written.items())
        except BertwrightError as error:
            errors, message = errors + 1, str(error)
        assert message is None or str(tmp_path / "m.") in message
        assert time.monotonic() - began < 2
        path.write_bytes(files[path])
    assert errors > TRIALS // 2


# --- Finding one ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("in/model.ckpt-9", "in/model.ckpt-1000", "in/模型", "out/model.ckpt-1"):
        write_bundle(tmp_path / name, {"x": torch.ones(1)})
    return tmp_path / "in"


def test_none_and_one(tmp_path):
    assert find_bundle(tmp_path) is None
    assert find_bundle(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "gone"\n')
    assert find_bundle(tmp_path) is None
    (tmp_path / "checkpoint").unlink()
    write_bundle(tmp_path / "model.ckpt-5", {})
    assert find_bundle(tmp_path) == tmp_path / "model.ckpt-5"


def test_several(folder):
    with pytest.raises(BertwrightError, match=r"several checkpoints: model\.ckpt-1000, model\.ckpt-9, 模型") as caught:
        find_bundle(folder)
    newest = 'model_checkpoint_path: "model.ckpt-1000"'
    assert caught.value.fix == f"name the one you mean: echo '{newest}' > {folder / 'checkpoint'}"
    subprocess.run(["bash", "-c", caught.value.fix.partition(": ")[2]], check=True)
    assert find_bundle(folder) == folder / "model.ckpt-1000"
    (folder / "checkpoint").unlink()
    write_bundle(folder / "bert_model.ckpt", {})
    assert find_bundle(folder) == folder / "bert_model.ckpt"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('model_checkpoint_path: "model.ckpt-1000"\nall_model_checkpoint_paths: "model.ckpt-9"\n', "model.ckpt-1000"),
        ('all_model_checkpoint_paths: "model.ckpt-1000"\nmodel_checkpoint_path: "model.ckpt-9"\n', "model.ckpt-9"),
        ('model_checkpoint_path: "FOLDER/model.ckpt-9"\n', "model.ckpt-9"),
        ('model_checkpoint_path: "/where/it/was/trained/model.ckpt-9"\n', "model.ckpt-9"),
        ('model_checkpoint_path: "gs://bucket/model.ckpt-9"\n', "model.ckpt-9"),
        (r'model_checkpoint_path: "\346\250\241\345\236\213"', "模型"),
        ('model_checkpoint_path: "模型"', "模型"),
    ],
)
def test_the_one_that_is_named(folder, text, name):
    (folder / "checkpoint").write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
    found = find_bundle(folder)
    assert found == folder / name
    assert TensorBundle(found).read("x").tolist() == [1]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ('model_checkpoint_path: "model.ckpt-7"', "'model.ckpt-7', which is not in this folder"),
        ('model_checkpoint_path: "../out/model.ckpt-1"', "not in this folder"),
        ('model_checkpoint_path: "OUT/model.ckpt-1"', "not in this folder"),
        ('model_checkpoint_path: "link/model.ckpt-1"', "not in this folder"),
        ('model_checkpoint_path: "linked"', "not in this folder"),
        ('model_checkpoint_path: "circle"', "not in this folder"),
        (f'model_checkpoint_path: "{"n" * 5000}"', "not in this folder"),
        ('model_checkpoint_path: ""', "names no checkpoint"),
        (r'model_checkpoint_path: "a\000b"', "names no checkpoint"),
        (r'model_checkpoint_path: "a\777b"', "not in this folder"),
        ("model_checkpoint_path: model.ckpt-9", "names no checkpoint"),
        ("", "names no checkpoint"),
    ],
)
def test_the_one_that_is_named_must_be_here(folder, text, pattern):
    out = folder.parent / "out"
    (folder / "link").symlink_to(out)
    (folder / "linked.index").symlink_to(out / "model.ckpt-1.index")
    (folder / "circle.index").symlink_to(folder / "circle.index")
    (folder / "checkpoint").write_text(text.replace("OUT", str(out)), encoding="utf-8")
    with pytest.raises(BertwrightError, match=pattern) as caught:
        find_bundle(folder)
    assert caught.value.where == str(folder / "checkpoint")
    assert str(caught.value.fix).startswith("name the one you mean: echo 'model_checkpoint_path:")
