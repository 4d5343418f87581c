"""errors.py, config.py and batch.py."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig, DataConfig, FinetuneConfig, MaskingConfig, PretrainConfig, VocabConfig
from bertwright.errors import BertwrightError, DiskFullError, nearest
from bertwright.json_values import from_dict, load_json, read_json, save_json, to_dict

CONFIGS = (BertConfig, VocabConfig, DataConfig, MaskingConfig, PretrainConfig, FinetuneConfig)


def test_an_error_says_what_where_and_what_to_type() -> None:
    error = BertwrightError("column 'text' is missing", where=Path("train.csv"), fix="name it with --text-column")
    assert str(error) == "train.csv: column 'text' is missing\n  → name it with --text-column"
    assert (error.what, error.where, error.fix) == (
        "column 'text' is missing",
        "train.csv",
        "name it with --text-column",
    )
    assert str(BertwrightError("no")) == "no"
    assert isinstance(error, ValueError)
    assert issubclass(DiskFullError, BertwrightError)


@pytest.mark.parametrize(("typed", "meant"), [("bsae", "base"), ("hidden_sise", "hidden_size"), ("zzz", None)])
def test_the_nearest_name_is_suggested(typed: str, meant: str | None) -> None:
    hint = nearest(typed, ["base", "large", "hidden_size"])
    assert hint == (f" (did you mean {meant!r}?)" if meant else "")


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_survives_its_file(kind: type[Any], tmp_path: Path) -> None:
    config, path = kind(), tmp_path / "config.json"
    save_json(config, path)
    assert load_json(kind, path) == config
    assert path.read_bytes().endswith(b"}\n")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_value_of_a_configuration_is_checked_by_type(kind: type[Any]) -> None:
    for name in to_dict(kind()):
        with pytest.raises(BertwrightError, match=name):
            from_dict(kind, {name: {}})  # None may mean "not said"


def test_the_defaults_are_the_papers() -> None:
    model, run, tuning = BertConfig(), PretrainConfig(), FinetuneConfig()
    assert (model.num_hidden_layers, model.hidden_size, model.num_attention_heads) == (12, 768, 12)
    assert model.intermediate_size == 4 * model.hidden_size
    assert (run.lr, run.beta1, run.beta2, run.weight_decay, run.dropout) == (1e-4, 0.9, 0.999, 0.01, 0.1)
    assert run.batch_tokens == 256 * 128
    assert run.steps * run.warmup_ratio == 10_000
    assert (tuning.batch_size, tuning.epochs, tuning.warmup_ratio) == (32, 3, 0.1)
    assert tuning.lr in (2e-5, 3e-5, 5e-5)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (BertConfig, {"hidden_size": 100}, "hidden_size 100 is not a multiple of num_attention_heads 12"),
        (BertConfig, {"vocab_size": 0}, "vocab_size must lie between 1 and 16,777,216, not 0"),
        (BertConfig, {"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob must lie in \[0, 1\), not 1.0"),
        (BertConfig, {"layer_norm_eps": 0.0}, "layer_norm_eps must be positive"),
        (BertConfig, {"hidden_act": "geluu"}, "hidden_act must be 'gelu' or 'gelu_new'"),
        (VocabConfig, {"size": 5}, "size must be at least 6"),
        (VocabConfig, {"lang": "fr"}, "lang must be 'en' or 'zh' or 'multi', not 'fr'"),
        (VocabConfig, {"unused_slots": -1}, "unused_slots must not be negative"),
        (DataConfig, {"max_length": 7}, "max_length must lie between 8 and 65,535 tokens, not 7"),
        (DataConfig, {"held_out_prob": 1.0}, "held_out_prob"),
        (MaskingConfig, {"mask_prob": 0.0}, "mask_prob"),
        (MaskingConfig, {"mask_token_prob": 0.9, "random_token_prob": 0.2}, "exceed 1"),
        (PretrainConfig, {"steps": 0}, "steps must be at least 1, not 0"),
        (PretrainConfig, {"steps": True}, "steps must be a whole number, not True"),
        (PretrainConfig, {"mask_token_prob": 0.95, "random_token_prob": 0.2}, "exceed 1"),
        (PretrainConfig, {"lr": float("inf")}, "lr must be positive, not inf"),
        (PretrainConfig, {"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
        (PretrainConfig, {"eps": 0.0}, "eps must be positive"),
        (FinetuneConfig, {"epochs": 0}, "epochs must be at least 1"),
        (FinetuneConfig, {"max_length": 2}, "max_length"),
        (FinetuneConfig, {"learning_rate": 1e-5}, "unknown key 'learning_rate' for FinetuneConfig"),
        (BertConfig, {"hiden_size": 12}, r"unknown key 'hiden_size' for BertConfig \(did you mean 'hidden_size'\?\)"),
    ],
)
def test_an_illegal_value_is_named(kind: type[Any], values: dict[str, Any], message: str) -> None:
    with pytest.raises(BertwrightError, match=message) as caught:
        from_dict(kind, values, where="config.json")
    assert caught.value.where == "config.json"


def test_a_whole_number_may_stand_for_a_float() -> None:
    assert from_dict(PretrainConfig, {"clip_norm": 1}).clip_norm == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[1]", "expected a JSON object"),
    ],
)
def test_a_broken_file_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BertwrightError, match=message) as caught:
        read_json(path)
    assert caught.value.where == str(path)


def test_what_is_saved_is_plain_json(tmp_path: Path) -> None:
    save_json(PretrainConfig(), tmp_path / "config.json")
    assert json.loads((tmp_path / "config.json").read_text())["batch_tokens"] == 32_768


def test_packing_lays_sequences_end_to_end() -> None:
    batch = Batch.pack([[101, 7, 102], [101, 102], [101, 8, 9, 102]], [[0, 0, 0], [0, 0], [0, 0, 1, 1]])
    assert batch.input_ids.tolist() == [101, 7, 102, 101, 102, 101, 8, 9, 102]
    assert batch.token_type_ids.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3]
    assert batch.cu_seqlens.tolist() == [0, 3, 5, 9]
    assert (batch.num_tokens, batch.num_sequences, batch.max_length) == (9, 3, 4)
    assert batch.first_rows.tolist() == [0, 3, 5]
    assert batch.cu_seqlens.dtype == torch.int32
    assert batch.input_ids.dtype == batch.token_type_ids.dtype == batch.position_ids.dtype == torch.int64


def test_packing_takes_arrays_and_keeps_targets() -> None:
    labels = torch.tensor([1])
    batch = Batch.pack([np.array([1, 2], np.uint16)], [np.array([0, 1], np.uint8)], {"labels": labels})
    assert batch.input_ids.tolist() == [1, 2]
    assert batch.targets["labels"] is labels
    assert batch.to("cpu").targets["labels"].tolist() == [1]


@pytest.mark.parametrize("ids", [[], [[]], [[1], []]])
def test_an_empty_sequence_is_our_own_mistake(ids: list[list[int]]) -> None:
    with pytest.raises(AssertionError, match="none of length 0"):
        Batch.pack(ids, ids)
