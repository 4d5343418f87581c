"""What came of an experiment: scores by cell, their spread, and whether the paper's orderings hold.

    results = collect(bench)
    results.cells["bert", "mrpc"].mean, results.holds[0].verdict

Everything is read from the run folders: what was not run has no number.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

from bertwright.reproduce.experiments import PERPLEXITY, Column, Experiment, Row
from bertwright.reproduce.runs import FinetuneRun, PretrainRun, Training, kind_of
from bertwright.reproduce.workbench import Workbench
from bertwright.training.checkpoint import versions

Judgement = Literal["agrees", "disagrees", "within", "untold", "missing"]
"""`within` the spread: no more than two standard errors apart; `untold`: one run has no spread, all runs of a row
came to nothing, or both rows are the same runs; `missing`: not run yet."""
ENOUGH = 2.0
"""Standard errors by which two means must differ."""


@dataclass(frozen=True)
class Score:
    """What one run scored."""

    value: float
    """In the paper's units."""
    pretrain_seed: int
    seed: int | None
    """Of fine-tuning; None: pre-training's own score."""
    run: str
    """Its run folder, inside that of its kind."""
    problem: str | None = None
    """Why it came to nothing; it counts all the same."""


@dataclass(frozen=True)
class Cell:
    """What a row scored on a column."""

    scores: tuple[Score, ...]
    paper: float | None = None
    """The paper's value."""

    @property
    def mean(self) -> float | None:
        """The mean over runs."""
        return statistics.fmean(each.value for each in self.scores) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation over runs, of more than one."""
        return statistics.stdev(each.value for each in self.scores) if len(self.scores) > 1 else None

    @property
    def error(self) -> float | None:
        """The standard error of the mean.

        Runs from one pre-training are not independent of each other. So, where there are several pre-trainings, the
        standard error of their means counts if it is larger.
        """
        if self.deviation is None:
            return None
        pooled = self.deviation / math.sqrt(len(self.scores))
        groups: dict[int, list[float]] = {}
        for each in self.scores:
            groups.setdefault(each.pretrain_seed, []).append(each.value)
        means = [statistics.fmean(values) for values in groups.values()]
        return max(pooled, statistics.stdev(means) / math.sqrt(len(means))) if len(means) > 1 else pooled

    @property
    def spoilt(self) -> int:
        """How many runs came to nothing."""
        return sum(each.problem is not None for each in self.scores)


@dataclass(frozen=True)
class Holds:
    """Whether an ordering of the paper is found here."""

    better: str
    """Key of the row that the paper has ahead."""
    worse: str
    """Of the one that it has behind."""
    column: str
    paper: float | None
    """By how much, in points or in perplexity; None where the paper gives no number."""
    difference: float | None
    """The same here: negative if it is the other way round."""
    error: float | None
    """Standard error of the difference."""
    verdict: Judgement


@dataclass(frozen=True)
class Pretrained:
    """What came of a pre-training, over its seeds."""

    name: str
    run: PretrainRun
    """Its first seed."""
    scores: dict[str, Cell]
    """Of held-out text: losses, accuracies as percent, and the perplexity of tokens."""
    seconds: tuple[float, ...]
    """Of each seed that is done."""


@dataclass(frozen=True)
class Results:
    """An experiment as far as it is run."""

    bench: Workbench
    rows: list[Row]
    columns: list[Column]
    cells: dict[tuple[str, str], Cell]
    """By row and column."""
    pretrained: list[Pretrained]
    holds: list[Holds]

    @property
    def finished(self) -> bool:
        """Whether every training is done."""
        return all(self.bench.done(run) is not None for run in self.bench.runs.trainings)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        bench = self.bench
        runs = [
            {"kind": kind_of(run), "run": run.folder, "folder": str(bench.folder(run)), "done": bench.done(run)}
            for run in bench.runs.trainings
        ]
        return {
            **bench.identity(),
            "place": bench.order.experiment.place,
            "seeds": bench.order.seeds,
            "pretrain_seeds": bench.order.pretrain_seeds,
            "finished": self.finished,
            "left_out": bench.missing,
            "columns": [asdict(column) | {"title": title_of(bench, column)} for column in self.columns],
            "rows": [
                {"key": row.key, "name": row.name, "cells": {column.key: _plain(self.cells[row.key, column.key])
                                                             for column in self.columns}}
                for row in self.rows
            ],
            "pretraining": [
                {"name": each.name, "seconds": list(each.seconds),
                 **{key: _plain(cell) for key, cell in each.scores.items()}} for each in self.pretrained
            ],
            "holds": [asdict(each) for each in self.holds],
            "runs": runs,
            "versions": versions(),
        }  # fmt: skip


def collect(bench: Workbench) -> Results:
    """Read what came of the trainings so far."""
    experiment, columns = bench.order.experiment, bench.columns
    rows = experiment.chosen_rows(bench.order.only)
    cells = {}
    for row in rows:
        for column in columns:
            scores = [score for run in bench.runs.cells[row.key, column.key] if (score := _score(bench, run, column))]
            cells[row.key, column.key] = Cell(tuple(scores), row.paper.get(column.key))
    return Results(bench, rows, columns, cells, _pretrained(bench), judge(experiment, rows, columns, cells))


def judge(
    experiment: Experiment, rows: Sequence[Row], columns: Sequence[Column], cells: dict[tuple[str, str], Cell]
) -> list[Holds]:
    """Compare every two rows that the paper orders, by its numbers or in words."""
    found = []
    for first, second in combinations(rows, 2):
        for column in columns:
            ahead = _ahead(experiment, first, second, column)
            if ahead is not None:
                found.append(_compare(*ahead, column, cells))
    return found


def title_of(bench: Workbench, column: Column) -> str:
    """Return what a column's task is called."""
    return column.metric if column.task is None else bench.found[column.task].title


def _ahead(experiment: Experiment, first: Row, second: Row, column: Column) -> tuple[Row, Row] | None:
    """Return two rows in the paper's order, the better one first; None if it does not order them."""
    for claim in experiment.claims:
        for better, worse in ((first, second), (second, first)):
            if (claim.better, claim.worse) == (better.key, worse.key):
                return better, worse
    one, other = first.paper.get(column.key), second.paper.get(column.key)
    if one is None or other is None or one == other:
        return None
    return (first, second) if (one > other) != column.smaller_is_better else (second, first)


def _compare(better: Row, worse: Row, column: Column, cells: dict[tuple[str, str], Cell]) -> Holds:
    one, other = cells[better.key, column.key], cells[worse.key, column.key]
    sign = -1 if column.smaller_is_better else 1
    paper = None if one.paper is None or other.paper is None else sign * (one.paper - other.paper)
    difference = error = None
    if one.mean is not None and other.mean is not None:
        difference = sign * (one.mean - other.mean)
    if one.error is not None and other.error is not None:
        error = math.hypot(one.error, other.error)
    verdict: Judgement
    if difference is None:
        verdict = "missing"
    elif error is None or one.scores == other.scores or any(cell.spoilt == len(cell.scores) for cell in (one, other)):
        verdict = "untold"
    elif abs(difference) <= ENOUGH * error:
        verdict = "within"
    else:
        verdict = "agrees" if difference > 0 else "disagrees"
    return Holds(better.key, worse.key, column.key, paper, difference, error, verdict)


def _score(bench: Workbench, run: Training, column: Column) -> Score | None:
    done = bench.done(run)
    if done is None:
        return None
    if isinstance(run, FinetuneRun):
        value = 100 * done["scores"][column.metric]
        return Score(value, run.start.seed, run.seed, run.folder, done["problem"])
    value = _held_out(done["scores"]).get(column.metric)
    return None if value is None else Score(value, run.seed, None, run.folder)


def _held_out(scores: dict[str, float]) -> dict[str, float]:
    """Return losses as they are, accuracies in percent, and the perplexity of masked tokens."""
    found = {name: 100 * value if name.endswith("_accuracy") else value for name, value in scores.items()}
    if "mlm_loss" in scores:
        found[PERPLEXITY] = math.exp(scores["mlm_loss"])
    return found


def _pretrained(bench: Workbench) -> list[Pretrained]:
    groups: dict[object, list[PretrainRun]] = {}
    for run in bench.runs.pretrainings:
        groups.setdefault(run.pretraining, []).append(run)
    found = []
    for runs in groups.values():
        done = {run: each for run in runs if (each := bench.done(run)) is not None}
        names = dict.fromkeys(name for each in done.values() for name in _held_out(each["scores"]))
        scores = {
            name: Cell(tuple(Score(_held_out(each["scores"])[name], run.seed, None, run.folder)
                             for run, each in done.items() if name in _held_out(each["scores"])))
            for name in names
        }  # fmt: skip
        name = runs[0].folder.removesuffix(f"-seed{runs[0].seed}")
        found.append(Pretrained(name, runs[0], scores, tuple(each["seconds"] for each in done.values())))
    return found


def _plain(cell: Cell) -> dict[str, Any]:
    return {
        "mean": cell.mean,
        "deviation": cell.deviation,
        "error": cell.error,
        "n": len(cell.scores),
        "paper": cell.paper,
        "scores": [asdict(each) for each in cell.scores],
    }
