"""A taste of a training run: the real thing, for some seconds, in a process and a folder of its own.

    probe = measure(model, [config], data=Path("shards"), init=None, flops_per_token=6e7, seconds=30, ...)
    probe.speeds[0].tokens_per_second, probe.peak_bytes

The process is a fresh one, so that nothing of the caller's changes (threads, random numbers, how memory is kept), its
peak of memory is that of training alone, and running out of it ends nobody else. The folder is removed at the end.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from bertwright.config import BertConfig, PretrainConfig
from bertwright.errors import BertwrightError
from bertwright.model import machine
from bertwright.processes import follow_parent
from bertwright.training.checkpoint import Event
from bertwright.training.pretrain import pretrain

T = TypeVar("T")

_FEWEST_STEPS = 3
"""The first is not counted: kernels are made in it, and pages of memory."""
_WARM_UP = 0.2
"""Share of the steps that is not counted."""
_BLOCKS = 4
"""Parts of the probe whose slowest and fastest are the range."""
_NO_END = 10**9
"""Steps of a run that is stopped."""
_USUAL_SHARE = 0.3
"""Of the measured peak: what tells whether a whole step is too much for the probe."""


@dataclass(frozen=True)
class Speed:
    """How fast training went."""

    tokens_per_second: float
    slowest: float
    """Tokens per second of the slowest of four consecutive parts."""
    fastest: float
    """Likewise."""
    share_of_peak: float
    """Of what the machine was measured to do on one large product."""
    steps: int
    """Counted, without those of the warm-up."""
    seconds: float
    """That they took."""


@dataclass(frozen=True)
class Extras:
    """What a run takes beside its steps, seconds."""

    start: float
    """To open the data and to make the model."""
    evaluation: float
    """On a micro-batch of held-out data, or on all of it if that is less."""
    checkpoint: float
    end: float
    """To write the model and the samples of the report."""


@dataclass(frozen=True)
class Probe:
    """What was measured."""

    speeds: tuple[Speed, ...]
    """One for each phase of the run."""
    peak_bytes: int
    """Most resident memory of the process, all of Python and torch included; on a GPU, most memory held there."""
    batch_tokens: int
    """Tokens in a step of the probe: fewer than the run's where the probe had no time for whole ones."""
    extras: Extras | None = None
    """What a run takes beside its steps, where it was asked for."""


class _Enough(Exception):
    """The probe has lasted long enough."""


def measure(
    model: BertConfig,
    phases: Sequence[PretrainConfig],
    *,
    data: Path,
    long_data: Path | None,
    init: Path | None,
    flops_per_token: float,
    seconds: float,
    progress: Callable[[str, float], None],
    with_extras: bool = False,
) -> Probe:
    """Train for some seconds, the time shared by the phases.

    Args:
        model: the recipe's shape, as `pretrain` takes it.
        phases: settings of each phase.
        data: a shard folder.
        long_data: one for settings whose `long_ratio` is 1.
        init: a model folder to start from.
        flops_per_token: of a training step.
        seconds: how long; longer where three steps take longer.
        progress: told how far it is.
        with_extras: also train one step to its end, with all that comes after it.

    Raises:
        BertwrightError: the probe ran out of memory, or training itself refused.
    """
    extras = None
    with (
        tempfile.TemporaryDirectory(prefix="bertwright-plan-") as folder,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=follow_parent) as executor,
    ):
        try:
            each = seconds / len(phases)
            whole = max(phases, key=lambda phase: phase.batch_tokens)
            batch_tokens = _wait(executor.submit(_batch_tokens, whole, flops_per_token, each), seconds, progress)
            sizes = [min(phase.batch_tokens, batch_tokens) for phase in phases]
            parts = [
                dataclasses.replace(phase, batch_tokens=size, long_batch_tokens=size)
                for phase, size in zip(phases, sizes, strict=True)
            ]
            running = executor.submit(_train, model, parts, (data, long_data), init, Path(folder), each)
            speeds, peak = _wait(running, seconds, progress)
            if with_extras:
                one = dataclasses.replace(parts[-1], short_ratio=0.0, long_ratio=0.0)
                extras = _wait(executor.submit(_extras, model, one, data, init, Path(folder)), seconds, progress)
        except BrokenProcessPool:
            raise BertwrightError(
                "the probe died: it ran out of memory, or the calling script starts again in every process",
                fix="lower --micro-batch-tokens; in a script, call this under `if __name__ == '__main__':`",
            ) from None
    return Probe(tuple(speeds), peak, batch_tokens, extras)


def speed_of(rows: Sequence[Event]) -> Speed:
    """Return the speed of a run from its rows of metrics, one for each step.

    Args:
        rows: with `tokens_per_second`, `seconds` and `mfu`, in order; at least two.
    """
    counted = rows[max(1, round(_WARM_UP * len(rows))) :]
    size = -(-len(counted) // _BLOCKS)
    blocks = [_tokens_per_second(counted[start : start + size]) for start in range(0, len(counted), size)]
    seconds = sum(row["seconds"] for row in counted)
    return Speed(
        tokens_per_second=_tokens_per_second(counted),
        slowest=min(blocks),
        fastest=max(blocks),
        share_of_peak=sum(row["mfu"] * row["seconds"] for row in counted) / seconds,
        steps=len(counted),
        seconds=seconds,
    )


def _tokens_per_second(rows: Sequence[Event]) -> float:
    tokens = sum(row["tokens_per_second"] * row["seconds"] for row in rows)
    return float(tokens / sum(row["seconds"] for row in rows))


def _wait(future: Future[T], seconds: float, progress: Callable[[str, float], None]) -> T:
    start = time.monotonic()
    while not wait([future], timeout=0.2).done:
        progress("probe", min(1.0, (time.monotonic() - start) / seconds))
    return future.result()


def _batch_tokens(config: PretrainConfig, flops_per_token: float, seconds: float) -> int:
    """Return the tokens of a probe's step: all of a step's, or those of a micro-batch where time is short."""
    device = machine.prepare(config.threads)
    peak = machine.peak_flops(device, machine.compute_dtype(config.precision, device))
    expected = config.batch_tokens * flops_per_token / (_USUAL_SHARE * peak)
    enough = expected * 2 * _BLOCKS <= seconds
    return config.batch_tokens if enough else min(config.batch_tokens, config.micro_batch_tokens)


def _train(
    model: BertConfig,
    phases: Sequence[PretrainConfig],
    data: tuple[Path, Path | None],
    init: Path | None,
    folder: Path,
    seconds: float,
) -> tuple[list[Speed], int]:
    return [_speed(model, phase, data, init, folder / str(n), seconds) for n, phase in enumerate(phases)], _peak_bytes()


def _speed(
    model: BertConfig,
    config: PretrainConfig,
    data: tuple[Path, Path | None],
    init: Path | None,
    out: Path,
    seconds: float,
) -> Speed:
    rows: list[Event] = []
    begun = 0.0

    def note(event: Event) -> None:
        nonlocal begun
        if event["kind"] == "start":
            begun = time.monotonic()
        elif event["kind"] == "train":
            rows.append(event)
            if len(rows) >= _FEWEST_STEPS and time.monotonic() - begun >= seconds:
                raise _Enough

    endless = dataclasses.replace(
        config,
        steps=_NO_END,
        log_every=1,
        eval_every=0,
        checkpoint_every=0,
        tensorboard=False,
        mlflow=False,
        wandb=False,
    )
    try:
        shards, long_shards = data[0], data[1] if config.long_ratio == 1 else None
        pretrain(model, endless, data=shards, long_data=long_shards, out=out, init=init, on_event=note)
    except _Enough:
        return speed_of(rows)
    raise AssertionError("it never ends by itself")


def _extras(model: BertConfig, config: PretrainConfig, data: Path, init: Path | None, folder: Path) -> Extras:
    """Take one step, evaluate on a micro-batch, write a checkpoint and the model, and time each."""
    times: dict[str, float] = {"called": time.monotonic()}

    def note(event: Event) -> None:
        times[event["kind"]] = time.monotonic()

    few = config.micro_batch_tokens
    one = dataclasses.replace(
        config, steps=1, log_every=1, eval_every=0, checkpoint_every=0, eval_tokens=few, tensorboard=False
    )
    pretrain(model, one, data=data, out=folder / "extras", init=init, on_event=note)
    evaluated = times.get("eval", times["train"])  # no held-out data: nothing is evaluated
    return Extras(
        start=times["start"] - times["called"],
        evaluation=evaluated - times["train"],
        checkpoint=times["saved"] - evaluated,
        end=time.monotonic() - times["saved"],
    )


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:  # the system's other figure, ru_maxrss, may be that of the process this one was made by
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
