"""Scores of labels and numbers on cases small enough to count by hand."""

import math

import numpy as np
import pytest

from bertwright.errors import BertwrightError
from bertwright.tasks.metrics import (
    calibration_details,
    classification_details,
    classification_scores,
    expected_calibration_error,
    fit_temperature,
    multi_label_details,
    multi_label_scores,
    regression_scores,
)

GOLD = ["0", "0", "0", "1", "1"]
PREDICTED = ["0", "1", "0", "1", "0"]


def test_binary_f1_is_of_the_last_label():
    scores = classification_scores(GOLD, PREDICTED, ["0", "1"])
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["f1"] == pytest.approx(1 / 2)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_f1_of_three_labels_is_the_mean_over_labels_even_those_never_seen():
    scores = classification_scores(["a", "b"], ["a", "b"], ["a", "b", "c"])
    assert scores["macro_f1"] == pytest.approx(2 / 3)
    assert "f1" not in scores, "of more than two labels it has no meaning of its own"


def test_confusion_has_a_row_per_right_label():
    details = classification_details(GOLD, PREDICTED, ["0", "1"])
    assert details["confusion"] == [[2, 1], [1, 1]]
    assert details["labels"] == ["0", "1"]
    assert details["per_class"]["0"] == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3})


def test_scores_are_plain_numbers():
    scores = classification_scores(GOLD, PREDICTED, ["0", "1"])
    assert {type(value) for value in scores.values()} == {float}
    details = classification_details(GOLD, PREDICTED, ["0", "1"])
    assert {type(value) for row in details["confusion"] for value in row} == {int}
    assert type(details["per_class"]["1"]["support"]) is int


def test_matthews_correlation_is_1_0_or_minus_1_at_its_ends():
    assert classification_scores(GOLD, GOLD, ["0", "1"])["mcc"] == pytest.approx(1)
    assert classification_scores(GOLD, ["1", "1", "1", "0", "0"], ["0", "1"])["mcc"] == pytest.approx(-1)
    assert classification_scores(GOLD, ["1"] * 5, ["0", "1"])["mcc"] == 0
    assert classification_scores(["1"], ["1"], ["0", "1"])["mcc"] == 0


def test_regression_scores():
    scores = regression_scores([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 8.0])
    assert scores == pytest.approx({"pearson": 11 / math.sqrt(145), "spearman": 1.0, "mse": 4.0})
    assert {type(value) for value in scores.values()} == {float}


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [([1.0, 1.0], [1.0, 2.0]), ([1.0, 2.0], [5.0, 5.0]), ([1.0], [2.0])],
)
def test_correlation_with_a_constant_is_0(gold, predicted):
    assert regression_scores(gold, predicted)["pearson"] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_regression_refuses_what_is_no_number(value):
    with pytest.raises(BertwrightError, match="predicted number 1 "):
        regression_scores([1.0, 2.0], [1.0, value])
    with pytest.raises(BertwrightError, match="at least one"):
        regression_scores([], [])


def test_multi_label_scores():
    gold, predicted = [["a", "b"], [], ["a"]], [["b", "a"], ["c"], []]
    scores = multi_label_scores(gold, predicted, ["a", "b", "c", "d"])
    assert scores == pytest.approx({"accuracy": 1 / 3, "micro_f1": 4 / 6, "macro_f1": (2 / 3 + 1 + 0 + 0) / 4})
    details = multi_label_details(gold, predicted, ["a", "b", "c", "d"])
    assert details["per_class"]["a"] == pytest.approx({"precision": 1, "recall": 1 / 2, "f1": 2 / 3, "support": 2})
    with pytest.raises(BertwrightError, match="'x'"):
        multi_label_scores([["x"]], [[]], ["a"])


def test_calibration_error_compares_confidence_with_accuracy():
    details = calibration_details([0.5, 0.45, 0.9, 1.0], [True, False, True, True], bins=2)
    assert [(row["above"], row["up_to"], row["count"]) for row in details["bins"]] == [(0, 0.5, 2), (0.5, 1, 2)]
    assert details["expected_calibration_error"] == pytest.approx((0.025 + 0.05) / 2)
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0
    with pytest.raises(BertwrightError, match="between 0 and 1"):
        expected_calibration_error([1.5], [True])


def test_temperature_undoes_a_scale():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # a draw from the softmax
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(1, abs=0.1)
    assert fit_temperature((logits * 3).astype(np.float32), labels) == pytest.approx(3 * temperature, rel=1e-3)


def test_temperature_stays_between_its_bounds():
    logits = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert fit_temperature(logits, np.array([0, 1])) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(20, rel=1e-3)
    assert fit_temperature(logits, np.array([0, 0])) == 1
