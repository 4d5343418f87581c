"""When checkpoints are written: at once, or aside while training goes on; and what happens if one cannot be.

with Saver(run, config, on_event) as saver:
    saver.save(step, tensors, {"position": 12_800}, needed=False)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from torch import Tensor

from bertwright.config import TrainConfig
from bertwright.errors import BertwrightError
from bertwright.training.checkpoint import Follower, OnEvent, RunFolder

_log = logging.getLogger(__name__)


class Saver:
    """Writes a run's checkpoints, one at a time.

    Args:
        run: where they go.
        config: how many are kept, whether they are written aside, and what a failure means.
        on_event: told of every checkpoint that is there.
    """

    def __init__(self, run: RunFolder | Follower, config: TrainConfig, on_event: OnEvent) -> None:
        self.run = run
        self.config = config
        self.on_event = on_event
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: tuple[int, Future[None]] | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def save(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any], *, needed: bool) -> None:
        """Write a checkpoint, once the one before is there.

        Args:
            step: optimizer steps taken.
            tensors: weights and moments; with `async_checkpoints` a copy of them is written.
            values: everything that is no tensor.
            needed: the run ends here: wait for it, and let no failure pass.

        Raises:
            BertwrightError: it could not be written, or the one before; earlier ones are intact.
        """
        self._settle()
        write = partial(self.run.save, step, values=values, keep=self.config.keep_checkpoints)
        if self.config.async_checkpoints and not needed:
            copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
            self._writing = step, self._thread.submit(write, copies)
        else:
            self._finish(step, lambda: write(tensors), needed=needed)

    def _settle(self) -> None:
        """Wait for the checkpoint that is being written aside."""
        if self._writing is not None:
            (step, future), self._writing = self._writing, None
            self._finish(step, future.result, needed=False)

    def _finish(self, step: int, write: Callable[[], None], *, needed: bool) -> None:
        try:
            write()
        except (BertwrightError, OSError) as error:
            if needed or self.config.on_save_error == "stop":
                raise
            what = "the checkpoint of step %s was not saved (%s); training goes on without it"
            _log.warning(what, f"{step:,}", error)
        else:
            self.on_event({"kind": "saved", "step": step})
