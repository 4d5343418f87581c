"""Fine-tuning several times: over a grid of settings, with several seeds, and the best kept. Paper: 4.1 and A.3.

    trials = finetune_trials(task, FinetuneConfig(), grid="paper", seeds=3, **files, init=model, out=Path("run"))
    trials.settings[0]  # the best: its dials, the mean over seeds and its standard deviation

Each trial is a run folder inside `out`; `trials.json` and `trials.md` hold the table, `model` is the best seed of the
best setting. The choice is made on dev, so its scores there flatter it a little.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertwright.config import FinetuneConfig
from bertwright.errors import BertwrightError, nearest
from bertwright.json_values import from_dict, read_json, to_dict
from bertwright.recipes import GRIDS
from bertwright.tasks import Task, task_to_json
from bertwright.training.checkpoint import Event, OnEvent, RunFolder
from bertwright.training.finetune import BEST_FILE, FinetuneResult, finetune_examples, read_examples

TRIALS_FILE = "trials.json"
"""The table of a folder of trials."""
_DONE = "done.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """What came of one setting."""

    name: str
    """Of its run folders."""
    dials: dict[str, Any]
    """What it sets, such as `{"lr": 5e-05, "epochs": 3}`."""
    seeds: dict[int, dict[str, float]]
    """Scores on dev by seed."""
    degenerate: list[int]
    """Seeds whose run came to nothing even after its restarts; they count all the same."""

    def mean(self, score: str) -> float:
        """Return a score's mean over seeds."""
        return statistics.fmean(scores[score] for scores in self.seeds.values())

    def deviation(self, score: str) -> float:
        """Return a score's standard deviation over seeds; 0 of a single one."""
        values = [scores[score] for scores in self.seeds.values()]
        return statistics.stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Trials:
    """What came of all of them."""

    model: Path
    """The model folder of the best seed of the best setting."""
    best_by: str
    """The score that decided."""
    settings: list[Setting]
    """Best mean first."""

    @property
    def scores(self) -> dict[str, float]:
        """The best setting's mean of each score."""
        best = self.settings[0]
        return {name: best.mean(name) for name in next(iter(best.seeds.values()))}

    def rows(self) -> list[dict[str, Any]]:
        """Return the table, as JSON values."""
        return [
            {
                "name": setting.name,
                **setting.dials,
                "mean": setting.mean(self.best_by),
                "deviation": setting.deviation(self.best_by),
                "seeds": {str(seed): scores for seed, scores in setting.seeds.items()},
                "degenerate": setting.degenerate,
            }
            for setting in self.settings
        ]


def finetune_trials(
    task: Task,
    config: FinetuneConfig,
    *,
    grid: str | Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 1,
    train: Path,
    dev: Path,
    init: str | Path,
    out: Path,
    random_weights: bool = False,
    resume: bool = False,
    on_event: OnEvent = lambda event: None,
) -> Trials:
    """Fine-tune with every setting of a grid and several seeds each, and keep the best on dev.

    Args:
        task: see `finetune`, as for the arguments not named here.
        config: every dial that the grid does not turn.
        grid: its name, or values by dial, such as `{"lr": (5e-5, 3e-5)}`; None: the one setting of `config`.
        seeds: runs of each setting: with `config.seed` and those that follow.
        out: the folder of the runs.
        resume: go on where it was left; a trial that is there already is not run again.

    Raises:
        BertwrightError: there is no such grid, or as `finetune` says.
    """
    if seeds < 1:
        raise BertwrightError(f"seeds must be at least 1, not {seeds}")
    values = _grid(grid)
    files = read_examples(task, train, dev)
    given: dict[str, Any] = {"init": init, "random_weights": random_weights, "resume": resume}
    listen, settings = _one_check(on_event), []
    with RunFolder.create(out, _identity(task, config, values, files["source"], given), resume=resume) as folder:
        for dials in _combinations(values):
            name = "-".join(f"{dial}={shown(value)}" for dial, value in dials.items()) or "trial"
            runs: dict[int, FinetuneResult] = {}
            for seed in range(config.seed, config.seed + seeds):
                setting = dataclasses.replace(config, **dials, seed=seed)
                runs[seed] = _run(task, setting, out / f"{name}-seed={seed}", on_event=listen, **files, **given)
            scores = {seed: result.scores for seed, result in runs.items()}
            problems = [seed for seed, result in runs.items() if result.problem]
            settings.append(Setting(name, dials, scores, problems))
            settings.sort(key=lambda setting: -setting.mean(task.best_by))
            trials = Trials(out / "model", task.best_by, settings)
            folder.write_json(TRIALS_FILE, {"best_by": task.best_by, "rows": trials.rows()})
            (out / "trials.md").write_text(_markdown(trials), encoding="utf-8")
        _keep_best(trials, out)
    return trials


def _one_check(on_event: OnEvent) -> OnEvent:
    """Pass everything on, but of the looks at the data, which is the same for all, only the first."""
    seen = False

    def listen(event: Event) -> None:
        nonlocal seen
        if event["kind"] != "check" or not seen:
            on_event(event)
        seen |= event["kind"] == "check"

    return listen


def _grid(grid: str | Mapping[str, Sequence[Any]] | None) -> Mapping[str, Sequence[Any]]:
    if not isinstance(grid, str):
        for dial, values in (grid or {}).items():
            if dial == "seed" or not values:
                what = "seeds are no part of a grid" if values else f"no value of {dial} to try"
                raise BertwrightError(what, fix="use seeds=3 for several seeds, and at least one value for each dial")
            for value in values:
                from_dict(FinetuneConfig, {dial: value})
        return grid or {}
    if grid not in GRIDS:
        raise BertwrightError(f"unknown grid {grid!r}{nearest(grid, GRIDS)}", fix=f"choose one of: {', '.join(GRIDS)}")
    return GRIDS[grid]


def shown(value: Any) -> str:
    """Return a dial's value in few characters, also for the name of a folder."""
    return f"{value:g}" if isinstance(value, float) else str(value).replace("/", "_")


def _combinations(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _identity(
    task: Task,
    config: FinetuneConfig,
    values: Mapping[str, Sequence[Any]],
    source: Mapping[str, str],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the folder is known by when it is resumed."""
    return {
        "kind": "trials",
        "task": task_to_json(task),
        "train": to_dict(config),
        "grid": {dial: list(each) for dial, each in values.items()},
        "init": str(given["init"]),
        "random_weights": given["random_weights"],
        **source,
    }


def _run(task: Task, config: FinetuneConfig, out: Path, *, resume: bool, **given: Any) -> FinetuneResult:
    """Return what came of a trial, which is not run again if it is done already.

    Its checkpoints, three times its model's size, are dropped.
    """
    if (out / _DONE).exists():
        result = FinetuneResult(out / "model", **read_json(out / _DONE))
    else:
        result = finetune_examples(task, config, out=out, resume=resume and out.exists(), **given)
        done = {"scores": result.scores, "step": result.step, "problem": result.problem}
        (out / _DONE).write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(out / "checkpoints", ignore_errors=True)  # also where a kill came in between
    return result


def _keep_best(trials: Trials, out: Path) -> None:
    """Make the best run's model, evaluation and predictions those of the folder."""
    best = trials.settings[0]
    seed = max(best.seeds, key=lambda seed: best.seeds[seed][trials.best_by])
    run = out / f"{best.name}-seed={seed}"
    for name in ("model", "evaluation.json", "predictions.jsonl", "metrics.jsonl", "data.json", BEST_FILE):
        target = out / name
        if (run / name).is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(run / name, target)
        else:
            shutil.copyfile(run / name, target)
    _log.info("%s: the best of %d trials is %s", out, sum(len(each.seeds) for each in trials.settings), run.name)


def _markdown(trials: Trials) -> str:
    dials = list(trials.settings[0].dials)
    scores = [name for name in trials.scores if name != trials.best_by]
    lines = [
        "| " + " | ".join([*dials, "seeds", trials.best_by, *scores]) + " |",
        "|" + "---|" * (len(dials) + len(scores) + 2),
    ]
    for setting in trials.settings:
        cells = [shown(setting.dials[dial]) for dial in dials]
        spoilt = f" ({len(setting.degenerate)} came to nothing)" if setting.degenerate else ""
        cells.append(f"{len(setting.seeds)}{spoilt}")
        for score in (trials.best_by, *scores):
            spread = f" ± {setting.deviation(score):.4f}" if len(setting.seeds) > 1 else ""
            cells.append(f"{setting.mean(score):.4f}{spread}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
