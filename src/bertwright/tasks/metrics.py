"""Scores of classification, from right answers and predictions.

    classification_scores(["0", "1"], ["0", "0"], labels=["0", "1"])  # {'accuracy': 0.5, 'f1': 0.0, 'macro_f1': 0.33}

Every sum behind them is scikit-learn's, which is imported on the first call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def classification_scores(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Return `accuracy`, `f1` and `macro_f1`, between 0 and 1.

    Of two labels, `f1` is that of the last one (the positive one: `1` after `0`), as GLUE counts it; of more, it is
    `macro_f1`, the plain mean over labels. A label that is never right and never predicted has an F1 of 0.
    """
    from sklearn.metrics import accuracy_score, f1_score

    each = f1_score(gold, predicted, labels=list(labels), average=None, zero_division=0.0)
    macro = float(each.mean())
    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        "f1": float(each[-1]) if len(labels) == 2 else macro,
        "macro_f1": macro,
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
