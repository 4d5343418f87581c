"""Answers under the keys, and with the numbers, of transformers' pipelines on the same model folder."""

import pytest

from bertwright.config import BertConfig
from bertwright.model.bert import Bert
from bertwright.model.heads import ClassificationHead, MaskedLMHead, NextSentenceHead
from bertwright.model.weights import save_model
from bertwright.predict import Predictor
from bertwright.tasks import ClassifyTask, save_fine_tuned
from bertwright.text.wordpiece import WordPiece

TEXTS = [
    "The capital of France is [MASK].",
    'He said: "I don\'t [MASK] it", and left (quickly).',
    "北京是中国的首[MASK]。",
    "[MASK]",
]


@pytest.fixture(scope="module")
def wordpiece(minilm):
    return WordPiece.load(minilm)


@pytest.fixture(scope="module")
def config(wordpiece):
    return BertConfig(
        vocab_size=wordpiece.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.5,  # so that probabilities differ between answers
    )


def pipeline(task, folder):
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    return transformers.pipeline(task, model=str(folder), device="cpu")


def test_fill_mask(wordpiece, config, tmp_path):
    folder = tmp_path / "model"
    save_model(Bert(config, {"mlm": MaskedLMHead(config)}), folder, wordpiece=wordpiece)
    ours, theirs = Predictor.load(folder), pipeline("fill-mask", folder)
    for text in TEXTS:
        expected = theirs(text, top_k=5)
        found = ours.fill(text, top_k=5)
        assert [answer["token"] for answer in found] == [answer["token"] for answer in expected]
        for one, other in zip(found, expected, strict=True):
            assert one["score"] == pytest.approx(other["score"], rel=1e-4)
            assert one["token_str"] == other["token_str"].strip()
            # theirs drops [UNK], ours shows it
            assert one["sequence"].replace(" ", "").replace("[UNK]", "") == other["sequence"].replace(" ", "")


def test_fill_several_masks(wordpiece, config, tmp_path):
    folder = tmp_path / "model"
    save_model(
        Bert(config, {"mlm": MaskedLMHead(config), "nsp": NextSentenceHead(config)}), folder, wordpiece=wordpiece
    )
    text = "Paris is the [MASK] of [MASK]."
    found, expected = Predictor.load(folder).fill(text), pipeline("fill-mask", folder)(text)
    assert [[one["token"] for one in each] for each in found] == [[one["token"] for one in each] for each in expected]


def test_text_classification(wordpiece, config, tmp_path):
    folder = tmp_path / "model"
    task = ClassifyTask(labels=("bad", "good", "neither"))
    save_fine_tuned(
        Bert(config, {"classify": ClassificationHead(config, 3)}),
        folder,
        wordpiece=wordpiece,
        task=task,
        max_length=128,
    )
    texts = ["a charming and often affecting journey .", "bleak", "这个宾馆比较陈旧了", "x " * 200]
    found = Predictor.load(folder).predict(texts)
    expected = pipeline("text-classification", folder)(texts, truncation=True, max_length=128)
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], rel=1e-4)
