"""What a worker process does before its first piece of work, and which of several training processes speaks.

ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=follow_parent)
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


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
