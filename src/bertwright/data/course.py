"""What changes in the data along a run, as functions of the step alone: how much is masked, how large a batch is.

course = Course.of(config)
course.mask_prob(500), course.batch_share(500)
"""

from __future__ import annotations

from dataclasses import dataclass

from bertwright.config import PretrainConfig


@dataclass(frozen=True)
class Course:
    """The way from the first step to the last one.

    The paper changes neither. Ankner et al. 2023, *Dynamic Masking Rate Schedules for MLM Pretraining*; Geiping and
    Goldstein 2022, *Cramming*, for batches that grow.
    """

    steps: int
    mask_from: float
    """Share of tokens predicted at the first step."""
    mask_to: float
    """Likewise at the last one."""
    ramp_steps: int
    """In which the batch grows."""
    ramp_start: float
    """Share of the full size that the first batch has."""

    @classmethod
    def of(cls, config: PretrainConfig) -> Course:
        """Read it off a run's dials."""
        return cls(
            steps=config.steps,
            mask_from=config.mask_prob,
            mask_to=config.mask_prob_end or config.mask_prob,
            ramp_steps=round(config.batch_ramp_ratio * config.steps),
            ramp_start=config.batch_ramp_start,
        )

    def mask_prob(self, step: int) -> float:
        """Return the share of tokens predicted at a step (from 0)."""
        done = min(1.0, step / max(1, self.steps - 1))
        return self.mask_from + (self.mask_to - self.mask_from) * done

    def batch_share(self, step: int) -> float:
        """Return how much of its full size the batch of a step has, above 0 and at most 1."""
        if step >= self.ramp_steps:
            return 1.0
        return self.ramp_start + (1.0 - self.ramp_start) * step / self.ramp_steps
