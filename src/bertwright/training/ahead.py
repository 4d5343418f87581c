"""The next step's batches are made while a GPU works on this one's.

    with ahead(stream, group.own, device) as stream:
        data = stream.batches_at(position, step)

Batches are a function of position and step alone, so it makes no difference who makes them, and when. On a CPU nothing
is gained: whoever makes batches takes the time from whoever trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import torch

from bertwright.batch import Batch

if TYPE_CHECKING:
    from bertwright.training.loop import Step, Stream


@contextmanager
def ahead(stream: Stream, own: Callable[[int], Iterable[int]], device: torch.device) -> Iterator[Stream]:
    """Yield a stream that makes a step's batches in a thread of its own while the step before it is trained.

    Args:
        stream: the data.
        own: given how many micro-batches a step has, the numbers of this process's.
        device: where the model runs; for a CPU the stream is yielded as it is.
    """
    if device.type == "cpu":
        yield stream
        return
    with ThreadPoolExecutor(1, "batches") as thread:
        yield Ahead(stream, own, thread, pinned=device.type == "cuda")


class Ahead:
    """A stream whose next step is being made.

    Args:
        stream: the data.
        own: given how many micro-batches a step has, the numbers of those to be made.
        thread: makes them.
        pinned: they shall lie in memory that a GPU reads by itself.
    """

    def __init__(
        self, stream: Stream, own: Callable[[int], Iterable[int]], thread: ThreadPoolExecutor, *, pinned: bool
    ) -> None:
        self._stream = stream
        self._own = own
        self._thread = thread
        self._pinned = pinned
        self._next: tuple[tuple[int, int], Future[_Made]] | None = None

    def batches_at(self, position: int, step: int) -> Step:
        """Return the data of a step, and begin to make that of the following one."""
        if self._next is not None and self._next[0] == (position, step):
            made = self._next[1].result()
        else:
            made = self._make(position, step)
        following = (made.next_position, step + 1)
        self._next = following, self._thread.submit(self._make, *following)
        return made

    def _make(self, position: int, step: int) -> _Made:
        data = self._stream.batches_at(position, step)
        made = {number: data.micro_batches[number] for number in self._own(len(data.micro_batches))}
        if self._pinned:
            made = {number: batch.pinned() for number, batch in made.items()}
        return _Made(_SomeMade(data.micro_batches, made), data.next_position)


@dataclass(frozen=True)
class _Made:
    micro_batches: Sequence[Batch]
    next_position: int


class _SomeMade(Sequence[Batch]):
    """Batches of which some are made; the others are when they are asked for."""

    def __init__(self, batches: Sequence[Batch], made: dict[int, Batch]) -> None:
        self._batches = batches
        self._made = made

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...

    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return self._made[index] if index in self._made else self._batches[index]
