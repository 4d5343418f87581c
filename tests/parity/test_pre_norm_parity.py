"""`norm_first` is Megatron's BERT: transformers loads it, says the same, and never takes it for a plain BERT."""

import json

import pytest
import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.embedding import Embedder
from bertwright.errors import BertwrightError
from bertwright.export import convert
from bertwright.model.bert import Bert
from bertwright.model.heads import (
    ChoiceHead,
    ClassificationHead,
    MaskedLMHead,
    NextSentenceHead,
    SpanHead,
    TokenClassificationHead,
)
from bertwright.model.names import ARCHITECTURES
from bertwright.model.weights import load_model, save_model
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

LENGTHS = [40, 1, 17, 17, 9, 2]
HEADS = {
    "mlm": MaskedLMHead,
    "nsp": NextSentenceHead,
    "classify": lambda config: ClassificationHead(config, 3),
    "choice": ChoiceHead,
    "tag": lambda config: TokenClassificationHead(config, 5),
    "span": SpanHead,
}
AUTO = {
    "BertModel": "AutoModel",
    "BertForPreTraining": "AutoModelForPreTraining",
    "BertForMaskedLM": "AutoModelForMaskedLM",
    "BertLMHeadModel": "AutoModelForCausalLM",
    "BertForNextSentencePrediction": "AutoModelForNextSentencePrediction",
    "BertForSequenceClassification": "AutoModelForSequenceClassification",
    "BertForMultipleChoice": "AutoModelForMultipleChoice",
    "BertForTokenClassification": "AutoModelForTokenClassification",
    "BertForQuestionAnswering": "AutoModelForQuestionAnswering",
}


@pytest.fixture
def inputs(inputs_of):
    return inputs_of.draw(LENGTHS)


@pytest.fixture
def made(shape, shake):
    """Make a random pre-norm model of ours."""

    def make(architecture, **options):
        config = BertConfig(norm_first=True, **shape | options)
        return shake(Bert(config, {name: HEADS[name](config) for name in ARCHITECTURES[architecture]}))

    return make


@pytest.mark.parametrize("architecture", AUTO)
@torch.inference_mode()
def test_transformers_says_the_same_of_our_folders(architecture, made, inputs, same_model, loaded_there, tmp_path):
    options = {"is_decoder": True} if architecture == "BertLMHeadModel" else {}
    model = made(architecture, **options)
    save_model(model, tmp_path)
    theirs = loaded_there(tmp_path, AUTO[architecture])
    assert type(theirs).__name__.startswith("MegatronBert")
    same_model(model, inputs.shown_to(theirs), inputs)
    same_model(load_model(tmp_path), inputs.shown_to(theirs), inputs)


@pytest.mark.parametrize("architecture", AUTO)
@torch.inference_mode()
def test_we_say_the_same_of_theirs(architecture, shape, shake, inputs, same_model, tmp_path):
    names = {"BertLMHeadModel": "MegatronBertForCausalLM"}
    options = {"is_decoder": True} if architecture == "BertLMHeadModel" else {}
    config = transformers.MegatronBertConfig(**shape, **options, attn_implementation="eager")
    theirs = shake(getattr(transformers, names.get(architecture, f"Megatron{architecture}"))(config))
    theirs.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.config.norm_first
    assert set(model.heads) == ARCHITECTURES[architecture]
    same_model(model, inputs.shown_to(theirs), inputs)


def test_a_plain_bert_is_never_made_of_it(made, tmp_path):
    """Whoever says `bert` of such weights is told that tensors are missing, here and there."""
    save_model(made("BertForPreTraining"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "megatron-bert"
    assert "norm_first" not in config
    _, info = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert any("LayerNorm" in name for name in info["missing_keys"])
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(BertwrightError, match="is missing"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert", "norm_first": True}))
    with pytest.raises(BertwrightError, match="norm_first = True is not supported"):
        load_model(tmp_path)


def test_a_plain_berts_folder_knows_nothing_of_it(shape, tmp_path):
    save_model(Bert(BertConfig(**shape)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert "norm_first" not in config
    assert not load_model(tmp_path).config.norm_first


@pytest.fixture
def folder(made, tmp_path):
    """A folder with a vocabulary."""
    wordpiece = WordPiece([*SPECIAL_TOKENS, *(f"w{number}" for number in range(115))], TextRules(lowercase=True))
    save_model(made("BertForPreTraining"), tmp_path / "model", wordpiece=wordpiece)
    return tmp_path / "model"


def test_google_has_no_such_model(folder, tmp_path):
    with pytest.raises(BertwrightError, match="norm_first is True; google-research/bert computes False"):
        convert(folder, tmp_path / "google", to="google")
    assert not (tmp_path / "google").exists()


@pytest.mark.parametrize("to", ["hf", "sentence-transformers"])
def test_it_is_converted_to_what_is_made_with_transformers(to, folder, loaded_there, tmp_path):
    assert convert(folder, tmp_path / to, to=to).largest_difference == 0.0
    assert type(loaded_there(tmp_path / to, "AutoModel" if to != "hf" else "AutoModelForPreTraining")).__name__ in (
        "MegatronBertModel",
        "MegatronBertForPreTraining",
    )


@torch.inference_mode()
def test_vectors_of_layers_are_transformers_hidden_states(folder, loaded_there):
    model = loaded_there(folder, "AutoModelForPreTraining")
    ids = torch.tensor([Embedder.load(folder, pooling="mean")._encode(["w1 w2 w3"])[0].input_ids])
    states = model(ids, output_hidden_states=True).hidden_states
    found = Embedder.load(folder, pooling="mean", layers=[0, 1, -1]).embed(["w1 w2 w3"])
    expected = torch.stack([states[number].mean(1)[0] for number in (0, 1, -1)])
    torch.testing.assert_close(torch.from_numpy(found[0]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_hidden_layers", [1, 3])
@torch.inference_mode()
def test_needed_rows_are_those_of_all(num_hidden_layers, made, inputs):
    model = made("BertForPreTraining", num_hidden_layers=num_hidden_layers)
    batch: Batch = inputs.packed()
    rows = torch.tensor([0, 3, 40, 58, 80])
    torch.testing.assert_close(model.encode(batch, rows), model.encode(batch)[rows], atol=1e-5, rtol=0)
    *_, last = model.layer_outputs(batch)
    torch.testing.assert_close(last, model.encode(batch))


def test_what_is_frozen_has_the_last_normalisation_in_it(made):
    model = made("BertForSequenceClassification")
    model.freeze("encoder")
    free = {name.split(".")[0] for name, each in model.named_parameters() if each.requires_grad}
    assert free == {"pooler", "heads"}
