"""Model folders: a configuration, a head or a vocabulary that does not fit the weights is one error that says so."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from bertwright.model.folder import read_config, read_wordpiece
from bertwright.model.weights import load_model, load_with_sheet, to_hugging_face

POOLER = "bert.pooler.dense.bias"
DIGITS = "9" * 5_000


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def edit_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rewrite(folder, change):
    """Change the tensors of model.safetensors by a function of their dictionary."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors")


# --- config.json ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", ["not valid JSON"]),
        (lambda text: text[: len(text) // 2], ["not valid JSON"]),
        (lambda text: "\ufeff" + text, ["BOM"]),
        (lambda text: "[" * 100_000, ["not valid JSON"]),
        (lambda text: f"[{text}]", ["expected a JSON object, found list"]),
        (lambda text: "null", ["expected a JSON object, found NoneType"]),
        (lambda text: text.replace("{", '{"hidden_size": 16,', 1), ["the key 'hidden_size' is there twice"]),
        (lambda text: text.replace("{", '{"x": {"a": 1, "a": 2},', 1), ["the key 'a' is there twice"]),
        pytest.param(lambda text: text.replace('"num_hidden_layers": 2', f'"num_hidden_layers": {DIGITS}'), []),
    ],
)
def test_a_damaged_configuration(folder, refused, change, words):
    path = folder / "config.json"
    path.write_text(change(path.read_text()))
    assert refused(folder, *words).where == str(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_a_folder_in_place_of_a_file(folder, refused, name):
    (folder / "model.safetensors").unlink()
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    assert refused(folder).where == str(folder / name)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_hidden_layers", 1e9, ["must be a whole number, not 1000000000.0"]),
        ("num_hidden_layers", 10**9, ["must lie between 1 and 16,777,216, not 1000000000"]),
        ("num_hidden_layers", 2**24, ["is 16,777,216, but the weights have 2"]),
        ("num_hidden_layers", -1, ["must lie between 1 and", "not -1"]),
        ("num_hidden_layers", "2", ["must be a whole number, not '2'"]),
        ("num_hidden_layers", True, ["must be a whole number, not True"]),
        ("num_hidden_layers", 1, ["is 1, but the weights have 2"]),
        ("hidden_size", 10**12, ["must lie between", "not 1000000000000"]),
        ("hidden_size", 15, ["15 is not a multiple of num_attention_heads 2"]),
        ("hidden_size", None, ["768 is not a multiple of num_attention_heads 7"]),
        ("num_attention_heads", 0, ["must lie between 1 and", "not 0"]),
        ("num_attention_heads", -2, ["must lie between 1 and", "not -2"]),
        ("num_attention_heads", 3, ["16 is not a multiple of num_attention_heads 3"]),
        ("layer_norm_eps", 0, ["must be positive", "not 0"]),
        ("layer_norm_eps", -1e-12, ["must be positive", "not -1e-12"]),
        ("layer_norm_eps", float("nan"), ["must be positive", "not nan"]),
        ("layer_norm_eps", "1e-12", ["must be a number, not '1e-12'"]),
        pytest.param("layer_norm_eps", float("inf"), ["not inf"]),
        pytest.param("layer_norm_eps", 10**400, []),
        pytest.param("initializer_range", float("nan"), []),
        pytest.param("initializer_range", -1, []),
        ("hidden_dropout_prob", 1.0, ["must lie in [0, 1), not 1.0"]),
        ("attention_probs_dropout_prob", float("nan"), ["must lie in [0, 1), not nan"]),
        ("hidden_act", "gelu2", ["must be 'gelu' or", "not 'gelu2'"]),
        ("hidden_act", ["gelu"], ["must be 'gelu' or", "not ['gelu']"]),
        ("is_decoder", "no", ["must be true or false, not 'no'"]),
        ("model_type", "roberta", ["is 'roberta', not 'bert'"]),
        ("model_type", None, ["is None, not 'bert'"]),
        ("model_type", ["bert"], ["is ['bert'], not 'bert'"]),
        ("architectures", ["BertModel", "BertForMaskedLM"], ["must name one class, not ['BertModel', 'BertFor"]),
        ("architectures", "BertModel", ["must name one class, not 'BertModel'"]),
        ("architectures", 5, ["must name one class, not 5"]),
        ("architectures", [5], ["must name one class, not [5]"]),
        pytest.param("architectures", 0, ["must name one class, not 0"]),
        ("position_embedding_type", "relative_key_query", ["'relative_key_query' is not supported; 'absolute' is"]),
        ("pruned_heads", {"0": [1]}, ["{'0': [1]} is not supported"]),
        ("quantization_config", {"bits": 8}, ["{'bits': 8} is not supported"]),
        ("add_cross_attention", True, ["True is not supported"]),
        ("tie_word_embeddings", False, ["False is not supported"]),
        ("num_hidden_groups", 1, ["belongs to ALBERT, not to BERT"]),
        ("embedding_size", 128, ["belongs to ELECTRA or ALBERT, not to BERT"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(folder, refused, key, value, words):
    path = folder / "config.json"
    edit_json(path, **({"num_attention_heads": 7} if value is None and key == "hidden_size" else {}), **{key: value})
    assert refused(folder, key, *words).where == str(path)


@pytest.mark.parametrize(
    ("key", "value", "tensor"),
    [
        ("hidden_size", 2**24, "bert.embeddings.word_embeddings.weight"),
        ("vocab_size", 48, "bert.embeddings.word_embeddings.weight"),
        ("max_position_embeddings", 10**7, "bert.embeddings.position_embeddings.weight"),
        ("type_vocab_size", 3, "bert.embeddings.token_type_embeddings.weight"),
        ("intermediate_size", 2**24, "bert.encoder.layer.0.intermediate.dense.weight"),
    ],
)
def test_a_size_that_the_weights_do_not_have(folder, refused, key, value, tensor):
    edit_json(folder / "config.json", **{key: value})
    assert refused(folder, tensor, "has shape", "config.json asks for", f"{value}").where.endswith("model.safetensors")


def test_a_class_that_nobody_knows(folder, refused, caplog):
    edit_json(folder / "config.json", architectures=["BertForWeather"])
    rewrite(folder, lambda tensors: tensors | {"weather.weight": torch.ones(1)})
    model, sheet = load_with_sheet(folder)
    assert "heads that are not BERT's are left: weather" in caplog.text
    assert sorted(model.heads) == ["mlm", "nsp"]
    assert [row.source for row in sheet.rows if row.target is None] == ["weather.weight"]
    caplog.clear()
    values = json.loads((folder / "config.json").read_text())
    del values["model_type"]
    (folder / "config.json").write_text(json.dumps(values))
    refused(folder, "made for BertForWeather, which is not known here")


# --- Promised heads ---------------------------------------------------------------------------------------------------


def test_a_promised_head_must_be_there(folder, refused, caplog):
    edit_json(folder / "config.json", architectures=["BertForMaskedLM"])
    rewrite(folder, lambda tensors: {name: tensor for name, tensor in tensors.items() if name.startswith("bert.")})
    error = refused(folder, "made for BertForMaskedLM", "missing: mlm", "--lenient, and use NEW")
    assert error.where == str(folder / "config.json")
    model = load_model(folder, lenient=True)
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("WARNING", f"{folder / 'config.json'}: {error.what}")
    ]
    assert not model.heads
    written = load_file(folder / "model.safetensors")
    loaded = to_hugging_face(model)
    assert loaded.keys() == written.keys()
    assert all(torch.equal(loaded[name], written[name]) for name in loaded)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors | {POOLER: torch.full((16,), torch.nan)},
        lambda tensors: tensors | {POOLER: torch.ones(8)},
        lambda tensors: tensors | {"bert.more": torch.ones(1)},
        lambda tensors: {name: tensor for name, tensor in tensors.items() if name != POOLER},
        lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "cls.predictions.bias"},
    ],
)
def test_lenient_changes_nothing_else(folder, refused, change):
    expected = load_model(folder)
    assert same(load_model(folder, lenient=True), expected)
    rewrite(folder, change)
    assert str(refused(folder, load=lambda path: load_model(path, lenient=True))) == str(refused(folder))


# --- The vocabulary ---------------------------------------------------------------------------------------------------


def read_vocabulary(folder):
    return read_wordpiece(folder, read_config(folder))


def only_text(folder, change, encoding="utf-8"):
    """Leave a changed vocab.txt alone in a folder, as Google's archives have it."""
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    path = folder / "vocab.txt"
    path.write_text(change(path.read_text()), encoding=encoding)


@pytest.mark.parametrize(
    ("size", "fits"), [(40, True), (39, True), (33, True), (41, False), (48, False), (6, False), (0, False)]
)
def test_a_vocabulary_is_as_large_as_the_model_beyond_padding(folder, refused, size, fits):
    words = [f"v{number}" for number in range(max(0, size - 5))]
    only_text(folder, lambda text: "\n".join([*text.split("\n")[:5], *words][:size]) + "\n")
    if fits:
        assert read_vocabulary(folder).vocab_size == size
    else:
        refused(folder, load=read_vocabulary)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("w7\n", "w3\n"), ["vocab.txt", "row 9", "'w3' is there 2 times"]),
        (lambda text: text.replace("w7\n", "\n"), ["vocab.txt", "row 13", "an entry is empty"]),
        (lambda text: "\n" + text.replace("w7\n", ""), ["vocab.txt", "row 1", "an entry is empty"]),
        (lambda text: text.replace("[MASK]", "[NASK]"), ["vocab.txt", "special tokens are missing: [MASK]"]),
        (lambda text: text.replace("w7\n", "w7\nw8\n"), ["'w8' is there 2 times"]),
        (lambda text: text + "more\n", ["41 entries, the model 40 embeddings"]),
    ],
)
def test_a_damaged_vocabulary(folder, refused, change, words):
    only_text(folder, change)
    refused(folder, *words, load=read_vocabulary)


def test_a_vocabulary_in_another_encoding(folder, refused):
    only_text(folder, lambda text: text.replace("w7", "\xe9"), encoding="latin-1")
    assert refused(folder, "not UTF-8", load=read_vocabulary).where == str(folder / "vocab.txt")


@pytest.mark.parametrize(
    "change", [lambda text: "\ufeff" + text, lambda text: text + "\n\n", lambda text: text.replace("\n", "\r\n")]
)
def test_a_mark_at_the_start_and_empty_rows_at_the_end_are_no_entries(folder, change):
    expected = read_vocabulary(folder).tokens
    only_text(folder, change)
    assert read_vocabulary(folder).tokens == expected


def test_files_of_two_vocabularies(folder, refused):
    path = folder / "vocab.txt"
    text = path.read_text()
    for changed, word in (
        (text.replace("w3\n", "w4\n").replace("w4\nw4", "w4\nw3"), "row 9 is 'w4', but tokenizer.json says 'w3'"),
        (text.replace("w34\n", ""), "39 entries, but tokenizer.json has 40"),
        (text + "more\n", "41 entries, but tokenizer.json has 40"),
    ):
        path.write_text(changed)
        assert refused(folder, word, load=read_vocabulary).where == str(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file | {"model": [1]},
        lambda file: file | {"model": file["model"] | {"vocab": file["model"]["vocab"] | {"w3": "x"}}},
        lambda file: file | {"model": file["model"] | {"max_input_chars_per_word": 0}},
        lambda file: file | {"model": file["model"] | {"max_input_chars_per_word": "many"}},
        lambda file: file | {"added_tokens": 5},
        lambda file: file | {"added_tokens": [5]},
        lambda file: file | {"added_tokens": [{"id": 1}]},
        lambda file: file | {"added_tokens": [{"content": "x"}]},
        lambda file: file | {"normalizer": [1]},
        lambda file: file | {"normalizer": file["normalizer"] | {"lowercase": "yes"}},
        lambda file: file | {"pre_tokenizer": "x"},
    ],
)
def test_a_damaged_tokenizer(folder, refused, change):
    (folder / "tokenizer_config.json").unlink()
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert refused(folder, load=read_vocabulary).where == str(path)
