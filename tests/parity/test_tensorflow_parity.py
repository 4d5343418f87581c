"""Checkpoints that TensorFlow writes are read here, and those written here are read by TensorFlow, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.export import convert
from bertwright.model.bert import Bert
from bertwright.model.heads import MaskedLMHead, NextSentenceHead
from bertwright.model.tf_bundle import DTYPES, TensorBundle, find_bundle, write_bundle
from bertwright.model.weights import save_model
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

PYTHON = Path(sys.prefix) / "oracles" / "tensorflow" / "bin" / "python"
SCRIPT = Path(__file__).with_name("tf_bert.py")
CONFIG = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
}

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason=f"TensorFlow is not installed for the tests: {PYTHON}")


def tensorflow(*arguments):
    """Run the oracle under the interpreter that has TensorFlow."""
    command = [str(PYTHON), str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]


def bits(array):
    """Return bare bytes, whatever library holds them."""
    if isinstance(array, torch.Tensor):
        array = array.contiguous().reshape(-1).view(torch.uint8).numpy()
    return array.tobytes()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "bert_config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    return path


@pytest.mark.parametrize(("dtype", "shards"), [("float32", 1), ("bfloat16", 3), ("float16", 1)])
def test_checkpoints_of_tensorflow(tmp_path, config, dtype, shards):
    prefix = tmp_path / "model.ckpt-1000000"
    tensorflow("make", config, prefix, "--slots", "--dtype", dtype, "--shards", shards)
    assert len(list(tmp_path.glob("*.data-*"))) == shards
    assert find_bundle(tmp_path) == prefix  # which its file `checkpoint` names
    bundle, saved = TensorBundle(prefix), np.load(f"{prefix}.npz")
    assert set(bundle.entries) == set(saved.files)
    assert bundle.read("global_step").item() == 1_000_000
    for name in saved.files:
        tensor = bundle.read(name)
        assert tensor.dtype == (torch.int64 if name == "global_step" else getattr(torch, dtype))
        assert tuple(tensor.shape) == saved[name].shape
        assert bits(tensor) == bits(saved[name]), name
    if shards == 1:  # the very files
        write_bundle(tmp_path / "ours", {name: bundle.read(name) for name in bundle.entries})
        for suffix in (".index", ".data-00000-of-00001"):
            assert Path(f"{prefix}{suffix}").read_bytes() == (tmp_path / f"ours{suffix}").read_bytes()


def test_checkpoints_for_tensorflow(tmp_path):
    written = {f"kinds/{str(dtype)[6:]}": torch.tensor([[0, 1, 1]]).to(dtype) for dtype in DTYPES.values()}
    written |= {f"many/long/names/of/variables/number_{number}": torch.randn(2, 3) for number in range(300)}
    written |= {"global_step": torch.tensor(2**40), "empty": torch.zeros(0, 3), "名字": torch.tensor(1.5)}
    write_bundle(tmp_path / "model.ckpt", written)
    tensorflow("read", tmp_path / "model.ckpt", tmp_path / "read.npz")
    found = np.load(tmp_path / "read.npz")
    assert set(found.files) == set(written)
    for name, tensor in written.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].dtype == (np.uint16 if tensor.dtype == torch.bfloat16 else tensor.numpy().dtype)
        assert bits(found[name]) == bits(tensor), name


def test_other_checkpoints_of_tensorflow(tmp_path):
    tensorflow("odd", tmp_path)
    objects = TensorBundle(tmp_path / "objects")
    assert objects.entries["_CHECKPOINTABLE_OBJECT_GRAPH"].kind == "string"
    assert objects.read("step/.ATTRIBUTES/VARIABLE_VALUE").item() == 7
    slices = TensorBundle(tmp_path / "slices")
    assert list(slices.entries) == ["halves", "whole"]
    assert slices.entries["halves"].shape == (6, 2)
    assert slices.read("whole").tolist() == [3.0]
    with pytest.raises(BertwrightError, match="'halves' is partitioned"):
        slices.read("halves")
    many = TensorBundle(tmp_path / "many")
    assert len(many.entries) == 12_000
    for name in list(many.entries)[::100]:
        assert many.read(name).tolist() == [int(name.rpartition("_")[2])]


def test_the_oracle_runs(tmp_path, config):
    prefix, inputs, outputs = tmp_path / "bert_model.ckpt", tmp_path / "inputs.npz", tmp_path / "outputs.npz"
    tensorflow("make", config, prefix)
    input_ids = np.random.default_rng(0).integers(0, 60, (2, 9))
    mask = np.ones_like(input_ids)
    mask[1, 5:] = 0
    np.savez(inputs, input_ids=input_ids, token_type_ids=np.zeros_like(input_ids), attention_mask=mask)
    tensorflow("run", config, prefix, inputs, outputs)
    found = np.load(outputs)
    assert {name: found[name].shape for name in found.files} == {
        "hidden_states": (3, 2, 9, 16),
        "pooled": (2, 16),
        "mlm_logits": (2, 9, 60),
        "nsp_logits": (2, 2),
    }
    assert all(np.isfinite(found[name]).all() for name in found.files)


@torch.inference_mode()
def test_tensorflow_says_the_same_of_what_is_written_for_it(tmp_path):
    wordpiece = WordPiece([*SPECIAL_TOKENS, *(f"w{number}" for number in range(55))], TextRules(lowercase=True))
    shape = BertConfig(**CONFIG)
    model = Bert(shape, {"mlm": MaskedLMHead(shape), "nsp": NextSentenceHead(shape)}, seed=4)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(model, tmp_path / "source", wordpiece=wordpiece)
    convert(tmp_path / "source", tmp_path / "google", to="google")
    ids = [[2, 7, 9, 3], [2, *range(10, 31), 3], [2, 3]]
    padded = {name: np.zeros((3, 23), np.int64) for name in ("input_ids", "token_type_ids", "attention_mask")}
    for row, each in enumerate(ids):
        padded["input_ids"][row, : len(each)] = each
        padded["attention_mask"][row, : len(each)] = 1
    np.savez(tmp_path / "in.npz", **padded)
    google = tmp_path / "google"
    tensorflow(
        "run", google / "bert_config.json", google / "bert_model.ckpt", tmp_path / "in.npz", tmp_path / "out.npz"
    )
    found, keep = np.load(tmp_path / "out.npz"), padded["attention_mask"].astype(bool)
    batch = Batch.pack(ids, [[0] * len(each) for each in ids], {"masked_rows": torch.arange(int(keep.sum()))})
    logits = model.eval()(batch)
    pairs = [
        (torch.stack(list(model.layer_outputs(batch))), found["hidden_states"][:, keep]),
        (model.hidden_states(batch).pooler_output, found["pooled"]),
        (logits["mlm"], found["mlm_logits"][keep]),
        (logits["nsp"], found["nsp_logits"]),
    ]
    for ours, theirs in pairs:
        assert float((ours - torch.from_numpy(theirs)).abs().max()) <= 1e-5
