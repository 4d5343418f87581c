"""What every member of `TASKS` must do. A new task adds one entry to `CASES` and passes all of this.

A task of somebody's own, in a module that Python finds: `pytest tests/conformance/test_tasks_conformance.py --case
my.module:CASE`, where `CASE` has a `task`, and `write`, which writes a file of eight examples into a folder.
"""

import dataclasses
import json
import logging
import pkgutil
import sys
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from bertwright.config import BertConfig
from bertwright.evaluation import evaluate_examples
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.predict import Predictor
from bertwright.tasks import (
    TASKS,
    ChoiceTask,
    ClassifyTask,
    QATask,
    RegressTask,
    TagTask,
    Task,
    TaskObjective,
    save_fine_tuned,
    task_from_json,
    task_to_json,
)
from bertwright.tasks.base import by_example
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

WORDS = "a the good bad fine poor film plot actor scene was is very not ! ."
WORDPIECE = WordPiece([*SPECIAL_TOKENS, *WORDS.split()], TextRules(lowercase=True))
CONFIG = BertConfig(
    vocab_size=WORDPIECE.vocab_size,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
machine.prepare()  # as loading a model does: the same arithmetic for all
CAUSAL = dataclasses.replace(CONFIG, is_decoder=True, pool_last=True)
MAX_LENGTH = 24
CONFIG_LENGTH = 32


@dataclass(frozen=True)
class Case:
    """A task, and how to write a file of eight examples of it, of unequal lengths."""

    task: Task
    write: Callable[[Path], Path]
    config: BertConfig = CONFIG
    """Of the encoder."""


def write_sentences(folder: Path) -> Path:
    path = folder / "sentences.tsv"
    texts = ["the film was good", "bad plot !", "a fine actor", "the scene was poor ."] * 2
    rows = [f"{'very ' * number}{text}\t{('pos', 'neg')[number % 2]}" for number, text in enumerate(texts)]
    path.write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_pairs(folder: Path) -> Path:
    path = folder / "pairs.jsonl"
    pairs = [("good film", "fine film", 2), ("bad plot", "the plot was poor", 1), ("a scene", "not very good !", 0)]
    rows = [{"a": a + " very" * number, "b": b, "same": same} for number, (a, b, same) in enumerate((pairs * 3)[:8])]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def write_numbers(folder: Path) -> Path:
    path = folder / "numbers.csv"
    rows = [f"good film,{'very ' * number}fine film,{number / 2}" for number in range(8)]
    path.write_text("text,other,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_topics(folder: Path) -> Path:
    path = folder / "topics.jsonl"
    texts = [("good film", ["film", "good"]), ("bad plot !", ["plot"]), ("a fine actor", []), ("the scene", ["film"])]
    rows = [{"text": text + " very" * number, "label": label} for number, (text, label) in enumerate(texts * 2)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def write_choices(folder: Path) -> Path:
    path = folder / "choices.jsonl"
    endings = [["good", "bad very !"], ["plot", "poor actor", "not scene"]]
    rows = [
        {"prompt": "the film" + " very" * number, "stem": "a", "choices": endings[number % 2], "label": number % 2}
        for number in range(8)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def write_tagged(folder: Path) -> Path:
    path = folder / "tagged.conll"
    rows = [
        "the O\nfilm B-X\nwas O\ngood O",
        "bad B-Y\nplot I-Y\n! O",
        "a O\nfine B-X\nactor I-X",
        "scene B-Y\nwas O",
    ] * 2
    documents = ["-DOCSTART- O\n\n" + "very O\n" * number + text for number, text in enumerate(rows)]
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


def write_questions(folder: Path, *, empty: Collection[int] = (), long: int = 0) -> Path:
    path = folder / "questions.jsonl"
    rows = []
    for number in range(8):
        context = "very " * number + ("the film was good .", "a bad plot !")[number % 2]
        text = ("good", "bad plot")[number % 2]
        answers = {"text": [text], "answer_start": [context.index(text)]}
        if number in empty:
            answers = {"text": [], "answer_start": []}
        context += " not so very bad" * 6 if number < long else ""
        question = "was the film good" if number % 3 else "a plot"
        rows.append({"id": f"q{number}", "question": question, "context": context, "answers": answers})
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


CASES = {
    "classify": Case(ClassifyTask(), write_sentences),
    "classify pairs": Case(ClassifyTask(text_column="a", text_pair_column="b", label_column="same"), write_pairs),
    "classify windows": Case(ClassifyTask(windows=True, stride=2), write_sentences),
    "multi-label": Case(ClassifyTask(multi_label=True), write_topics),
    "choice": Case(ChoiceTask(), write_choices),
    "choice with stems": Case(ChoiceTask(stem_column="stem"), write_choices),
    "choice windows": Case(ChoiceTask(windows=True, stride=1), write_choices),
    "qa": Case(QATask(stride=1), write_questions),
    "qa without answers": Case(QATask(stride=1), partial(write_questions, empty=(2, 5))),
    "qa windows": Case(QATask(stride=2), partial(write_questions, long=3)),
    "tag": Case(TagTask(stride=2), write_tagged),
    "tag documents": Case(TagTask(scheme="bioes", stride=2, document_context=True), write_tagged),
    "tag plain": Case(TagTask(scheme="plain", stride=2), write_tagged),
    "tag features": Case(TagTask(stride=2, features="weighted-sum-last-4", lstm_layers=1, lstm_size=32), write_tagged),
    "regress": Case(RegressTask(text_pair_column="other"), write_numbers),
    "regress windows": Case(RegressTask(text_pair_column="other", windows=True, stride=1), write_numbers),
    "classify left to right": Case(ClassifyTask(), write_sentences, CAUSAL),
    "choice left to right": Case(ChoiceTask(), write_choices, CAUSAL),
    "qa left to right": Case(QATask(stride=1), write_questions, CAUSAL),
    "tag left to right": Case(TagTask(stride=2), write_tagged, CAUSAL),
    "classify bilstm": Case(ClassifyTask(bilstm=2), write_sentences),
    "regress left to right bilstm": Case(RegressTask(text_pair_column="other", bilstm=1), write_numbers, CAUSAL),
    "choice bilstm": Case(ChoiceTask(bilstm=1), write_choices),
    "qa left to right bilstm": Case(QATask(stride=1, bilstm=1), write_questions, CAUSAL),
    "tag bilstm": Case(TagTask(stride=2, bilstm=1), write_tagged),
}


def documented_stars() -> Case:
    """The task of one's own that the documentation shows."""
    page = (Path(__file__).resolve().parents[2] / "docs/en/python.md").read_text(encoding="utf-8")
    lines = page.partition("$ cat > stars.py <<'END'\n")[2].partition("\n> END\n")[0].split("\n")
    module = sys.modules["stars_of_the_docs"] = types.ModuleType("stars_of_the_docs")
    exec(compile("\n".join(line[2:] for line in lines), "stars.py", "exec"), vars(module))
    return Case(module.StarsTask(most=3), write_stars)


def write_stars(folder: Path) -> Path:
    path = folder / "stars.csv"
    texts = ["bad poor plot !", "the scene was fine", "good actor good film"]
    rows = [f"{texts[number % 3]}{' very' * (number // 2)},{number % 3 + 1}" for number in range(8)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


OWN = {"own": documented_stars()}


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        given = {name: pkgutil.resolve_name(name) for name in metafunc.config.getoption("case")}
        cases = given or CASES | OWN
        metafunc.parametrize("case", cases.values(), ids=cases.keys())


@pytest.fixture
def examples(case, tmp_path):
    return case.task.read(case.write(tmp_path))


@pytest.fixture
def task(case, examples):
    return case.task.learn(examples)


@pytest.fixture
def model(case, task):
    config = getattr(case, "config", CONFIG)
    return Bert(config, TaskObjective(task).heads(config))


@pytest.fixture
def features(task, examples):
    return task.encode(examples, WORDPIECE, MAX_LENGTH)


def test_every_task_of_the_table_is_here():
    assert {case.task.name for case in CASES.values()} == set(TASKS)
    assert all(TASKS[case.task.name] is type(case.task) for case in CASES.values())


def test_a_task_is_a_frozen_dataclass_known_by_its_name(task):
    assert dataclasses.is_dataclass(task)
    assert hash(task) == hash(task_from_json(task_to_json(task)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.name = "other"


def test_examples_know_their_place_and_answer(examples):
    assert len(examples) == 8
    assert all(example.label is not None and "row " in example.where for example in examples)


def test_reading_without_labels_gives_the_same_texts(case, task, examples, tmp_path):
    bare = task.read(case.write(tmp_path), labelled=False)
    assert bare == [dataclasses.replace(example, label=None) for example in examples]


def test_features_cover_the_examples_and_fit(features, examples):
    assert {feature.example_index for feature in features} == set(range(len(examples)))
    for feature in features:
        assert 2 < len(feature.input_ids) <= MAX_LENGTH
        assert len(feature.token_type_ids) == len(feature.input_ids)
        assert feature.target is not None
        assert not feature.truncated
        assert feature.input_ids[0] == WORDPIECE.cls_id
        assert feature.input_ids[-1] == WORDPIECE.sep_id


def test_what_is_cut_is_counted(task, examples, caplog):
    if getattr(task, "windows", False) or task.name == "tag":  # which cut nothing
        assert not any(feature.truncated for feature in task.encode(examples, WORDPIECE, 9))
        return
    with caplog.at_level(logging.WARNING):
        features = task.encode(examples, WORDPIECE, 8)
    cut = sum(feature.truncated for feature in features)
    assert 0 < cut < len(features)
    assert all(len(feature.input_ids) <= 8 for feature in features)
    assert f"{cut} of {len(features)} inputs were longer than 8 tokens" in caplog.text


def test_a_batch_is_packed(task, features):
    batch = task.collate(features)
    assert batch.input_ids.tolist() == [number for feature in features for number in feature.input_ids]
    assert batch.num_sequences == len(features)
    assert batch.targets


def test_unlabelled_examples_make_a_batch_without_targets(task, examples):
    bare = [dataclasses.replace(example, label=None) for example in examples]
    assert set(task.collate(task.encode(bare, WORDPIECE, MAX_LENGTH)).targets) <= {"token_rows"}


def test_the_loss_is_a_sum_that_adds_up_over_split_batches(task, model, features):
    objective = TaskObjective(task)
    whole = objective(model, task.collate(features))
    ends = [places[-1] + 1 for _, places in by_example(features)]  # an example's features stay together
    cuts = [slice(0, ends[2]), slice(ends[2], ends[3]), slice(ends[3], None)]
    parts = [objective(model, task.collate(features[cut])) for cut in cuts]
    assert {name: term.count for name, term in whole.losses.items()} == task.counts(task.collate(features)) != {}
    for kind in ("losses", "metrics"):
        for name, term in getattr(whole, kind).items():
            terms = [getattr(part, kind)[name] for part in parts]
            assert term.total.dtype == torch.float32
            assert term.total.isfinite()
            assert term.count == sum(part.count for part in terms) > 0
            assert term.total.item() == pytest.approx(sum(part.total.item() for part in terms), rel=1e-5)


def test_a_few_steps_lower_the_loss(task, model, features):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        terms = TaskObjective(task)(model, task.collate(features)).losses.values()
        loss = sum(term.total / term.count for term in terms)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_every_weight_of_the_head_is_trained(task, model, features):
    terms = TaskObjective(task)(model, task.collate(features)).losses.values()
    sum(term.total for term in terms).backward()
    moving = [weight for weight in model.heads.parameters() if weight.numel() > 1]  # one bias shifts all choices alike
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in moving)


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_predictions_do_not_depend_on_batches(task, model, examples, batch_tokens):
    alone = [Predictor(model, WORDPIECE, task).predict_examples([example])[0] for example in examples]
    together = Predictor(model, WORDPIECE, task, batch_tokens=batch_tokens).predict_examples(examples)
    assert len(together) == len(examples)
    for one, other in zip(alone, together, strict=True):
        assert [*one] == [*other]
        for key, value in one.items():
            assert close(value, other[key]), key


def close(one, other) -> bool:
    """Tell whether two answers are the same, but for the rounding of their numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return one == (pytest.approx(other, rel=1e-4) if isinstance(one, float) else other)


def test_predictions_are_plain_json(task, model, examples):
    predictions = Predictor(model, WORDPIECE, task).predict_examples(examples)
    assert json.loads(json.dumps(predictions)) == predictions


def test_scores_are_plain_numbers_and_details_are_json(task, model, examples):
    evaluation = evaluate_examples(Predictor(model, WORDPIECE, task), examples)
    assert evaluation.scores
    assert {type(value) for value in evaluation.scores.values()} == {float}
    assert json.loads(json.dumps(evaluation.details)) == evaluation.details


def test_a_trained_model_scores_better_than_a_fresh_one(task, model, examples, features):
    fresh = evaluate_examples(Predictor(model, WORDPIECE, task), examples).scores
    test_a_few_steps_lower_the_loss(task, model, features)
    trained = evaluate_examples(Predictor(model, WORDPIECE, task), examples).scores
    assert trained["loss"] < fresh["loss"]
    assert trained[task.best_by] >= fresh[task.best_by]


def test_long_texts_make_several_features_or_are_cut(task, examples):
    features = task.encode(examples, WORDPIECE, 9)
    groups = dict(by_example(features))
    assert list(groups) == list(range(len(examples)))
    assert all(len(feature.input_ids) <= 9 for feature in features)
    if task.together and getattr(task, "windows", False):
        assert max(map(len, groups.values())) > 1


def test_an_answer_is_wrong_or_it_is_not(task, model, examples):
    evaluation = evaluate_examples(Predictor(model, WORDPIECE, task), examples)
    errors = [task.error(*each) for each in zip(evaluation.predictions, examples, strict=True)]
    assert all(error >= 0 for error in errors)
    listed = evaluation.details["worst_errors"]
    assert len(listed) == sum(error > 0 for error in errors)
    assert json.loads(json.dumps(listed)) == listed


def test_what_is_set_by_dev_is_kept(task, model, examples, tmp_path):
    predictor = Predictor(model, WORDPIECE, task)
    evaluation = evaluate_examples(predictor, examples, calibrate=True)
    assert type(predictor.task) is type(task)
    save_fine_tuned(model, tmp_path / "model", wordpiece=WORDPIECE, task=predictor.task, max_length=CONFIG_LENGTH)
    again = Predictor.load(tmp_path / "model")
    assert again.task == predictor.task
    assert close(again.predict_examples(examples), evaluation.predictions)


def test_options_survive_json(task):
    assert task_from_json(json.loads(json.dumps(task_to_json(task)))) == task


def test_a_model_folder_answers_as_the_model_did(task, model, examples, tmp_path):
    expected = Predictor(model, WORDPIECE, task, max_length=12).predict_examples(examples)
    save_fine_tuned(model, tmp_path / "model", wordpiece=WORDPIECE, task=task, max_length=12)
    predictor = Predictor.load(tmp_path / "model")
    assert (predictor.task, predictor.max_length) == (task, 12)
    assert close(predictor.predict_examples(examples), expected)
