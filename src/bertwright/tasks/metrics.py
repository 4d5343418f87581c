"""Scores of labels and numbers, from right answers and predictions.

    classification_scores(["0", "1"], ["0", "0"], labels=["0", "1"])  # {'accuracy': 0.5, 'f1': 0.0, ...}
    regression_scores([1.0, 2.0, 4.0], [1.5, 2.0, 3.0])["spearman"]    # 1.0

Sums that scikit-learn and SciPy have are theirs; both are imported on the first call.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bertwright.errors import BertwrightError

COLDEST, HOTTEST = 0.05, 20.0
"""Between which temperatures `fit_temperature` looks."""
ROUNDING = 1e-6
"""By how much a probability may exceed 1 in single precision."""


def classification_scores(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Return `accuracy`, of two labels `f1`, and `macro_f1`, between 0 and 1, and `mcc`, between -1 and 1.

    `f1` is that of the last of the two (the positive one: `1` after `0`), as GLUE counts it; `macro_f1` is the plain
    mean over labels. A label that is never right and never predicted has an F1 of 0. `mcc` is Matthews' correlation,
    GLUE's score of CoLA; where one side knows one label only it is 0.
    """
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    each = f1_score(gold, predicted, labels=list(labels), average=None, zero_division=0.0)
    macro = float(each.mean())
    varied = len(set(gold)) > 1 and len(set(predicted)) > 1
    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        **({"f1": float(each[-1])} if len(labels) == 2 else {}),
        "macro_f1": macro,
        "mcc": float(matthews_corrcoef(gold, predicted)) if varied else 0.0,
    }


def classification_details(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Return what lies behind the scores, as JSON values.

    Returns:
        `labels`; `confusion`: counts, a row per right label and a column per predicted one, in the order of `labels`;
        `per_class`: `precision`, `recall`, `f1` and `support` (examples that truly have it) by label.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    columns = precision_recall_fscore_support(gold, predicted, labels=list(labels), zero_division=0.0)
    return {
        "labels": list(labels),
        "confusion": confusion_matrix(gold, predicted, labels=list(labels)).tolist(),
        "per_class": {
            label: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
            for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
        },
    }


def regression_scores(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Return `pearson` and `spearman`, between -1 and 1, and `mse`, the mean squared error.

    Differs: SciPy's correlations are undefined where one side is constant, or of one example; here they are 0.

    Raises:
        BertwrightError: there are no numbers, two lengths, or a number that is not finite.
    """
    from scipy import stats

    _same_length(gold, predicted)
    for side, values in (("right", gold), ("predicted", predicted)):
        for index, value in enumerate(values):
            if not math.isfinite(value):
                raise BertwrightError(f"the {side} number {index} (counted from 0) is {value}, which is not finite")
    first, second = np.asarray(gold, np.float64), np.asarray(predicted, np.float64)
    scores = {"pearson": 0.0, "spearman": 0.0, "mse": float(np.square(first - second).mean())}
    if len(set(gold)) < 2 or len(set(predicted)) < 2:
        return scores
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numbers that hardly differ: SciPy answers all the same
        for name, correlation in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
            value = float(correlation(first, second).statistic)
            scores[name] = value if math.isfinite(value) else 0.0
    return scores


def multi_label_scores(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> dict[str, float]:
    """Return scores of answers that are sets of labels, between 0 and 1.

    Returns:
        `accuracy`: the share of examples whose set is exactly right; `micro_f1`: of all decisions together;
        `macro_f1`: the plain mean over labels, where a label that is never right and never predicted has an F1 of 0.

    Raises:
        BertwrightError: there are no examples, two lengths, or a label that is not among `labels`.
    """
    counts = _label_counts(gold, predicted, labels)
    exact = sum(set(there) == set(found) for there, found in zip(gold, predicted, strict=True))
    return {
        "accuracy": exact / len(gold),
        "micro_f1": float(_f1(counts.sum(1, keepdims=True)).mean()),
        "macro_f1": float(_f1(counts).mean()),
    }


def multi_label_details(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> dict[str, Any]:
    """Return `labels` and `per_class`, as `classification_details` does, of answers that are sets of labels."""
    right, found, there = counts = _label_counts(gold, predicted, labels)
    columns = zip(labels, right / np.maximum(found, 1), right / np.maximum(there, 1), _f1(counts), there, strict=True)
    return {
        "labels": list(labels),
        "per_class": {
            label: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
            for label, precision, recall, f1, support in columns
        },
    }


def expected_calibration_error(confidence: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """Return how far confidence and accuracy lie apart on average, between 0 and 1. Paper: Guo et al., 2017.

    Args:
        confidence: the probability of each answer given, between 0 and 1.
        right: whether it was right.
        bins: equally wide steps of confidence, open on the left; answers of one step are compared together.
    """
    return float(calibration_details(confidence, right, bins)["expected_calibration_error"])


def calibration_details(confidence: Sequence[float], right: Sequence[bool], bins: int = 15) -> dict[str, Any]:
    """Return `expected_calibration_error` and what lies behind it, as JSON values.

    Returns:
        `expected_calibration_error`; `bins`: of each step that has answers, in ascending order, `above` and `up_to`
        which confidence it goes, `count` of answers, their mean `confidence`, and their `accuracy`.
    """
    _same_length(confidence, right)
    sure, hits = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if not (sure.min() >= 0 and sure.max() <= 1 + ROUNDING):
        raise BertwrightError(f"confidence lies between 0 and 1, not between {sure.min()} and {sure.max()}")
    edges = np.arange(bins + 1) / bins
    steps = np.searchsorted(edges[1:-1], sure, side="left")
    rows = [
        {
            "above": float(edges[step]),
            "up_to": float(edges[step + 1]),
            "count": int((steps == step).sum()),
            "confidence": float(sure[steps == step].mean()),
            "accuracy": float(hits[steps == step].mean()),
        }
        for step in sorted(set(steps.tolist()))
    ]
    gap = math.fsum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(sure)
    return {"expected_calibration_error": gap, "bins": rows}


def fit_temperature(logits: Float[np.ndarray, "B K"], labels: Int[np.ndarray, "B"]) -> float:
    """Return the temperature by which to divide logits, so that their softmax is as sure as it is right.

    It makes the cross-entropy of `labels` smallest between 0.05 and 20, and is 1 where every label has the highest
    score: it takes mistakes to tell how sure one may be. Paper: Guo et al., 2017.

    Args:
        logits: scores of K labels for each of B examples that training has not seen; -inf where there are fewer.
        labels: the right label's place.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    _same_length(logits, labels)
    if (logits.argmax(1) == labels).all():
        return 1.0
    scores = logits.astype(np.float64)
    scores -= scores.max(1, keepdims=True)
    chosen = scores[np.arange(len(labels)), labels]

    def cross_entropy(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        return float((logsumexp(scores * scale, axis=1) - chosen * scale).mean())

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(cross_entropy, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))


def _label_counts(
    gold: Sequence[Collection[str]], predicted: Sequence[Collection[str]], labels: Sequence[str]
) -> Float[np.ndarray, "3 K"]:
    """Return, by label, how often it is rightly predicted, predicted, and truly there."""
    _same_length(gold, predicted)
    places = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((3, len(labels)))
    for there, found in zip(map(set, gold), map(set, predicted), strict=True):
        if unknown := (there | found) - places.keys():
            raise BertwrightError(f"the label {min(unknown)!r} is none of the {len(labels)} that the task knows")
        for row, members in enumerate((there & found, found, there)):
            counts[row, [places[label] for label in members]] += 1
    return counts


def _f1(counts: Float[np.ndarray, "3 K"]) -> Float[np.ndarray, "K"]:
    """Return the F1 of right, predicted and truly there; 0 where nothing is predicted or there."""
    right, found, there = counts
    scores: Float[np.ndarray, "K"] = 2 * right / np.maximum(found + there, 1)
    return scores


def _same_length(first: Any, second: Any) -> None:
    if len(first) != len(second) or not len(first):
        raise BertwrightError(
            f"{len(first)} and {len(second)} values were given: as many of both are needed, and at least one"
        )
