"""Weights on disk: nothing bad loads in silence. Every damage is one error that names the file and the tensor."""

import json
import random
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from bertwright.model.weights import load_model, load_with_sheet, to_hugging_face

QUERY = "bert.encoder.layer.0.attention.self.query.weight"
POOLER = "bert.pooler.dense.bias"
WORDS = "bert.embeddings.word_embeddings.weight"
POSITIONS = "bert.embeddings.position_ids"
BIAS = "cls.predictions.bias"
DECODER = "cls.predictions.decoder.weight"
DECODER_BIAS = "cls.predictions.decoder.bias"
AGAIN = "copy or download the file again"


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rewrite(folder, change):
    """Change the tensors of model.safetensors by a function of their dictionary."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


def without(*names):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


def plus(name, make):
    return lambda tensors: tensors | {name: make(tensors)}


# --- safetensors, byte by byte ----------------------------------------------------------------------------------------


def test_truncated_anywhere(folder, refused):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for length in (0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert refused(folder, "truncated", AGAIN).where == str(path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**8 + 1, 0])
def test_an_absurd_header_length(folder, refused, length):
    path = folder / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    assert refused(folder, f"{length:,}" if length else "header is damaged", AGAIN).where == str(path)


def test_random_bytes(folder, refused):
    for seed in range(20):
        (folder / "model.safetensors").write_bytes(random.Random(seed).randbytes(5_000))
        refused(folder, "model.safetensors: truncated")


def entry(**values):
    return lambda header: header | {QUERY: header[QUERY] | values}


def moved(count):
    """Shift the second tensor in the file, and all behind it."""

    def change(header):
        places = {
            name: [end + count * (entry["data_offsets"][0] > 0) for end in entry["data_offsets"]]
            for name, entry in header.items()
        }
        return {name: entry | {"data_offsets": places[name]} for name, entry in header.items()}

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (entry(shape=[-16, -16]), [QUERY, "[-16, -16]"]),
        (entry(shape=[16.0, 16]), [QUERY, "[16.0, 16]"]),
        (entry(shape=[True, 256]), [QUERY, "[True, 256]"]),
        (entry(shape=[float("nan"), 16]), [QUERY, "[nan, 16]"]),
        (entry(shape=[2**40, 2**40]), [QUERY, "(1099511627776, 1099511627776) needs", "but has 1,024"]),
        (entry(shape=[10**4000, 10**4000]), ["header is damaged"]),
        (entry(shape=[16, 8]), [QUERY, "(16, 8) needs 512 bytes, but has 1,024"]),
        (entry(shape=5), ["header is damaged"]),
        (entry(shape=None), ["header is damaged"]),
        (entry(dtype="F33"), [QUERY, "unknown type 'F33'"]),
        (entry(dtype=[]), ["header is damaged"]),
        (entry(dtype="F64"), [QUERY, "needs 2,048 bytes, but has 1,024"]),
        (entry(dtype="I32"), [QUERY, "int32"]),
        (entry(data_offsets=[0, 1024]), [QUERY, "overlaps"]),
        (entry(data_offsets=[-4, 1020]), [QUERY, "[-4, 1020]"]),
        (entry(data_offsets=[1024]), ["header is damaged"]),
        (entry(data_offsets=[2**63, 2**63 + 1024]), ["leaves a gap"]),
        (moved(-4), ["overlaps the tensor before it"]),
        (moved(4), ["leaves a gap before it"]),
        (lambda header: header | {"x": None}, ["header is damaged"]),
        (lambda header: header | {"x": {"dtype": "F32"}}, ["header is damaged"]),
        (lambda header: header | {"__metadata__": {"a": 5}}, ["cannot be read"]),
        (lambda _: [], ["header is damaged"]),
        (lambda _: None, ["header is damaged"]),
        (lambda _: "text", ["header is damaged"]),
        (lambda _: {}, ["bytes of numbers, but its header describes 0"]),
        (lambda _: b"x" * 99, ["header is damaged"]),
        (lambda _: b"[" * 100_000, ["header is damaged"]),
        (lambda _: b'{"a":' * 100_000, ["header is damaged"]),
        (lambda header: json.dumps(header).encode("utf-16"), ["cannot be read"]),
        (lambda header: json.dumps(header)[:-1].encode() + b', "x": 1, "x": 1}', ["the key 'x' is there twice"]),
    ],
)
def test_a_damaged_header(folder, refused, change, words):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = change({name: value for name, value in json.loads(content[8:end]).items() if name != "__metadata__"})
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
    assert refused(folder, *words).where == str(path)


def test_trailing_bytes(folder, refused):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    refused(folder, "model.safetensors: truncated or too long")


# --- Tensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without(QUERY), [f"{QUERY!r} is missing", "(16, 16)"]),
        (without("cls.predictions.bias"), ["'cls.predictions.bias' is missing", "(40,)"]),
        (plus(QUERY, lambda _: torch.ones(16, 8)), [QUERY, "has shape (16, 8)", "asks for (16, 16)"]),
        (plus(QUERY, lambda _: torch.ones(())), [QUERY, "has shape ()", "asks for (16, 16)"]),
        (plus("bert.more", lambda _: torch.ones(1)), ["unknown tensors 'bert.more'"]),
        (plus(POOLER, lambda _: torch.full((16,), torch.nan)), [POOLER, "NaN or infinity"]),
        (plus(POOLER, lambda _: torch.full((16,), torch.inf).half()), [POOLER, "NaN or infinity"]),
        (plus(POOLER, lambda _: torch.ones(16, dtype=torch.int64)), [POOLER, "int64, not of floating-point"]),
        (plus(POOLER, lambda _: torch.ones(16, dtype=torch.uint16)), [POOLER, "not of floating-point"]),
        (plus("pooler.dense.bias", lambda _: torch.ones(16)), [f"{POOLER!r} is there twice", "'pooler.dense.bias'"]),
        (plus("bert.embeddings.LayerNorm.beta", lambda _: torch.ones(16)), ["twice", "LayerNorm.beta'"]),
        (plus(DECODER, lambda tensors: tensors[WORDS] + 1), [DECODER, "is not the word embedding"]),
        (plus(DECODER, lambda _: torch.ones(40, 8)), [DECODER, "is not the word embedding"]),
        (
            plus("cls.predictions.decoder.bias", lambda _: torch.ones(40)),
            ["decoder.bias", "is not cls.predictions.bias"],
        ),
        (plus(POSITIONS, lambda _: torch.arange(12).flip(0)[None]), [POSITIONS, "other ids"]),
        (plus(POSITIONS, lambda _: torch.zeros(1, 12, dtype=torch.int64)), [POSITIONS, "other ids"]),
        pytest.param(plus(POSITIONS, lambda _: torch.arange(12) + 0.5), [POSITIONS]),
        pytest.param(plus(POSITIONS, lambda _: torch.arange(12).to(torch.float8_e4m3fn)), [POSITIONS]),
        pytest.param(plus(POOLER, lambda _: torch.full((16,), 1e300, dtype=torch.float64)), [POOLER]),
        pytest.param(plus("classifier.weight", lambda _: torch.empty(2**62, 0)), ["classifier.weight"]),
        pytest.param(
            lambda tensors: tensors | {"classifier.weight": torch.ones(0, 16), "classifier.bias": torch.ones(0)},
            ["classifier.weight"],
        ),
    ],
)
def test_a_wrong_tensor_is_named(folder, refused, change, words):
    rewrite(folder, change)
    assert refused(folder, *words).where == str(folder / "model.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {WORDS: tensors[WORDS]},
        pytest.param(plus("bert.encoder.layer.299.x", lambda _: torch.ones(1))),
        pytest.param(plus(f"bert.encoder.layer.{'9' * 5_000}.x", lambda _: torch.ones(1))),
    ],
    ids=["none is there", "the last is there", "one of many digits is there"],
)
def test_layers_that_are_not_there_are_not_built(folder, refused, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 300, "architectures": ["BertModel"]}))
    rewrite(folder, change)
    refused(folder, "num_hidden_layers is 300, but the weights have")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_becomes_fp32(folder, dtype):
    written = {
        name: (tensor.double() * (1 + 1e-9)).to(dtype) for name, tensor in to_hugging_face(load_model(folder)).items()
    }
    for write, name in ((save_file, "model.safetensors"), (torch.save, "pytorch_model.bin")):
        write(written, folder / name)
        loaded = to_hugging_face(load_model(folder))
        assert {name for name in loaded if not torch.equal(loaded[name], written[name].float())} == set()
        (folder / name).unlink()


def old_names(tensors):
    """As in files of 2018: gamma and beta, no `bert.` in front, and the positions' numbers."""
    tensors = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in tensors.items()
    }
    return tensors | {"embeddings.position_ids": torch.arange(12)[None]}


def test_old_names_load_equal(folder):
    expected = load_model(folder)
    rewrite(folder, old_names)
    model, sheet = load_with_sheet(folder)
    assert same(model, expected)
    assert {row.source: row.note for row in sheet.rows if row.target is None} == {"embeddings.position_ids": "constant"}
    assert {row.source for row in sheet.rows if row.target == "bert.embeddings.LayerNorm.weight"} == {
        "embeddings.LayerNorm.gamma"
    }


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (plus(DECODER, lambda tensors: tensors[WORDS].clone()), {DECODER}),
        (plus(DECODER_BIAS, lambda tensors: tensors[BIAS].clone()), {DECODER_BIAS}),
        (lambda tensors: without(BIAS)(tensors | {DECODER_BIAS: tensors[BIAS]}), set()),
    ],
    ids=["weight", "bias", "the only bias"],
)
def test_copies_of_the_decoder_load_equal(folder, change, left):
    expected = load_model(folder)
    rewrite(folder, change)
    model, sheet = load_with_sheet(folder)
    assert same(model, expected)
    assert {row.source for row in sheet.rows if row.target is None} == left


# --- Memory -----------------------------------------------------------------------------------------------------------

SPARSE_SIZE = 200 * 2**20
MEASURED = """
import os, resource, sys
from pathlib import Path
from bertwright.errors import BertwrightError
from bertwright.model.weights import load_model

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)
for folder in sys.argv[1:]:
    if os.fork() == 0:  # a child's peak starts at what it holds
        before = peak()
        try:
            load_model(Path(folder))
        except BertwrightError as error:
            print(peak() - before, str(error).splitlines()[0], flush=True)
        os._exit(0)
    os.wait()
"""
LARGE = [  # the file, how it starts, how much of its size may be read
    ("model.safetensors", (2**63).to_bytes(8, "little") + b'{"', 0.1),
    ("model.safetensors", (99_999_999).to_bytes(8, "little") + b'{"', 1.5),
    ("pytorch_model.bin", b"PK\3\4", 0.1),
    ("pytorch_model.bin", b"", 0.1),
    ("pytorch_model.bin", b"\x80\2X\xff\xff\xff\x0b", 2),  # a text of 200 MB
]


def test_a_large_file_is_refused_without_reading_it_all(folder, tmp_path):
    for number, (name, start, _) in enumerate(LARGE):
        (tmp_path / str(number)).mkdir()
        shutil.copy(folder / "config.json", tmp_path / str(number))
        with (tmp_path / str(number) / name).open("wb") as file:
            file.write(start)
            file.truncate(SPARSE_SIZE)
    command = [sys.executable, "-c", MEASURED, *(tmp_path / str(number) for number in range(len(LARGE)))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for number, (line, (name, _, most)) in enumerate(zip(lines, LARGE, strict=True)):
        growth, message = line.split(" ", 1)
        assert message.startswith(str(tmp_path / str(number) / name))
        assert int(growth) < most * SPARSE_SIZE, name
