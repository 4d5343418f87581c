"""Scores of quoted answers, on cases small enough to count by hand."""

import logging
import math

import pytest

from bertwright.errors import BertwrightError
from bertwright.tasks.answer_scores import answer_scores, best_threshold


def one(prediction, *gold, rules="squad"):
    scores = answer_scores({"q": prediction}, {"q": gold}, rules=rules)
    return scores["exact"], scores["f1"]


@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "f1"),
    [
        ("The  Seine!", ["seine"], 1, 1),
        ("U.S.", ["US"], 1, 1),
        ("the river Seine", ["a Seine"], 0, 2 / 3),  # half of what was found, and all of what is right
        ("red red blue", ["red blue blue"], 0, 2 / 3),  # each word counts as often as both have it
        ("Theatre", ["atre"], 0, 0),  # no article inside a word
        ("the", ["an", "Seine"], 0, 0),  # a gold answer of which nothing is left is none beside others ...
        ("the", ["an"], 1, 1),  # ... and alone it makes the empty answer right
        ("Paris", ["London", "Paris, France", "in Paris"], 0, 2 / 3),
        ("1,000", ["1000"], 1, 1),
        ("«Seine»", ["Seine"], 0, 0),  # only ASCII punctuation goes
    ],
)
def test_english_answers(prediction, gold, exact, f1):
    assert one(prediction, *gold) == pytest.approx((exact, f1))


@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "f1"),
    [
        ("巴黎。", ["巴黎"], 1, 1),
        ("在巴黎", ["巴黎"], 0, 0.8),
        ("巴黎的河", ["巴河黎的"], 0, 0.5),  # the longest run is 黎的, though 巴黎的 is a subsequence
        ("BERT模型", ["bert"], 0, 0.5),
        ("12月31日", ["12月3日"], 0, 0.5),  # 31 and 3 are two words; 12月 is the longest run
        ("巴黎…", ["巴黎"], 0, 0.8),  # an ellipsis stays
        ("(巴黎)", ["（巴黎）"], 0, 2 / 3),  # and so do ASCII brackets, but not the Chinese ones
        ("巴 黎", ["巴黎"], 0, 1),  # spaces count in the exact match alone
        ("。", ["，"], 1, 0),  # nothing is left of either
    ],
)
def test_chinese_answers(prediction, gold, exact, f1):
    assert one(prediction, *gold, rules="cmrc") == pytest.approx((exact, f1))


def test_the_best_gold_answer_counts_for_each_score_on_its_own():
    assert one("巴黎市", "巴黎", "巴黎市", rules="cmrc") == (1, 1)
    assert one("Paris France", "Paris", "France Paris now")[1] == pytest.approx(0.8)


@pytest.mark.parametrize("rules", ["squad", "cmrc"])
def test_only_the_empty_answer_is_right_to_an_unanswerable_question(rules):
    gold = {"a": ["Seine"], "b": [], "c": []}
    scores = answer_scores({"a": "Seine", "b": "", "c": "Paris"}, gold, rules=rules)
    assert scores == pytest.approx(
        {"exact": 2 / 3, "f1": 2 / 3, "answerable_exact": 1, "answerable_f1": 1, "unanswerable_accuracy": 1 / 2}
    )
    assert answer_scores({"b": ""}, {"b": []}, rules=rules) == {"exact": 1, "f1": 1, "unanswerable_accuracy": 1}


def test_missing_and_unknown_answers_are_counted_and_reported_once(caplog):
    gold = {"a": ["x"], "b": ["x"], "c": []}
    with caplog.at_level(logging.WARNING):
        scores = answer_scores({"a": "x", "other": "x"}, gold)
    assert scores["exact"] == pytest.approx(1 / 3)
    assert scores["unanswerable_accuracy"] == 0, "no answer is not the empty answer"
    assert [record.getMessage().split()[0] for record in caplog.records] == ["2", "1"]


def test_no_question_is_a_mistake():
    with pytest.raises(BertwrightError, match="no question"):
        answer_scores({}, {})


def test_threshold_parts_what_can_be_answered_from_what_cannot():
    gold = {"a": ["x"], "b": ["y"], "c": [], "d": []}
    differences = {"a": -3.0, "b": 1.0, "c": 2.0, "d": 4.0}
    assert best_threshold(differences, {"a": "x", "b": "y", "c": "z", "d": "z"}, gold) == (1.0, 1.0, 1.0)


def test_threshold_of_all_empty_lies_below_every_difference():
    threshold, f1, exact = best_threshold({"a": -3.0, "b": -5.0}, {"a": "x", "b": "y"}, {"a": [], "b": []})
    assert math.isfinite(threshold)
    assert threshold < -5
    assert (f1, exact) == (1, 1)


def test_threshold_does_not_part_equal_differences():
    gold = {"a": ["x"], "b": [], "c": []}
    threshold, f1, _ = best_threshold(dict.fromkeys(gold, 1.0), dict.fromkeys(gold, "x"), gold)
    assert threshold < 1
    assert f1 == pytest.approx(2 / 3)


def test_threshold_refuses_what_is_not_a_number():
    with pytest.raises(BertwrightError, match="no question has both"):
        best_threshold({"a": 1.0}, {"b": "x"}, {"a": [], "b": []})
    with pytest.raises(BertwrightError, match="finite"):
        best_threshold({"a": math.nan}, {"a": "x"}, {"a": []})
