"""Our model folders in transformers, and released weights in ours: the same numbers."""

import pytest
import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig
from bertwright.model.bert import Bert
from bertwright.model.heads import ClassificationHead, MaskedLMHead, NextSentenceHead
from bertwright.model.weights import save_model, to_hugging_face
from bertwright.text.wordpiece import WordPiece

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

CONFIG = BertConfig(
    vocab_size=120,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=40,
    initializer_range=0.2,
)
LENGTHS = [40, 1, 17, 17, 9]
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "北京是中华人民共和国的首都。",
    "I ❤️ BERT 🤖🎉 — naïve café, İstanbul!",
    "a",
    "pneumonoultramicroscopicsilicovolcanoconiosis " * 30,
]


def make(names, config=CONFIG):
    heads = {
        "mlm": lambda: MaskedLMHead(config),
        "nsp": lambda: NextSentenceHead(config),
        "classify": lambda: ClassificationHead(config, 3),
    }
    model = Bert(config, {name: heads[name]() for name in names}).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms unlike a fresh model's
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def theirs(folder, architecture, **options):
    """The folder in transformers; it must find every weight, and no other."""
    kind = getattr(transformers, architecture)
    model, info = kind.from_pretrained(folder, output_loading_info=True, attn_implementation="eager", **options)
    for name in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[name], (name, info[name])
    return model.eval()


@pytest.fixture
def padded():
    ids = torch.randint(1, CONFIG.vocab_size, (len(LENGTHS), max(LENGTHS)))
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    types = (torch.arange(max(LENGTHS)) >= torch.tensor(LENGTHS)[:, None] // 2).long() * mask
    return {"input_ids": ids * mask, "token_type_ids": types, "attention_mask": mask}


def pack(padded, **targets):
    keep = padded["attention_mask"].bool()
    ids, types = (padded[name][keep].split(LENGTHS) for name in ("input_ids", "token_type_ids"))
    return Batch.pack([each.tolist() for each in ids], [each.tolist() for each in types], targets)


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu", "tanh"])
@torch.inference_mode()
def test_the_encoder(activation, padded, tmp_path):
    model = make([], BertConfig(**{**vars(CONFIG), "hidden_act": activation}))
    save_model(model, tmp_path)
    expected = theirs(tmp_path, "BertModel")(**padded)
    found, keep = model.on_padded(**padded), padded["attention_mask"].bool()
    assert_same(found.last_hidden_state[keep], expected.last_hidden_state[keep])
    assert_same(found.pooler_output, expected.pooler_output)
    assert_same(model.hidden_states(pack(padded)).last_hidden_state, expected.last_hidden_state[keep])


@torch.inference_mode()
def test_pre_training_heads(padded, tmp_path):
    model, rows = make(["mlm", "nsp"]), torch.tensor([0, 3, 39, 40, 41, 83])
    save_model(model, tmp_path)
    expected, keep = theirs(tmp_path, "BertForPreTraining")(**padded), padded["attention_mask"].bool()
    found = model(pack(padded, masked_rows=rows))
    assert_same(found["mlm"], expected.prediction_logits[keep][rows])
    assert_same(found["nsp"], expected.seq_relationship_logits)


@pytest.mark.parametrize(
    ("head", "architecture"),
    [
        ("mlm", "BertForMaskedLM"),
        ("nsp", "BertForNextSentencePrediction"),
        ("classify", "BertForSequenceClassification"),
    ],
)
@torch.inference_mode()
def test_single_heads(head, architecture, padded, tmp_path):
    model, rows = make([head]), torch.arange(sum(LENGTHS))
    save_model(model, tmp_path, extra_config={"num_labels": 3} if head == "classify" else None)
    logits = theirs(tmp_path, architecture)(**padded).logits
    expected = logits[padded["attention_mask"].bool()] if head == "mlm" else logits
    assert_same(model(pack(padded, masked_rows=rows))[head], expected)


@torch.inference_mode()
def test_what_transformers_saves_is_loaded(padded, tmp_path):
    config = transformers.BertConfig(
        **{name: value for name, value in vars(CONFIG).items() if name != "pad_token_id"}, attn_implementation="eager"
    )
    torch.manual_seed(1)
    expected = transformers.BertForPreTraining(config).eval()
    expected.save_pretrained(tmp_path)
    model, keep, rows = Bert.from_pretrained(tmp_path), padded["attention_mask"].bool(), torch.arange(sum(LENGTHS))
    found, reference = model(pack(padded, masked_rows=rows)), expected(**padded)
    assert_same(found["mlm"], reference.prediction_logits[keep])
    assert_same(found["nsp"], reference.seq_relationship_logits)


def test_the_name_table_covers_every_parameter_of_theirs():
    expected = transformers.BertForPreTraining(transformers.BertConfig(**vars(CONFIG)))
    ours, names = to_hugging_face(make(["mlm", "nsp"])), dict(expected.named_parameters())
    assert ours.keys() == names.keys()
    assert all(ours[name].shape == parameter.shape for name, parameter in names.items())


# Released weights


@torch.inference_mode()
def test_minilm_says_the_same(minilm):
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    expected_model = theirs(minilm, "BertModel", dtype=torch.float32)
    model, wordpiece = Bert.from_pretrained(minilm), WordPiece.load(minilm)
    encoded = tokenizer(TEXTS, padding=True, truncation=True, max_length=128, return_tensors="pt")
    expected, keep = expected_model(**encoded), encoded["attention_mask"].bool()
    padded = model.on_padded(**encoded)
    encodings = [wordpiece.encode(text, max_length=128) for text in TEXTS]
    batch = Batch.pack([each.input_ids for each in encodings], [each.token_type_ids for each in encodings])
    assert torch.equal(batch.input_ids, encoded["input_ids"][keep]), "the same pieces of text"
    packed = model.hidden_states(batch)
    for found in (padded.last_hidden_state[keep], packed.last_hidden_state):
        assert_same(found, expected.last_hidden_state[keep])
    for found in (padded.pooler_output, packed.pooler_output):
        assert_same(found, expected.pooler_output)
