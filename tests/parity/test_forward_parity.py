"""Every head and every configuration, in transformers and here: the same numbers, the same losses.

Under whichever version of transformers is imported: `test_import_parity.py` runs this file again under another one.
"""

from typing import get_args

import pytest
import torch
from torch.nn import functional

from bertwright.config import Activation, BertConfig
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
from bertwright.model.weights import load_model, save_model, to_hugging_face
from bertwright.objectives import LeftToRight, MaskedLM, MaskedLMAndNextSentence
from bertwright.tasks import ClassifyTask, TaskObjective

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

LENGTHS = [40, 1, 17, 17, 9, 2]
CASES = [
    ("BertModel", {}),
    ("BertModel", {"is_decoder": True}),
    ("BertForPreTraining", {}),
    ("BertForPreTraining", {"is_decoder": True}),
    ("BertForMaskedLM", {}),
    ("BertForMaskedLM", {"is_decoder": True}),
    ("BertLMHeadModel", {}),
    ("BertLMHeadModel", {"is_decoder": True}),
    ("BertForNextSentencePrediction", {}),
    ("BertForSequenceClassification", {"num_labels": 3, "problem_type": "single_label_classification"}),
    ("BertForSequenceClassification", {"num_labels": 1, "problem_type": "regression"}),
    ("BertForSequenceClassification", {"num_labels": 4, "problem_type": "multi_label_classification"}),
    ("BertForSequenceClassification", {"num_labels": 3, "is_decoder": True}),
    ("BertForMultipleChoice", {}),
    ("BertForTokenClassification", {"num_labels": 5}),
    ("BertForQuestionAnswering", {}),
]
HEADS = {
    "mlm": lambda config, labels: MaskedLMHead(config),
    "nsp": lambda config, labels: NextSentenceHead(config),
    "classify": ClassificationHead,
    "choice": lambda config, labels: ChoiceHead(config),
    "tag": TokenClassificationHead,
    "span": lambda config, labels: SpanHead(config),
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


def name_of(value):
    return value if isinstance(value, str) else "+".join(f"{key}={each}" for key, each in value.items()) or "plain"


@pytest.fixture
def inputs(inputs_of):
    return inputs_of.draw(LENGTHS)


@pytest.fixture
def made_here(shape, shake):
    """Make a random model of ours."""

    def make(architecture, num_labels=2, **options):
        config = BertConfig(**shape | options)
        return shake(Bert(config, {name: HEADS[name](config, num_labels) for name in ARCHITECTURES[architecture]}))

    return make


@pytest.fixture
def here_and_there(made_there, tmp_path):
    """Make a random model of transformers, and load it here."""

    def make(architecture, **options):
        model = made_there(architecture, **options)
        model.save_pretrained(tmp_path)
        return load_model(tmp_path), model

    return make


# Their models here


@pytest.mark.parametrize(("architecture", "options"), CASES, ids=name_of)
@torch.inference_mode()
def test_what_transformers_saves_says_the_same_here(architecture, options, inputs, here_and_there, same_model):
    model, expected = here_and_there(architecture, **options)
    assert set(model.heads) == ARCHITECTURES[architecture]
    assert model.config.is_decoder == expected.config.is_decoder
    same_model(model, inputs.shown_to(expected), inputs)


@pytest.mark.parametrize(
    "options",
    [
        *({"layer_norm_eps": eps} for eps in (1e-12, 1e-5, 0.1)),
        *({"type_vocab_size": size} for size in (1, 2, 16)),
        {"pad_token_id": 7},
        {"hidden_size": 36, "num_attention_heads": 3, "intermediate_size": 50},
        {"num_hidden_layers": 1},
        {"num_attention_heads": 1},
        {"num_attention_heads": 32},
        {"max_position_embeddings": 7},
        {"num_hidden_layers": 12, "hidden_size": 24, "num_attention_heads": 2},
    ],
    ids=name_of,
)
@torch.inference_mode()
def test_configurations(options, inputs_of, here_and_there, same_model):
    model, expected = here_and_there("BertForPreTraining", **options)
    lengths = [min(length, expected.config.max_position_embeddings) for length in LENGTHS]
    inputs = inputs_of.draw(lengths, types=expected.config.type_vocab_size)
    inputs.ids[0][3] = expected.config.pad_token_id  # which is a token like others within a sequence
    same_model(model, inputs.shown_to(expected), inputs)


@pytest.mark.parametrize("activation", get_args(Activation))
@torch.inference_mode()
def test_activations(activation, inputs, made_there, same_model, tmp_path):
    expected = made_there("BertForPreTraining", hidden_act=activation)
    for name, parameter in expected.named_parameters():
        if name.endswith(("intermediate.dense.bias", "transform.dense.bias")):
            parameter.mul_(40)  # from where every activation bends to where it is flat
    expected.save_pretrained(tmp_path)
    same_model(load_model(tmp_path), inputs.shown_to(expected), inputs)


@pytest.mark.parametrize("is_decoder", [False, True])
@torch.inference_mode()
def test_a_padded_batch_is_padded_again(is_decoder, inputs, here_and_there, same):
    model, theirs = here_and_there("BertModel", is_decoder=is_decoder)
    found, expected = model.on_padded(**inputs.padded()), theirs(**inputs.padded())
    same(found.last_hidden_state[inputs.keep], expected.last_hidden_state[inputs.keep], "last hidden states")
    same(found.pooler_output, expected.pooler_output, "pooled")
    assert not found.last_hidden_state[~inputs.keep].any()


@pytest.mark.parametrize("options", [{}, {"is_decoder": True}], ids=name_of)
@pytest.mark.parametrize(
    ("architecture", "head", "target"),
    [("BertForPreTraining", "mlm", "masked_rows"), ("BertForTokenClassification", "tag", "token_rows")],
)
@torch.inference_mode()
def test_heads_that_read_a_few_rows(architecture, head, target, options, inputs, here_and_there, same):
    model, expected = here_and_there(architecture, **options)
    said, rows = inputs.shown_to(expected), torch.tensor([83, 0, 3, 39, 40, 41, 3, 85])  # in any order, and twice
    found = model(inputs.packed(**{target: rows}))
    same(found[head], said["prediction_logits" if head == "mlm" else "logits"][inputs.keep][rows], f"{head} logits")
    if head == "mlm":
        same(found["nsp"], said["seq_relationship_logits"], "nsp logits")


# Losses


def same_loss(same, found, expected, what="loss"):
    assert expected > 0.1, "a loss that says something"
    same(found, expected, what, atol=0.0, rtol=1e-6)


def mean(term):
    return term.total / term.count


def padded_labels(inputs, labels):
    """Labels by row, as transformers takes them."""
    padded = torch.full(inputs.keep.shape, -100)
    padded[inputs.keep] = labels
    return padded


@torch.inference_mode()
def test_the_losses_of_pre_training(inputs, here_and_there, same):
    model, expected = here_and_there("BertForPreTraining")
    rows, labels = torch.tensor([0, 3, 39, 40, 41, 83]), torch.full((inputs.num_tokens,), -100)
    labels[rows], is_random = (
        torch.randint(0, model.config.vocab_size, rows.shape),
        torch.randint(0, 2, (len(LENGTHS),)),
    )
    batch = inputs.packed(masked_rows=rows, masked_labels=labels[rows], next_sentence_label=is_random)
    found = MaskedLMAndNextSentence()(model, batch).losses
    output = expected(**inputs.padded(), labels=padded_labels(inputs, labels), next_sentence_label=is_random)
    same_loss(same, mean(found["mlm_loss"]) + mean(found["nsp_loss"]), output.loss)
    next_sentence = functional.cross_entropy(output.seq_relationship_logits, is_random)
    same_loss(same, mean(found["nsp_loss"]), next_sentence, "nsp loss")


@pytest.mark.parametrize("is_decoder", [False, True])
@torch.inference_mode()
def test_the_loss_of_masked_tokens_alone(is_decoder, inputs, here_and_there, same):
    model, expected = here_and_there("BertForMaskedLM", is_decoder=is_decoder)
    labels, rows = torch.cat(inputs.ids), torch.arange(inputs.num_tokens)
    found = MaskedLM()(model, inputs.packed(masked_rows=rows, masked_labels=labels)).losses["mlm_loss"]
    same_loss(same, mean(found), expected(**inputs.padded(), labels=padded_labels(inputs, labels)).loss)


@torch.inference_mode()
def test_the_loss_of_the_next_token(inputs, here_and_there, same):
    """Left to right, the rows are all but the last of each sequence, and the labels the tokens that follow them."""
    model, expected = here_and_there("BertLMHeadModel", is_decoder=True)
    ids, rows = torch.cat(inputs.ids), torch.arange(inputs.num_tokens)
    rows = rows[~torch.isin(rows, inputs.packed().cu_seqlens[1:] - 1)]
    found = LeftToRight()(model, inputs.packed(masked_rows=rows, masked_labels=ids[rows + 1])).losses["ltr_loss"]
    same_loss(same, mean(found), expected(**inputs.padded(), labels=padded_labels(inputs, ids)).loss)


@torch.inference_mode()
def test_the_loss_of_classification(inputs, here_and_there, same):
    model, expected = here_and_there("BertForSequenceClassification", num_labels=3)
    labels = torch.arange(len(LENGTHS)) % 3
    found = TaskObjective(ClassifyTask(labels=("a", "b", "c")))(model, inputs.packed(labels=labels)).losses["loss"]
    same_loss(same, mean(found), expected(**inputs.padded(), labels=labels).loss)


# Our models there


@pytest.mark.parametrize(("architecture", "options"), CASES, ids=name_of)
@torch.inference_mode()
def test_what_is_saved_here_says_the_same_there(
    architecture, options, inputs, made_here, loaded_there, same_model, tmp_path
):
    options = dict(options)
    told = {name: options.pop(name) for name in ("num_labels", "problem_type") if name in options}
    model = made_here(architecture, told.get("num_labels", 2), **options)
    save_model(model, tmp_path, extra_config=told)
    for name in (architecture, AUTO[architecture]):
        expected = loaded_there(tmp_path, name)
        assert expected.config.is_decoder == model.config.is_decoder
        same_model(model, inputs.shown_to(expected), inputs)


@pytest.mark.parametrize("heads", ["BertLMHeadModel", "BertForPreTraining"])
@torch.inference_mode()
def test_a_left_to_right_model_is_a_language_model_there(heads, inputs, made_here, same, tmp_path):
    """Also with NSP, of which the pooled token is another there: that head and the pooler are left, and named."""
    model = made_here(heads, is_decoder=True, pool_last=True)
    save_model(model, tmp_path)
    options = {"attn_implementation": "eager", "output_loading_info": True}
    expected, info = transformers.BertLMHeadModel.from_pretrained(tmp_path, **options)
    left = {
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
    }
    assert not info["missing_keys"]
    assert set(info["unexpected_keys"]) == (left if heads == "BertForPreTraining" else set())
    assert (expected.config.architectures, expected.config.is_decoder) == (["BertLMHeadModel"], True)
    logits = expected.eval()(**inputs.padded()).logits
    found = model(inputs.packed(masked_rows=torch.arange(inputs.num_tokens)))["mlm"]
    same(found, logits[inputs.keep], "logits")


@torch.inference_mode()
def test_what_would_be_pooled_otherwise_there_is_not_loaded_there(made_here, shape, tmp_path):
    """A classifier on the last token, or on a BiLSTM, is no BertForSequenceClassification and does not pass for one."""
    for name, options in (("last", {"is_decoder": True, "pool_last": True}), ("bilstm", {})):
        config = BertConfig(**shape | options)
        model = Bert(config, ClassifyTask(labels=("a", "b"), bilstm=int(name == "bilstm")).heads(config)).eval()
        save_model(model, tmp_path / name)
        load = transformers.BertForSequenceClassification.from_pretrained
        _, info = load(tmp_path / name, output_loading_info=True)
        assert {"classifier.weight", "classifier.bias"} <= set(info["missing_keys"])
        assert {f"classify_{name}.classifier.weight"} <= set(info["unexpected_keys"])


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu", "tanh"])
@torch.inference_mode()
def test_activations_there(activation, inputs, made_here, loaded_there, same_model, tmp_path):
    model = made_here("BertModel", hidden_act=activation)
    model.save_pretrained(tmp_path)
    same_model(model, inputs.shown_to(loaded_there(tmp_path, "BertModel")), inputs)


@pytest.mark.parametrize(
    ("architecture", "num_labels"),
    [
        ("BertForSequenceClassification", 2),
        ("BertForTokenClassification", 2),
        ("BertForSequenceClassification", 1),
        ("BertForSequenceClassification", 3),
        ("BertForTokenClassification", 5),
    ],
)
@torch.inference_mode()
def test_the_number_of_labels_is_told(architecture, num_labels, inputs, made_here, loaded_there, same_model, tmp_path):
    model = made_here(architecture, num_labels)
    model.save_pretrained(tmp_path)
    same_model(model, inputs.shown_to(loaded_there(tmp_path, architecture)), inputs)


@torch.inference_mode()
def test_the_names_of_labels_stay(inputs, made_there, loaded_there, same_model, tmp_path):
    names = {0: "negative", 1: "neutral", 2: "positive"}
    made_there("BertForSequenceClassification", id2label=names).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    model.save_pretrained(tmp_path)
    expected = loaded_there(tmp_path, "BertForSequenceClassification")
    assert expected.config.id2label == names
    same_model(model, inputs.shown_to(expected), inputs)


def test_the_name_table_covers_every_parameter_of_theirs(made_here, made_there):
    ours = to_hugging_face(made_here("BertForPreTraining"))
    names = dict(made_there("BertForPreTraining").named_parameters())
    assert ours.keys() == names.keys()
    assert all(ours[name].shape == parameter.shape for name, parameter in names.items())
