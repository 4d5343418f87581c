"""Questions: reading their files, windows over contexts, choosing an answer, and what each broken file is told."""

import gzip
import json
import logging
import lzma
import math

import numpy as np
import pytest
import torch
import zstandard

from bertwright.errors import BertwrightError
from bertwright.tasks.base import Example
from bertwright.tasks.qa import QATask
from bertwright.tasks.qa_files import Answer, locate, read_questions
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

WORDS = "who came ? ada and bob left . the town ##s in may 京 都"
WORDPIECE = WordPiece([*SPECIAL_TOKENS, *WORDS.split()], TextRules(lowercase=True))
CONTEXT = "Ada came. Bob left the towns in May."
QA = {"id": "q1", "question": "Who came?", "answers": [{"text": "Ada", "answer_start": 0}]}
ROW = {"id": "q1", "question": "Who came?", "context": CONTEXT, "answers": {"text": ["Ada"], "answer_start": [0]}}


def at(text: str, start: int) -> Answer:
    """An answer as its context spells it; -1: it does not stand there."""
    return Answer(text, start, start + len(text) if start >= 0 else -1)


def squad(*questions, context=CONTEXT):
    return {"version": "1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


@pytest.fixture
def written(tmp_path):
    def write(name, content):
        path = tmp_path / name
        content = content if isinstance(content, str | bytes) else json.dumps(content, ensure_ascii=False)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def about(label, context=CONTEXT, question="who came ?"):
    return Example(question, context, label)


# Reading


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(squad(QA))),
        ("a.JSON", json.dumps(squad(QA), indent=1).replace("\n", "\r\n")),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(squad(QA)).encode()),
        ("a.json.gz", gzip.compress(json.dumps(squad(QA)).encode())),
        ("a.json.xz", lzma.compress(json.dumps(squad(QA)).encode())),
        ("a.json.zst", zstandard.compress(json.dumps(squad(QA)).encode())),
        ("a.json", json.dumps({"data": [ROW]})),
        ("a.json", json.dumps([ROW])),
        ("a.jsonl", json.dumps(ROW) + "\n\n"),
        ("a.jsonl.gz", gzip.compress(json.dumps(ROW).encode())),
        ("a.jsonl", json.dumps(ROW | {"answers": QA["answers"], "more": 1})),
    ],
)
def test_the_same_question_from_every_kind_of_file(written, name, content):
    (example,) = read_questions(path := written(name, content))
    assert (example.text, example.text_pair, example.id) == ("Who came?", CONTEXT, "q1")
    assert example.label == (at("Ada", 0),)
    place = {"a.jsonl": "row 1"}.get(name.removesuffix(".gz"), "[0]")
    assert example.where.startswith(f"{path}, ")
    assert place in example.where


def test_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [ROW, ROW | {"id": "q2", "title": "t", "answers": {"text": [], "answer_start": []}}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    first, second = read_questions(tmp_path / "a.parquet")
    assert (first.label, second.label) == ((at("Ada", 0),), ())
    assert second.where == f"{tmp_path / 'a.parquet'}, row 2"
    parquet.write_table(pyarrow.Table.from_pylist([{"question": "q", "context": "c"}]), tmp_path / "b.parquet")
    assert read_questions(tmp_path / "b.parquet", labelled=False)[0].label is None
    with pytest.raises(BertwrightError, match=r"row 1: no key 'answers'"):
        read_questions(tmp_path / "b.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([{"query": "q", "context": "c"}]), tmp_path / "c.parquet")
    with pytest.raises(BertwrightError, match=r"c.parquet: no key 'question'.*; there is 'query', 'context'"):
        read_questions(tmp_path / "c.parquet")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BertwrightError, match="not readable as Parquet"):
        read_questions(tmp_path / "c.parquet")


def test_questions_without_answers_and_without_labels(written):
    path = written("a.json", squad(QA, {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True}))
    assert [example.label for example in read_questions(path)] == [(at("Ada", 0),), ()]
    bare = squad({"id": "q1", "question": "Who?"}, {"id": 7, "question": "Why?", "answers": "?"})
    found = read_questions(written("b.json", bare), labelled=False)
    assert [(example.id, example.label) for example in found] == [("q1", None), ("7", None)]
    assert found[0].text_pair is found[1].text_pair


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("ab", 0, at("ab", 0)),
        ("ab", 1, at("ab", 0)),
        ("ab", 5, at("ab", 6)),
        ("ab", 3, at("ab", 0)),  # of two that are as near, the first
        ("ab", -1, at("ab", 0)),
        ("ab", 999, at("ab", 12)),
        ("CD E", 0, Answer("CD E", 18, 23)),
        ("cde", 0, Answer("cde", 18, 23)),
        ("Ab", 0, None),  # several, but for the case
        ("xyz", 0, None),
    ],
)
def test_an_answer_is_found_where_it_stands(text, start, expected):
    context = "ab....ab....ab... cd  e"
    assert locate(context, text, start) == expected
    if expected:
        squeezed = "".join(context[expected.start : expected.end].lower().split())
        assert squeezed == "".join(expected.text.lower().split())


def test_what_is_odd_is_counted_and_kept(written, caplog):
    questions = [
        {"id": "1", "question": " ", "answers": [{"text": "Bob", "answer_start": 0}]},
        {
            "id": "2",
            "question": "?",
            "answers": [{"text": "Eve", "answer_start": -1}, {"text": "Bob", "answer_start": 10}],
        },
        {"id": "3", "question": "\ud83d?", "answers": [{"text": "may", "answer_start": 3}]},
    ]
    path = written("a.json", json.dumps(squad(*questions)))
    examples = QATask().read(path)
    assert [example.label for example in examples] == [
        (at("Bob", 10),),
        (at("Eve", -1), at("Bob", 10)),
        (Answer("may", 32, 35),),
    ]
    assert examples[2].text == "\ufffd?"
    assert QATask().gold(examples[1]) == ["Eve", "Bob"]
    assert caplog.messages == [
        f"{path}: 1 halves of surrogate pairs became U+FFFD",
        f"{path}: 2 answer_start did not match their text and were moved",
        f"{path}: 1 answers do not stand in their context; they count in scores and are never learnt",
        f"{path}: 1 questions are empty",
    ]
    (feature,) = QATask().encode(examples[1:2], WORDPIECE, 384)
    assert WORDPIECE.tokens[feature.input_ids[feature.target[0]]] == "bob"


def test_a_question_that_cannot_be_learnt_is_refused(written):
    wrong = {"id": "w", "question": "?", "answers": [{"text": "Eve", "answer_start": 0}]}
    path = written("a.json", squad(QA, wrong, wrong | {"id": "v"}))
    with pytest.raises(BertwrightError) as caught:
        QATask().read(path)
    assert caught.value.where == f"{path}, data[0].paragraphs[0].qas[1], id w"
    assert "'Eve', as there are for 2 questions" in caught.value.what
    assert len(read_questions(path)) == 3, "scoring a file of answers needs no place"


NO_ANSWERS = {"id": "q1", "question": "Who?"}


@pytest.mark.parametrize(
    ("content", "place", "words"),
    [
        ("", "", "not valid JSON"),
        ("{", "", "not valid JSON"),
        ('{"data": [], "data": []}', "", "the key 'data' is there twice"),
        ("[" * 100_000, "", "nested too deep|recursion"),
        (f"{json.dumps(ROW)}\n{json.dumps(ROW)}", "", r"name it \.jsonl"),
        ("3", "", "expected a JSON object, not 3"),
        ({"version": "1"}, "", "no key 'data'; there is 'version'"),
        ({"data": {}}, "", "'data' must be a list, not {}"),
        ({"data": []}, "", "no questions"),
        ({"data": [[]]}, "data[0]", r"expected a JSON object, not \[\]"),
        ({"data": [{"paragraph": []}]}, "data[0]", r"no key 'paragraphs' \(did you mean 'paragraph'\?\)"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, "data[0].paragraphs[0]", "no key 'context'"),
        ({"data": [{"paragraphs": [{"context": 3, "qas": []}]}]}, "data[0].paragraphs[0]", "'context' must be text"),
        ({"data": [{"paragraphs": [{"context": "c"}]}]}, "data[0].paragraphs[0]", "no key 'qas'"),
        (squad({"id": "1", "answers": []}), "qas[0]", "no key 'question'"),
        (squad(QA | {"question": None}), "qas[0]", "'question' must be text, not null"),
        (squad(QA | {"id": [1]}), "qas[0]", "'id' must be text"),
        (squad(QA, context=" \n"), "qas[0]", "the context is empty"),
        (squad(NO_ANSWERS), "qas[0]", "no key 'answers'"),
        (squad(NO_ANSWERS | {"answers": None}), "qas[0]", "'answers' must be a list, not null"),
        (squad(NO_ANSWERS | {"answers": ["Ada"]}), "qas[0].answers[0]", "expected a JSON object"),
        (squad(NO_ANSWERS | {"answers": [{"text": "Ada"}]}), "qas[0].answers[0]", "no key 'answer_start'"),
        (squad(NO_ANSWERS | {"answers": [{"text": " ", "answer_start": 3}]}), "qas[0].answers[0]", "answer is empty"),
        (squad(NO_ANSWERS | {"answers": [{"text": "a", "answer_start": "3"}]}), "qas[0]", "must be a whole number"),
        (squad(NO_ANSWERS | {"answers": [{"text": "a", "answer_start": True}]}), "qas[0]", "must be a whole number"),
        (squad(QA | {"is_impossible": True}), "qas[0]", "'is_impossible' is true, but there are 1 answers"),
        (squad(QA | {"is_impossible": False, "answers": []}), "qas[0]", "is false, but there are no answers"),
        (squad(QA | {"is_impossible": "no"}), "qas[0]", "must be true or false"),
        (squad(QA, QA), "qas[1]", r"the id 'q1' is there twice\n.*also at .*qas\[0\]"),
        ([ROW | {"answers": {"text": ["a"], "answer_start": []}}], "[0]", "1 answers have 0 answer_start"),
    ],
)
def test_broken_json_is_refused(written, content, place, words):
    with pytest.raises(BertwrightError, match=words) as caught:
        read_questions(path := written("a.json", content))
    assert caught.value.where.startswith(str(path))
    assert place in caught.value.where
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", json.dumps(ROW) + "\n{", "row 2: not valid JSON"),
        ("a.jsonl", "[]", r"row 1: expected a JSON object, found \[\]"),
        ("a.jsonl", "\n\n", "no questions"),
        ("a.jsonl", json.dumps(ROW) + "\n" + json.dumps(ROW), "row 2: the id 'q1' is there twice"),
        ("a.json.gz", b"\x1f\x8bno", "damaged compressed data"),
        ("a.json", b'{"data": "\x00"}', "binary"),
        ("a.tsv", "question\tcontext", r"save it as one of \.json, \.jsonl, \.parquet"),
    ],
)
def test_broken_files_are_refused(written, name, content, words):
    with pytest.raises(BertwrightError, match=words):
        read_questions(written(name, content))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet"])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(BertwrightError, match="no such file"):
        read_questions(tmp_path / name)


# What users ask


def test_an_example_of_what_a_user_asked():
    task = QATask()
    assert task.example(("who?", "ada")) == task.example({"question": "who?", "context": "ada"})
    assert task.example(("who?", "ada")) == Example("who?", "ada")
    assert task.typed(["who?", "ada", "why?", "may"]) == [("who?", "ada"), ("why?", "may")]
    for given in ("who?", ("who?", " "), ("", "ada"), ("who?", 3), {"question": "who?"}, {"q": "who?"}, 3):
        with pytest.raises(BertwrightError, match="text 1"):
            task.example(given, where="text 1")
    with pytest.raises(BertwrightError, match="1 texts"):
        task.typed(["who?"])


@pytest.mark.parametrize(
    "options",
    [
        {"stride": -1},
        {"max_question_length": 0},
        {"max_answer_length": 0},
        {"null_threshold": math.inf},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(BertwrightError, match=next(iter(options))):
        QATask(**options)


# Windows


def tokens(feature):
    return [WORDPIECE.tokens[number] for number in feature.input_ids]


def test_windows_hold_the_question_and_share_tokens():
    features = QATask(stride=2).encode([about((at("towns", 23),))], WORDPIECE, 12)
    assert [" ".join(tokens(feature)) for feature in features] == [
        "[CLS] who came ? [SEP] ada came . bob left the [SEP]",
        "[CLS] who came ? [SEP] left the town ##s in may [SEP]",
        "[CLS] who came ? [SEP] in may . [SEP]",
    ]
    assert [feature.target for feature in features] == [(0, 0), (7, 8), (0, 0)]
    assert [feature.token_type_ids for feature in features] == [[0] * 5 + [1] * n for n in (7, 7, 4)]
    assert [feature.way_back.first_row for feature in features] == [5, 5, 5]
    spans = [[CONTEXT[start:end] for start, end in feature.way_back.offsets] for feature in features]
    assert spans[1] == ["left", "the", "town", "s", "in", "May"]
    shown = np.concatenate([feature.way_back.may_start for feature in features])
    assert shown.sum() == 11, "each token may begin an answer in one window"
    assert features[0].way_back.may_start.tolist() == [True] * 5 + [False]


def test_an_answer_that_ends_behind_a_window_is_not_in_it():
    features = QATask(stride=2).encode([about((at("the town", 19),))], WORDPIECE, 12)
    assert [feature.target for feature in features] == [(0, 0), (6, 7), (0, 0)]
    features = QATask(stride=2).encode([about((at("left the", 14),))], WORDPIECE, 12)
    assert [feature.target for feature in features] == [(9, 10), (5, 6), (0, 0)]


def test_an_answer_takes_whole_tokens():
    (feature,) = QATask().encode([about((at("own", 24),))], WORDPIECE, 384)
    assert [tokens(feature)[row] for row in feature.target] == ["town", "town"]
    (feature,) = QATask().encode([about((at("t the towns i", 17),))], WORDPIECE, 384)
    assert [tokens(feature)[row] for row in feature.target] == ["left", "in"]
    assert QATask().marks(feature) == {feature.target[0]: "start", feature.target[1]: "end"}


def test_no_answer_points_at_cls():
    assert [each.target for each in QATask().encode([about(()), about(None)], WORDPIECE, 384)] == [(0, 0), None]
    batch = QATask().collate(QATask().encode([about(()), about((at("Ada", 0),))], WORDPIECE, 384))
    assert batch.targets["starts"].tolist() == batch.targets["ends"].tolist() == [0, 5]


def test_an_answer_without_a_token_is_refused():
    with pytest.raises(BertwrightError, match="no token in the answer"):
        QATask().encode([about((at("\u200b", 3),), "ada\u200b came")], WORDPIECE, 384)


def test_long_questions_are_cut_and_counted(caplog):
    examples = [about((at("Ada", 0),), question="who " * 9), about((at("Ada", 0),))]
    features = QATask(max_question_length=5).encode(examples, WORDPIECE, 384)
    assert [feature.truncated for feature in features] == [True, False]
    assert tokens(features[0])[:8] == ["[CLS]", *["who"] * 5, "[SEP]", "ada"]
    assert caplog.messages == ["1 of 2 questions were longer than 5 tokens and were cut"]
    caplog.clear()
    cut = QATask(stride=1).encode(examples, WORDPIECE, 10)
    assert all(len(feature.input_ids) <= 10 for feature in cut)
    assert f"{sum(each.truncated for each in cut)} of {len(cut)} inputs were longer than 10 tokens" in caplog.text


def test_answers_that_cannot_be_learnt_or_given_are_counted(caplog):
    example = about((at(CONTEXT[:-1], 0),))
    QATask(stride=2, max_answer_length=3).encode([example], WORDPIECE, 12)
    assert caplog.messages == [
        "1 of 1 answers are longer than max_answer_length, 3, and cannot be given",
        "1 of 1 answers are in no window as a whole (max_length 12), and are not learnt",
    ]


@pytest.mark.parametrize(("max_length", "fix"), [(128, "--stride 31"), (8, "--stride 1"), (3, "--max-length 133")])
def test_windows_that_do_not_fit_are_refused(max_length, fix):
    with pytest.raises(BertwrightError, match="has no room for a question") as caught:
        QATask().encode([about(None)], WORDPIECE, max_length)
    assert fix in caught.value.fix
    if "--stride" in fix:
        QATask(stride=int(fix.split()[1])).encode([about(None)], WORDPIECE, max_length)


# Answers


def chosen(features, *spans, cls=0.0):
    """Logits that are 0 but for these spans of (feature, first row, last row, logit)."""
    logits = [torch.zeros(len(feature.input_ids), 2) for feature in features]
    for each in logits:
        each[0] = cls
    for place, first, last, value in spans:
        logits[place][first, 0] = logits[place][last, 1] = value
    return logits


def test_the_answer_is_quoted_to_the_letter():
    context = "It was  ADA \u00c9mile, IN\tMay."
    example = about(None, context)
    features = QATask().encode([example], WORDPIECE, 384)
    row = 5 + [context[start:end] for start, end in features[0].way_back.offsets].index("ADA")
    (answer,) = QATask().decode(chosen(features, (0, row, row + 3, 20.0)), features, [example])
    assert answer["answer"] == "ADA \u00c9mile, IN" == context[answer["start"] : answer["end"]]
    assert answer["score"] == pytest.approx(1.0)
    assert [*answer] == ["score", "start", "end", "answer"]


def test_best_answers_neither_overlap_nor_repeat():
    example = about(None, "ada came . bob left . ada left the town")
    task = QATask(impossible=True)
    features = task.encode([example], WORDPIECE, 384)
    logits = chosen(features, (0, 5, 5, 9.0), (0, 8, 9, 7.0), (0, 11, 11, 8.0), cls=3.0)
    (answers,) = task.n_best(logits, features, [example], 4)
    assert [each["answer"] for each in answers[:2]] == ["ada", "bob left"]
    assert len({each["answer"] for each in answers}) == 4
    assert "" in [each["answer"] for each in answers]
    spans = [(each["start"], each["end"]) for each in answers if each["answer"]]
    assert all(one[1] <= other[0] for one, other in zip(sorted(spans), sorted(spans)[1:], strict=False))
    assert answers[:1] == task.decode(logits, features, [example])
    assert sorted(answers, key=lambda each: -each["score"]) == answers
    with pytest.raises(BertwrightError, match="top_k"):
        task.n_best(logits, features, [example], 0)


def test_no_answer_is_given_beyond_the_threshold():
    example = about(None)
    features = QATask().encode([example], WORDPIECE, 384)
    logits = chosen(features, (0, 5, 5, 2.0), cls=3.0)
    answers = [
        QATask(impossible=impossible, null_threshold=threshold).decode(logits, features, [example])[0]
        for impossible, threshold in ((False, 0.0), (True, 0.0), (True, 1.9), (True, 2.0))
    ]
    assert [each["answer"] for each in answers] == ["Ada", "", "", "Ada"]
    assert answers[1] == {"score": answers[1]["score"], "start": 0, "end": 0, "answer": ""}
    weights = math.exp(3), math.exp(2), len(features[0].way_back.offsets) - 1
    assert answers[1]["score"] == pytest.approx((weights[0] / sum(weights)) ** 2)
    assert answers[0]["score"] == pytest.approx((weights[1] / sum(weights)) ** 2)


def test_the_threshold_is_set_by_dev():
    contexts = ["ada came .", "bob came .", "ada left .", "bob left ."]
    labels = [(at("ada", 0),), (at("bob", 0),), (), ()]
    examples = [about(label, context) for label, context in zip(labels, contexts, strict=True)]
    task = QATask().learn(examples)
    assert task.impossible
    features = task.encode(examples, WORDPIECE, 384)
    logits = [row for feature, null in zip(features, (1.0, 2.5, 3.5, 5.0), strict=True)
              for row in chosen([feature], (0, 5, 5, 1.0), cls=null)]  # fmt: skip
    assert task.score(task.decode(logits, features, examples), examples)["f1"] == 0.75
    task = task.calibrate(logits, features, examples)
    assert 3.0 <= task.null_threshold < 5.0
    predictions = task.decode(logits, features, examples)
    assert task.score(predictions, examples) == {
        "exact": 1.0, "f1": 1.0, "answerable_exact": 1.0, "answerable_f1": 1.0, "unanswerable_accuracy": 1.0,
    }  # fmt: skip
    assert task.details(predictions, examples) == {
        "questions": 4, "unanswerable": 2, "given_no_answer": 2, "null_threshold": task.null_threshold,
    }  # fmt: skip
    assert QATask().calibrate(logits, features, examples) == QATask()


@pytest.mark.parametrize("impossible", [False, True])
@pytest.mark.parametrize(("context", "value"), [("\u200b", 0.0), ("ada came", math.nan)])
def test_where_there_is_nothing_to_quote(context, value, impossible):
    task = QATask(impossible=impossible)
    examples = [about((), context)]
    features = task.encode([about(None, context)], WORDPIECE, 384)
    logits = [torch.full((len(feature.input_ids), 2), value) for feature in features]
    (answer,) = task.decode(logits, features, examples)
    assert (answer["answer"], answer["start"], answer["end"]) == ("", 0, 0)
    assert task.calibrate(logits, features, examples).impossible == impossible


def test_no_questions_no_answers():
    assert QATask().decode([], [], []) == []


# Scores and what a report shows


def test_learning_whether_there_may_be_no_answer():
    assert not QATask().learn([about((at("Ada", 0),))]).impossible
    with pytest.raises(BertwrightError, match="no question has an answer"):
        QATask().learn([about(())])
    with pytest.raises(BertwrightError, match="no label"):
        QATask().learn([about(None)])


def test_error_and_what_came_to_nothing():
    task = QATask()
    examples = [about((at("Ada", 0),)), about((at("Bob left", 10),)), about(())]

    def given(*answers):
        return [{"score": 0.5, "start": 0, "end": len(answer), "answer": answer} for answer in answers]

    errors = [task.error(*pair) for pair in zip(given("ada", "bob", "x"), examples, strict=True)]
    assert errors == [0.0, pytest.approx(1 / 3), 1.0]
    assert "finds no answer to any" in task.degenerate(given("", "", ""), examples)
    assert "answers 'x' to every" in task.degenerate(given("x", "x", "x"), examples)
    assert "F1 is 0.000" in task.degenerate(given("x", "y", "z"), examples)
    assert task.degenerate(given("ada", "bob", "z"), examples) is None
    assert task.degenerate(given(""), examples[2:]) is None
    assert [task.answers(each) for each in (*examples[1:], about(None))] == [["an answer"], ["no answer"], []]
    chinese = QATask(rules="cmrc")
    assert chinese.error(given("京都。")[0], about((at("京都", 0),), "京都。")) == 0.0


# Real files


@pytest.mark.parametrize(
    ("file", "count", "messages"),
    [
        ("en/SQuAD/dev-v1.1.json", 10_570, []),
        ("en/SQuAD/dev-v2.0.json", 11_873, []),
        ("zh/CMRC2018/cmrc2018_dev.json", 3_219, ["7 answer_start", "193 answers do not stand"]),
        ("zh/CMRC2018/cmrc2018_trial.json", 1_002, ["5 answer_start", "2 questions are empty"]),
    ],
)
def test_real_files(shared_data, file, count, messages, caplog):
    with caplog.at_level(logging.WARNING):
        examples = QATask().read(shared_data / "tasks" / file)
    assert len(examples) == count
    assert [words in message for words, message in zip(messages, caplog.messages, strict=True)] == [True] * len(
        messages
    )
    for example in examples:
        for text, start, end in example.label:
            assert start == -1 or example.text_pair[start:end] == text


@pytest.mark.parametrize(
    ("file", "vocabulary", "rules"),
    [
        ("en/SQuAD/dev-v1.1.json", "bert-base-uncased-vocab.txt", "squad"),
        ("zh/CMRC2018/cmrc2018_trial.json", "bert-base-chinese-vocab.txt", "cmrc"),
    ],
)
def test_targets_of_real_files_read_back(shared_data, file, vocabulary, rules):
    """The tokens that are learnt are the answer; a part of a word, such as the 8 of 18, is learnt as the whole word."""
    task = QATask(rules=rules)
    wordpiece = WordPiece.load(shared_data / "vocab" / vocabulary, lowercase=True)
    examples = [
        Example(each.text, each.text_pair, next((one,) for one in each.label if one.start >= 0))
        for each in task.read(shared_data / "tasks" / file)[::5]
    ]
    features = task.encode(examples, wordpiece, 384)
    predictions = [{"answer": ""} for _ in examples]
    for feature in features:
        if feature.target != (0, 0):
            first, last = (row - feature.way_back.first_row for row in feature.target)
            span = slice(feature.way_back.offsets[first, 0], feature.way_back.offsets[last, 1])
            predictions[feature.example_index] = {"answer": examples[feature.example_index].text_pair[span]}
    assert task.score(predictions, examples)["exact"] > 0.99
