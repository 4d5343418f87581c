"""What speed comparisons share: turns, medians of ratios, the machine's roof, a JSON file that says how it was made.

    cases = {"bertwright bf16": ours, "transformers bf16": theirs}      # each does the same work once, returns seconds
    result = compare(cases, pairs=[("bertwright bf16", "transformers bf16")], repeats=5)
    save(Path("benchmarks/results/x.json"), result)

Cases take turns, so what else the machine does meets all of them; a ratio is the median over the turns. A peer lives in
a process of its own, as its users run it: what `machine.prepare` sets for a process is part of ours.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import multiprocessing
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

if "BERTWRIGHT_BENCH_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # these are figures of the processor
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = os.environ["HF_HUB_OFFLINE"] = "1"

import torch

from bertwright.batch import Batch
from bertwright.config import TrainConfig
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.flops import training_flops
from bertwright.objectives import Objective
from bertwright.training.checkpoint import RunFolder, versions
from bertwright.training.loop import fit

BASE = Path(__file__).resolve().parent
SHARED = BASE.parents[1] / "shared" / "data"
Results = dict[str, Any]
Library = Literal["default", "onednn"]

_DEFAULT = torch.backends.mkldnn.matmul.fp32_precision


class InOwnProcess:
    """An object that lives in a process of its own and sleeps between calls.

    Args:
        threads: of the process; 0 leaves torch's choice.
        kind: its class, at the top of a module.
        arguments: of the class.
    """

    def __init__(self, threads: int, kind: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, threads, kind, arguments), daemon=True).start()
        theirs.close()
        self._receive()

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method and return what it returns."""
        self._pipe.send((method, arguments, options))
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise SystemExit("the peer's process ended; its message stands above") from None


def _serve(pipe: Connection, threads: int, kind: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if threads:
        torch.set_num_threads(threads)
    served = kind(*arguments)
    pipe.send(None)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            method, arguments, options = pipe.recv()
            pipe.send(getattr(served, method)(*arguments, **options))


@contextlib.contextmanager
def fp32_products(library: Library) -> Iterator[None]:
    """Send fp32 products to torch's default library (MKL on most machines) or to oneDNN."""
    backend = torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    backend.fp32_precision = _onednn() if library == "onednn" else _DEFAULT
    try:
        yield
    finally:
        backend.fp32_precision = before


@functools.cache
def _onednn() -> str:
    """Return the setting that sends fp32 products to oneDNN, or the default where that would cost precision."""
    backend = torch.backends.mkldnn.matmul
    before = backend.fp32_precision
    machine.use_onednn_for_fp32()
    proven, backend.fp32_precision = backend.fp32_precision, before
    return proven


class Unsaved(RunFolder):
    """A run folder that keeps nothing, so that the training loop itself is timed and no disk."""

    def __init__(self) -> None:
        self.path = Path("unsaved")

    def load_newest(self) -> None:
        return None

    def forget_after(self, step: int) -> None: ...

    def log(self, row: Mapping[str, Any]) -> None: ...

    def save(self, *args: Any, **values: Any) -> None: ...


def train(model: Bert, objective: Objective, stream: Any, config: TrainConfig, steps: int) -> float:
    """Run the training loop for some steps and return the seconds it reports."""
    events: list[dict[str, Any]] = []
    fit(model, objective, stream, config, steps=steps, run=Unsaved(), evaluate=lambda step: {}, on_event=events.append)
    return sum(event["seconds"] for event in events if event["kind"] == "train")


def require_close(name: str, ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> Results:
    """Compare outputs before anything is timed; return them for the record.

    Raises:
        SystemExit: they differ by more than the tolerance, relative to the peer's.
    """
    error = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
    if not error <= tolerance:
        raise SystemExit(f"{name}: {ours} is not {theirs} within {tolerance:g}: nothing was timed")
    return {"ours": list(ours), "theirs": list(theirs), "largest_relative_difference": error, "tolerance": tolerance}


def compare(cases: Mapping[str, Callable[[], float]], pairs: Sequence[tuple[str, str]], repeats: int) -> Results:
    """Let cases take turns.

    Args:
        cases: each does its work once and returns the seconds it took; the first turn of each is not counted.
        pairs: (ours, theirs) whose ratio theirs / ours is wanted; above 1, ours is quicker.
        repeats: turns counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(-1, repeats):
        for name in list(cases)[:: 1 if turn % 2 else -1]:
            took = cases[name]()
            note = f"turn {turn + 1} of {repeats}" if turn >= 0 else "warm-up"
            print(f"{note:>15}  {name:<34} {took:8.2f} s", flush=True)
            if turn >= 0:
                seconds[name].append(took)
    each = {pair: [b / a for a, b in zip(seconds[pair[0]], seconds[pair[1]], strict=True)] for pair in pairs}
    return {
        "repeats": repeats,
        "seconds": seconds,
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratios": {
            f"{ours} vs {theirs}": {"median": statistics.median(ratios), "each": ratios}
            for (ours, theirs), ratios in each.items()
        },
    }


def rates(result: Results, unit: str, amount: int, flops: float, peaks: Mapping[str, float]) -> None:
    """Add to a result what its median seconds mean: units per second, and the share of the machine's roof.

    Args:
        result: of `compare`; case names end in their precision.
        unit: what is counted, such as `tokens`.
        amount: how many of them every case works on.
        flops: the arithmetic this work needs, without padding, with the vocabulary on masked tokens alone.
        peaks: floating-point operations per second by precision.
    """
    medians = result["median_seconds"]
    result[f"{unit}_per_second"] = {name: amount / seconds for name, seconds in medians.items()}
    result["useful_flops"] = flops
    result["share_of_peak"] = {
        name: flops / seconds / peaks["bf16" if "bf16" in name else "fp32"] for name, seconds in medians.items()
    }


def useful_flops(model: Bert, batches: Sequence[Batch]) -> float:
    """Return the arithmetic of a training pass over batches."""
    return sum(training_flops(model.config, batch) for batch in batches)


def product_peaks() -> dict[str, float]:
    """Measure what one product reaches, in floating-point operations per second: the best of torch's ways."""
    return {
        "bf16": max(_product_flops(torch.bfloat16), _product_flops(torch.bfloat16, packed=True)),
        "fp32": max(_product_flops(torch.float32), _product_flops(torch.float32, packed=True)),
        "fp32_default_library": _default_library_flops(),
    }


def _default_library_flops() -> float:
    with fp32_products("default"):
        return _product_flops(torch.float32)


def _product_flops(dtype: torch.dtype, *, packed: bool = False, seconds: float = 1.0) -> float:
    rows, inner, columns = 2048, 768, 3072
    x, weight = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    if packed:
        operations = torch.ops.mkldnn
        weight = operations._reorder_linear_weight(weight, rows)
    while time.perf_counter() < end:
        start = time.perf_counter()
        if packed:
            operations._linear_pointwise(x, weight, None, "none", [], "")
        else:
            torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / best


def describe_machine(*packages: str) -> Results:
    """Return what figures depend on: processor, threads, load, versions."""
    return {
        "command": _command(),
        "versions": versions() | {name: importlib.metadata.version(name) for name in packages},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
    }


def save(path: Path, result: Results) -> None:
    """Write a result, floats to five significant digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(result), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {path}")


def print_ratios(result: Results) -> None:
    """Print the medians and ratios of a result."""
    unit = next(key for key in result if key.endswith("_per_second"))
    for name, rate in result[unit].items():
        print(f"{name:<34} {rate:10,.0f} {unit.replace('_', ' ')}  {result['share_of_peak'][name]:6.1%} of the peak")
    for name, ratio in result["ratios"].items():
        print(f"{name:<66} {ratio['median']:6.2f}x   ({min(ratio['each']):.2f} to {max(ratio['each']):.2f})")


def _command() -> str:
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
