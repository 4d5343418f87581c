"""Reading labelled files, learning labels, and what each kind of broken file is told."""

import gzip
import itertools
import json
import logging

import pytest
import torch

from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.tasks import (
    ChoiceTask,
    ClassifyTask,
    Example,
    Feature,
    QATask,
    RegressTask,
    get_task,
    load_task,
    task_files,
    task_from_json,
    task_to_json,
)
from bertwright.tasks.tables import read_table
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

COLUMNS = {"text": "text", "label": "label"}
CSV = "text,label\ngood,1\nbad,0\n"


def values(path, columns=COLUMNS, **options):
    return [tuple(row.values.values()) for row in read_table(path, columns, **options)]


# Reading


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.CSV", CSV.replace("\n", "\r\n")),
        ("a.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("a.csv", CSV.removesuffix("\n")),
        ("a.csv", CSV.replace("good", '"good"') + "\n\n"),
        ("a.csv", "id,label, text \n7,1,good\n8,0,bad\n"),
        ("a.tsv", CSV.replace(",", "\t")),
        ("a.tsv", b"\xef\xbb\xbf" + CSV.replace(",", "\t").replace("\n", "\r\n").encode()),
        ("a.csv.gz", gzip.compress(CSV.encode())),
        ("a.jsonl", '{"text": "good", "label": 1}\n\n{"label": "0", "text": "bad", "more": []}\n'),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 10 else "",
)
def test_the_same_rows_from_every_kind_of_file(written, name, content):
    assert values(written(name, content)) == [("good", "1"), ("bad", "0")]


def test_quotes_join_in_csv(written):
    path = written("a.csv", 'text,label\n"a, ""b""\nc",1\nd,0\n')
    assert values(path) == [('a, "b"\nc', "1"), ("d", "0")]
    assert [row.where.rpartition(", ")[2] for row in read_table(path, COLUMNS)] == ["row 2", "row 4"]


def test_quotes_are_ordinary_in_tsv(written):
    path = written("a.tsv", 'text\tlabel\n"Well," he said\t1\n14" screen\t0\n"all of it"\t0\n')
    assert values(path) == [('"Well," he said', "1"), ('14" screen', "0"), ('"all of it"', "0")]


def test_unicode_line_separators_stay_inside_a_text(written):
    assert values(written("a.tsv", "text\tlabel\na\u2028b\x85c\t1\n")) == [("a\u2028b\x85c", "1")]


def test_gb18030_is_read_and_said(written, caplog):
    path = written("a.csv", "text,label\n这个宾馆比较陈旧了,差\n很好,好\n".encode("gb18030"))
    with caplog.at_level(logging.WARNING):
        assert values(path) == [("这个宾馆比较陈旧了", "差"), ("很好", "好")]
    assert "GB18030" in caplog.text


def test_a_file_without_header(written):
    path = written("a.tsv", "gj04\t1\t\tOur friends\n")
    assert values(path, {"label": "1", "text": "3"}, header=["0", "1", "2", "3"]) == [("1", "Our friends")]


def test_wanted_columns_alone_may_not_be_empty(written):
    path = written("a.csv", "text,label,note\ngood,1,\n")
    assert values(path) == [("good", "1")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "sentence,label\na,1\n",
            r"a\.csv, row 1: no column 'text'; there is 'sentence', 'label'\n.*--text-column",
        ),
        ("a.csv", "txt,label\na,1\n", r"no column 'text' \(did you mean 'txt'\?\)"),
        ("a.csv", "text\tlabel\na\t1\n", r"separated by '\\t': rename it to \.tsv"),
        ("a.csv", "text;label\na;1\n", r"separated by ';': save it with commas"),
        ("a.tsv", "text,label\na,1\n", r"separated by ',': rename it to \.csv"),
        ("a.csv", "text,label,text\na,1,b\n", r"row 1: 2 columns are named 'text'"),
        ("a.csv", "text,label\n\na,1\n,0\n", r"row 4: column 'text' is empty"),
        ("a.csv", "text,label\n  ,0\n", r"row 2: column 'text' is empty"),
        ("a.tsv", "text\tlabel\na\t\n", r"row 2: column 'label' is empty"),
        ("a.csv", "text,label\na,1\nb\n", r"row 3: expected 2 columns, found 1"),
        ("a.tsv", "text\tlabel\na\tb\t1\n", r"row 2: expected 2 columns, found 3"),
        ("a.csv", 'text,label\na,1\n"b,0\n', r"row 3: not valid CSV"),
        ("a.csv", 'text,label\n"a" b,1\n', r"row 2: not valid CSV"),
        ("a.csv", "", "the file is empty"),
        ("a.csv", "\n \n", "the file is empty"),
        ("a.csv", "text,label\n", "the file has no rows"),
        ("a.csv", b"text,label\na\0b,1\n", r"row 2.*binary data"),
        ("a.csv", CSV.encode("utf-16"), "UTF-16"),
        ("a.csv", b"text,label\nabc\xe9 def,1\n", r"row 2: byte 0xe9 is not UTF-8"),
        ("a.csv.gz", CSV, "damaged"),
        ("a.jsonl", "", "the file has no rows"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": ', r"row 2: not valid JSON"),
        ("a.jsonl", "[" * 100_000, r"row 1: not valid JSON"),
        ("a.jsonl", "[1]\n", r"row 1: expected a JSON object, found \[1\]"),
        ("a.jsonl", '{"text": "a", "lable": 1}\n', r"row 1: no column 'label' \(did you mean 'lable'\?\)"),
        ("a.jsonl", '{"text": "a", "label": null}\n', r"row 1: column 'label' is empty"),
        ("a.jsonl", '{"text": 7, "label": 1}\n', r"row 1: column 'text' must hold text, not 7"),
        ("a.jsonl", '{"text": "a", "label": [1]}\n', r"row 1: column 'label' must hold text, not \[1\]"),
        ("a.xlsx", CSV, r"how this file is to be read\n.*\.csv, \.tsv, \.jsonl"),
    ],
)
def test_broken_files_are_named(written, name, content, message):
    with pytest.raises(BertwrightError, match=message):
        read_table(written(name, content), COLUMNS)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BertwrightError, match=r"nowhere\.csv: no such file"):
        read_table(tmp_path / "nowhere.csv", COLUMNS)


# Classification


def learnt(labels):
    return ClassifyTask().learn([Example("text", label=label) for label in labels]).labels


def test_labels_are_learnt_in_sorted_order():
    assert learnt(["pos", "neg", "pos"]) == ("neg", "pos")
    assert learnt(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert learnt(["10", "9", "none"]) == ("10", "9", "none")
    assert learnt(["1", "1.0"]) == ("1", "1.0")
    assert learnt(["nan", "2", "10"]) == ("10", "2", "nan")


def test_one_class_alone_is_refused(written):
    task = ClassifyTask()
    path = written("one.csv", "text,label\na,1\nb,1\n")
    with pytest.raises(BertwrightError, match=r"one\.csv: only the label '1' occurs"):
        task.learn(task.read(path))


def test_f1_is_the_score_of_two_labels():
    two, three = ([Example("text", label=label) for label in labels] for labels in (("a", "b"), ("a", "b", "c")))
    assert ClassifyTask(metric="f1").learn(two).best_by == "f1"
    with pytest.raises(BertwrightError, match="there are 3") as caught:
        ClassifyTask(metric="f1").learn(three)
    assert "--metric macro_f1" in caught.value.fix
    task = ClassifyTask(metric="macro_f1").learn(three)
    assert [*task.score([{"label": each.label} for each in three], three)] == ["accuracy", "macro_f1", "mcc"]


def test_a_label_that_training_has_not_seen_is_refused(written):
    task = ClassifyTask(labels=("negative", "positive"))
    path = written("dev.csv", "text,label\na,positive\nb,postive\n")
    with pytest.raises(BertwrightError) as caught:
        task.read(path)
    assert "dev.csv, row 3: unknown label 'postive' (did you mean 'positive'?)" in str(caught.value)
    assert "the labels are negative, positive" in str(caught.value)


def test_labels_are_not_looked_for_where_there_are_none(written):
    path = written("test.tsv", "index\tsentence\n0\tuneasy mishmash\n")
    [example] = ClassifyTask(text_column="sentence").read(path, labelled=False)
    assert (example.text, example.label) == ("uneasy mishmash", None)


def test_pairs_are_read_by_their_columns(written):
    path = written("pairs.tsv", "a\tb\tlabel\none\ttwo\tsame \n")
    [example] = ClassifyTask(text_column="a", text_pair_column="b").read(path)
    assert (example.text, example.text_pair, example.label) == ("one", "two", "same")


def test_examples_of_typed_text_are_checked():
    with pytest.raises(BertwrightError, match="the text is empty"):
        ClassifyTask().example(" \n")
    with pytest.raises(BertwrightError, match="text 3: this model answers one text"):
        ClassifyTask().example(("a", "b"), where="text 3")
    with pytest.raises(BertwrightError, match="answers a pair of texts"):
        ClassifyTask(text_pair_column="b").example("a")
    with pytest.raises(BertwrightError, match="unknown key 'txt'"):
        ClassifyTask().example({"txt": "a"})


def test_scoring_needs_labels():
    task = ClassifyTask(labels=("0", "1"))
    with pytest.raises(BertwrightError, match="no label"):
        task.score([{"label": "0", "score": 1.0}], [Example("a")])


# The model folder


def test_a_folder_without_a_task_has_none(tmp_path):
    assert load_task(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "clasify"}, r"unknown task 'clasify' \(did you mean 'classify'\?\)"),
        ({"name": None}, "'name'"),
        ({"options": {"label": []}}, r"unknown key 'label' for ClassifyTask \(did you mean 'labels'\?\)"),
        ({"options": {"labels": [1, 2]}}, "labels must be"),
        ({"options": {"labels": ["a", "a"]}}, "differ from each other"),
        ({"max_length": "128"}, "max_length must be a whole number"),
    ],
)
def test_a_damaged_task_file_is_named(tmp_path, change, message):
    saved = {**task_to_json(ClassifyTask(labels=("a", "b"))), "max_length": 128, **change}
    (tmp_path / "task.json").write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(BertwrightError, match=message) as caught:
        load_task(tmp_path)
    assert "task.json" in str(caught.value)


@pytest.mark.parametrize("task", [ClassifyTask(labels=("a", "b")), RegressTask(), QATask(), ChoiceTask()])
def test_a_task_file_goes_with_its_head_whatever_either_is_called(tmp_path, task):
    text = json.dumps({**task_to_json(task), "max_length": 128})
    (tmp_path / "task.json").write_text(text, encoding="utf-8")
    shape = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    assert task_files(tmp_path, Bert(shape, {task.head_name: task.head(shape)})) == {"task.json": text}
    assert task_files(tmp_path, Bert(shape)) == {}


def test_unknown_tasks_are_refused():
    with pytest.raises(BertwrightError, match="unknown task"):
        get_task("summarise")
    with pytest.raises(BertwrightError, match="unknown task"):
        task_from_json({"name": "summarise", "options": {}})


# Real files


@pytest.mark.parametrize(
    ("path", "text_column", "count"),
    [("en/SST-2/dev.tsv", "sentence", 872), ("zh/ChnSentiCorp/dev.tsv", "text_a", 1200)],
)
def test_real_files_are_read_whole(shared_data, path, text_column, count):
    task = ClassifyTask(text_column=text_column)
    examples = task.read(shared_data / "tasks" / path)
    assert len(examples) == count
    assert task.learn(examples).labels == ("0", "1")


# Windows over texts and pairs of any lengths


@pytest.mark.parametrize("first", [1, 50, 61, 300])
@pytest.mark.parametrize("second", [None, 1, 10, 61, 300])
def test_windows_show_all_of_the_longer_text(first, second):
    wordpiece = WordPiece([*SPECIAL_TOKENS, *(f"w{number}" for number in range(700))], TextRules(lowercase=True))
    texts = [" ".join(f"w{number}" for number in range(first))]
    if second is not None:
        texts.append(" ".join(f"w{300 + number}" for number in range(second)))
    task = ClassifyTask(labels=("a", "b"), windows=True, text_pair_column=None if second is None else "pair")
    features = task.encode([task.example(texts[0] if second is None else tuple(texts))], wordpiece, 128)
    assert all(len(feature.input_ids) <= 128 for feature in features)
    longer = max(texts, key=lambda text: len(text.split()))
    seen = {token for feature in features for token in feature.input_ids}
    assert set(wordpiece.ids(longer)) <= seen
    fits = first + (second or 0) + (2 if second is None else 3) <= 128
    assert (len(features) == 1) == fits
    cut = min(first, second or 0) > 62 and not fits
    assert all(feature.truncated == cut for feature in features)


@pytest.mark.parametrize("cell", [["x", None], [["y"]], [{"z": 1}]])
def test_labels_that_are_no_texts_are_refused(tmp_path, cell):
    path = tmp_path / "topics.jsonl"
    path.write_text(json.dumps({"text": "a", "label": cell}), encoding="utf-8")
    with pytest.raises(BertwrightError, match=r"row 1.*label"):
        ClassifyTask(multi_label=True).read(path)


def test_several_labels_have_a_temperature_too():
    torch.manual_seed(0)
    task = ClassifyTask(labels=("a", "b", "c"), multi_label=True)
    logits = 2 * torch.randn(2000, 3)
    there = torch.bernoulli(logits.sigmoid()).tolist()
    examples = [Example("x", label=tuple(itertools.compress(task.labels, row))) for row in there]
    features = [Feature([2, 3], [0, 0], None, index) for index in range(len(examples))]
    answers = list((3 * logits).split(1))
    calibrated = task.calibrate(answers, features, examples)
    assert calibrated.temperature == pytest.approx(3, rel=0.1)
    before, after = (each.decode(answers, features, examples) for each in (task, calibrated))
    assert [each["labels"] for each in before] == [each["labels"] for each in after]
    errors = [task.details(each, examples)["calibration"]["expected_calibration_error"] for each in (before, after)]
    assert errors[1] < 0.03 < errors[0]
