"""The one training loop: pre-training and fine-tuning are the same function.

    fit(model, objective, stream, config, steps=20_000, run=run, evaluate=held_out_scores, on_event=print)

Each step takes the batch at a position of the stream, sums gradients over its micro-batches, clips, updates, and
advances. Nothing else is state: dropout is seeded by (seed, step, micro-batch), so weights, moments, step and position
are all a run needs to go on bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bertwright.batch import Batch, StepOutput
from bertwright.config import BertConfig, TrainConfig
from bertwright.errors import BertwrightError
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.flops import training_flops
from bertwright.objectives import Objective
from bertwright.training.ahead import ahead
from bertwright.training.breakdown import Breakdown
from bertwright.training.checkpoint import Event, Follower, OnEvent, RunFolder, State
from bertwright.training.distributed import ALONE, Group
from bertwright.training.optim import BertAdam, learning_rate
from bertwright.training.saving import Saver


@runtime_checkable
class Step(Protocol):
    """One step's data."""

    @property
    def micro_batches(self) -> Sequence[Batch]:
        """Batches whose gradients are summed."""
        ...

    @property
    def next_position(self) -> int:
        """Where the next step starts."""
        ...


@runtime_checkable
class Stream(Protocol):
    """Data whose whole state is one integer."""

    def batches_at(self, position: int, step: int) -> Step:
        """Return the data of a step, which starts at a position."""
        ...


class TrainingInterrupted(BertwrightError):
    """A signal asked the run to stop; it was saved first.

    Args:
        step: steps taken.
        number: of the signal.
    """

    def __init__(self, step: int, number: int, run: RunFolder | Follower) -> None:
        super().__init__(
            f"stopped at step {step:,} and saved",
            where=run.path,
            fix="the same command with --resume goes on from here",
        )
        self.step = step
        self.signal = number


class _Meter:
    """What happened since the last line of the log: sums of losses, tokens, arithmetic and time."""

    def __init__(self, config: BertConfig, peak_flops: float, sums: dict[str, list[float]] | None = None) -> None:
        self.config = config
        self.peak_flops = peak_flops
        self.sums: dict[str, list[Any]] = dict(sums or {})
        self._restart()

    def add(self, batch: Batch, output: StepOutput) -> None:
        """Count one micro-batch."""
        for name, term in (output.losses | output.metrics).items():
            total, count = self.sums.get(name, (0.0, 0))
            # In double precision where the term is: nobody waits for a GPU until a row is written.
            self.sums[name] = [total + term.total.detach().double(), count + term.count]
        self.tokens += batch.num_tokens
        self.flops += training_flops(self.config, batch)

    def row(self, group: Group) -> Event:
        """Return means and speeds of all processes, and start anew."""
        seconds = time.perf_counter() - self._since
        work = group.total({"tokens": self.tokens, "flops": self.flops})
        row = means(self.sums, group) | {
            "tokens_per_second": round(work["tokens"] / seconds),
            "mfu": round(work["flops"] / seconds / (self.peak_flops * group.size), 4),
            "seconds": round(seconds, 3),
            "data_seconds": round(self.data_seconds, 3),
        }
        self.sums = {}
        self._restart()
        return row

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent in the block as waiting for data."""
        start = time.perf_counter()
        yield
        self.data_seconds += time.perf_counter() - start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent in the block out of the speed."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def gather(self, group: Group) -> dict[str, list[float]]:
        """Hand what was summed to the first process, and return a copy of it there."""
        sums = _totals(self.sums, group)
        self.sums = sums if group.leads else {}
        return dict(self.sums)

    def _restart(self) -> None:
        self.tokens, self.flops, self.data_seconds, self._since = 0, 0.0, 0.0, time.perf_counter()


def fit(
    model: Bert,
    objective: Objective,
    stream: Stream,
    config: TrainConfig,
    *,
    steps: int,
    run: RunFolder | Follower,
    evaluate: Callable[[int], dict[str, float]],
    on_event: OnEvent,
    group: Group = ALONE,
) -> None:
    """Train a model to its last step, from its newest checkpoint where there is one.

    Args:
        model: trained in place.
        objective: what is minimised.
        stream: the data.
        config: every dial.
        steps: optimizer steps in all.
        run: where metrics and checkpoints go.
        evaluate: given the step, returns scores on held-out data, if any; every `eval_every` steps and at the end.
        on_event: told of every row and message.
        group: the processes that train together; all of them call this function, with the same data.

    Raises:
        TrainingInterrupted: SIGINT or SIGTERM came; the run was saved.
        ProcessDiedError: another process of the group is gone.
        BertwrightError: a gradient or score is not finite; earlier checkpoints are intact.
    """
    optimizer = BertAdam(model, config)
    step, position, sums = _restore(model, optimizer, run, group)
    device = next(model.parameters()).device
    meter = _Meter(model.config, peak := machine.peak_flops(device, model.compute_dtype), sums)
    emit = _both(run.log, on_event)
    on_event({"kind": "start", "step": step, "steps": steps, "parameters": num_parameters(model), "peak_flops": peak})
    with noted_signals() as signals, Saver(run, config, on_event) as saver, ahead(stream, group.own, device) as stream:
        while step < steps:
            with meter.waiting():
                data = stream.batches_at(position, step)
            lr = learning_rate(config, step, steps)
            _accumulate_gradients(model, objective, data.micro_batches, config.seed, step, meter, group)
            norm = _update(optimizer, step, lr, run, range(position, data.next_position), group)
            step, position = step + 1, data.next_position
            last = step == steps
            if last or step % config.log_every == 0:
                emit({"kind": "train", "step": step, "lr": lr, "grad_norm": round(float(norm), 4)} | meter.row(group))
            if last or (config.eval_every and step % config.eval_every == 0):
                with meter.paused():
                    scores = _finite(evaluate(step), step, run)
                if scores:
                    emit({"kind": "eval", "step": step} | scores)
            stopped = max(group.each(signals[0] if signals else 0))
            if last or stopped or (config.checkpoint_every and step % config.checkpoint_every == 0):
                values = {"position": position, "sums": meter.gather(group)}
                with meter.paused():
                    everything = group.gathered(_weights(model) | optimizer.state())
                    saver.save(step, everything, values, needed=last or stopped > 0)
            if stopped and not last:
                raise TrainingInterrupted(step, stopped, run)


def _both(first: OnEvent, second: OnEvent) -> OnEvent:
    def tell(row: Event) -> None:
        first(row)
        second(row)

    return tell


def num_parameters(model: Bert) -> int:
    """Return how many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def evaluate_means(
    model: Bert,
    objective: Objective,
    batches: Sequence[Batch],
    group: Group = ALONE,
    breakdown: Breakdown | None = None,
) -> dict[str, float]:
    """Return an objective's mean losses and metrics over batches, without training; each process does its own.

    With a breakdown, also the same for each of its groups of predicted tokens.
    """
    device = next(model.parameters()).device
    meter = _Meter(model.config, 1.0)
    model.eval()
    with torch.inference_mode():
        for number in group.own(len(batches)):
            batch = batches[number]
            output = group.run(objective, model, batch.to(device))
            meter.add(batch, output)
            if breakdown is not None and output.tokens is not None:
                breakdown.add(batch, output.tokens)
        for _ in range(group.idle_turns(len(batches))):
            group.run(objective, model, batches[0].to(device))
    return means(meter.sums, group) | (breakdown.means(group) if breakdown is not None else {})


def means(sums: Mapping[str, Sequence[Any]], group: Group) -> dict[str, float]:
    """Return the mean of each pair of a sum and a count, over all processes."""
    return {name: round(total / count, 6) for name, (total, count) in _totals(sums, group).items()}


def _totals(sums: Mapping[str, Sequence[Any]], group: Group) -> dict[str, list[float]]:
    totals = group.total({name: float(pair[0]) for name, pair in sums.items()})
    counts = group.total({name: pair[1] for name, pair in sums.items()})
    return {name: [totals[name], counts[name]] for name in totals}


def _accumulate_gradients(
    model: Bert,
    objective: Objective,
    micro_batches: Sequence[Batch],
    seed: int,
    step: int,
    meter: _Meter,
    group: Group = ALONE,
) -> None:
    """Add up the gradient of the sum of mean losses, each mean taken over the micro-batches of all processes."""
    device = next(model.parameters()).device
    with meter.waiting():
        own = {number: micro_batches[number] for number in group.own(len(micro_batches))}
    counted: Counter[str] = Counter()
    for batch in own.values():
        counted.update(objective.counts(batch))
    counts = group.total(counted)
    model.train()
    turns = [(number, batch, True) for number, batch in own.items()]
    turns += [(0, micro_batches[0], False) for _ in range(group.idle_turns(len(micro_batches)))]
    for turn, (number, batch, is_own) in enumerate(turns, start=1):
        torch.manual_seed(_dropout_seed(seed, step, number))
        output = group.run(objective, model, batch.to(device))
        loss = torch.stack([term.total / counts[name] for name, term in output.losses.items()]).sum()
        group.backward(loss if is_own else 0.0 * loss, last=turn == len(turns))
        if is_own:
            meter.add(batch, output)
    group.add_gradients([each for each in model.parameters() if each.requires_grad], len(micro_batches))


def _dropout_seed(*numbers: int) -> int:
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _weights(model: Bert) -> dict[str, Tensor]:
    return {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}


@torch.no_grad()
def _restore(
    model: Bert, optimizer: BertAdam, run: RunFolder | Follower, group: Group
) -> tuple[int, int, dict[str, list[float]]]:
    """Fill model and optimizer of all processes from the newest checkpoint; return its step, position and sums."""
    state = run.load_newest() or State(0, {}, {})
    group.fill(_weights(model) | optimizer.state(), state.tensors)
    run.forget_after(state.step)
    step, values = group.of_first((state.step, state.values))
    return step, values.get("position", 0), values.get("sums", {}) if group.leads else {}


def _update(
    optimizer: BertAdam, step: int, lr: float, run: RunFolder | Follower, examples: range, group: Group
) -> Tensor:
    """Take a step unless a gradient is not finite; return the gradient's norm."""
    norm = group.norm(optimizer.gradient_norm())
    if not math.isfinite(norm):  # the one place in a step that waits for a GPU
        raise BertwrightError(
            f"a gradient of step {step + 1:,} is not finite (examples {examples[0]:,} to {examples[-1]:,} of the "
            "stream): the step was not taken and earlier checkpoints are intact",
            where=run.path,
            fix="lower --lr or raise --warmup-ratio in another --out; --precision fp32 if it was bf16",
        )
    optimizer.step(step, lr, norm)
    optimizer.zero_grad()
    return norm


def _finite(scores: dict[str, float], step: int, run: RunFolder | Follower) -> dict[str, float]:
    wrong = [name for name, value in scores.items() if not math.isfinite(value)]
    if wrong:
        raise BertwrightError(
            f"{wrong[0]} of the evaluation at step {step:,} is not finite; earlier checkpoints are intact",
            where=run.path,
            fix="lower --lr in another --out",
        )
    return scores


_asked: list[int] = []
"""Signals that did not come as such."""


def ask_to_stop(number: int) -> None:
    """Let the training that runs in another thread of this process end as if a signal had come: after its step, saved.

    Args:
        number: of the signal.
    """
    _asked.append(number)


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Yield a list that SIGINT and SIGTERM are written to; a second one acts at once.

    Only the main thread hears of signals: any other gets the list that `ask_to_stop` writes to.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        _asked.clear()
        yield _asked
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
