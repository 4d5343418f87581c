"""Predictions and right answers to scores, along the very path that `predict` takes.

    evaluation = evaluate("run/model", "dev.tsv")
    evaluation.scores       # {'accuracy': 0.91, 'f1': 0.91, 'macro_f1': 0.90, 'mcc': 0.81, 'loss': 0.24}
    evaluation.save("run")  # evaluation.json, predictions.jsonl

From Python, `evaluate_examples` takes a `Predictor` and examples that are read already.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bertwright.predict import Predictor
from bertwright.tasks import Example, Prediction, Task

EVALUATION_FILE = "evaluation.json"
"""Scores and what lies behind them."""
PREDICTIONS_FILE = "predictions.jsonl"
"""One line per example: `text`, `gold` (the right answer) and the keys of the prediction."""

WORST_ERRORS = 20
"""How many of the most wrong answers are kept for a look."""


@dataclass(frozen=True)
class Evaluation:
    """What a fine-tuned model makes of labelled examples."""

    scores: dict[str, float]
    """The task's metrics and the mean `loss`."""
    predictions: list[Prediction]
    """One per example, in the order of the file."""
    examples: list[Example] = field(repr=False)
    """What was asked."""
    gold: list[Any] = field(repr=False)
    """The right answers as JSON values."""
    details: dict[str, Any] = field(repr=False)
    """What the task adds for a report, such as a classifier's `confusion` matrix and scores `per_class`, and the
    `worst_errors`."""

    @property
    def labels(self) -> list[str]:
        """Labels in the order of the confusion matrix; empty if the task has none."""
        return list(self.details.get("labels", []))

    @property
    def confusion(self) -> list[list[int]]:
        """Counts, a row per right label and a column per predicted one; empty if the task has no labels."""
        return [list(row) for row in self.details.get("confusion", [])]

    def save(self, folder: str | Path) -> None:
        """Write evaluation.json and predictions.jsonl."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        summary = {"scores": self.scores, "num_examples": len(self.examples), **self.details}
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        (folder / EVALUATION_FILE).write_text(text, encoding="utf-8")
        with (folder / PREDICTIONS_FILE).open("w", encoding="utf-8") as stream:
            for example, gold, prediction in zip(self.examples, self.gold, self.predictions, strict=True):
                row = _asked(example) | {"gold": gold} | prediction
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def evaluate(
    model: str | Path | Predictor, data: str | Path, *, options: Mapping[str, Any] | None = None
) -> Evaluation:
    """Score a fine-tuned model on a file of labelled examples.

    Args:
        model: a model folder, or a predictor that is loaded already.
        data: a file that the model's task reads.
        options: options of the task that shall differ from the saved ones, such as `{"text_column": "body"}`.

    Raises:
        BertwrightError: the model was not fine-tuned, or the file is not as the task needs it.
    """
    predictor = model if isinstance(model, Predictor) else Predictor.load(model, options=options)
    return evaluate_examples(predictor, predictor.require_task().read(Path(data)))


def evaluate_examples(predictor: Predictor, examples: Sequence[Example], *, calibrate: bool = False) -> Evaluation:
    """Score a predictor on labelled examples; the training loop does so on dev.

    Args:
        predictor: of a fine-tuned model.
        examples: with their right answers.
        calibrate: let the task set by these very examples what it sets by dev: thresholds, a temperature. The
            predictor then answers with them.
    """
    task = predictor.require_task()
    features = task.encode(examples, predictor.wordpiece, predictor.max_length)
    logits = predictor.logits(features)
    if calibrate:
        task = predictor.task = task.calibrate(logits, features, examples)
    predictions = task.decode(logits, features, examples)
    terms = task.loss(torch.cat(logits), task.collate(features)).losses.values()
    loss = sum(float(term.total) / term.count for term in terms)
    return Evaluation(
        scores={**task.score(predictions, examples), "loss": loss},
        predictions=predictions,
        examples=list(examples),
        gold=[task.gold(example) for example in examples],
        details={**task.details(predictions, examples), "worst_errors": _worst(task, predictions, examples)},
    )


def _worst(task: Task, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Return the answers that are most wrong, with what was asked."""
    errors = [task.error(prediction, example) for prediction, example in zip(predictions, examples, strict=True)]
    worst = sorted(range(len(errors)), key=lambda index: -errors[index])[:WORST_ERRORS]
    return [
        {"where": examples[index].where, **_asked(examples[index]), "gold": task.gold(examples[index])}
        | {"prediction": predictions[index]}
        for index in worst
        if errors[index] > 0
    ]


def _asked(example: Example) -> dict[str, Any]:
    given = {"id": example.id, "text": example.text, "text_pair": example.text_pair, "choices": list(example.choices)}
    return {key: value for key, value in given.items() if value}
