"""Models and vocabularies that come from elsewhere, or go there: every format, released weights, other versions."""

import importlib.metadata
import json
import os
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from torch.nn import functional

from bertwright.config import BertConfig
from bertwright.model.bert import Bert
from bertwright.model.folder import read_wordpiece
from bertwright.model.heads import MaskedLMHead, NextSentenceHead
from bertwright.model.weights import load_model, load_with_sheet, save_model
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

HERE = Path(__file__).parent
TENSORFLOW = runpy.run_path(str(HERE / "test_tensorflow_parity.py"))
VERSION_4 = Path(sys.prefix) / "oracles" / "transformers4"
IS_VERSION_4 = transformers.__version__.startswith("4.")

LENGTHS = [40, 1, 17, 17, 9, 2]
SMALL = "20KB"
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "北京是中华人民共和国的首都。",
    "I ❤️ BERT 🤖🎉 — naïve café, İstanbul!",
    "a",
    "pneumonoultramicroscopicsilicovolcanoconiosis " * 60,
    "Deep learning 深度学习 [MASK] ﬁne-tuning, 2019 (第３章).\tEnd",
]


# Formats


def save_safetensors(model, folder):
    model.save_pretrained(folder)


def save_sharded_safetensors(model, folder):
    model.save_pretrained(folder, max_shard_size=SMALL)


def save_pickled(model, folder, **options):
    """As version 4 does; version 5 reads it, but writes it no more."""
    if IS_VERSION_4:
        model.save_pretrained(folder, safe_serialization=False)
    else:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin", **options)


def save_sharded_pickled(model, folder):
    if IS_VERSION_4:
        model.save_pretrained(folder, safe_serialization=False, max_shard_size=SMALL)
        return
    save_pickled(model, folder)
    (folder / "pytorch_model.bin").unlink()
    split = huggingface_hub.split_torch_state_dict_into_shards(
        model.state_dict(), filename_pattern="pytorch_model{suffix}.bin", max_shard_size=SMALL
    )
    for file, names in split.filename_to_tensors.items():
        torch.save({name: model.state_dict()[name] for name in names}, folder / file)
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


def save_as_released(model, folder):
    """As the first models were: torch's first format, `gamma` and `beta`, ids among the weights."""
    save_pickled(model, folder)
    tensors = model.state_dict() | {"bert.embeddings.position_ids": torch.arange(40)[None]}
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, name in old.items():
        tensors = {each.replace(new, name): tensor for each, tensor in tensors.items()}
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def save_bfloat16(model, folder):
    model.bfloat16().save_pretrained(folder)
    model.float()


@pytest.mark.parametrize(
    "architecture", ["BertModel", "BertForPreTraining", "BertForMultipleChoice", "BertForQuestionAnswering"]
)
@pytest.mark.parametrize(
    ("save", "file"),
    [
        (save_safetensors, "model.safetensors"),
        (save_bfloat16, "model.safetensors"),
        (save_sharded_safetensors, "model.safetensors.index.json"),
        (save_pickled, "pytorch_model.bin"),
        (save_sharded_pickled, "pytorch_model.bin.index.json"),
        (save_as_released, "pytorch_model.bin"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@torch.inference_mode()
def test_formats(save, file, architecture, made_there, inputs_of, same_model, tmp_path):
    expected, inputs = made_there(architecture), inputs_of.draw(LENGTHS)
    save(expected, tmp_path)
    if file.endswith("index.json"):
        assert len(list(tmp_path.glob("*-of-*"))) > 2
    model, sheet = load_with_sheet(tmp_path)
    assert sheet.checkpoint.file == tmp_path / file
    assert all(
        row.target
        or row.note in ("constant", "the same as the word embedding")
        or row.note.startswith("the same as cls.")
        for row in sheet.rows
    ), sheet.rows
    same_model(model, inputs.shown_to(expected), inputs)


# Vocabularies


@pytest.mark.parametrize("lowercase", [True, False])
@torch.inference_mode()
def test_a_vocabulary_saved_here_gives_the_same_ids_there(lowercase, inputs_of, loaded_there, same_model, tmp_path):
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-—()!é北京是中国的人首都深度学习第章。"
    pieces = ["the", "deep", "learn", "##ing", "ber", "##rt", "na", "##ive", "quick", "[unused1]", "A", "B", "T"]
    tokens = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *pieces]
    wordpiece = WordPiece(tokens, TextRules.hugging_face(lowercase=lowercase))
    config = BertConfig(vocab_size=len(tokens), hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=40, initializer_range=0.2)  # fmt: skip
    model = Bert(config, {"mlm": MaskedLMHead(config), "nsp": NextSentenceHead(config)}).eval()
    save_model(model, tmp_path, wordpiece=wordpiece)
    again = read_wordpiece(tmp_path, config)
    tokenizers = {"longest_first": transformers.AutoTokenizer.from_pretrained(tmp_path)}
    if IS_VERSION_4:  # which has them written in Python, too; they cut a pair of equals as Google's code does
        tokenizers["longer_side"] = transformers.AutoTokenizer.from_pretrained(tmp_path, use_fast=False)
        assert [tokenizer.is_fast for tokenizer in tokenizers.values()] == [True, False]
    encodings = []
    for pair in [(text, other) for text in TEXTS for other in (None, *TEXTS)]:
        for truncation, tokenizer in tokenizers.items():
            found = wordpiece.encode(*pair, max_length=40, truncation=truncation)
            assert found == again.encode(*pair, max_length=40, truncation=truncation)
            expected = tokenizer(*pair, truncation=True, max_length=40)
            assert found.input_ids == expected["input_ids"], (pair, truncation)
            assert found.token_type_ids == expected["token_type_ids"], (pair, truncation)
            encodings.append(found)
    assert len({number for each in encodings for number in each.input_ids}) > 50, "more than [UNK]"
    inputs = inputs_of.of(encodings)
    same_model(model, inputs.shown_to(loaded_there(tmp_path, "AutoModelForPreTraining")), inputs)


# Released weights: layer 5's numbers in fp32 are 1.3e-5 from those in float64 in transformers too, hence `atol_inside`


@torch.inference_mode()
def test_minilm_says_the_same(minilm, inputs_of, loaded_there, same, same_model):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    encoded = tokenizer(TEXTS, padding=True, truncation=True, max_length=512, return_tensors="pt")
    assert encoded["input_ids"].shape == (len(TEXTS), 512), "one of them is as long as can be"
    model, wordpiece = load_model(minilm), WordPiece.load(minilm)
    inputs = inputs_of.of([wordpiece.encode(text, max_length=512) for text in TEXTS])
    for name, ids in inputs.padded().items():
        assert torch.equal(ids, encoded[name]), name
    said = inputs.shown_to(loaded_there(minilm, "AutoModel", dtype=torch.float32))
    same_model(model, said, inputs, atol_inside=2e-5)
    padded, last = model.on_padded(**encoded), said["hidden_states"][-1]
    same(padded.last_hidden_state[inputs.keep], last[inputs.keep], "last hidden states")
    same(padded.pooler_output, said["pooled"], "pooled")

    batch, mask = inputs.packed(), inputs.keep[:, :, None]
    hidden = model.hidden_states(batch).last_hidden_state.split(batch.cu_seqlens.diff().tolist())
    found, expected = torch.stack([rows.mean(0) for rows in hidden]), (last * mask).sum(1) / mask.sum(1)
    distance = 1 - functional.cosine_similarity(found.double(), expected.double())
    same(distance, torch.zeros_like(distance), "cosine distance of embeddings", atol=1e-6)
    for text, embedding in zip(TEXTS, expected, strict=True):
        alone = inputs_of.of([wordpiece.encode(text, max_length=512)]).packed()
        same(model.hidden_states(alone).last_hidden_state.mean(0), embedding, "embeddings of a text alone")


@torch.inference_mode()
def test_minilm_on_pairs(minilm, inputs_of, loaded_there, same_model):
    tokenizer, wordpiece = transformers.AutoTokenizer.from_pretrained(minilm), WordPiece.load(minilm)
    pairs = [(text, other) for text in TEXTS for other in TEXTS[1:]]
    inputs = inputs_of.of([wordpiece.encode(*pair, max_length=64) for pair in pairs])
    encoded = tokenizer(pairs, padding=True, truncation=True, max_length=64, return_tensors="pt")
    for name, ids in inputs.padded().items():
        assert torch.equal(ids, encoded[name]), name
    expected = loaded_there(minilm, "BertModel", attn_implementation="sdpa", dtype=torch.float32)
    same_model(load_model(minilm), inputs.shown_to(expected), inputs, atol_inside=2e-5)


# TensorFlow


@pytest.mark.skipif(not TENSORFLOW["PYTHON"].exists(), reason=f"TensorFlow is not installed: {TENSORFLOW['PYTHON']}")
@pytest.mark.parametrize(
    ("activation", "options"),
    [
        ("gelu", ["--slots", "--shards", "3"]),  # which in Google's code is the erf form
        ("gelu_new", ["--dtype", "bfloat16"]),
        ("relu", ["--dtype", "float16", "--slots"]),
    ],
)
@torch.inference_mode()
def test_a_checkpoint_of_tensorflow_says_the_same(activation, options, inputs_of, same_model, tmp_path):
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), "the", "##ing", "北"]
    config = TENSORFLOW["CONFIG"] | {"vocab_size": len(tokens), "hidden_act": activation}
    (tmp_path / "bert_config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    prefix = tmp_path / "bert_model.ckpt"
    TENSORFLOW["tensorflow"]("make", tmp_path / "bert_config.json", prefix, *options)

    model, sheet = load_with_sheet(tmp_path)
    assert set(model.heads) == {"mlm", "nsp"}
    assert sheet.fresh == ()
    left = {row.note for row in sheet.rows if row.target is None}
    assert left == ({"optimizer slot", "training counter"} if "--slots" in options else set())
    wordpiece = read_wordpiece(tmp_path, model.config)
    texts = [("the fox is jumping", "over 北 a dog"), ("x", None), ("abcdefghijklmnopqrstuvwxyz", "the Z"), ("", None)]
    inputs = inputs_of.of([wordpiece.encode(*pair, max_length=24) for pair in texts])
    assert {2, 3, config["max_position_embeddings"]} < {len(ids) for ids in inputs.ids}

    np.savez(tmp_path / "in.npz", **{name: ids.numpy() for name, ids in inputs.padded().items()})
    command = ["run", tmp_path / "bert_config.json", prefix, tmp_path / "in.npz", tmp_path / "out.npz"]
    TENSORFLOW["tensorflow"](*command)
    names = {"mlm_logits": "prediction_logits", "nsp_logits": "seq_relationship_logits"}
    with np.load(tmp_path / "out.npz") as found:
        said = {names.get(name, name): torch.from_numpy(found[name]) for name in found.files}
    assert said.keys() == {"hidden_states", "pooled", *names.values()}
    same_model(model, said, inputs)


# Another version of transformers


@pytest.mark.slow
@pytest.mark.skipif(not VERSION_4.is_dir(), reason=f"transformers 4 is not installed for the tests: {VERSION_4}")
@pytest.mark.skipif(IS_VERSION_4, reason="this is that version")
def test_all_of_this_holds_in_version_4(tmp_path):
    """In a process of its own that finds the other version first, these tests run again."""
    (wanted,) = {each.version for each in importlib.metadata.distributions(name="transformers", path=[str(VERSION_4)])}
    files, report = [HERE / "test_forward_parity.py", HERE / "test_import_parity.py"], tmp_path / "report.xml"
    options = ["-k", "not tensorflow and not version_4", "-p", "no:cacheprovider", "-p", "no:xdist", "-rs"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *files, *options, f"--basetemp={tmp_path / 'base'}", f"--junitxml={report}"],
        env=environment | {"PYTHONPATH": str(VERSION_4)},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    found = [
        each.get("value") for each in ElementTree.parse(report).iter("property") if each.get("name") == "transformers"
    ]
    assert wanted.startswith("4.")
    assert set(found) == {wanted}
    assert len(found) > 90, "they ran"
