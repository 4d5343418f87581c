"""What trainings cost, before they are run: arithmetic by counting, seconds by what was measured.

    cost = Cost(bench)
    cost.seconds(run)        # None until something was measured: a probe, or a training that is done

An estimate. Fine-tuning is reckoned by the pace of pre-training until one is done, and no time is counted for reading.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bertwright.model.flops import training_flops
from bertwright.reproduce.runs import FinetuneRun, PretrainRun, Training
from bertwright.reproduce.sources import draw
from bertwright.reproduce.workbench import Workbench
from bertwright.tasks import Example, Task
from bertwright.training.plan import Plan, plan_pretraining

_SAMPLE = 64
"""Examples of a task that stand for all."""
_FORWARD = 1 / 3
"""Share of a training step's arithmetic that answering takes."""


class Cost:
    """Arithmetic and time of an experiment's trainings.

    Args:
        bench: the experiment.
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self._flops: dict[object, float] = {}
        self._probed: dict[object, float] = {}
        """Seconds a FLOP, by kind of pre-training."""
        self._taken: dict[Training, float] = {}
        """Seconds of what is done."""
        self.look()

    def look(self) -> None:
        """Learn how long the trainings took that are done by now."""
        for run in self.bench.runs.trainings:
            if run not in self._taken and (done := self.bench.done(run)) is not None:
                self._taken[run] = done["seconds"]

    def is_done(self, run: Training) -> bool:
        """Return whether a training was done at the last look."""
        return run in self._taken

    def flops(self, run: Training) -> float:
        """Return the floating-point operations of a training."""
        key = _kind(run)
        if key not in self._flops:
            self._flops[key] = self._pretrain(run) if isinstance(run, PretrainRun) else self._finetune(run)
        return self._flops[key]

    def seconds(self, run: Training) -> float | None:
        """Return how long a training takes: as long as others of its kind, or by the pace of what comes nearest."""
        alike = [taken for other, taken in self._taken.items() if _kind(other) == _kind(run)]
        if alike:
            return sum(alike) / len(alike)
        start = run if isinstance(run, PretrainRun) else run.start
        pace = self._pace(type(run)) or self._probed.get(_kind(start)) or self._pace(PretrainRun)
        return None if pace is None else self.flops(run) * pace

    def left(self) -> float | None:
        """Return about how many seconds all trainings take that are not done; None if that cannot be said."""
        seconds = [self.seconds(run) for run in self.bench.runs.trainings if run not in self._taken]
        known = [each for each in seconds if each is not None]
        return sum(known) if len(known) == len(seconds) else None

    def probe(self, seconds: float, progress: Callable[[str, float], None]) -> None:
        """Try every kind of pre-training that is not done yet for some seconds."""
        for run in self.bench.runs.pretrainings:
            if seconds and _kind(run) not in {*self._probed, *map(_kind, self._taken)}:
                plan = self._plan(run, seconds, progress)
                if plan.seconds is not None:
                    self._probed[_kind(run)] = plan.seconds["likely"] / plan.flops["per_run"]

    def _pace(self, kind: type[Training]) -> float | None:
        """Return the seconds a FLOP of all trainings of a kind that are done."""
        taken = {run: seconds for run, seconds in self._taken.items() if isinstance(run, kind)}
        return sum(taken.values()) / sum(map(self.flops, taken)) if taken else None

    def _plan(self, run: PretrainRun, seconds: float, progress: Callable[[str, float], None]) -> Plan:
        bench = self.bench
        return plan_pretraining(
            bench.model(run),
            bench.pretraining(run)[0],
            data=bench.shards_of(run).folder,
            long_data=bench.order.long_data,
            probe_seconds=seconds,
            progress=progress,
        )

    def _pretrain(self, run: PretrainRun) -> float:
        return self._plan(run, 0.0, lambda stage, share: None).flops["per_run"]

    def _finetune(self, run: FinetuneRun) -> float:
        bench, config = self.bench, self.bench.finetuning(run)
        examples = bench.examples(run.task)
        task = bench.task(run).learn(examples.train)
        train, dev = (self._per_example(run, task, some) * len(some) for some in (examples.train, examples.dev))
        frozen = run.features != "none"
        return config.epochs * (train * (_FORWARD if frozen else 1.0) + dev * _FORWARD)

    def _per_example(self, run: FinetuneRun, task: Task, examples: list[Example]) -> float:
        some = draw(examples, _SAMPLE)
        with _quiet():
            features = task.encode(some, self.bench.shards.wordpiece, self.bench.max_length(self.bench.found[run.task]))
        return training_flops(self.bench.model(run.start), task.collate(features)) / len(some)


def _kind(run: Training) -> object:
    """Return what trainings that cost the same have in common."""
    if isinstance(run, PretrainRun):
        return run.pretraining.rung, run.pretraining.objective
    return run.start.pretraining.rung, run.task, run.bilstm, run.features


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what encoding says of a sample: it will be said of all."""
    logger = logging.getLogger("bertwright")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
