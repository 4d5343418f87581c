"""Several processes, one run: what each takes, what they add up, and what the others do when one dies.

    torchrun --nproc-per-node 2 -m bertwright pretrain base --data shards --out run

Nothing but torch.distributed's environment (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) is needed, whoever sets it.
Without it a process is alone, and all of this costs nothing.

All processes walk through the same stream; of the micro-batches of a step each takes every `size`-th one. Counts are
added up before the losses are divided, gradients after. A micro-batch's masks and dropout are drawn from its number in
the step. So a step is the same for any number of processes, but for the rounding of sums in another order, and a run
may go on with more processes or fewer. Only the first process writes the run folder. Every process keeps all weights
and moments, or a part of them (`training.sharding`).

Every process counts up once a second in a store that the first one keeps. One whose count stands still is dead: its
name goes round, and the others end.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from bertwright.errors import BertwrightError

BEAT_SECONDS = 1.0
"""Between two signs of life."""
SILENT_SECONDS = 12.0
"""How long a process without a sign of life counts as living."""
_GRACE_SECONDS = 5.0
"""For the others to hear of a death: the store ends with the first process."""
_BUCKET_ELEMENTS = 2**23
"""Numbers in one message of gradients: 32 MB."""

_log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")
M = TypeVar("M")
B = TypeVar("B")


class ProcessDiedError(BertwrightError):
    """Another process of the run is gone.

    Args:
        rank: its number.
        size: how many there were.
    """

    everybody_says_so = True
    """Other errors meet all processes alike, and the first one alone tells them."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(
            f"process {rank} of {size} (numbered from 0) has died: this one ends too",
            fix="its own last words say why; the same command with --resume goes on from the last checkpoint",
        )


class Group:
    """The processes of a run, seen from one of them.

    Args:
        rank: this process's number, from 0.
        size: how many there are.
        watch: knows which of them has died.
    """

    def __init__(self, rank: int = 0, size: int = 1, watch: _Watch | None = None) -> None:
        self.rank = rank
        self.size = size
        self._watch = watch

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def own(self, count: int) -> range:
        """Return which of so many things are this process's."""
        return range(self.rank, count, self.size)

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the sums over all processes, by name; each may know of names that others do not."""
        total: Counter[str] = Counter()
        for each in self.each(dict(values)):
            total.update(each)
        return dict(total)

    def each(self, value: T) -> list[T]:
        """Return every process's value, by rank."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        with self._explained():
            dist.all_gather_object(gathered, value)
        return gathered

    def of_first(self, value: T) -> T:
        """Return the first process's value."""
        if self.size == 1:
            return value
        values = [value]
        with self._explained():
            dist.broadcast_object_list(values)
        return values[0]

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.size > 1:
            with self._explained():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def fill(self, tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        """Overwrite everybody's tensors with the first process's values, by name; where it has none, with its tensors.

        Args:
            tensors: the same names everywhere.
            values: whole tensors, in the first process.
        """
        if values:
            for name, tensor in tensors.items():
                tensor.copy_(values[name])
        self.copy_first(tensors.values())

    def gathered(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return whole tensors, in the first process, of which every process may have kept a part."""
        return tensors

    def idle_turns(self, count: int) -> int:
        """Return in how many turns this process has none of so many things, where all take their turns together."""
        return 0

    def run(self, objective: Callable[[M, B], T], model: M, batch: B) -> T:
        """Return what an objective says about a batch."""
        return objective(model, batch)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add a loss's gradient to those of the step.

        Args:
            loss: of one micro-batch.
            last: whether it is this process's last in the step.
        """
        loss.backward()

    def norm(self, norm: Tensor) -> Tensor:
        """Return the norm of all gradients, given that of the gradients that this process keeps."""
        return norm

    def add_gradients(self, parameters: Sequence[nn.Parameter], num_micro_batches: int) -> None:
        """Replace each gradient by its sum over all processes.

        Args:
            parameters: the same ones everywhere, in the same order.
            num_micro_batches: of the step, in all processes; where they are fewer than processes, some have none.
        """
        if self.size == 1:
            return
        used = [parameter.grad is not None for parameter in parameters]
        if num_micro_batches < self.size:
            used = self.of_first(used)
        gradients = []
        for parameter, wanted in zip(parameters, used, strict=True):
            if wanted and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                gradients.append(parameter.grad)
        with self._explained():
            for bucket in _buckets(gradients):
                flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
                dist.all_reduce(flat)
                for gradient, part in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                    gradient.copy_(part.view_as(gradient))

    @contextmanager
    def led(self, start: Callable[[], AbstractContextManager[T]], follow: Callable[[], U]) -> Iterator[T | U]:
        """Open something in the first process alone, and go on everywhere once that has gone well.

        Args:
            start: opens it.
            follow: makes what the others get instead.
        """
        if not self.leads:
            if not self.of_first(False):
                raise BertwrightError("the first process could not start the run")
            yield follow()
            return
        try:
            opened = start()
        except BaseException:
            self.of_first(False)
            raise
        self.of_first(True)
        with opened as found:
            yield found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the failure of a message into the name of the process that died."""
        try:
            yield
        except RuntimeError:
            rank = self._watch.wait_for_death() if self._watch else None
            if rank is None:
                raise
            raise ProcessDiedError(rank, self.size) from None


ALONE = Group()


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process keeps: all of it, unless weights are sharded."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


@contextmanager
def join() -> Iterator[Group]:
    """Join the processes that the environment speaks of, or those of a group that is there already.

    Raises:
        BertwrightError: the environment is incomplete, or the others could not be reached.
    """
    if dist.is_available() and dist.is_initialized():
        yield Group(dist.get_rank(), dist.get_world_size())
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        what = f"WORLD_SIZE is {size}, but {missing[0]} is not set"
        raise BertwrightError(what, fix="start with `torchrun --nproc-per-node N -m bertwright ...`, which sets both")
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    rank = dist.get_rank()
    watch = _Watch(rank, size, _store(rank))
    watch.start()
    group = Group(rank, size, watch)
    try:
        yield group
        group.of_first(None)  # nobody leaves before all have finished
    finally:
        watch.stop()
        dist.destroy_process_group()


def require_alone(what: str) -> None:
    """Refuse to go on where the environment speaks of several processes.

    Args:
        what: is done by one process.
    """
    if (size := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise BertwrightError(f"{what} is done by one process, not by {size}", fix="leave torchrun out")


def _store(rank: int) -> TCPStore:
    """Return a store of our own, kept by the first process."""
    host = os.environ["MASTER_ADDR"]
    port: list[Any] = [None]
    patience = timedelta(seconds=SILENT_SECONDS)
    store = TCPStore(host, 0, is_master=True, timeout=patience, wait_for_workers=False) if rank == 0 else None
    if store is not None:
        port = [store.port]
    dist.broadcast_object_list(port)
    return store or TCPStore(host, port[0], timeout=patience, wait_for_workers=False)


class _Watch(threading.Thread):
    """Shows that this process lives, and finds out which one does not.

    Args:
        rank: this process's number.
        size: how many there are.
        store: shared by all.
    """

    def __init__(self, rank: int, size: int, store: TCPStore) -> None:
        super().__init__(name="watch", daemon=True)
        self.rank = rank
        self.size = size
        self.dead: int | None = None
        self._store = store
        self._ended = threading.Event()
        self._found = threading.Event()
        self._signs = {other: (0, time.monotonic()) for other in range(1, size)}

    def run(self) -> None:
        """Look around until a process is found dead; end this one if nothing else does."""
        while self.dead is None:
            if self._ended.wait(BEAT_SECONDS):
                return
            self.dead = self._look()
        self._found.set()
        if not self._ended.wait(2 * _GRACE_SECONDS):  # waits for a message that nobody will send
            self._exit(self.dead)

    def stop(self) -> None:
        """End the watch: the run is over."""
        self._ended.set()
        self.join()

    def wait_for_death(self) -> int | None:
        """Return who died, once that is known, and the others have heard of it too; None if all seem to live."""
        self._found.wait(SILENT_SECONDS + 3 * BEAT_SECONDS)
        if self.rank == 0:
            time.sleep(_GRACE_SECONDS)
        return self.dead

    def _look(self) -> int | None:
        try:
            self._store.add(f"sign of {self.rank}", 1)
            if self.rank:
                return int(self._store.get("dead")) if self._store.check(["dead"]) else None
            for other, (before, since) in self._signs.items():
                now = self._store.add(f"sign of {other}", 0)
                if now != before:
                    self._signs[other] = now, time.monotonic()
                elif time.monotonic() - since > SILENT_SECONDS:
                    self._store.set("dead", str(other))
                    return other
        except RuntimeError:  # the store is gone, and the first process with it
            return 0
        return None

    def _exit(self, dead: int) -> NoReturn:
        error = ProcessDiedError(dead, self.size)
        _log.error("%s; %s", error.what, error.fix)
        os._exit(1)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Cut tensors into lists of about one message each."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(each.numel() for each in bucket) + tensor.numel() > _BUCKET_ELEMENTS:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
