"""Pre-training on a cluster: Ray Train starts the processes, each of which calls the very same `pretrain`.

pretrain_on_ray(recipe.model, PretrainConfig(steps=20_000), data=Path("/shared/shards"), out=Path("/shared/run"))

The run folder is all the state there is. If a worker or its machine dies, the others are ended, and the group starts
again from the newest checkpoint, to the same weights. The first worker's events come to the process that called, whose
Ctrl-C goes the other way: the run stops after its step, saved.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from bertwright.cluster import cluster, open_line, this_node
from bertwright.config import BertConfig, PretrainConfig
from bertwright.errors import BertwrightError
from bertwright.training.checkpoint import Event, Follower, OnEvent
from bertwright.training.distributed import require_alone
from bertwright.training.loop import TrainingInterrupted, ask_to_stop, noted_signals
from bertwright.training.pretrain import pretrain

RESTARTS = 3
"""How often in a row the group is started again without a checkpoint in between."""
_PAUSE_SECONDS = 0.5
"""Between two looks at what the other side has to say."""
_END_SECONDS = 20.0
"""How long workers that were told to end may take."""
_LOCK_SECONDS = 90.0
"""How long a new group waits for the run folder that a dead process held: a file system needs time to notice."""
_AT_ONCE = 9
"""Said instead of a signal's number: end without saving."""

_log = logging.getLogger(__name__)

_Launch = Callable[[Callable[[], Any]], Any]


def pretrain_on_ray(
    model: BertConfig,
    config: PretrainConfig,
    *,
    data: Path,
    out: Path,
    long_data: Path | None = None,
    init: Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    on_event: OnEvent = lambda event: None,
) -> Path:
    """Pre-train a BERT on the machines of a cluster and return its model folder, `out/model`; see `cluster` for which.

    All folders must be there for all machines, under the same paths.

    Args:
        model: as for `pretrain`, like all that is not named here.
        config: every dial; a worker takes `threads` processors, or one, or one GPU where there are any.
        data: a shard folder.
        out: the run folder.
        long_data: a shard folder for the last steps.
        init: a model folder to go on from, or a name on the hub.
        resume: go on with the run in `out`.
        workers: processes; None or 0: as many as there is room for.
        on_event: told of every row of `metrics.jsonl` and every message of the first worker.

    Raises:
        TrainingInterrupted: a signal came; the run was saved.
        BertwrightError: Ray is not installed, no cluster can be joined or it is too small, workers died again and
            again, or what `pretrain` raises.
    """
    require_alone("training on Ray")
    where = {"data": data.resolve(), "long_data": long_data and long_data.resolve(), "out": out.resolve()}
    arguments = {"model": model, "config": config, "init": init, "resume": resume, **where}
    with cluster() as found:
        cpus, gpus = (1, 1) if found.on_gpu else (config.threads or 1, 0)
        size = found.workers(workers, cpus=cpus, gpus=gpus)
        out.mkdir(parents=True, exist_ok=True)
        on_event({"kind": "message", "text": f"{size} workers on {found}"})
        launch = partial(_launch, size=size, resources={"CPU": cpus, **({"GPU": gpus} if gpus else {})})
        _Run(launch, arguments, on_event).until_done()
    return out / "model"


class _Run:
    """What the process that called does while others train.

    Args:
        launch: runs a function in all workers, and returns what it returned in the first.
        arguments: of `pretrain`.
        on_event: told of what the first worker tells.
    """

    def __init__(
        self, launch: Callable[[Callable[[], Any]], Any], arguments: dict[str, Any], on_event: OnEvent
    ) -> None:
        self._launch = launch
        self._arguments = arguments
        self._on_event = on_event
        self._refused: dict[int, BertwrightError] = {}
        self._saved = False

    def until_done(self) -> None:
        """Train to the last step, through deaths of workers; see `pretrain_on_ray` for what is raised."""
        deaths, again = 0, False
        with noted_signals() as signals:
            while True:
                self._saved = False
                try:
                    stopped = self._attempt(signals, again=again)
                except _RayFailedError as failed:
                    deaths = 1 if self._saved else deaths + 1
                    self._judge(failed, deaths, stopping=bool(signals))
                else:
                    if stopped is not None:
                        raise TrainingInterrupted(*stopped, Follower(self._arguments["out"]))
                    return
                again = True

    def _attempt(self, signals: Sequence[int], *, again: bool) -> tuple[int, int] | None:
        """Start all workers and wait for their end; return step and signal if they were stopped."""
        import ray

        line = open_line()
        thread = _Thread(partial(self._launch, partial(_work, line, self._arguments, again, Path.cwd())))
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_PAUSE_SECONDS)
                self._hear(ray.get(line.hear.remote(signals[0] if signals else 0)))
            return cast("tuple[int, int] | None", thread.result())
        except ray.exceptions.RayError as error:
            raise _RayFailedError(error) from error
        finally:
            if thread.is_alive():
                line.hear.remote(_AT_ONCE)
                thread.join(_END_SECONDS)
            ray.kill(line)

    def _hear(self, events: list[Event]) -> None:
        for event in events:
            if event["kind"] == "log":
                _log.log(event["level"], "%s", event["text"])
            elif event["kind"] == "refused":
                self._refused[event["rank"]] = BertwrightError(event["what"], where=event["where"], fix=event["fix"])
            else:
                self._saved |= event["kind"] == "saved"
                self._on_event(event)

    def _judge(self, failed: _RayFailedError, deaths: int, *, stopping: bool) -> None:
        """Raise what ends the run; return if it may be started again."""
        if self._refused:
            raise self._refused[min(self._refused)] from failed
        where, go_on = self._arguments["out"], "the same command with --resume goes on from the last checkpoint"
        if not failed.of_worker:
            what = f"Ray could not train ({failed}): are the machines of the cluster in use by others?"
            raise BertwrightError(what, where=where, fix=go_on) from failed
        if stopping:
            raise BertwrightError(f"a worker died before it had saved ({failed})", where=where, fix=go_on) from failed
        if deaths > RESTARTS:
            what = f"workers died {deaths} times, and no checkpoint was saved in between ({failed})"
            raise BertwrightError(what, where=where, fix=go_on) from failed
        self._on_event(
            {"kind": "message", "text": f"a worker died ({failed}): all start again from the last checkpoint"}
        )


class _RayFailedError(Exception):
    """Ray Train gave up.

    Args:
        error: what it said.
    """

    def __init__(self, error: BaseException) -> None:
        failures = getattr(error, "worker_failures", None)
        self.of_worker = failures is not None
        """Whether a worker failed, and not the start of all of them."""
        causes = [*failures.values()] if failures else [getattr(error, "controller_failure", error)]
        # A process that is gone is the cause of what the others met with.
        causes.sort(key=lambda each: not type(each).__name__.startswith("WorkerHealthCheck"))
        last = (str(causes[0]).strip().splitlines() or [type(causes[0]).__name__])[-1]
        super().__init__(last.split(". ")[0])


class _Thread(threading.Thread):
    """A thread whose result can be had; it does not keep the process alive."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Call the function."""
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """Return what the function returned, or raise what it raised."""
        if self._error is not None:
            raise _RayFailedError(self._error) from self._error
        return self._result


def _launch(function: Callable[[], Any], *, size: int, resources: dict[str, float]) -> Any:
    """Call a function in as many processes, joined into one group, and return what it returned in the first."""
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    on_gpu = "GPU" in resources
    with tempfile.TemporaryDirectory(prefix="bertwright-") as folder:  # for Ray's own notes: the run folder has ours
        trainer = TorchTrainer(
            function,
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if on_gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=size, use_gpu=on_gpu, resources_per_worker=resources),
            run_config=RunConfig(
                storage_path=folder,
                # Here it is decided what is worth another try: Ray would also repeat a run that was refused.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )
        return trainer.fit().return_value


def _work(line: Any, arguments: dict[str, Any], again: bool, cwd: Path) -> tuple[int, int] | None:
    """In a worker: train, and return step and signal if that was stopped."""
    rank = int(os.environ["RANK"])
    with suppress(OSError):
        os.chdir(cwd)  # for what was named relative to it
    with _Voice(line, rank) as voice:
        try:
            for name in ("data", "long_data", "out"):
                _require_seen(arguments[name])
            if again and rank == 0:
                _wait_until_free(arguments["out"])
            pretrain(**arguments | {"resume": again or arguments["resume"]}, on_event=voice.tell)
        except TrainingInterrupted as stopped:
            return stopped.step, stopped.signal
        except BertwrightError as error:
            voice.tell({"kind": "refused", "rank": rank, "what": error.what, "where": error.where, "fix": error.fix})
            raise RuntimeError(str(error)) from None
    return None


def _require_seen(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        fix = "put it on a file system that all machines share, under the same path"
        raise BertwrightError(f"{this_node()} does not see this folder", where=folder, fix=fix)


def _wait_until_free(out: Path) -> None:
    """Wait for a process that was ended to let the run folder go, if it can be that."""
    deadline = time.monotonic() + _LOCK_SECONDS
    with (out / "run.lock").open("w") as lock:
        while time.monotonic() < deadline:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(_PAUSE_SECONDS)


class _Voice:
    """In a worker: sends what there is to tell, and listens for an order to stop.

    Args:
        line: to the process that called.
        rank: of this worker.
    """

    def __init__(self, line: Any, rank: int) -> None:
        self._line = line
        self._rank = rank
        self._events: list[Event] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Voice:
        logger = logging.getLogger("bertwright")
        logger.handlers[:] = [_Logged(self)] if self._rank == 0 else [logging.NullHandler()]
        logger.setLevel(logging.INFO)
        logger.propagate = False
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def tell(self, event: Event) -> None:
        """Send an event, soon."""
        self._events.append(event)

    def _run(self) -> None:
        while not self._ended.wait(_PAUSE_SECONDS):
            self._exchange()
        self._exchange()

    def _exchange(self) -> None:
        import ray

        events, self._events[:] = self._events[:], []
        with suppress(ray.exceptions.RayError):  # nobody listens any more, and Ray will end this process
            if order := ray.get(self._line.tell.remote(events)):
                if order == _AT_ONCE:
                    os._exit(1)
                ask_to_stop(order)


class _Logged(logging.Handler):
    """Sends the log along with the events."""

    def __init__(self, voice: _Voice) -> None:
        super().__init__()
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        self._voice.tell({"kind": "log", "level": record.levelno, "text": record.getMessage()})
