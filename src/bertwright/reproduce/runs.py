"""From a table to the trainings it needs, each of them once, in the order in which they are run.

    runs = plan_runs(get_experiment("table5"), get_scale("tiny"), [MRPC], seeds=3)
    [run.folder for run in runs.trainings]           # ['pretrain/bert-seed0', 'finetune/bert-seed0/mrpc-seed0', ...]

Rows that differ in fine-tuning alone share their pre-training; cells that would be trained alike share their run. The
first seeds of all rows come first: a table that is not finished has one number in every cell before it has two in any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import gcd

from bertwright.config import PretrainConfig
from bertwright.errors import BertwrightError
from bertwright.model.feature_heads import layers_of
from bertwright.options import FeatureMix
from bertwright.reproduce.experiments import Column, Experiment, Pretraining, Row
from bertwright.reproduce.scales import Scale, shape_of

_UNITS = 20
"""Every part of a run at which it is looked at is so many twentieths of it."""
_NAMES = {"mlm+nsp": "bert", "mlm": "no-nsp", "ltr": "ltr-no-nsp", "ltr+nsp": "ltr"}


@dataclass(frozen=True)
class PretrainRun:
    """One pre-training."""

    folder: str
    """Within the folder of all pre-trainings: what is changed, and the seed."""
    pretraining: Pretraining
    """What is changed."""
    seed: int
    parts: tuple[float, ...] = (1.0,)
    """Shares of the steps after which weights are taken."""

    @property
    def single_segments(self) -> bool:
        """Whether it can do without pairs."""
        return not self.pretraining.objective.endswith("+nsp")


@dataclass(frozen=True)
class FinetuneRun:
    """One fine-tuning."""

    folder: str
    """Within the folder of all fine-tunings: row, pre-training's seed, column, own seed."""
    start: PretrainRun
    """Where its weights come from."""
    part: float
    """After which share of that run's steps."""
    task: str
    """One of `sources`."""
    bilstm: int
    """Layers of a BiLSTM on top."""
    features: FeatureMix
    """What a BiLSTM on the frozen encoder reads; none: all is trained."""
    seed: int


Training = PretrainRun | FinetuneRun


def kind_of(run: Training) -> str:
    """Return `pretrain` or `finetune`."""
    return "pretrain" if isinstance(run, PretrainRun) else "finetune"


@dataclass(frozen=True)
class Runs:
    """All trainings of a table."""

    trainings: list[Training]
    """In the order in which they are run."""
    cells: dict[tuple[str, str], list[Training]] = field(default_factory=dict)
    """By row and column, the runs whose scores are in that cell."""

    @property
    def pretrainings(self) -> list[PretrainRun]:
        """Those of the trainings that start from random weights."""
        return [run for run in self.trainings if isinstance(run, PretrainRun)]

    @property
    def finetunings(self) -> list[FinetuneRun]:
        """The other ones."""
        return [run for run in self.trainings if isinstance(run, FinetuneRun)]


def plan_runs(
    experiment: Experiment,
    scale: Scale,
    columns: Sequence[Column],
    *,
    only: Sequence[str] = (),
    seeds: int = 1,
    pretrain_seeds: int = 1,
) -> Runs:
    """Return the trainings that a table needs.

    Args:
        experiment: the table.
        scale: its size, which tells which rows' encoders are the same.
        columns: those that can be scored.
        only: keys of the rows; all if none is named.
        seeds: fine-tunings of each cell from one pre-training, seeds 0, 1, ...
        pretrain_seeds: pre-trainings of each row, likewise.

    Raises:
        BertwrightError: a row is not known, or there are no seeds.
    """
    for name, count in (("seeds", seeds), ("pretrain-seeds", pretrain_seeds)):
        if count < 1:
            raise BertwrightError(f"--{name} must be at least 1, not {count}")
    known: dict[object, Training] = {}
    runs = Runs([])

    def once(key: object, run: Training) -> Training:
        if key not in known:
            known[key] = run
            runs.trainings.append(run)
        return known[key]

    rows, parts = experiment.chosen_rows(only), _parts(experiment.rows)
    for pretrain_seed in range(pretrain_seeds):
        for seed in range(seeds):
            for row in rows:
                start = _pretrain_run(row.pretraining, scale, pretrain_seed, parts)
                once(start, start)
                for column in columns:
                    run: Training = start
                    if column.task is not None:
                        tuned = _finetune_run(row, column, start, seed, scale)
                        run = once(replace(tuned, folder=""), tuned)
                    cell = runs.cells.setdefault((row.key, column.key), [])
                    if run not in cell:
                        cell.append(run)
    return runs


def _parts(rows: Sequence[Row]) -> dict[Pretraining, tuple[float, ...]]:
    """Return, for each pre-training taken to its end, the parts at which rows want its weights."""
    found: dict[Pretraining, set[float]] = {}
    for row in rows:
        found.setdefault(replace(row.pretraining, part=1.0), {1.0}).add(row.pretraining.part)
    return {whole: tuple(sorted(parts)) for whole, parts in found.items()}


def _pretrain_run(
    pretraining: Pretraining, scale: Scale, seed: int, parts: dict[Pretraining, tuple[float, ...]]
) -> PretrainRun:
    whole = replace(pretraining, part=1.0)
    taken = parts[whole]
    folder = f"{_name(whole, scale)}{'-over-time' if len(taken) > 1 else ''}-seed{seed}"
    if shape_of(scale, whole) == scale.shape:
        whole = replace(whole, rung=None)
    return PretrainRun(folder, whole, seed, taken)


def _name(pretraining: Pretraining, scale: Scale) -> str:
    words = [_NAMES[pretraining.objective]]
    if (shape := shape_of(scale, pretraining)) != scale.shape:
        words.append("x".join(map(str, shape)))
    if pretraining.masks != Pretraining().masks:
        words.append("masks-" + "-".join(map(str, pretraining.masks)))
    return "-".join(words)


def _finetune_run(row: Row, column: Column, start: PretrainRun, seed: int, scale: Scale) -> FinetuneRun:
    assert column.task is not None
    features = column.features if column.features != "none" else row.features
    return FinetuneRun(
        folder=f"{row.key}-seed{start.seed}/{column.key}-seed{seed}",
        start=start,
        part=row.pretraining.part,
        task=column.task,
        bilstm=row.bilstm,
        features=_plainest(features, shape_of(scale, row.pretraining).layers),
        seed=seed,
    )


def _plainest(features: FeatureMix, layers: int) -> FeatureMix:
    """Return a name for what is read that is the same where the same is read: four layers may be all there are."""
    same: dict[FeatureMix, FeatureMix] = {"weighted-sum-all": "weighted-sum-last-4", "sum-all": "sum-last-4"}
    other = same.get(features)
    return other if other is not None and layers_of(features, layers) == layers_of(other, layers) else features


def kept_steps(config: PretrainConfig, parts: Sequence[float]) -> tuple[int, dict[float, int]]:
    """Return how often a run is to be saved, and after which step each of its parts ends.

    A part ends where a checkpoint is written: `steps` is cut into twentieths, and checkpoints divide them. With no part
    but the whole, the run is saved as often as it says.
    """
    if tuple(parts) == (1.0,):
        return config.checkpoint_every, {1.0: config.steps}
    unit = max(1, config.steps // _UNITS)
    wanted = [round(part * _UNITS) * unit for part in parts if part < 1.0]
    apart = gcd(*wanted)
    limit = min(config.checkpoint_every or apart, apart)
    every = max(number for number in range(1, limit + 1) if apart % number == 0)
    every = apart if 4 * every < limit else every
    ends = {part: round(part * _UNITS) * unit for part in parts if part < 1.0}
    return every, ends | {1.0: config.steps}
