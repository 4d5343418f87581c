"""Pipelines beside those of transformers on the same random models, saved by transformers: calls, keys and scores."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from bertwright.pipelines import pipeline
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

VERSION_4 = Path(sys.prefix) / "oracles" / "transformers4"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["the", "ada", "came", "to", "london", "##ing", "##on", ".", ",", "?", "北", "京"]
TOKENS = [*SPECIAL_TOKENS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
TEXTS = ["Ada came to London .", "the fox, jumping", "北京 ?", "x"]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
QUESTIONS = [
    {"question": "Who came?", "context": "Ada came to London. The fox came too."},
    {"question": "came to ?", "context": "the fox , jumping to ada"},
    {"question": "北?", "context": "to 北京 the fox came"},
]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:transformers.*", "ignore::FutureWarning")


@pytest.fixture
def saved(made_there, tmp_path):
    """Save a random model of transformers with its vocabulary."""

    def save(architecture, labels=(), **options):
        named = {"id2label": dict(enumerate(labels)), "label2id": {name: n for n, name in enumerate(labels)}}
        model = made_there(architecture, vocab_size=len(TOKENS), **(named if labels else {}), **options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)  # so that answers differ
        model.save_pretrained(tmp_path)
        WordPiece(TOKENS, TextRules(lowercase=True)).save(tmp_path, max_length=40)
        return tmp_path

    return save


@pytest.fixture
def both(saved):
    """Return our pipeline and theirs on one folder."""

    def make(name, architecture, labels=(), config=None, **options):
        folder = saved(architecture, labels, **(config or {}))
        transformers.logging.set_verbosity_error()
        theirs = transformers.pipeline(name, model=str(folder), device="cpu", **options)
        return pipeline(name, folder, device="cpu"), theirs

    return make


def alike(found, expected, *, leave_out=()):
    """Compare answers, however deep: the same keys in the same order, equal texts and numbers, scores nearly."""
    if isinstance(expected, list):
        assert type(found) is list
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            alike(one, other, leave_out=leave_out)
    elif isinstance(expected, dict):
        assert [*found] == [*expected]
        for key in expected:
            if key not in leave_out:
                alike(found[key], expected[key], leave_out=leave_out)
    elif isinstance(found, float):
        assert found == pytest.approx(float(expected), abs=1e-5)
    else:
        assert type(found) in (str, int)
        assert found == expected


def test_feature_extraction(both):
    ours, theirs = both("feature-extraction", "BertModel")
    alike(ours(TEXTS), theirs(TEXTS))
    alike(ours(TEXTS[0]), theirs(TEXTS[0]))
    alike(list(ours(text for text in TEXTS)), list(theirs(text for text in TEXTS)))


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification", None])
def test_text_classification(both, kind):
    labels = ["bad", "good", "neither"]
    ours, theirs = both("text-classification", "BertForSequenceClassification", labels, {"problem_type": kind})
    pair = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    for inputs in (TEXTS, TEXTS[0], TEXTS[:1], pair, [pair, pair]):
        for options in ({}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}):
            alike(ours(inputs, **options), theirs(inputs, **options))
    alike(list(ours(text for text in TEXTS)), list(theirs(text for text in TEXTS)))


def test_options_given_at_first(saved):
    folder = saved("BertForSequenceClassification", ["bad", "good", "neither"])
    ours = pipeline("text-classification", folder, top_k=None)
    theirs = transformers.pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    alike(ours(TEXTS), theirs(TEXTS))
    alike(ours(TEXTS[0]), theirs(TEXTS[0]))


def test_token_classification(both):
    ours, theirs = both("token-classification", "BertForTokenClassification", TAGS, aggregation_strategy="first")
    found = ours(TEXTS)
    assert sum(map(len, found)) >= 4, "there is something to compare"
    alike(found, theirs(TEXTS), leave_out=["word"])  # theirs is what the vocabulary makes of it
    alike(ours(TEXTS[0]), theirs(TEXTS[0]), leave_out=["word"])
    words = TEXTS[0].split()
    alike(ours(words, is_split_into_words=True), theirs(words, is_split_into_words=True), leave_out=["word"])
    for text, entities in zip(TEXTS, found, strict=True):
        assert all(each["word"] == text[each["start"] : each["end"]] for each in entities)


def test_fill_mask(both):
    ours, theirs = both("fill-mask", "BertForMaskedLM")
    for inputs in ("ada [MASK] to london", ["ada [MASK] to london", "the [MASK] [MASK]"]):
        alike(ours(inputs, top_k=4), theirs(inputs, top_k=4), leave_out=["sequence", "token_str"])


@pytest.mark.slow
@pytest.mark.skipif(not VERSION_4.is_dir(), reason=f"transformers 4 is not installed for the tests: {VERSION_4}")
def test_question_answering_as_in_version_4(saved):
    """In a process of its own that finds the version which still has this pipeline."""
    folder = saved("BertForQuestionAnswering", max_position_embeddings=160)
    code = """if True:
        import json, sys, transformers
        folder, questions = sys.argv[1], json.loads(sys.argv[2])
        transformers.logging.set_verbosity_error()
        pipe = transformers.pipeline("question-answering", model=folder, device="cpu")
        options = {"max_answer_len": 30, "align_to_words": False, "max_seq_len": 40, "doc_stride": 4}
        print(json.dumps([transformers.__version__, [pipe(**each, **options) for each in questions]]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), json.dumps(QUESTIONS)],
        env={"PYTHONPATH": str(VERSION_4), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    version, expected = json.loads(done.stdout.splitlines()[-1])
    assert version.startswith("4.")
    ours = pipeline("question-answering", folder, device="cpu")
    alike([ours({**each}) for each in QUESTIONS], expected)
    assert len({each["answer"] for each in expected}) > 1
