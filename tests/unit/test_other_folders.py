"""Folders of Google's TensorFlow code, and folders that are saved over: nothing is lost in silence."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file

from bertwright.errors import BertwrightError
from bertwright.model.folder import google_config
from bertwright.model.names import to_google
from bertwright.model.tf_bundle import write_bundle
from bertwright.model.weights import load_model, load_with_sheet, save_model, to_hugging_face

KERNEL = "bert/encoder/layer_1/output/dense/kernel"
SLOTS = ("adam_m", "adam_v")


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- Google's folders -------------------------------------------------------------------------------------------------


@pytest.fixture
def google(folder, tmp_path):
    """Write the model as Google's code would, its variables changed by a function; the other's matrices transposed."""

    def build(change=lambda variables: variables):
        new = tmp_path / "uncased_L-2_H-16_A-2"
        new.mkdir()
        model = load_model(folder)
        variables = {}
        for name, tensor in to_hugging_face(model).items():
            known, transposed = to_google(name)
            variables[known] = tensor.t().contiguous() if transposed else tensor
        write_bundle(new / "bert_model.ckpt", change(variables))
        (new / "bert_config.json").write_text(json.dumps(google_config(model.config)))
        shutil.copy(folder / "vocab.txt", new)
        return new

    return build


def with_slots(variables):
    """As training leaves them: two moments for every variable, and the step."""
    slots = {f"{name}/{slot}": torch.ones_like(each) for name, each in variables.items() for slot in SLOTS}
    return variables | slots | {"global_step": torch.tensor(7)}


def test_googles_folder_loads_equal(folder, google):
    assert same(load_model(google()), load_model(folder))


def test_what_is_left_of_a_training_is_listed(folder, google, caplog):
    caplog.set_level(logging.INFO, "bertwright")
    model, sheet = load_with_sheet(google(with_slots))
    assert same(model, load_model(folder))
    left = {row.source: row.note for row in sheet.rows if row.target is None}
    taken = [row.source for row in sheet.rows if row.target is not None]
    assert left == {f"{name}/{slot}": "optimizer slot" for name in taken for slot in SLOTS} | {
        "global_step": "training counter"
    }
    assert len(taken) == len(to_hugging_face(model))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v | {"bert/more": torch.ones(1)}, ["'bert/more' is not of a BERT"]),
        (lambda v: v | {"bert/encoder/layer_0/more/kernel": torch.ones(1, 1)}, ["'bert/encoder/layer_0/more/kernel'"]),
        (lambda v: v | {"bert/encoder/layer_2/output/dense/kernel": torch.ones(1, 1)}, ["the weights have 3"]),
        (lambda v: {name: v[name] for name in v if name != KERNEL}, ["layer.1.output.dense.weight' is missing"]),
        (lambda v: {f"model/{name}": v[name] for name in v}, []),
        (lambda v: {}, []),
        (lambda v: v | {KERNEL: torch.full((24, 16), torch.inf)}, [KERNEL, "NaN or infinity"]),
        (lambda v: v | {KERNEL: v[KERNEL].int()}, [KERNEL, "int32"]),
        (lambda v: v | {KERNEL: torch.ones(1, 24, 16)}, [KERNEL, "has shape", "asks for"]),
        pytest.param(lambda v: v | {KERNEL: v[KERNEL].t().contiguous()}, [KERNEL, "has shape (16, 24)"]),
        pytest.param(lambda v: v | {KERNEL.replace("kernel", "gamma"): torch.ones(16, 24)}, ["twice"]),
        pytest.param(lambda v: v | {KERNEL.replace("layer_1", "layer/1"): torch.ones(24, 16)}, ["twice"]),
    ],
)
def test_a_wrong_variable_is_named(google, refused, change, words):
    assert "uncased_L-2_H-16_A-2" in refused(google(change), *words).where


# --- Saving over what was loaded --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
def test_saving_over_the_folder_one_loaded_from(folder, kind):
    tensors = load_file(folder / "model.safetensors")
    if kind == "pytorch_model.bin":
        torch.save(tensors, folder / kind)
    elif kind != "model.safetensors":
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        places = dict.fromkeys(tensors, "model-00001-of-00001.safetensors")
        (folder / kind).write_text(json.dumps({"weight_map": places}))
    if kind == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    others = contents(folder).keys() - {kind, "model-00001-of-00001.safetensors"}
    model, sheet = load_with_sheet(folder)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.pooler.dense.bias.add_(1)  # what is mapped from the file must not change with the model
    for _ in range(2):
        save_model(model, folder)
    assert same(load_model(folder), model)
    assert contents(folder).keys() == others | {"model.safetensors"}
    assert torch.equal(model.pooler.dense.bias, expected["pooler.dense.bias"] + 1)
    for name, stored in sheet.checkpoint.tensors.items():  # the files that were opened are still read as they were
        assert torch.equal(stored.read(), tensors[name])


def test_saving_over_googles_folder_destroys_nothing(google):
    folder = google(with_slots)
    model, before = load_model(folder), contents(folder)
    with pytest.raises(BertwrightError, match="something else is here already"):
        save_model(model, folder)
    assert contents(folder) == before
    values = google_config(model.config) | {"architectures": ["BertForPreTraining"], "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(values))  # as some have put it beside
    save_model(model, folder)
    assert contents(folder).items() >= before.items()
    assert same(load_model(folder), model)
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_saving_over_a_download_cache_leaves_it_whole(folder, tmp_path):
    snapshot, blobs = (tmp_path / "models--x" / name for name in ("snapshots/abc", "blobs"))
    snapshot.mkdir(parents=True)
    folder.rename(blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    model, before = load_model(snapshot), contents(blobs)
    with torch.no_grad():
        model.pooler.dense.bias.add_(1)
    save_model(model, snapshot)
    assert contents(blobs) == before
    assert same(load_model(snapshot), model)
