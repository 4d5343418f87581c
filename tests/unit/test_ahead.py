"""Batches made ahead are those that would have been made at their time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch

from bertwright.batch import Batch, LazyBatches
from bertwright.errors import BertwrightError
from bertwright.training.ahead import Ahead, ahead


@dataclass
class Data:
    micro_batches: LazyBatches
    next_position: int


class Stream:
    """Three micro-batches a step, drawn from position and step; remembers which were made, and by whom."""

    def __init__(self, broken_at=None):
        self.made = []
        self.broken_at = broken_at

    def batches_at(self, position, step):
        def make(number):
            if step == self.broken_at:
                raise BertwrightError("a shard is damaged")
            self.made.append((step, number, threading.current_thread().name))
            return Batch.pack([[position, step, number]], [[0, 0, 0]])

        return Data(LazyBatches([lambda number=number: make(number) for number in range(3)]), position + 10)


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1, "batches") as pool:
        yield pool


def ids(step):
    return [batch.input_ids.tolist() for batch in step.micro_batches]


def walk(stream, steps, start=0):
    found, position = [], start
    for step in range(steps):
        data = stream.batches_at(position, step)
        found.append((ids(data), data.next_position))
        position = data.next_position
    return found


def test_they_are_the_same(thread):
    made_ahead = Ahead(Stream(), range, thread, pinned=False)
    assert walk(made_ahead, 5) == walk(Stream(), 5)
    assert walk(made_ahead, 3, start=70) == walk(Stream(), 3, start=70), "another place than the one foreseen"


def test_a_process_makes_its_own_alone_and_others_when_asked(thread):
    stream = Stream()
    made_ahead = Ahead(stream, lambda count: range(1, count, 2), thread, pinned=False)
    first = made_ahead.batches_at(0, 0)
    second = made_ahead.batches_at(first.next_position, 1)
    thread.submit(lambda: None).result()
    assert {(step, number): name.split("_")[0] for step, number, name in stream.made if number == 1} == {
        (0, 1): "MainThread",
        (1, 1): "batches",
        (2, 1): "batches",
    }
    before = len(stream.made)
    assert second.micro_batches[1].input_ids.tolist() == [10, 1, 1]
    assert len(stream.made) == before
    assert len(second.micro_batches) == 3
    assert second.micro_batches[0].input_ids.tolist() == [10, 1, 0]
    assert [batch.input_ids.tolist() for batch in second.micro_batches[1:]] == [[10, 1, 1], [10, 1, 2]]


def test_an_error_comes_when_its_step_does(thread):
    made_ahead = Ahead(Stream(broken_at=1), range, thread, pinned=False)
    first = made_ahead.batches_at(0, 0)
    with pytest.raises(BertwrightError, match="a shard is damaged"):
        made_ahead.batches_at(first.next_position, 1)


def test_a_cpu_makes_its_batches_itself():
    stream = Stream()
    with ahead(stream, range, torch.device("cpu")) as found:
        assert found is stream
