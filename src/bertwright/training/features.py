"""The data of fine-tuning: a task's features, shuffled anew in every epoch and cut into steps and micro-batches.

stream = FeatureStream(features, task, batch_size=32, micro_batch_tokens=8_192, seed=0)
stream.batches_at(0).micro_batches
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bertwright.batch import Batch
from bertwright.tasks import Feature, Task
from bertwright.tasks.base import by_example


@dataclass(frozen=True)
class FeatureStep:
    """One optimizer step's features."""

    micro_batches: list[Batch]
    next_position: int


class FeatureStream:
    """A task's features in shuffled order; the whole state is the number of units consumed.

    A unit is a feature, or all features of an example where the task's loss needs them together.

    Args:
        features: encoded once.
        task: lays them end to end.
        batch_size: units in a step; an epoch's last step holds what is left.
        micro_batch_tokens: most tokens in a micro-batch; a larger unit is a micro-batch of its own.
        seed: of the order.
    """

    def __init__(
        self, features: Sequence[Feature], task: Task, *, batch_size: int, micro_batch_tokens: int, seed: int
    ) -> None:
        groups = [places for _, places in by_example(features)]
        if not task.together:
            groups = [[place] for place in range(len(features))]
        self.units = [[features[place] for place in places] for places in groups]
        self.task = task
        self.batch_size = batch_size
        self.micro_batch_tokens = micro_batch_tokens
        self.seed = seed
        self._order = lru_cache(maxsize=1)(self._draw_order)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every feature once."""
        return -(-len(self.units) // self.batch_size)

    def batches_at(self, position: int, step: int = 0) -> FeatureStep:
        """Return the step that starts at a position, whichever it is; it never crosses the end of an epoch."""
        epoch, index = divmod(position, len(self.units))
        chosen = [self.units[i] for i in self._order(epoch)[index : index + self.batch_size]]
        chosen.sort(key=_longest)  # attention works on sequences of like length
        micro_batches: list[list[Feature]] = []
        room = 0
        for unit in chosen:
            tokens = sum(len(feature.input_ids) for feature in unit)
            if tokens > room or not micro_batches:
                micro_batches.append([])
                room = self.micro_batch_tokens
            micro_batches[-1] += unit
            room -= tokens
        return FeatureStep([self.task.collate(part) for part in micro_batches], position + len(chosen))

    def _draw_order(self, epoch: int) -> list[int]:
        order: list[int] = (
            np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self.units)).tolist()
        )
        return order


def _longest(unit: Sequence[Feature]) -> int:
    return max(len(feature.input_ids) for feature in unit)
