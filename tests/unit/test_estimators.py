"""Estimators under scikit-learn's rules: what they are given, what they give back, and what its tools do with them."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from bertwright.errors import BertwrightError
from bertwright.estimators import BertClassifier, BertRegressor, BertTagger, _held_out
from bertwright.predict import Predictor

TEXTS = [f"w{first} w{second} w3" for second in range(10, 25) for first in (1, 2)]
LABELS = [first for _ in range(10, 25) for first in (1, 2)]
KINDS = [BertClassifier, BertRegressor, BertTagger]
SENTENCES = [text.split() for text in TEXTS]
WRITTEN = {  # of each scheme: the tags of `w1 wN w3`, and of `w2 wN w3`
    "iob1": (["I-A", "I-A", "B-A"], ["O", "I-B", "O"]),
    "iob2": (["B-A", "I-A", "B-A"], ["O", "B-B", "O"]),
    "bioes": (["B-A", "E-A", "S-A"], ["O", "S-B", "O"]),
    "bmes": (["B-A", "M-A", "E-A"], ["O", "S-B", "O"]),
    "plain": (["A", "-LRB-", "O"], ["A", "B", "B"]),
}


@pytest.fixture
def quick(folder):
    """What makes a tiny model learn quickly which of two words a text begins with."""
    return {"init": folder, "epochs": 12, "lr": 1e-2, "batch_size": 5, "config": {"dropout": 0.0, "restarts": 0}}


@pytest.fixture
def fitted(quick):
    return BertClassifier(**quick).fit(TEXTS, LABELS)


# Labels and texts


@pytest.mark.parametrize(
    "labels",
    [
        [1, 2],
        [10, 9],
        [True, False],
        [0.0, 1.0],
        ["no", "yes"],
        np.array(["2", "10"]),
        np.array([3, -1], np.int8),
        np.array(["a", "b"], object),
    ],
    ids=str,
)
def test_labels_come_back_as_they_were(quick, labels):
    y = np.array([labels[label - 1] for label in LABELS], getattr(labels, "dtype", None))
    classifier = BertClassifier(**quick).fit(TEXTS, y)
    assert classifier.classes_.tolist() == np.unique(y).tolist()
    found = classifier.predict(TEXTS)
    assert found.dtype == y.dtype
    assert found.tolist() == y.tolist()
    assert classifier.score(TEXTS, y) == 1.0


def test_probabilities_stand_in_the_order_of_the_classes(quick):
    y = np.array(["10", "9"])[np.array(LABELS) - 1]  # which the task sorts as numbers, and NumPy as text
    classifier = BertClassifier(**quick).fit(TEXTS, y)
    assert classifier.classes_.tolist() == ["10", "9"]
    assert classifier.predictor_.task.labels == ("9", "10")
    rows = classifier.predict_proba(TEXTS)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
    assert (classifier.classes_[rows.argmax(1)] == y).all()
    assert log_loss(y, rows, labels=classifier.classes_) < 0.2


class Column:
    """What estimators see of a column or a table of pandas."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)

    def __len__(self):
        return len(self.values)


@pytest.mark.parametrize("holder", [list, tuple, np.array, Column, lambda X: np.array(X, object)[:, None]])
def test_whatever_holds_texts_is_taken(fitted, quick, holder):
    assert BertClassifier(**quick).fit(holder(TEXTS), np.array(LABELS)).predict(holder(TEXTS)).tolist() == LABELS
    assert fitted.predict(holder(TEXTS)).tolist() == LABELS


@pytest.mark.parametrize("holder", [list, np.array, Column])
def test_pairs_of_texts(quick, holder):
    pairs = holder([text.split(" ", 1)[::-1] for text in TEXTS])
    classifier = BertClassifier(**quick).fit(pairs, LABELS)
    assert classifier.predict(pairs).tolist() == LABELS
    with pytest.raises(BertwrightError, match=r"X\[0\]: this model answers a pair of texts"):
        classifier.predict(TEXTS)


def test_nothing_asked_nothing_answered(fitted):
    assert fitted.predict([]).shape == (0,)
    assert fitted.predict_proba([]).shape == (0, 2)


def test_numbers(quick):
    regressor = BertRegressor(**quick).fit(TEXTS, LABELS)
    found = regressor.predict(TEXTS)
    assert found.dtype == np.float64
    assert np.corrcoef(found, LABELS)[0, 1] > 0.9
    assert 0 < regressor.score(TEXTS, LABELS) <= 1
    assert regressor.scores_ == {}


@pytest.mark.parametrize("scheme", WRITTEN)
def test_tags_come_back_as_they_were_written(quick, scheme):
    written = WRITTEN[scheme]
    tags = [written[label - 1] for label in LABELS]
    tagger = BertTagger(**quick).fit(SENTENCES, tags)
    assert tagger.scheme_ == scheme
    assert tagger.predict(SENTENCES) == tags
    assert tagger.score(SENTENCES, tags) == 1.0
    assert tagger.score(SENTENCES[:2], [["O"] * 3, tags[1]]) < 1.0
    assert (pickle.loads(pickle.dumps(tagger)).predict([("w2", "w10")]))[0][0] == written[1][0]


def test_tags_in_cross_validation_and_with_a_share_held_out(quick, tmp_path):
    tags = [WRITTEN["iob2"][label - 1] for label in LABELS]
    tagger = BertTagger(**quick)
    assert cross_val_score(tagger, SENTENCES, tags, cv=2).mean() > 0.5
    tagger.set_params(dev_fraction=0.2, out=tmp_path / "run").fit(SENTENCES, tags)
    assert len((tmp_path / "run" / "predictions.jsonl").read_text().splitlines()) == 6


# What is refused


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ("a text", [1], "not 'a text'"),
        (TEXTS, LABELS[:-1], "X has 30 examples, y has 29"),
        ([], [], "there are no examples"),
        (TEXTS, [1] * 30, "only 1 class occurs in y"),
        ([*TEXTS[:-1], ""], LABELS, r"X\[29\]: the text is empty"),
        ([*TEXTS[:-1], float("nan")], LABELS, r"X\[29\]: expected a text or a pair of texts, not 'nan'"),
        ([*TEXTS[:-1], ("a", "b")], LABELS, "not all have the same form|X\\[29\\]: this model answers one text"),
        (np.array([TEXTS] * 3).T, LABELS, r"not an array of shape \(30, 3\)"),
        (np.zeros((30, 2)), LABELS, "expected text, not 0.0"),
        (TEXTS, np.array([None, *LABELS[1:]], object), "cannot be sorted|Unknown label type"),
        (TEXTS, np.linspace(0, 1, 30), "Unknown label type: continuous"),
    ],
)
def test_bad_examples_are_refused(quick, X, y, message):
    with pytest.raises(ValueError, match=message):
        BertClassifier(**quick).fit(X, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [(["x"] * 30, "y: expected numbers"), ([*LABELS[:-1], np.inf], r"y\[29\]: expected a number, not .*inf")],
)
def test_bad_numbers_are_refused(quick, y, message):
    with pytest.raises(BertwrightError, match=message):
        BertRegressor(**quick).fit(TEXTS, y)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (TEXTS, SENTENCES, r"X\[0\]: expected a list of words, not 'w1 w10 w3'"),
        (SENTENCES, TEXTS, r"y\[0\]: expected a list of words, not 'w1 w10 w3'"),
        ([["w1", "w2"]], [["O"]], r"X\[0\] and y\[0\]: 2 words, but 1 tags"),
        ([["w1", " "]], [["O", "O"]], r"X\[0\]: word 2 is ' '"),
        ([["w1", "w2"]], [["B-A", "Q-A"]], "y: .*Q-A"),
        ([["w1", "w2"]], [["O", "O"]], "there is not one entity in it"),
        ([["w1"]], [["O"], ["O"]], "X has 1 examples, y has 2"),
        ("w1", "O", "X: expected a list for each sentence"),
    ],
)
def test_bad_tags_are_refused(quick, X, y, message):
    with pytest.raises(BertwrightError, match=message):
        BertTagger(**quick).fit(X, y)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr": -1.0}, "lr must be positive"),
        ({"config": {"learning_rate": 1}}, "unknown key 'learning_rate' for FinetuneConfig"),
        ({"options": {"window": True}}, "unknown key 'window' for ClassifyTask.*did you mean 'windows'"),
        ({"dev_fraction": 1.5}, "dev_fraction must be 0 or lie between 0 and 1"),
        ({"dev_fraction": 0.001}, "dev_fraction 0.001 of 30 examples is none"),
        ({"init": "/nowhere/at all"}, "no such folder"),
    ],
)
def test_bad_dials_are_refused_by_fit_alone(quick, changed, message):
    classifier = BertClassifier(**quick | changed)
    with pytest.raises(BertwrightError, match=message):
        classifier.fit(TEXTS, LABELS)


@pytest.mark.parametrize("kind", KINDS)
def test_before_fit_there_are_no_answers(quick, kind, tmp_path):
    with pytest.raises(NotFittedError):
        kind(**quick).predict(TEXTS)
    with pytest.raises(NotFittedError):
        kind(**quick).save(tmp_path / "model")


# What is trained on and what is kept


def balance(run):
    return json.loads((run / "data.json").read_text())["balance"]


def test_all_examples_are_trained_on_and_nothing_is_calibrated(quick, tmp_path):
    classifier = BertClassifier(**quick | {"out": tmp_path / "run"}).fit(TEXTS, LABELS)
    assert balance(tmp_path / "run") == {"1": 15, "2": 15}
    assert json.loads((tmp_path / "run" / "best.json").read_text())["step"] == 72  # the last one
    assert classifier.predictor_.task.temperature == 1.0
    kept = Predictor.load(tmp_path / "run" / "model")
    assert kept.task == classifier.predictor_.task
    answers = kept.predict(TEXTS)
    assert [each["label"] for each in answers] == [str(label) for label in classifier.predict(TEXTS)]
    assert [each["score"] for each in answers] == classifier.predict_proba(TEXTS).max(1).tolist()
    with pytest.raises(BertwrightError, match="a run is here already"):
        classifier.fit(TEXTS, LABELS)


def test_a_share_is_held_out_where_wanted(quick, tmp_path):
    BertClassifier(**quick | {"out": tmp_path / "run", "dev_fraction": 0.2}).fit(TEXTS, LABELS)
    assert balance(tmp_path / "run") == {"1": 12, "2": 12}
    rows = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert sorted(row.count('"gold": "1"') for row in rows) == [0, 0, 0, 1, 1, 1]  # as many of either label


def test_what_is_held_out():
    labels = [["often"]] * 90 + [["seldom"]] * 9 + [["once"]]
    chosen = _held_out(labels, 0.2, 0)
    counts = [sum(labels[place] == [label] for place in chosen) for label in ("often", "seldom", "once")]
    assert counts == pytest.approx([18, 1.8, 0], abs=1)
    assert counts[2] == 0  # the only one stays
    assert chosen == _held_out(labels, 0.2, 0)
    assert chosen != _held_out(labels, 0.2, 1)
    assert _held_out(labels, 0.0, 0) == set()
    assert len(_held_out([()] * 50, 0.2, 0)) == 10
    assert len(_held_out([()] * 50, 0.999, 0)) == 49


@given(st.lists(st.sets(st.sampled_from("ABCDE")), min_size=2, max_size=30), st.floats(0.01, 0.99), st.integers(0, 9))
def test_training_keeps_an_example_of_every_label(labels, fraction, seed):
    try:
        chosen = _held_out(labels, fraction, seed)
    except BertwrightError:  # a share too small, or every example the last one of a label
        return
    kept = [own for place, own in enumerate(labels) if place not in chosen]
    assert kept
    assert set().union(*kept) == set().union(*labels)


def test_a_fit_can_be_repeated(quick, fitted):
    again = BertClassifier(**quick).fit(TEXTS, LABELS)
    other = BertClassifier(**quick | {"seed": 1}).fit(TEXTS, LABELS)
    expected = fitted.predict_proba(TEXTS)
    assert (again.predict_proba(TEXTS) == expected).all()
    assert (fitted.fit(TEXTS, LABELS).predict_proba(TEXTS) == expected).all()
    assert (other.predict_proba(TEXTS) != expected).any()


def test_fitting_is_quiet_and_leaves_nothing_behind(quick, tmp_path, monkeypatch, capfd):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    BertClassifier(**quick).fit(TEXTS, LABELS)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_save_writes_a_model_folder(fitted, tmp_path):
    fitted.save(tmp_path / "kept")
    answers = Predictor.load(tmp_path / "kept").predict(TEXTS[:2])
    assert [each["label"] for each in answers] == ["1", "2"]


# scikit-learn's own tools


def test_a_fitted_estimator_can_be_pickled(fitted):
    copied = pickle.loads(pickle.dumps(fitted))
    assert (copied.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    assert copied.classes_.dtype == fitted.classes_.dtype
    assert copied.get_params() == fitted.get_params()


def test_a_clone_is_not_fitted(fitted):
    copied = clone(fitted)
    assert copied.get_params() == fitted.get_params()
    assert not hasattr(copied, "predictor_")


def test_kinds_are_known(folder):
    assert is_classifier(BertClassifier(folder))
    assert is_regressor(BertRegressor(folder))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimators_unfitted",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_the_checks_of_scikit_learn_that_need_no_numbers(kind, check, folder):
    getattr(estimator_checks, check)(kind.__name__, kind(str(folder)))


def test_cross_validation(quick):
    assert cross_val_score(BertClassifier(**quick), TEXTS, LABELS, cv=2).mean() > 0.9
    rows = cross_val_predict(BertClassifier(**quick), TEXTS, LABELS, cv=2, method="predict_proba")
    assert (rows.argmax(1) + 1 == LABELS).mean() > 0.9


def test_grid_search_takes_numbers_of_numpy_and_refits(quick):
    grid = {"lr": np.array([1e-9, 1e-2]), "epochs": np.array([12])}
    search = GridSearchCV(BertClassifier(**quick), grid, cv=2).fit(TEXTS, LABELS)
    assert search.best_params_["lr"] == 1e-2
    assert search.score(TEXTS, LABELS) == 1.0


def test_in_a_pipeline(quick):
    steps = make_pipeline(
        FunctionTransformer(lambda X: [text.removesuffix(" w3") for text in X]), BertRegressor(**quick)
    )
    assert isinstance(steps, Pipeline)
    assert steps.fit(TEXTS, LABELS).predict(TEXTS).shape == (30,)


@pytest.mark.slow
def test_real_sentences(minilm, shared_data):
    rows = (shared_data / "tasks" / "en" / "SST-2" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:61]
    texts, labels = zip(*(row.split("\t") for row in rows), strict=True)
    classifier = BertClassifier(minilm, epochs=4, lr=3e-4, batch_size=8, max_length=48)
    scores = cross_val_score(classifier, list(texts), list(map(int, labels)), cv=2)
    assert scores.mean() > 0.05 + max(labels.count("0"), labels.count("1")) / 60  # 0.75 where this was written


def test_nothing_is_checked_before_fit_and_scikit_learn_is_imported_late():
    """In a process without the hook that checks annotations: scikit-learn says -1 for everything."""
    code = """if True:
        import sys, bertwright
        assert "sklearn" not in sys.modules
        from sklearn.utils.estimator_checks import check_do_not_raise_errors_in_init_or_set_params as check
        from bertwright.estimators import BertClassifier, BertRegressor, BertTagger
        for kind in (BertClassifier, BertRegressor, BertTagger):
            check(kind.__name__, kind("folder"))
    """
    subprocess.run([sys.executable, "-c", code], check=True)
