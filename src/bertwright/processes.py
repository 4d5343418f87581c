"""Worker processes: what they do before their first piece of work, and how many do one thing after another.

ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=follow_parent)

for result in map_in_order(function, works, workers=4, caller="build_shards"):
    ...
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

from bertwright.errors import BertwrightError

Work = TypeVar("Work")
Result = TypeVar("Result")

_WORTH_A_PROCESS = 3  # pieces of work; fewer are done before other processes have started


def is_first() -> bool:
    """Return whether this process speaks for its run: all do but those that torchrun gave a RANK above 0."""
    return os.environ.get("RANK", "0") == "0"


def follow_parent() -> None:
    """Leave Ctrl-C to the parent process, and end when it ends, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def map_in_order(
    function: Callable[[Work], Result], works: Iterator[Work], *, workers: int | None, caller: str
) -> Generator[Result, None, None]:
    """Yield what a function makes of each piece of work, in their order; no more than workers + 1 of them wait.

    Args:
        function: goes to each process once, pickled.
        works: the pieces, made as they are needed.
        workers: processes; None or 0: one for each processor core; 1: none but this one.
        caller: name of the Python function to call under `__main__`, for the message if a process dies.
    """
    workers = workers or os.cpu_count() or 1
    head = list(islice(works, _WORTH_A_PROCESS))
    in_process = workers == 1 or len(head) < _WORTH_A_PROCESS
    works = chain(head, works)
    del head  # or its pieces would live as long as this generator
    if in_process:
        for work in works:
            yield function(work)
        return
    # Fresh interpreters: a fork would copy the locks of whatever threads the caller runs.
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start, initargs=(function,)
    )
    pending: deque[Future[Result]] = deque()
    try:
        for work in works:
            pending.append(executor.submit(_call, work))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise BertwrightError(
            "a worker process died: it ran out of memory, or the calling script starts again in every worker",
            fix=f"use fewer workers; in a script, call {caller} under `if __name__ == '__main__':`",
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_function: Callable[[Any], Any]
"""In a worker process: what is done there."""


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    follow_parent()
    _function = function


def _call(work: Any) -> Any:
    return _function(work)
