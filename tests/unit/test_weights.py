"""Weights on disk: what is written comes back, other people's spellings are read, and damage is named."""

import json
import logging
import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.model.folder import read_config
from bertwright.model.heads import (
    ChoiceHead,
    ClassificationHead,
    Head,
    MaskedLMHead,
    NextSentenceHead,
    SpanHead,
    TokenClassificationHead,
)
from bertwright.model.layers import Linear
from bertwright.model.names import ARCHITECTURES, hugging_face_names
from bertwright.model.weights import load_model, save_model, to_hugging_face
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

WORDPIECE = WordPiece([*SPECIAL_TOKENS, *(f"w{number}" for number in range(35))], TextRules(lowercase=True))
CONFIG = BertConfig(
    vocab_size=WORDPIECE.vocab_size,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
)
HEADS = {
    "mlm": lambda: MaskedLMHead(CONFIG),
    "nsp": lambda: NextSentenceHead(CONFIG),
    "classify": lambda: ClassificationHead(CONFIG, 3),
    "choice": lambda: ChoiceHead(CONFIG),
    "tag": lambda: TokenClassificationHead(CONFIG, 5),
    "span": lambda: SpanHead(CONFIG),
}
COMBINATIONS = sorted({tuple(sorted(names)) for names in ARCHITECTURES.values()})


def make(names, seed=5):
    model = Bert(CONFIG, {name: HEADS[name]() for name in names}, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms that are not what a fresh model has
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def folder(tmp_path):
    save_model(make(["mlm", "nsp"]), tmp_path / "model", wordpiece=WORDPIECE)
    return tmp_path / "model"


def rewrite(folder, change):
    """Change the tensors of a model folder by a function of their dictionary."""
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors")


def edit_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Round trips


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_what_is_saved_is_loaded(names, tmp_path, caplog):
    model = make(names)
    model.save_pretrained(tmp_path / "model")
    loaded = Bert.from_pretrained(str(tmp_path / "model"))
    assert loaded.config == CONFIG
    assert not loaded.training
    assert caplog.text == ""
    if set(names) & {"mlm", "tag", "span"} == set(names) != set():  # as in Hugging Face's classes, without a pooler
        assert loaded.pooler.is_drawn
        model.pooler.load_state_dict(loaded.pooler.state_dict())
    assert same(loaded, model)
    if "mlm" in names:
        assert loaded.heads["mlm"].decoder_weight is loaded.embeddings.word.weight


def test_saving_twice_writes_the_same_bytes(tmp_path):
    model = make(["mlm", "nsp"])
    for name in ("a", "b"):
        save_model(model, tmp_path / name, wordpiece=WORDPIECE)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_configuration_names_the_class_and_takes_extra_keys(tmp_path):
    save_model(make(["classify"]), tmp_path / "m", extra_config={"id2label": {"0": "a"}}, extra_files={"x.txt": "y"})
    config = json.loads((tmp_path / "m/config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["model_type"] == "bert"
    assert config["id2label"] == {"0": "a"}
    assert read_config(tmp_path / "m") == CONFIG
    assert (tmp_path / "m/x.txt").read_text() == "y"


def test_everybody_may_read_the_weights_who_may_read_the_rest(tmp_path):
    before = os.umask(0o027)
    try:
        save_model(make([]), tmp_path / "model", wordpiece=WORDPIECE)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "model").iterdir()}
    assert set(modes.values()) == {0o640}


def test_weights_are_written_in_fp32_from_any_dtype(tmp_path):
    save_model(make(["nsp"]).bfloat16(), tmp_path / "model")
    assert {tensor.dtype for tensor in load_file(tmp_path / "model/model.safetensors").values()} == {torch.float32}


# Names


def test_the_table_names_every_parameter_once():
    model = make(["mlm", "nsp", "classify"])
    names = [name for ours in model.state_dict() if "decoder_weight" not in ours for name in hugging_face_names(ours)]
    assert len(names) == len(set(names))
    tensors = to_hugging_face(model)
    assert sorted(names) == sorted(tensors)
    assert sum(tensor.numel() for tensor in tensors.values()) == sum(p.numel() for p in model.parameters())


def test_names_are_those_of_the_released_files():
    sides = ("weight", "bias")
    layers = [
        f"bert.encoder.layer.{number}.{part}.{side}"
        for number in range(2)
        for part in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
            "attention.output.LayerNorm",
            "intermediate.dense",
            "output.dense",
            "output.LayerNorm",
        )
        for side in sides
    ]
    embeddings = [f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
    others = [
        f"{part}.{side}"
        for part in (
            "bert.embeddings.LayerNorm",
            "bert.pooler.dense",
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.seq_relationship",
        )
        for side in sides
    ]
    expected = {*layers, *embeddings, *others, "cls.predictions.bias"}
    assert set(to_hugging_face(make(["mlm", "nsp"]))) == expected


def test_query_key_and_value_keep_their_places():
    model = make([])
    tensors, qkv = to_hugging_face(model), model.layers[1].attention.qkv.weight
    for place, part in enumerate(("query", "key", "value")):
        found = tensors[f"bert.encoder.layer.1.attention.self.{part}.weight"]
        assert torch.equal(found, qkv[place * 16 : (place + 1) * 16])


def test_a_head_of_ones_own_keeps_its_name(tmp_path, caplog):
    class Own(Head):
        def __init__(self) -> None:
            super().__init__()
            self.scorer = Linear(16, 1)

    model = Bert(CONFIG, {"mine": Own()})
    save_model(model, tmp_path / "m")
    assert "mine.scorer.weight" in load_file(tmp_path / "m/model.safetensors")
    assert not load_model(tmp_path / "m").heads
    assert "model.safetensors: heads that are not BERT's are left: mine" in caplog.text


# Fresh heads


def test_a_fresh_head_on_a_pretrained_encoder(folder, caplog):
    caplog.set_level(logging.INFO, "bertwright")
    pretrained = load_model(folder)
    model = load_model(folder, {"classify": HEADS["classify"]()}, seed=3)
    assert "heads that start fresh: classify" in caplog.text
    assert torch.equal(model.embeddings.word.weight, pretrained.embeddings.word.weight)
    assert torch.equal(model.pooler.dense.weight, pretrained.pooler.dense.weight)
    assert [*model.heads] == ["classify"]


def test_a_seed_decides_a_fresh_head(folder):
    one, again, other = (
        load_model(folder, {"classify": HEADS["classify"]()}, seed=seed).heads["classify"].classifier.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_pretraining_goes_on_with_the_heads_of_the_file(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO, "bertwright")
    both = {name: HEADS[name]() for name in ("mlm", "nsp")}
    assert same(load_model(folder, both), load_model(folder))
    assert "fresh" not in caplog.text
    save_model(make([]), tmp_path / "bare")
    load_model(tmp_path / "bare", {name: HEADS[name]() for name in ("mlm", "nsp")})
    assert "heads that start fresh: mlm, nsp" in caplog.text


def test_a_model_may_be_loaded_with_another_dropout(folder):
    config = BertConfig(**{**vars(CONFIG), "hidden_dropout_prob": 0.4})
    assert load_model(folder, config=config).layers[0].dropout_prob == 0.4


# Other people's spellings


def outputs(model):
    batch = Batch.pack([[2, 6, 7, 3], [2, 9, 3]], [[0, 0, 0, 0], [0, 0, 0]], {"masked_rows": torch.tensor([1, 5])})
    with torch.inference_mode():
        return model.eval()(batch)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda tensors: {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in tensors.items()
        },
        lambda tensors: tensors | {"bert.embeddings.position_ids": torch.arange(12)[None]},
        lambda tensors: (
            tensors
            | {
                "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
                "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone(),
            }
        ),
    ],
    ids=["gamma and beta", "position_ids", "the decoder written out"],
)
def test_old_spellings_are_read(folder, spelling):
    expected = load_model(folder)
    rewrite(folder, spelling)
    assert same(load_model(folder), expected)


def test_a_bare_encoder_without_prefix_is_read(tmp_path):
    model = make([])
    save_model(model, tmp_path / "model")
    rewrite(tmp_path / "model", lambda tensors: {name.removeprefix("bert."): t for name, t in tensors.items()})
    assert same(load_model(tmp_path / "model"), model)


def test_half_precision_files_are_read(folder):
    expected = outputs(load_model(folder))
    rewrite(folder, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    for name, logits in outputs(load_model(folder)).items():
        torch.testing.assert_close(logits, expected[name], rtol=1e-2, atol=1e-2)


# Damage


def without(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


def with_value(value):
    def change(tensors):
        tensors["bert.encoder.layer.1.output.dense.weight"][3, 4] = value
        return tensors

    return change


QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(QUERY), f"tensor '{QUERY}' is missing"),
        (without("cls.predictions.bias"), "tensor 'cls.predictions.bias' is missing"),
        (without("bert.pooler.dense.bias"), "tensor 'bert.pooler.dense.bias' is missing"),
        (
            lambda tensors: without("bert.pooler.dense.bias")(without("bert.pooler.dense.weight")(tensors)),
            "tensor 'bert.pooler.dense.weight' is missing",  # which the next-sentence head reads through
        ),
        (lambda tensors: tensors | {"bert.extra": torch.ones(1)}, "unknown tensors 'bert.extra'"),
        (
            lambda tensors: tensors | {"bert.encoder.layer.1.output.other.bias": torch.ones(16)},
            "unknown tensors 'bert.encoder.layer.1.output.other.bias'",
        ),
        (
            lambda tensors: tensors | {QUERY: torch.ones(16, 8)},
            rf"tensor '{QUERY}' has shape \(16, 8\), but config.json asks for \(16, 16\)",
        ),
        (with_value(float("nan")), "tensor 'bert.encoder.layer.1.output.dense.weight' holds NaN"),
        (with_value(float("inf")), "tensor 'bert.encoder.layer.1.output.dense.weight' holds NaN or infinity"),
        (
            lambda tensors: tensors | {"bert.pooler.dense.bias": torch.ones(16, dtype=torch.int32)},
            "tensor 'bert.pooler.dense.bias' is of type int32, not of floating-point numbers",
        ),
        (
            lambda tensors: tensors | {"cls.predictions.decoder.weight": torch.ones(40, 16)},
            r"the masked-LM decoder .* is not the word embedding",
        ),
        (lambda tensors: tensors | {"qa_outputs.weight": torch.ones(2, 16)}, "tensor 'qa_outputs.bias' is missing"),
    ],
)
def test_damaged_tensors_are_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(BertwrightError, match=message) as caught:
        load_model(folder)
    assert caught.value.where == str(folder / "model.safetensors")


def test_a_truncated_file_is_named(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for length in (0, 5, 200, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(BertwrightError, match=r"model\.safetensors: truncated.*\n  → copy or download"):
            load_model(folder)


@pytest.mark.parametrize(
    ("name", "message"), [("config.json", "config.json is missing"), ("model.safetensors", "no weights here")]
)
def test_a_missing_file_is_named(folder, name, message):
    (folder / name).unlink()
    with pytest.raises(BertwrightError, match=message) as caught:
        load_model(folder)
    assert caught.value.where == str(folder)


def test_no_folder_at_all(tmp_path):
    with pytest.raises(BertwrightError, match=r"no model folder .*\n  → give a folder such as RUN/model"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta', not 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key' is not supported"),
        ({"add_cross_attention": True}, "add_cross_attention = True is not supported; False is"),
        ({"num_hidden_layers": 16_000_000}, "num_hidden_layers is 16,000,000, but the weights have 2"),
        ({"embedding_size": 8}, "embedding_size belongs to ELECTRA or ALBERT"),
        ({"hidden_act": "swish2"}, "hidden_act must be 'gelu' or"),
        ({"hidden_size": 15}, "hidden_size 15 is not a multiple of num_attention_heads 2"),
    ],
)
def test_configurations_with_other_numbers_are_refused(folder, values, message):
    edit_config(folder, **values)
    with pytest.raises(BertwrightError, match=message) as caught:
        load_model(folder)
    assert caught.value.where == str(folder / "config.json")


def test_a_configuration_of_another_size_names_the_tensor(folder):
    edit_config(folder, vocab_size=41)
    with pytest.raises(BertwrightError, match=r"word_embeddings.weight' has shape \(40, 16\).*asks for \(41, 16\)"):
        load_model(folder)


# Saving where something is


def test_saving_where_it_was_loaded_from_keeps_the_other_files(folder):
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    load_model(folder).save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before | {
        "README.md": (folder / "README.md").read_bytes()
    }
    assert WordPiece.load(folder).tokens == WORDPIECE.tokens


def test_other_heads_keep_the_vocabulary_alone(folder):
    (folder / "task.json").write_text("{}")
    save_model(make(["classify"]), folder)
    assert {"vocab.txt", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert not (folder / "task.json").exists()


def test_a_folder_of_other_things_is_not_replaced(folder):
    with pytest.raises(BertwrightError, match="something else is here already"):
        make(["mlm"]).save_pretrained(folder.parent)
    assert (folder / "model.safetensors").exists()


def test_a_model_is_saved_into_the_folder_one_stands_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(["mlm"]).save_pretrained(".")
    assert (tmp_path / "model.safetensors").exists()


def test_a_run_folder_is_told_from_its_model(tmp_path):
    (tmp_path / "config.json").write_text('{"kind": "pretrain", "train": {}}')
    with pytest.raises(BertwrightError, match=r"this is a run folder.*\n.*model"):
        read_config(tmp_path)
