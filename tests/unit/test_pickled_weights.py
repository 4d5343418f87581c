"""pytorch_model.bin: tensors come out of a pickle and nothing else, and damage is one error that names the file."""

import io
import os
import pickle
import random
import tarfile
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from bertwright.errors import BertwrightError
from bertwright.model.weights import load_model

WORDS = "bert.embeddings.word_embeddings.weight"
POOLER = "bert.pooler.dense.bias"
POSITIONS = "bert.embeddings.position_ids"
FORMATS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}
AGAIN = "copy or download the file again"

each_format = pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS)


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def pickled(folder, change=lambda tensors: tensors, **options):
    """Turn a folder's model.safetensors into a pytorch_model.bin of what a function makes of the tensors."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's, about rare kinds of tensors
        torch.save(change(tensors), path, **options)
    return path


def plus(name, make):
    return lambda tensors: tensors | {name: make(tensors)}


# --- What loads -------------------------------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"model_state_dict": tensors, "optimizer": {"state": {}}},
        lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()},
        lambda tensors: {name: tensor.t().contiguous().t() for name, tensor in tensors.items()},
        lambda tensors: {
            name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor
            for name, tensor in tensors.items()
        },
        plus(POSITIONS, lambda _: torch.arange(12)[None]),
        plus("cls.predictions.decoder.weight", lambda tensors: tensors[WORDS]),
    ],
    ids=["plain", "state_dict", "model_state_dict", "module.", "parameters", "views", "gamma", "positions", "tied"],
)  # fmt: skip
def test_tensors_load_equal(folder, change, options):
    expected = load_model(folder)
    pickled(folder, change, **options)
    assert same(load_model(folder), expected)


@each_format
def test_a_tensor_of_one_number_may_be_stretched(folder, options):
    pickled(folder, plus(POOLER, lambda _: torch.full((1,), 7.0).expand(16)), **options)
    assert load_model(folder).pooler.dense.bias.tolist() == [7.0] * 16


# --- Code -------------------------------------------------------------------------------------------------------------


class Code:
    """What would run as soon as a pickle is opened."""

    def __init__(self, function, *arguments):
        self.made_by = function, arguments

    def __reduce__(self):
        return self.made_by


@each_format
@pytest.mark.parametrize("nested", [False, True])
def test_code_is_not_run(folder, tmp_path, refused, options, nested):
    code = Code(os.system, f"touch {tmp_path / 'touched'}")
    pickled(folder, lambda tensors: {"state_dict": tensors, "x": code} if nested else tensors | {"x": code}, **options)
    refused(folder)
    assert not (tmp_path / "touched").exists()
    pickle.loads(pickle.dumps(code))  # and it would have done what it says
    assert (tmp_path / "touched").exists()


@each_format
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (eval, "eval"),
        (torch.hub.load, "torch.hub.load"),
        pytest.param(os.system, f"{os.system.__module__}.system"),
        (io.open, f"{io.open.__module__}.open"),
    ],
)
def test_code_is_named(folder, refused, function, name, options):
    pickled(folder, plus("x", lambda _: Code(function, "0")), **options)
    refused(folder, f"it holds code ({name})", "from a source you trust")


def make_tar(path, content):
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def make_zip(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize(
    "make", [make_tar, make_zip, lambda path, content: path.write_bytes(content)], ids=["tar", "zip", "bare"]
)
def test_code_is_not_run_from_other_archives(folder, tmp_path, refused, make):
    make(pickled(folder), pickle.dumps(Code(os.system, f"touch {tmp_path / 'touched'}"), protocol=2))
    refused(folder)
    assert not (tmp_path / "touched").exists()


# --- Damage -----------------------------------------------------------------------------------------------------------


@each_format
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: list(tensors.values()), ["it holds a list, not tensors by name"]),
        (lambda tensors: tensors[WORDS], ["it holds a Tensor, not tensors by name"]),
        (lambda _: None, ["it holds a NoneType"]),
        (plus("x", lambda _: 3), ["'x' is a int, not a tensor"]),
        (plus("x", lambda tensors: tensors), ["'x' is a dict, not a tensor"]),
        (plus("x", lambda _: [torch.ones(1)]), ["'x' is a list, not a tensor"]),
        (plus(POOLER, lambda _: torch.eye(16).to_sparse()), [POOLER, "no ordinary one (torch.sparse_coo"]),
        (plus(POOLER, lambda _: torch.eye(16).to_sparse_csr()), [POOLER, "no ordinary one (torch.sparse_csr"]),
        (plus(POOLER, lambda _: torch.ones(16, device="meta")), [POOLER, "no ordinary one"]),
        (plus(POOLER, lambda _: torch.ones(16, dtype=torch.complex64)), [POOLER, "complex64"]),
        (plus(POOLER, lambda _: torch.ones(16, dtype=torch.int8)), [POOLER, "int8, not of floating-point numbers"]),
        (plus(POOLER, lambda _: torch.ones(16) / 0), [POOLER, "NaN or infinity"]),
        (plus(POOLER, lambda _: torch.ones(16, 1)), [POOLER, "has shape (16, 1), but config.json asks for (16,)"]),
        (plus(POOLER, lambda _: torch.ones(1).expand(10**12)), [POOLER, "(1000000000000,) is larger than the whole"]),
        (plus(f"module.{POOLER}", lambda _: torch.ones(16)), [f"{POOLER!r} is there twice", f"'module.{POOLER}'"]),
        (plus(POSITIONS, lambda _: torch.arange(1, 13)), [POSITIONS, "other ids"]),
        pytest.param(plus(POSITIONS, lambda _: torch.arange(12) * 1j + torch.arange(12)), [POSITIONS]),
        pytest.param(plus(3, lambda _: torch.ones(1)), ["not a name"]),
    ],
)
def test_what_is_no_tensor_is_named(folder, refused, change, words, options):
    path = pickled(folder, change, **options)
    assert refused(folder, *words).where == str(path)


def test_nested_tensors(folder, refused):
    pickled(folder, plus(POOLER, lambda _: torch.nested.nested_tensor([torch.ones(3), torch.ones(4)])))
    refused(folder, POOLER)


@each_format
def test_a_later_protocol_is_one_error(folder, refused, options):
    pickled(folder, pickle_protocol=4, **options)
    refused(folder)


def test_a_program_is_one_error(folder, refused):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(pickled(folder))
    refused(folder)


@each_format
@pytest.mark.parametrize("length", [0, 1, 2, 4, 5, 30, 500])
def test_truncated_near_the_start(folder, refused, length, options):
    path = pickled(folder, **options)
    path.write_bytes(path.read_bytes()[:length])
    refused(folder, AGAIN)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99, 0.9999])
def test_truncated_further_on(folder, refused, kind, share):
    path = pickled(folder, **FORMATS[kind])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(folder, AGAIN)


@pytest.mark.parametrize(
    "content",
    [bytes(5_000), b"hello\n" * 99, b"PK\3\4" + bytes(99), b"version https://git-lfs.github.com/spec/v1\noid x\n"]
    + [random.Random(seed).randbytes(5_000) for seed in range(10)],
)  # fmt: skip
def test_other_bytes(folder, refused, content):
    pickled(folder).write_bytes(content)
    refused(folder, AGAIN)


def zipped_again(path, level):
    """Write an archive once more as other programs would, its members compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("level", [0, 9])
def test_compressed_members_are_not_taken_for_numbers(folder, level):
    path = pickled(folder, lambda tensors: {name: torch.ones_like(tensor) for name, tensor in tensors.items()})
    expected = load_model(folder)
    zipped_again(path, level)
    try:
        found = load_model(folder)
    except BertwrightError as error:
        found = error
    assert "compressed" in str(found) if isinstance(found, BertwrightError) else same(found, expected)


def test_a_turned_bit_is_found_by_its_checksum(folder, refused):
    path = pickled(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(folder, AGAIN)
