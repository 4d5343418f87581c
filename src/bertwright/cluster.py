"""Ray: the processors of many machines as one. Needs `pip install 'bertwright[ray]'`.

    with cluster() as found:
        for result in map_in_order(function, works, workers=found.workers(None, cpus=1)):
            ...

A cluster that this process is connected to already is used, or the one that RAY_ADDRESS names; else a Ray of this
machine alone is started, and stopped at the end. Nobody else's Ray is ever stopped.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
import re
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

from bertwright.errors import BertwrightError

Work = TypeVar("Work")
Result = TypeVar("Result")

INSTALL = "pip install 'bertwright[ray]'"
"""What to type where Ray is missing."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or it warns that it will be so one day
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # it writes of its workers' deaths to standard output
    "RAY_worker_niceness": "0",  # of a Ray started here: its workers are no less urgent than the command itself
}
_RETRIES = 3
"""How often a piece of work is done again after its process or its machine died."""
_PATIENCE_SECONDS = 10.0
"""How long a cluster may take to answer at all."""
_END_SECONDS = 15.0
"""How long what was cancelled may take to end."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """What a cluster had when it was joined.

    Args:
        nodes: what each living machine lends, by kind: `CPU`, `GPU`.
    """

    nodes: tuple[Mapping[str, float], ...]

    @property
    def on_gpu(self) -> bool:
        """Whether it has a GPU."""
        return any(node.get("GPU", 0) for node in self.nodes)

    def workers(self, wanted: int | None, *, cpus: int, gpus: int = 0) -> int:
        """Return how many workers to start.

        Args:
            wanted: how many a person asked for; None or 0: as many as there is room for.
            cpus: processors that each takes.
            gpus: GPUs that each takes.

        Raises:
            BertwrightError: there is no room for so many.
        """
        needs = {"CPU": cpus, "GPU": gpus}
        room = sum(
            min(int(node.get(kind, 0) // count) for kind, count in needs.items() if count) for node in self.nodes
        )
        if room < max(1, wanted or 0):
            each = " and ".join(_count(count, kind) for kind, count in needs.items() if count)
            what = f"{_count(wanted or 1, 'worker')} with {each} each do not fit into the cluster: it has {self}"
            raise BertwrightError(what, fix=f"--workers {room}, or more machines" if room else "add machines to it")
        return wanted or room

    def __str__(self) -> str:
        total = {kind: sum(int(node.get(kind, 0)) for node in self.nodes) for kind in ("CPU", "GPU")}
        kinds = ", ".join(_count(count, kind) for kind, count in total.items() if count or kind == "CPU")
        return f"{_count(len(self.nodes), 'machine')}, {kinds}"


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Join a cluster for as long as the block lasts; see the top of this file for which one.

    Raises:
        BertwrightError: Ray is not installed, or the cluster cannot be joined.
    """
    if find_spec("ray") is None:
        raise BertwrightError("--engine ray needs the package ray", fix=INSTALL)
    address = os.environ.get("RAY_ADDRESS") or "local"
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address != "local":
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")  # of 40 seconds each, if something else answers there
    import ray

    if ray.is_initialized():
        yield _look(ray)
        return
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        _connect(ray, address)
        if in_main:
            signal.signal(signal.SIGTERM, _unwind)  # Ray's own handler loses the exit status
        found = _look(ray)
        _logger.info("Ray %s: %s", "on this machine" if address == "local" else f"at {address}", found)
        yield found
    finally:
        ray.shutdown()
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _connect(ray: Any, address: str) -> None:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    fix = "is it running, with the same Ray and Python? without RAY_ADDRESS this machine alone is used"
    named = re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:([0-9]+)", address)
    try:
        if named:
            socket.create_connection((named[1], int(named[2])), _PATIENCE_SECONDS).close()  # Ray tries for minutes
        ray.init(address, **quiet | ({"include_dashboard": False} if address == "local" else {}))
    except ImportError as error:
        raise BertwrightError(f"Ray lacks a part ({error})", fix=INSTALL) from error
    except (OSError, RuntimeError, ValueError, AssertionError) as error:  # no connection is an OSError
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if address == "local":
            raise BertwrightError(f"Ray did not start on this machine: {said}") from error
        raise BertwrightError(f"no Ray cluster could be joined: {said}", where=f"RAY_ADDRESS={address}", fix=fix) from (
            error
        )


def _look(ray: Any) -> Cluster:
    return Cluster(tuple(node["Resources"] for node in ray.nodes() if node["Alive"]))


def _unwind(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _count(count: int, kind: str) -> str:
    return f"{count:,} {kind}{'' if count == 1 else 's'}"


def this_node() -> str:
    """Return the name and address of the machine that this process of a cluster runs on."""
    import ray

    return f"{platform.node()} ({ray.util.get_node_ip_address()})"


class Line:
    """A line between the process that called and those that work for it: events go one way, an order the other."""

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._order = 0

    def tell(self, events: list[Any]) -> int:
        """Take events from a worker, and return the newest order, 0 where there is none."""
        self._events += events
        return self._order

    def hear(self, order: int) -> list[Any]:
        """Give an order, and return the events that came since the last time."""
        self._order = order
        events, self._events = self._events, []
        return events


def open_line() -> Any:
    """Return a handle of a `Line` for both ends; it lies on this machine and takes no processor."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Line).remote()


def map_in_order(
    function: Callable[[Work], Result], works: Iterator[Work], *, workers: int
) -> Generator[Result, None, None]:
    """Yield what a function makes of each piece of work, in their order, as `processes.map_in_order` does.

    A piece whose process or machine dies is done again elsewhere, so it must not matter if it is done twice.

    Args:
        function: goes to each process once, pickled.
        works: the pieces, made as they are needed; no more than workers + 1 of them wait.
        workers: pieces under way at a time; each takes one processor.

    Raises:
        BertwrightError: a piece of work killed its process again and again, or a machine lacks a package.
    """
    import ray

    # Plain tasks: a pool of actors that holds every processor of a small cluster waits for itself.
    call = ray.remote(num_cpus=1, max_retries=_RETRIES)(_call)
    name, pickled = uuid4().hex, ray.put(pickle.dumps(function))
    pending: deque[Any] = deque()
    try:
        for work in works:
            pending.append(call.remote(name, pickled, work))
            if len(pending) > workers:
                yield ray.get(pending.popleft())
        while pending:
            yield ray.get(pending.popleft())
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, ImportError) or "No module named" in str(cause):
            what = f"a machine of the cluster lacks a package: {str(cause).strip().splitlines()[-1]}"
            raise BertwrightError(what, fix="install the same versions of the same packages on all of them") from cause
        raise cause from None
    except ray.exceptions.RayError as error:
        what = f"a piece of work ended its process {_RETRIES + 1} times ({type(error).__name__})"
        raise BertwrightError(what, fix="out of memory? use fewer --workers, or larger machines") from error
    finally:
        for each in pending:
            ray.cancel(each, force=True)
        if pending:
            ray.wait(list(pending), num_returns=len(pending), timeout=_END_SECONDS)


_functions: dict[str, Callable[[Any], Any]] = {}
"""In a worker process: what was asked of it last, by a name that is new in every run."""


def _call(name: str, pickled: bytes, work: Any) -> Any:
    if name not in _functions:
        _functions.clear()
        _functions[name] = pickle.loads(pickled)
    return _functions[name](work)
