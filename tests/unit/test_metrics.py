"""Scores of classification on cases small enough to count by hand."""

import pytest

from bertwright.tasks.metrics import classification_details, classification_scores

GOLD = ["0", "0", "0", "1", "1"]
PREDICTED = ["0", "1", "0", "1", "0"]


def test_binary_f1_is_of_the_last_label():
    scores = classification_scores(GOLD, PREDICTED, ["0", "1"])
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["f1"] == pytest.approx(1 / 2)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_f1_of_three_labels_is_the_mean_over_labels_even_those_never_seen():
    scores = classification_scores(["a", "b"], ["a", "b"], ["a", "b", "c"])
    assert scores["f1"] == scores["macro_f1"] == pytest.approx(2 / 3)


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
