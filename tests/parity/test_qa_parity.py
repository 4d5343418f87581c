"""Answers beside a literal search through all pairs, beside the published rule of windows, and beside transformers'."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bertwright.config import BertConfig
from bertwright.model.bert import Bert
from bertwright.model.heads import SpanHead
from bertwright.model.weights import save_model
from bertwright.predict import Predictor
from bertwright.tasks.base import Example
from bertwright.tasks.qa import QATask
from bertwright.tasks.qa_spans import most_context
from bertwright.text.encoding import window_starts
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

VERSION_4 = Path(sys.prefix) / "oracles" / "transformers4"
WORDPIECE = WordPiece([*SPECIAL_TOKENS, *"abcdefghij"], TextRules(lowercase=True))

CONTEXTS = [
    "The Normans were the people who in the 10th and 11th centuries gave their name to Normandy, a region in France.",
    "  naïve Café,\tIstanbul — \u201cquoted\u201d (1985) and $2,300.50\n\nnew line  ",
    "北京是中华人民共和国的首都，位于华北平原的北部。",
    "Short.",
    " ".join(f"word{number} of sentence {number % 7}." for number in range(40)),
]
QUESTIONS = [
    "In what country is Normandy located?",
    "哪里?",
    "What is the number of the sentence that has the most words?",
]


def drawn(generator, task, max_length):
    """Draw a question, a context of some windows, and logits; some of them equal, so that ties are met."""

    def letters(least, most):
        count = int(torch.randint(least, most + 1, (), generator=generator))
        return " ".join("abcdefghij"[number] for number in torch.randint(0, 10, (count,), generator=generator).tolist())

    examples = [Example(letters(1, 5), letters(1, 60))]
    features = task.encode(examples, WORDPIECE, max_length)
    logits = [4 * torch.randn(len(feature.input_ids), 2, generator=generator) for feature in features]
    if torch.rand((), generator=generator) < 0.3:
        logits = [each.round() for each in logits]
    return examples, features, logits


def has_most_context(spans, index, position):
    """google-research/bert's rule, one token at a time; spans are (start, length) in tokens."""
    best_score = best_index = None
    for number, (start, length) in enumerate(spans):
        end = start + length - 1
        if not start <= position <= end:
            continue
        score = min(position - start, end - position) + 0.01 * length
        if best_score is None or score > best_score:
            best_score, best_index = score, number
    return best_index == index


def literal_answer(task, example, features, logits):
    """Try every pair of every window in order; the first of equals counts."""
    spans, position = [], 0
    for number, feature in enumerate(features):
        length = len(feature.input_ids) - feature.token_type_ids.index(1) - 1
        position = position if number == 0 else position + spans[-1][1] - task.stride
        spans.append((position, length))
    places = [place for place, letter in enumerate(example.text_pair) if letter != " "]
    best, answer = -math.inf, (0, 0)
    starts, ends = [], []
    for number, ((first_token, length), feature, rows) in enumerate(zip(spans, features, logits, strict=True)):
        first_row = feature.token_type_ids.index(1)
        values = rows.double().tolist()
        for i in range(length):
            ends.append(values[first_row + i][1])
            if not has_most_context(spans, number, first_token + i):
                continue
            starts.append(values[first_row + i][0])
            for j in range(i, min(i + task.max_answer_length, length)):
                total = values[first_row + i][0] + values[first_row + j][1]
                if total > best:
                    best, answer = total, (places[first_token + i], places[first_token + j] + 1)
    null = min((rows[0].double().tolist() for rows in logits), key=sum)
    starts, ends = [*starts, null[0]], [*ends, null[1]]
    if task.impossible and sum(null) - best > task.null_threshold:
        best, answer = sum(null), (0, 0)
    score = math.exp(best) / sum(map(math.exp, starts)) / sum(map(math.exp, ends))
    return {"score": score, "start": answer[0], "end": answer[1], "answer": example.text_pair[slice(*answer)]}


@pytest.mark.parametrize("room", [5, 40, 300])
@pytest.mark.parametrize("stride", [0, 1, 4])
def test_windows_own_the_tokens_that_the_published_rule_gives_them(room, stride):
    """A hundred tokens more make up for one of context, hence the long windows and a last one of every length."""
    stride = stride * room // 5
    for length in range(1, 3 * room, 1 if room < 300 else 37):
        starts = window_starts(length, room, stride)
        spans = [(start, min(room, length - start)) for start in starts]
        expected = [next(i for i in range(len(spans)) if has_most_context(spans, i, token)) for token in range(length)]
        assert most_context(starts, room, length).tolist() == expected, length


@pytest.mark.parametrize(
    ("options", "max_length"),
    [
        ({"stride": 3}, 16),
        ({"stride": 0, "max_answer_length": 1}, 14),
        ({"stride": 6, "max_answer_length": 4, "impossible": True}, 18),
        ({"stride": 3, "max_answer_length": 100, "impossible": True, "null_threshold": -2.5}, 24),
        ({"stride": 3}, 512),
    ],
)
def test_the_answer_is_that_of_a_search_through_all_pairs(options, max_length):
    task, generator = QATask(**options), torch.Generator().manual_seed(7)
    cases = [drawn(generator, task, max_length) for _ in range(100)]
    assert max_length == 512 or max(len(features) for _, features, _ in cases) > 4
    empty = 0
    for examples, features, logits in cases:
        (found,) = task.decode(logits, features, examples)
        expected = literal_answer(task, examples[0], features, logits)
        assert found.pop("score") == pytest.approx(expected.pop("score"), rel=1e-9)
        assert found == expected
        empty += not found["answer"]
    assert (0 < empty < len(cases)) == task.impossible


def test_many_questions_at_once_are_answered_as_each_alone():
    task, generator = QATask(stride=3, impossible=True), torch.Generator().manual_seed(8)
    cases = [drawn(generator, task, 16) for _ in range(30)]
    alone = [task.decode(logits, features, examples)[0] for examples, features, logits in cases]
    examples = [each for case in cases for each in case[0]]
    features = task.encode(examples, WORDPIECE, 16)
    assert task.decode([each for case in cases for each in case[2]], features, examples) == alone


ORACLE = """
import json, sys
import transformers
assert transformers.__version__.startswith("4."), transformers.__version__
transformers.logging.set_verbosity_error()
folder, cases = sys.argv[1], json.load(sys.stdin)
answer = transformers.pipeline("question-answering", model=folder, device="cpu")
options = {"max_seq_len": 512, "doc_stride": 128, "max_question_len": 64, "max_answer_len": 30, "align_to_words": False}
print(json.dumps([answer(question=q, context=c, handle_impossible_answer=i, **options) for q, c, i in cases]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not VERSION_4.is_dir(), reason=f"transformers 4 is not installed for the tests: {VERSION_4}")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_pipeline_of_transformers_says_the_same(minilm, tmp_path, seed):
    """Version 5 has no such pipeline. Contexts fit in one window: over several, its probabilities are each window's."""
    wordpiece = WordPiece.load(minilm)
    config = BertConfig(
        vocab_size=wordpiece.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.5,
    )
    model = Bert(config, {"span": SpanHead(config)}, seed=seed)
    save_model(model, tmp_path / "model", wordpiece=wordpiece)
    cases = [(question, context, empty) for question in QUESTIONS for context in CONTEXTS for empty in (False, True)]
    done = subprocess.run(
        [sys.executable, "-c", ORACLE, str(tmp_path / "model")],
        input=json.dumps(cases),
        env=os.environ | {"PYTHONPATH": str(VERSION_4), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    expected = json.loads(done.stdout.splitlines()[-1])
    for impossible in (False, True):
        asked = [number for number, case in enumerate(cases) if case[2] == impossible]
        predictor = Predictor(model, wordpiece, QATask(impossible=impossible))
        found = predictor.predict([cases[number][:2] for number in asked])
        for number, one in zip(asked, found, strict=True):
            other = expected[number]
            assert [*one] == [*other]
            assert (one["start"], one["end"]) == (other["start"], other["end"]), cases[number]
            assert one["score"] == pytest.approx(other["score"], rel=1e-3)
            context = cases[number][1]
            assert one["answer"] == context[one["start"] : one["end"]]
            assert one["answer"] == other["answer"]
