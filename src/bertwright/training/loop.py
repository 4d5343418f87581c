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
from collections.abc import Callable, Iterable, Iterator
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
from bertwright.training.checkpoint import RunFolder, State
from bertwright.training.optim import BertAdam, learning_rate

Event = dict[str, Any]
"""What happened: a row of `metrics.jsonl`, or `{"kind": "start" | "message" | "saved", ...}`."""
OnEvent = Callable[[Event], None]


@runtime_checkable
class Step(Protocol):
    """One step's data."""

    @property
    def micro_batches(self) -> list[Batch]:
        """Batches whose gradients are summed."""
        ...

    @property
    def next_position(self) -> int:
        """Where the next step starts."""
        ...


@runtime_checkable
class Stream(Protocol):
    """Data whose whole state is one integer."""

    def batches_at(self, position: int) -> Step:
        """Return the step that starts at a position."""
        ...


class TrainingInterrupted(BertwrightError):
    """A signal asked the run to stop; it was saved first.

    Args:
        step: steps taken.
        number: of the signal.
    """

    def __init__(self, step: int, number: int, run: RunFolder) -> None:
        super().__init__(
            f"stopped at step {step:,} and saved",
            where=run.path,
            fix="the same command with --resume goes on from here",
        )
        self.signal = number


class _Meter:
    """What happened since the last line of the log: sums of losses, tokens, arithmetic and time."""

    def __init__(self, config: BertConfig, peak_flops: float, sums: dict[str, list[float]] | None = None) -> None:
        self.config = config
        self.peak_flops = peak_flops
        self.sums = sums or {}
        self._restart()

    def add(self, batch: Batch, output: StepOutput) -> None:
        """Count one micro-batch."""
        for name, term in (output.losses | output.metrics).items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + float(term.total.detach()), count + term.count]
        self.tokens += batch.num_tokens
        self.flops += training_flops(self.config, batch)

    def row(self) -> Event:
        """Return means and speeds, and start anew."""
        seconds = time.perf_counter() - self._since
        row = {name: round(total / count, 6) for name, (total, count) in self.sums.items()} | {
            "tokens_per_second": round(self.tokens / seconds),
            "mfu": round(self.flops / seconds / self.peak_flops, 4),
            "seconds": round(seconds, 3),
        }
        self.sums = {}
        self._restart()
        return row

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent in the block out of the speed."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def _restart(self) -> None:
        self.tokens, self.flops, self._since = 0, 0.0, time.perf_counter()


def fit(
    model: Bert,
    objective: Objective,
    stream: Stream,
    config: TrainConfig,
    *,
    steps: int,
    run: RunFolder,
    evaluate: Callable[[int], dict[str, float]],
    on_event: OnEvent,
) -> None:
    """Train a model to its last step, from its newest checkpoint where there is one.

    Args:
        model: trained in place.
        objective: what is minimised.
        stream: the data.
        config: every dial.
        steps: optimizer steps in all.
        run: where metrics and checkpoints go.
        evaluate: given the step, returns scores on held-out data, or none where there is no such data; called every
            `eval_every` steps and at the end.
        on_event: told of every row and message.

    Raises:
        TrainingInterrupted: SIGINT or SIGTERM came; the run was saved.
        BertwrightError: a gradient or score is not finite; earlier checkpoints are intact.
    """
    optimizer = BertAdam(model, config)
    state = _restore(model, optimizer, run)
    step, position = state.step, state.values.get("position", 0)
    peak = machine.peak_flops(next(model.parameters()).device, model.compute_dtype)
    meter = _Meter(model.config, peak, state.values.get("sums"))
    emit = _both(run.log, on_event)
    on_event({"kind": "start", "step": step, "steps": steps, "parameters": num_parameters(model), "peak_flops": peak})
    with _signals() as signals:
        while step < steps:
            data = stream.batches_at(position)
            lr = learning_rate(config, step, steps)
            _accumulate_gradients(model, objective, data.micro_batches, config.seed, step, meter)
            norm = optimizer.gradient_norm()
            _require_finite(norm, step, range(position, data.next_position), run)
            optimizer.step(step, lr, norm)
            optimizer.zero_grad()
            step, position = step + 1, data.next_position
            last = step == steps
            if last or step % config.log_every == 0:
                emit({"kind": "train", "step": step, "lr": lr, "grad_norm": round(float(norm), 4)} | meter.row())
            if last or (config.eval_every and step % config.eval_every == 0):
                with meter.paused():
                    scores = _finite(evaluate(step), step, run)
                if scores:
                    emit({"kind": "eval", "step": step} | scores)
            if last or signals or (config.checkpoint_every and step % config.checkpoint_every == 0):
                tensors, values = _weights(model) | optimizer.state(), {"position": position, "sums": meter.sums}
                with meter.paused():
                    run.save(step, tensors, values, keep=config.keep_checkpoints)
                on_event({"kind": "saved", "step": step})
            if signals and not last:
                raise TrainingInterrupted(step, signals[0], run)


def _both(first: OnEvent, second: OnEvent) -> OnEvent:
    def tell(row: Event) -> None:
        first(row)
        second(row)

    return tell


def num_parameters(model: Bert) -> int:
    """Return how many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def evaluate_means(model: Bert, objective: Objective, batches: Iterable[Batch]) -> dict[str, float]:
    """Return an objective's mean losses and metrics over batches, without training."""
    device = next(model.parameters()).device
    meter = _Meter(model.config, 1.0)
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            meter.add(batch, objective(model, batch.to(device)))
    return {name: round(total / count, 6) for name, (total, count) in meter.sums.items()}


def _accumulate_gradients(
    model: Bert, objective: Objective, micro_batches: list[Batch], seed: int, step: int, meter: _Meter
) -> None:
    """Add up the gradient of the sum of mean losses, each mean taken over all micro-batches."""
    device = next(model.parameters()).device
    counts: Counter[str] = Counter()
    for batch in micro_batches:
        counts.update(objective.counts(batch))
    model.train()
    for number, batch in enumerate(micro_batches):
        torch.manual_seed(_dropout_seed(seed, step, number))
        output = objective(model, batch.to(device))
        torch.stack([term.total / counts[name] for name, term in output.losses.items()]).sum().backward()
        meter.add(batch, output)


def _dropout_seed(*numbers: int) -> int:
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _weights(model: Bert) -> dict[str, Tensor]:
    return {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}


@torch.no_grad()
def _restore(model: Bert, optimizer: BertAdam, run: RunFolder) -> State:
    state = run.load_newest() or State(0, {}, {})
    if state.tensors:
        for name, tensor in _weights(model).items():
            tensor.copy_(state.tensors[name])
        optimizer.load_state(state.tensors)
    run.forget_after(state.step)
    return state


def _require_finite(norm: Tensor, step: int, examples: range, run: RunFolder) -> None:
    if not math.isfinite(norm):
        raise BertwrightError(
            f"a gradient of step {step + 1:,} is not finite (examples {examples[0]:,} to {examples[-1]:,} of the "
            "stream): the step was not taken and earlier checkpoints are intact",
            where=run.path,
            fix="lower --lr or raise --warmup-ratio in another --out; --precision fp32 if it was bf16",
        )


def _finite(scores: dict[str, float], step: int, run: RunFolder) -> dict[str, float]:
    wrong = [name for name, value in scores.items() if not math.isfinite(value)]
    if wrong:
        raise BertwrightError(
            f"{wrong[0]} of the evaluation at step {step:,} is not finite; earlier checkpoints are intact",
            where=run.path,
            fix="lower --lr in another --out",
        )
    return scores


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Yield a list that SIGINT and SIGTERM are written to; a second one acts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
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
