"""Weights in several files under an index; and random damage, to files of every kind."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from bertwright.errors import BertwrightError
from bertwright.model.weights import load_model, load_with_sheet

TRIALS = 300
QUERY = "bert.encoder.layer.0.attention.self.query.weight"
AGAIN = "copy or download the file again"


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- Several files under an index -------------------------------------------------------------------------------------

KINDS = {"model.safetensors": save_file, "pytorch_model.bin": torch.save}


def split(folder, kind="model.safetensors", change=lambda _: None):
    """Put the weights into the files `first` and `last`, of which the index, changed, tells."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    for start, name in enumerate(("first", "last")):
        part = {key: tensors[key] for key in sorted(tensors)[start::2]}
        KINDS[kind](part, folder / name)
        places |= dict.fromkeys(part, name)
    change(places)
    (folder / f"{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder / f"{kind}.index.json"


@pytest.mark.parametrize("kind", KINDS)
def test_several_files_load_equal(folder, kind):
    expected = load_model(folder)
    split(folder, kind)
    model, sheet = load_with_sheet(folder)
    assert same(model, expected)
    assert sheet.checkpoint.file == folder / f"{kind}.index.json"
    assert {tensor.file.name for tensor in sheet.checkpoint.tensors.values()} == {"first", "last"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda places: places.update({QUERY: "last"}), ["first", QUERY, "is here, of which", "knows nothing"]),
        (lambda places: places.pop(QUERY), ["first", QUERY, "is here, of which", "knows nothing"]),
        (lambda places: places.update(more="last"), ["last: tensor 'more' is missing, which", "says is here", AGAIN]),
        (lambda places: places.update(more="middle"), ["middle is missing", "copy middle there too"]),
        (lambda places: places.update(more="../model/last"), ["'../model/last', a path that leaves the folder"]),
        (lambda places: places.update(more=".."), ["'..', a path that leaves the folder"]),
        (lambda places: places.update(more="/etc/passwd"), ["'/etc/passwd', a path that leaves the folder"]),
        (lambda places: places.update(more="sub/last"), ["'sub/last', a path that leaves the folder"]),
        (lambda places: places.update(more="sub\\last"), [r"'sub\\last', a path that leaves the folder"]),
        (lambda places: places.update(more=""), ["'', a path that leaves the folder"]),
        (lambda places: places.update(more="a\0b"), ["is missing, which the index names"]),
        (lambda places: places.update(more=5), ["its weight_map must name a file for every tensor"]),
        (lambda places: places.update(more=None), ["its weight_map must name a file for every tensor"]),
        (lambda places: places.clear(), ["its weight_map must name a file for every tensor"]),
        pytest.param(lambda places: places.update(more="n" * 300), ["n" * 300]),
    ],
)
def test_a_wrong_index(folder, refused, kind, change, words):
    (folder / "sub").mkdir()
    (folder / "sub/last").write_bytes(b"")
    index = split(folder, kind, change)
    refused(folder, *words, index.name if "path" in words[0] else "")


@pytest.mark.parametrize(
    "text", ['{"weight_map": []}', '{"weight_map": 5}', "{}", "[]", '{"weight_map": {', "\ufeff{}"]
)
def test_an_index_of_something_else(folder, refused, text):
    index = split(folder)
    index.write_text(text)
    assert refused(folder).where == str(index)


def test_a_link_that_leaves_the_folder(folder, refused):
    index = split(folder)
    (folder / "last").rename(folder / "other")
    (folder / "last").symlink_to("other")
    load_model(folder)
    (folder / "other").rename(folder.parent / "other")
    (folder / "last").unlink()
    (folder / "last").symlink_to("../other")
    assert refused(folder, "last is a link that leaves the folder").where == str(index)
    (folder / "last").unlink()
    (folder / "last").symlink_to("last")
    refused(folder, "last")


@pytest.mark.parametrize(
    "way",
    [
        "whole",
        "relative",
        "link",
    ],
)
def test_a_download_cache_is_made_of_links(folder, tmp_path, monkeypatch, refused, way):
    expected = load_model(folder)
    split(folder)
    snapshot, blobs = (tmp_path / "models--x" / name for name in ("snapshots/abc", "blobs"))
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in list(folder.iterdir()):
        path.rename(blobs / f"sha-of-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/sha-of-{path.name}")
    monkeypatch.chdir(snapshot)
    (tmp_path / "link").symlink_to(snapshot)
    given = {"whole": snapshot, "relative": snapshot.relative_to(snapshot), "link": tmp_path / "link"}[way]
    assert same(load_model(given), expected)
    (blobs / "sha-of-last").rename(tmp_path / "last")
    (snapshot / "last").unlink()
    (snapshot / "last").symlink_to("../../../last")
    refused(given, "last is a link that leaves the folder")


# --- Whatever the bytes are -------------------------------------------------------------------------------------------


def make_safetensors(folder):
    return folder / "model.safetensors"


def make_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


def make_config(folder):
    return folder / "config.json"


def damaged(content, rng):
    """Cut a file off, or turn a few bits of it; half of them in its first and last 4,000 bytes."""
    if rng.random() < 0.2:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        span = len(content) if rng.random() < 0.5 else min(4_000, len(content))
        changed[rng.choice((1, -1)) * rng.randrange(1, span)] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [make_safetensors, make_pickle, make_config, split])
def test_random_damage_is_an_error_or_harmless(folder, make):
    path = make(folder)
    content, rng, refusals = path.read_bytes(), random.Random(0), []
    for _ in range(TRIALS):
        path.write_bytes(damaged(content, rng))
        try:
            model = load_model(folder)
        except BertwrightError as error:
            refusals.append(str(error))
        else:
            assert all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())
    assert refusals
    assert [text for text in refusals if str(folder) not in text] == []
    path.write_bytes(content)
    load_model(folder)
