"""An experiment on the bench: its shards and tasks opened and checked, its trainings planned, nothing trained yet.

    bench = Workbench(Order(experiment=get_experiment("table5"), scale=get_scale("tiny"), data=..., tasks=..., out=...))
    bench.runs.trainings

`experiment.json` in the folder of the results says what they are made from; the same folder takes nothing else.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bertwright.config import BertConfig, FinetuneConfig, PretrainConfig
from bertwright.data.shards import ShardSet
from bertwright.errors import BertwrightError
from bertwright.files import new_file, sha256_of
from bertwright.json_values import read_json, to_dict
from bertwright.reproduce.experiments import Column, Experiment
from bertwright.reproduce.runs import FinetuneRun, PretrainRun, Runs, Training, kept_steps, plan_runs
from bertwright.reproduce.scales import Scale, Settings, finetune_config, model_config, pretrain_config
from bertwright.reproduce.sources import KNOWN_TASKS, Examples, Found, find_tasks, fitted
from bertwright.tasks import TagTask, Task
from bertwright.training.checkpoint import MAY_CHANGE

IDENTITY_FILE = "experiment.json"
"""What the results in a folder are made from."""
DONE_FILE = "done.json"
"""Scores and seconds of a training that is done; without it a run folder is gone on with."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for."""

    experiment: Experiment
    scale: Scale
    data: Path
    """Shards to pre-train on."""
    tasks: Path
    """Folder with a folder for each task."""
    out: Path
    """Folder for tables and runs."""
    data_single: Path | None = None
    """Shards of single segments for the rows that learn no next sentences; by default they read the pairs, too."""
    long_data: Path | None = None
    """Shards with longer examples for the last steps of pre-training."""
    models: Path | None = None
    """Folder of the pre-trainings, which several experiments may share; by default inside `out`."""
    only: Sequence[str] = ()
    """Keys of the rows; all if there are none."""
    score_on: Sequence[str] = ()
    """Names of the tasks; the table's own if there are none."""
    seeds: int = 3
    """Fine-tunings of each cell from one pre-training."""
    pretrain_seeds: int = 1
    """Pre-trainings of each row."""
    settings: Settings = field(default_factory=Settings)
    """Dials that differ from the scale's."""


class Workbench:
    """Everything that an experiment is made from, once it is known to fit together.

    Args:
        order: what is asked for.

    Raises:
        BertwrightError: a row or task is unknown, no task is there, the shards have no pairs for a row that needs
            them or another vocabulary than each other, or the folder holds results of something else.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.out = order.out
        order.experiment.chosen_rows(order.only)
        self.shards = ShardSet.open(order.data)
        self.single = None if order.data_single is None else ShardSet.open(order.data_single)
        self.long = None if order.long_data is None else ShardSet.open(order.long_data)
        for other in (self.single, self.long):
            if other is not None:
                other.check_vocabulary(self.shards.wordpiece)
        wanted = _columns(order.experiment, order.score_on)
        names = list(dict.fromkeys(column.task for column in wanted if column.task is not None))
        self.found, self.missing = find_tasks(order.tasks, names)
        self.columns = [column for column in wanted if column.task is None or column.task in self.found]
        self.runs: Runs = plan_runs(order.experiment, order.scale, self.columns, only=order.only,
                                    seeds=order.seeds, pretrain_seeds=order.pretrain_seeds)  # fmt: skip
        self._require_pairs()
        self._examples: dict[str, Examples] = {}

    @cached_property
    def longest(self) -> int:
        """The longest examples of pre-training, tokens: beyond them the encoder has seen no position."""
        sets = [each for each in (self.shards, self.single, self.long) if each is not None]
        return max(each.manifest.config.max_length for each in sets)

    def open(self) -> None:
        """Claim the folder for this experiment: write what it is made from, or compare.

        Raises:
            BertwrightError: the folder holds results made from something else.
        """
        path, now = self.out / IDENTITY_FILE, self.identity()
        if path.exists():
            saved = read_json(path)
            _require_same(saved, now, path)
            now["tasks"] = saved.get("tasks", {}) | now["tasks"]
        with new_file(path) as file:
            file.write((json.dumps(now, indent=2, ensure_ascii=False) + "\n").encode())

    def identity(self) -> dict[str, Any]:
        """Return what the results are made from; seeds, rows and tasks may be added later."""
        order = self.order
        settings = {name: value for name, value in to_dict(order.settings).items() if name != "threads"}
        sets = {"data": self.shards, "data_single": self.single, "long_data": self.long}
        return {
            "experiment": order.experiment.key,
            "scale": order.scale.name,
            **{f"{name}_sha256": None if each is None else sha256_of(each.folder / "manifest.json")
               for name, each in sets.items()},
            "settings": settings,
            "tasks": {name: found.identity() for name, found in self.found.items()},
        }  # fmt: skip

    def folder(self, run: Training) -> Path:
        """Return a training's run folder."""
        if isinstance(run, PretrainRun):
            return (self.order.models or self.out / "pretrain") / run.folder
        return self.out / "finetune" / run.folder

    def model(self, run: PretrainRun) -> BertConfig:
        """Return the shape that is pre-trained."""
        return model_config(self.order.scale, run.pretraining)

    def shards_of(self, run: PretrainRun) -> ShardSet:
        """Return what a pre-training reads."""
        return self.single if self.single is not None and run.single_segments else self.shards

    def pretraining(self, run: PretrainRun) -> tuple[PretrainConfig, dict[float, int]]:
        """Return the dials of a pre-training, and after which step each of its parts ends."""
        config = pretrain_config(self.order.scale, self.order.settings, run.pretraining, seed=run.seed)
        every, ends = kept_steps(config, run.parts)
        return dataclasses.replace(config, checkpoint_every=every), ends

    def made_from(self, run: PretrainRun) -> dict[str, Any]:
        """Return what a pre-training is known by when several experiments share it."""
        dials = {key: value for key, value in to_dict(self.pretraining(run)[0]).items() if key not in MAY_CHANGE}
        found: dict[str, Any] = {
            "model": to_dict(self.model(run)),
            "train": dials,
            "shards_sha256": sha256_of(self.shards_of(run).folder / "manifest.json"),
            "long_shards_sha256": None if self.long is None else sha256_of(self.long.folder / "manifest.json"),
        }
        return found

    def weights(self, run: FinetuneRun) -> Path:
        """Return the model folder that a fine-tuning starts from."""
        folder, step = self.folder(run.start), self.pretraining(run.start)[1][run.part]
        return folder / "model" if run.part == 1.0 else folder / model_name(step)

    def task(self, run: FinetuneRun) -> Task:
        """Return what a fine-tuning learns."""
        found = self.found[run.task]
        task = fitted(found.task, self.max_length(found))
        if run.features != "none":
            assert isinstance(task, TagTask)
            # As wide as the encoder, which in the paper is 768 for both.
            width = self.model(run.start).hidden_size
            return dataclasses.replace(task, features=run.features, lstm_layers=2, lstm_size=width)
        return dataclasses.replace(task, bilstm=run.bilstm)

    def finetuning(self, run: FinetuneRun) -> FinetuneConfig:
        """Return the dials of a fine-tuning."""
        return finetune_config(
            self.order.scale,
            self.order.settings,
            run.task,
            frozen=run.features != "none",
            seed=run.seed,
            max_length=self.max_length(self.found[run.task]),
        )

    def max_length(self, found: Found) -> int:
        """Return a task's longest input: no longer than the examples of pre-training."""
        return min(found.longest, self.longest)

    def examples(self, task: str) -> Examples:
        """Return what a task is trained and scored on, read once."""
        if task not in self._examples:
            given, settings = self.order.scale.finetune_examples, self.order.settings
            most = given if settings.finetune_examples is None else settings.finetune_examples
            self._examples[task] = self.found[task].examples(
                self.out / "data", most_train=most, most_dev=settings.dev_examples
            )
        return self._examples[task]

    def done(self, run: Training) -> dict[str, Any] | None:
        """Return what came of a training; None if it is not done.

        Raises:
            BertwrightError: it is a shared pre-training, made from something else.
        """
        path = self.folder(run) / DONE_FILE
        if not path.exists():
            return None
        found = read_json(path)
        if isinstance(run, PretrainRun):
            _require_same(found["made_from"], json.loads(json.dumps(self.made_from(run))), path)
        return found

    def _require_pairs(self) -> None:
        lacking = [run for run in self.runs.pretrainings if not run.single_segments]
        if lacking and self.shards.manifest.config.objective != "mlm+nsp":
            rows = [row.key for row in self.order.experiment.chosen_rows(self.order.only)
                    if row.pretraining.objective.endswith("+nsp")]  # fmt: skip
            others = [row.key for row in self.order.experiment.rows if row.key not in rows]
            fix = "build them with `bertwright data build --objective mlm+nsp`"
            if others and len(others) < len(self.order.experiment.rows) and not self.order.only:
                fix += f", or leave out those rows: --only {','.join(others)}"
            what = f"these shards hold single segments, and the rows {', '.join(rows)} learn next sentences"
            raise BertwrightError(what, where=self.shards.folder, fix=fix)


def model_name(step: int) -> str:
    """Return the name of the folder that holds a run's weights after a step, inside its run folder."""
    return f"model-at-{step}"


def _columns(experiment: Experiment, score_on: Sequence[str]) -> list[Column]:
    names = [*score_on] or [*(column.task for column in experiment.columns if column.task), *experiment.also]
    columns = [column for column in experiment.columns if column.task is None or column.task in names]
    there = {column.task for column in columns}
    # An unknown name is refused where tasks are looked for.
    more = [Column(key=name.lower(), task=name, metric=KNOWN_TASKS.get(name, "")) for name in dict.fromkeys(names)]
    return columns + [column for column in more if column.task not in there]


def _require_same(saved: Mapping[str, Any], given: Mapping[str, Any], where: Path, prefix: str = "") -> None:
    for key in [*given, *(key for key in saved if key not in given)]:
        before, now = saved.get(key), given.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            _require_same(before, now, where, f"{prefix}{key}.")
        elif before != now and not (prefix == "tasks." and None in (before, now)):
            what = f"the results here are made with {prefix}{key} = {before!r}, this command says {now!r}"
            raise BertwrightError(
                what, where=where, fix="repeat the first command's settings, or choose another folder"
            )
