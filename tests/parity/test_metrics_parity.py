"""Our scores against the definitions, written out, on a thousand generated cases."""

import math
import random

import pytest

from bertwright.tasks.metrics import classification_details, classification_scores


def ratio(part, whole):
    return part / whole if whole else 0.0


def plain_scores(gold, predicted, labels):
    each = {}
    for label in labels:
        right = sum(g == p == label for g, p in zip(gold, predicted, strict=True))
        precision, recall = ratio(right, predicted.count(label)), ratio(right, gold.count(label))
        f1 = ratio(2 * precision * recall, precision + recall)
        each[label] = {"precision": precision, "recall": recall, "f1": f1, "support": gold.count(label)}
    macro = sum(score["f1"] for score in each.values()) / len(labels)
    size, right = len(gold), sum(g == p for g, p in zip(gold, predicted, strict=True))
    both, ours, theirs = (
        size**2 - sum(one.count(label) * other.count(label) for label in labels)
        for one, other in ((gold, predicted), (predicted, predicted), (gold, gold))
    )
    return {
        "accuracy": sum(g == p for g, p in zip(gold, predicted, strict=True)) / len(gold),
        **({"f1": each[labels[-1]]["f1"]} if len(labels) == 2 else {}),
        "macro_f1": macro,
        "mcc": ratio(both - size * (size - right), math.sqrt(ours * theirs)),
    }, each


@pytest.mark.parametrize("num_labels", [2, 3, 7])
def test_scores_follow_their_definitions(num_labels):
    random.seed(num_labels)
    labels = [f"label {index}" for index in range(num_labels)]
    for _ in range(334):
        size = random.randint(1, 30)
        seen = random.sample(labels, random.randint(1, num_labels))  # some labels often stay away
        gold, predicted = random.choices(seen, k=size), random.choices(labels, k=size)
        scores, per_class = plain_scores(gold, predicted, labels)
        assert classification_scores(gold, predicted, labels) == pytest.approx(scores)
        details = classification_details(gold, predicted, labels)
        for label in labels:
            assert details["per_class"][label] == pytest.approx(per_class[label])
        pairs = list(zip(gold, predicted, strict=True))
        assert details["confusion"] == [[pairs.count((row, column)) for column in labels] for row in labels]
