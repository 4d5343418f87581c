"""Pipelines: one thing, a list or a stream of them; the numbers of `predict`; and what a model cannot answer."""

import json
from itertools import count, islice

import numpy as np
import pytest
import torch

from bertwright.config import BertConfig
from bertwright.embedding import Embedder
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.model.heads import MaskedLMHead, NextSentenceHead
from bertwright.model.weights import load_model
from bertwright.pipelines import ALIASES, PIPELINES, pipeline
from bertwright.predict import Predictor
from bertwright.tasks import (
    ChoiceTask,
    ClassifyTask,
    QATask,
    RegressTask,
    TagTask,
    TaskObjective,
    get_task,
    save_fine_tuned,
)
from bertwright.text.wordpiece import WordPiece

TEXTS = ["Ada Lovelace came to London .", "bleak", "A charming and often affecting journey .", "这个宾馆比较陈旧了"]
QUESTIONS = [{"question": f"Who came to {place}?", "context": f"{text} So it was."} for place, text in enumerate(TEXTS)]
CHOICES = [{"prompt": text, "choices": ["yes", "no", "perhaps not"]} for text in TEXTS]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TASKS = {
    "classify": ClassifyTask(labels=("bad", "good", "neither"), temperature=1.7),
    "many": ClassifyTask(labels=("bad", "good", "neither"), multi_label=True),
    "pairs": ClassifyTask(labels=("0", "1"), text_pair_column="second"),
    "regress": RegressTask(),
    "choice": ChoiceTask(),
    "qa": QATask(),
    "tag": TagTask(labels=("O", "B-PER", "I-PER", "B-LOC", "I-LOC")),
}
NAMES = {"classify": "text-classification", "regress": "text-regression", "choice": "multiple-choice"}
NAMES |= {"qa": "question-answering", "tag": "token-classification"}


@pytest.fixture(scope="module")
def predictors(minilm):
    """A model of random weights for every task, and one with the heads of pre-training."""
    wordpiece = WordPiece.load(minilm)
    config = BertConfig(
        vocab_size=wordpiece.vocab_size, max_position_embeddings=64, initializer_range=0.5, **SIZES
    )  # so wide that answers differ
    made = {
        name: Predictor(Bert(config, TaskObjective(task).heads(config)), wordpiece, task)
        for name, task in TASKS.items()
    }
    heads = {"mlm": MaskedLMHead(config), "nsp": NextSentenceHead(config)}
    for predictor in made.values():
        predictor.model.eval()
    made["qa"] = Predictor(made["qa"].model, wordpiece, QATask(stride=8))
    return made | {"pretrained": Predictor(Bert(config, heads), wordpiece)}


def asked(name):
    return {"qa": QUESTIONS, "choice": CHOICES, "pairs": [(text, text[::-1]) for text in TEXTS]}.get(name, TEXTS)


# The numbers are those of predict


@pytest.mark.parametrize("name", ["classify", "regress", "choice", "qa"])
def test_answers_are_those_of_predict(predictors, name):
    pipe, inputs = pipeline(NAMES[name], predictors[name]), asked(name)
    expected = predictors[name].predict(inputs)
    assert pipe(inputs) == expected
    assert list(pipe(iter(inputs))) == expected
    [alone] = predictors[name].predict(inputs[:1])
    assert pipe(inputs[0]) == ([alone] if name == "classify" else alone)
    assert json.loads(json.dumps(expected)) == expected, "plain values"
    assert pipe([]) == list(pipe(iter(()))) == []


def test_names_are_those_of_predict(predictors):
    pipe = pipeline("ner", predictors["tag"])
    expected = [each["entities"] for each in predictors["tag"].predict(TEXTS)]
    assert any(expected)
    assert pipe(TEXTS) == expected
    assert pipe(TEXTS[0]) == pipe(TEXTS[:1])[0]
    words = TEXTS[0].split()
    assert pipe([words])[0] == predictors["tag"].predict([words])[0]["entities"]
    assert pipe(words, is_split_into_words=True) == pipe([words])
    assert pipe([words, words], is_split_into_words=True)[0] == pipe([words, words])[0]
    assert len(pipe(words)) == len(words), "a list of texts"


def test_several_labels_of_a_text(predictors):
    pipe = pipeline("text-classification", predictors["many"])
    expected = [each["scores"] for each in predictors["many"].predict(TEXTS)]
    for all_labels, best, scores in zip(pipe(TEXTS, top_k=None), pipe(TEXTS), expected, strict=True):
        assert {each["label"]: each["score"] for each in all_labels} == scores
        assert best == all_labels[0]


def test_real_weights(minilm, tmp_path):
    """The released encoder with a fresh head: a model folder of ours, answered from the folder and by `predict`."""
    task = ClassifyTask(labels=("no", "yes"))
    config = Predictor.load(minilm).model.config
    model = load_model(minilm, TaskObjective(task).heads(config))
    save_fine_tuned(model, tmp_path / "model", wordpiece=WordPiece.load(minilm), task=task, max_length=64)
    pipe = pipeline("sentiment-analysis", tmp_path / "model", device="cpu")
    expected = Predictor.load(tmp_path / "model").predict(TEXTS)
    assert pipe(TEXTS) == expected
    assert list(pipe(text for text in TEXTS)) == expected
    assert [pipe(text)[0] for text in TEXTS] == [
        Predictor.load(tmp_path / "model").predict([text])[0] for text in TEXTS
    ]
    embed, embedder = pipeline("feature-extraction", str(minilm)), Embedder.load(minilm, pooling="mean")
    assert embed(TEXTS, pooling="mean") == embedder.embed(TEXTS).tolist()
    tokens = embedder.embed_tokens(TEXTS)
    assert [row for text in embed(TEXTS) for row in text[0]] == tokens.vectors.tolist()


# How it is called


def test_one_text_is_classified_into_a_list_of_one_as_there(predictors):
    pipe = pipeline("text-classification", predictors["classify"])
    [answer] = pipe(TEXTS[0])
    assert pipe({"text": TEXTS[0]}) == answer
    assert pipe([TEXTS[0]]) == [answer]
    assert pipe(TEXTS[0], top_k=1) == [answer]
    every = pipe(TEXTS[0], top_k=None)
    assert [each["score"] for each in every] == sorted((each["score"] for each in every), reverse=True)
    assert {each["label"] for each in every} == {"bad", "good", "neither"}
    assert sum(each["score"] for each in every) == pytest.approx(1, abs=1e-6)
    assert pipe(TEXTS[0], top_k=2) == every[:2]
    assert pipe(TEXTS, top_k=2)[0] == pipe(TEXTS, top_k=None)[0][:2]


def test_options_given_at_first_hold_for_every_call(predictors):
    pipe = pipeline("text-classification", predictors["classify"], top_k=2)
    assert [len(each) for each in pipe(TEXTS)] == [2] * 4
    assert [len(each) for each in pipe(TEXTS, top_k=1)] == [1] * 4
    assert [len(each) for each in pipe(TEXTS)] == [2] * 4


def test_pairs(predictors):
    pipe, pairs = pipeline("text-classification", predictors["pairs"]), asked("pairs")
    expected = predictors["pairs"].predict(pairs)
    assert pipe(pairs) == pipe([list(pair) for pair in pairs]) == expected
    assert pipe([{"text": a, "text_pair": b} for a, b in pairs]) == expected
    assert pipe(pairs[0]) == predictors["pairs"].predict(pairs[:1])[0]


@pytest.mark.parametrize("made", [np.array, lambda texts: np.array(texts, object)])
def test_an_array_is_a_list(predictors, made):
    pipe = pipeline("text-classification", predictors["classify"])
    assert pipe(made(TEXTS)) == pipe(TEXTS)


def test_questions(predictors):
    pipe = pipeline("question-answering", predictors["qa"])
    answers = predictors["qa"].predict(QUESTIONS)
    questions, contexts = ([each[key] for each in QUESTIONS] for key in ("question", "context"))
    assert pipe(question=questions, context=contexts) == answers
    assert pipe(**QUESTIONS[0]) == pipe(QUESTIONS[0]) == pipe((questions[0], contexts[0]))
    assert (
        pipe(question=questions, context=contexts[0])[0]
        == pipe([{"question": each, "context": contexts[0]} for each in questions])[0]
    )
    assert pipe(question=questions[0], context=contexts)[1]["answer"] in contexts[1]
    several = pipe(QUESTIONS, top_k=3)
    assert [each[0] for each in several] == answers
    assert [len(each) for each in several] == [3] * 4
    assert pipe(**QUESTIONS[0], top_k=2) == pipe(QUESTIONS[0], top_k=2)
    assert pipe(question=[], context="nothing") == []


def test_masks_and_next_sentences(predictors):
    model = predictors["pretrained"]
    fill, follows = pipeline("fill-mask", model), pipeline("next-sentence", model)
    assert fill("[MASK] came.") == model.fill("[MASK] came.")
    assert fill(["[MASK] came.", "[MASK] [MASK]"], top_k=2) == model.fill_many(["[MASK] came.", "[MASK] [MASK]"], 2)
    [first, *_], [[second, *_], _] = fill(["[MASK] came.", "[MASK] [MASK]"], top_k=2)
    for one, other in ((first, model.fill("[MASK] came.", 2)[0]), (second, model.fill("[MASK] [MASK]", 2)[0][0])):
        assert one == other | {"score": pytest.approx(other["score"], rel=1e-4)}
    assert follows(("He came.", "She left.")) == model.next_sentence("He came.", "She left.")
    assert follows([("a", "b"), {"text": "c", "text_pair": "d"}]) == model.next_sentences([("a", "b"), ("c", "d")])


def test_vectors(predictors):
    pipe, embedder = (
        pipeline("feature-extraction", predictors["tag"]),
        Embedder(predictors["tag"].model, predictors["tag"].wordpiece),
    )
    [rows] = pipe(TEXTS[0])
    assert len(rows) == len(embedder.wordpiece.encode(TEXTS[0]).input_ids)
    assert {len(row) for row in rows} == {16}
    assert type(rows[0][0]) is float
    assert pipe(TEXTS[0], pooling="cls") == pytest.approx(rows[0], rel=1e-4)
    assert pipe(TEXTS[0], pooling="mean") == pytest.approx(np.mean(rows, 0), rel=1e-4, abs=1e-6)
    assert len(pipe(TEXTS, pooling="max")) == 4


# Streams


class Counted:
    """Texts without end, and how many of them were taken."""

    def __init__(self):
        self.taken = 0

    def __iter__(self):
        for number in count():
            self.taken += 1
            yield f"text number {number}"


@pytest.mark.parametrize("chunk_size", [1, 7])
def test_a_stream_is_read_as_answers_are_taken(predictors, chunk_size):
    texts = Counted()
    answers = pipeline("text-classification", predictors["classify"])(texts, chunk_size=chunk_size)
    assert texts.taken == 0
    found = []
    for number in range(20):
        found.append(next(answers))
        assert texts.taken == (number // chunk_size + 1) * chunk_size
    expected = [
        answer
        for first in range(0, 20, chunk_size)
        for answer in predictors["classify"].predict([f"text number {first + place}" for place in range(chunk_size)])
    ]
    assert found == expected[:20]


def test_a_stream_that_ends(predictors):
    pipe = pipeline("text-classification", predictors["classify"], chunk_size=3)
    assert [each["label"] for each in pipe(iter(TEXTS))] == [each["label"] for each in pipe(TEXTS)]
    assert len(list(pipe(islice(Counted(), 9)))) == 9


def test_a_file_and_a_data_set_are_streams(predictors, tmp_path):
    (tmp_path / "texts.txt").write_text("bleak\ncharming\n", encoding="utf-8")
    pipe = pipeline("text-classification", predictors["classify"])
    with (tmp_path / "texts.txt").open(encoding="utf-8") as lines:
        assert list(pipe(lines)) == pipe(["bleak", "charming"])

    class DataSet(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, place):
            return TEXTS[place]

    assert list(pipe(DataSet())) == pipe(TEXTS)


# What is refused


def test_names_are_known():
    with pytest.raises(
        BertwrightError, match=r"unknown pipeline 'text-clasification' \(did you mean 'text-classification'"
    ):
        pipeline("text-clasification", "nowhere")
    assert set(ALIASES.values()) < set(PIPELINES)
    assert set(NAMES) == {kind.task for kind in PIPELINES.values() if kind.task}
    assert all(get_task(kind.task) for kind in PIPELINES.values() if kind.task)


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("ner", "classify", "fine-tuned for 'classify'; token-classification needs .* 'tag'.*use: text-classification"),
        ("text-classification", "regress", "fine-tuned for 'regress'.*use: text-regression"),
        ("text-classification", "pretrained", "was not fine-tuned .its heads: mlm, nsp.*use: next-sentence, fill-mask"),
        ("fill-mask", "qa", "fill-mask needs a pre-trained model with its mlm head.*use: question-answering"),
        ("next-sentence", "choice", "its nsp head.*use: multiple-choice, feature-extraction"),
    ],
)
def test_a_model_that_cannot_answer_is_refused_at_once(predictors, name, model, message):
    with pytest.raises(BertwrightError, match=f"(?s){message}"):
        pipeline(name, predictors[model])


@pytest.mark.parametrize(
    ("name", "model", "options", "message"),
    [
        ("text-classification", "classify", {"topk": 2}, r"no option 'topk' \(did you mean 'top_k'"),
        ("text-classification", "classify", {"batch_size": 2}, "its options are: chunk_size, top_k"),
        ("text-classification", "classify", {"top_k": 0}, "top_k must be a whole number of at least 1, or None"),
        ("text-classification", "classify", {"chunk_size": 0}, "chunk_size must be a whole number"),
        ("question-answering", "qa", {"top_k": None}, "top_k must be a whole number of at least 1, not None"),
        ("fill-mask", "pretrained", {"top_k": None}, "top_k must be a whole number of at least 1, not None"),
        ("ner", "tag", {"aggregation_strategy": "max"}, "aggregation_strategy 'max' is not supported"),
    ],
)
def test_bad_options_are_refused(predictors, name, model, options, message):
    inputs = {"qa": QUESTIONS, "pretrained": "[MASK]"}.get(model, TEXTS)
    with pytest.raises(BertwrightError, match=message):
        pipeline(name, predictors[model])(inputs, **options)


@pytest.mark.parametrize(
    ("name", "model", "inputs", "message"),
    [
        ("text-classification", "classify", ["a", " "], "text 2: the text is empty"),
        ("text-classification", "classify", None, "expected a text, a list or an iterable of texts, not None"),
        ("text-classification", "classify", b"text", "text 1: expected a text or a pair of texts, not '116'"),
        ("text-classification", "classify", ("a", "b"), "text 1: this model answers one text"),
        ("question-answering", "qa", None, "nothing is asked"),
        ("question-answering", "qa", "Who?", "text 1: this model answers a question about a context"),
        ("fill-mask", "pretrained", ["[MASK]", 3], "text 2: expected a text, not 3"),
        ("next-sentence", "pretrained", ["alone"], "text 1: this model answers a pair of texts"),
        ("feature-extraction", "tag", [""], "text 1: the text is empty"),
        ("multiple-choice", "choice", ["prompt"], "text 1: expected .*prompt"),
    ],
)
def test_bad_inputs_are_refused_with_their_number(predictors, name, model, inputs, message):
    with pytest.raises(BertwrightError, match=message):
        list(pipeline(name, predictors[model])(inputs))


def test_other_mistakes(predictors):
    pipe = pipeline("text-classification", predictors["classify"])
    stream = pipe(iter(["a", "b", "c", ""]), chunk_size=2)
    assert [next(stream)["label"] for _ in range(2)]
    with pytest.raises(BertwrightError, match="text 4: the text is empty"):
        next(stream)
    with pytest.raises(BertwrightError, match="expected texts, not a whole table"):
        pipe(type("Table", (), {"columns": ["text"], "__iter__": lambda self: iter(self.columns)})())
    with pytest.raises(BertwrightError, match="has its device and its batch_tokens already"):
        pipeline("ner", predictors["tag"], device="cpu")
    with pytest.raises(BertwrightError, match="2 questions, but 1 contexts"):
        pipeline("question-answering", predictors["qa"])(question=["a", "b"], context=["c"])
    with pytest.raises(BertwrightError, match=r"unknown pooling 'avg'"):
        pipeline("feature-extraction", predictors["tag"])(TEXTS, pooling="avg")
    with pytest.raises(BertwrightError, match="text 1: expected a list of words, not 'a'"):
        pipeline("ner", predictors["tag"])(["a", ["b"]], is_split_into_words=True)
