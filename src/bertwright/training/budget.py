"""A run that ends when the clock says so: from a budget of time to a number of steps, by a probe of this machine.

    config = within_budget(recipe.model, config, seconds_of("45min"), data=Path("shards"), out=Path("run"))
    config.steps                      # from here on it is a run like any other: resumed, it has the same steps

The probe is that of `plan`, with one evaluation, one checkpoint and the end of a run timed beside it.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertwright.config import BertConfig, PretrainConfig
from bertwright.data.shards import ShardSet
from bertwright.errors import BertwrightError
from bertwright.json_values import read_json
from bertwright.training.distributed import require_alone
from bertwright.training.plan import Plan, plan_pretraining
from bertwright.training.probe import Extras

_UNITS = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400}
_MOST_PROBE_SECONDS = 30.0
_ANY_STEPS = 1_000_000
"""Of the run that is measured: phases are shares of any number."""
_PROBE_SHARE = 0.05
"""Of the budget, at most this goes into trying; three steps of each phase are tried in any case."""


def seconds_of(text: str) -> float:
    """Return the seconds of a time as people write it: `90s`, `45min`, `2h`, `1h30min`, `1.5h`.

    Raises:
        BertwrightError: it is no time, or none at all.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.lower())
    rest = re.sub(r"\d+(?:\.\d+)?\s*[a-z]+|\s", "", text.lower())
    if not parts or rest or any(unit not in _UNITS for _, unit in parts):
        raise BertwrightError(f"{text!r} is no time", fix="write it as 90s, 45min, 2h or 1h30min")
    seconds = math.fsum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds < math.inf:
        raise BertwrightError(f"a budget of {text!r} is no time at all", fix="give some: 45min, 2h")
    return seconds


@dataclass(frozen=True)
class Costs:
    """How long a run takes, for any number of steps."""

    step: float
    """Seconds of a step, on average over the phases of a run."""
    evaluation: float
    checkpoint: float
    around: float
    """Before the first step and after the last one."""
    eval_every: int
    checkpoint_every: int

    @classmethod
    def of(cls, plan: Plan, extras: Extras, held_out_tokens: int) -> Costs:
        """Read it off a plan whose speed was measured.

        Args:
            plan: of a run of the same settings, with any number of steps.
            extras: what was measured beside its steps.
            held_out_tokens: in the held-out data.
        """
        assert plan.seconds is not None
        tried, wanted = (
            min(held_out_tokens, tokens) for tokens in (plan.config.micro_batch_tokens, plan.config.eval_tokens)
        )
        return cls(
            step=plan.seconds["likely"] / plan.config.steps,
            evaluation=extras.evaluation * wanted / max(1, tried),
            checkpoint=extras.checkpoint,
            around=extras.start + extras.end,
            eval_every=plan.config.eval_every,
            checkpoint_every=plan.config.checkpoint_every,
        )

    def seconds(self, steps: int) -> float:
        """Return how long a run of so many steps takes, with all its evaluations and checkpoints."""
        evaluations, checkpoints = _times(steps, self.eval_every), _times(steps, self.checkpoint_every)
        return self.around + steps * self.step + evaluations * self.evaluation + checkpoints * self.checkpoint

    def steps(self, seconds: float) -> int:
        """Return the most steps that a run of so many seconds has; 0 where it has no time for one."""
        low, high = 0, int(seconds / self.step) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.seconds(middle) <= seconds else (low, middle)
        return low


def _times(steps: int, every: int) -> int:
    """Return how often something happens: every so many steps, and after the last one."""
    return -(-steps // every) if every else 1


def within_budget(
    model: BertConfig,
    config: PretrainConfig,
    seconds: float,
    *,
    data: Path,
    out: Path,
    long_data: Path | None = None,
    init: Path | None = None,
    resume: bool = False,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> PretrainConfig:
    """Return the settings of a run, with as many steps as end in time; the time of the probe counts too.

    Args:
        model: the shape, as `pretrain` takes it.
        config: every dial but `steps`.
        seconds: the budget, from this call to the end of `pretrain`.
        data: a shard folder.
        out: the run folder.
        long_data: a shard folder with longer examples.
        init: a model folder to go on from.
        resume: of a run that is in `out` already: its steps, without another probe.
        progress: told how far the probe is.

    Raises:
        BertwrightError: the budget is too short for a single step, several processes shall share the run, or what
            `plan_pretraining` refuses.
    """
    begun = time.monotonic()
    if resume and (out / "config.json").is_file():
        saved = read_json(out / "config.json").get("train")
        steps = saved.get("steps") if isinstance(saved, dict) else None  # a folder of something else is refused later
        return dataclasses.replace(config, steps=steps) if isinstance(steps, int) else config
    require_alone("measuring how many steps a budget has")
    plan = plan_pretraining(
        model,
        dataclasses.replace(config, steps=_ANY_STEPS),
        data=data,
        long_data=long_data,
        init=init,
        probe_seconds=min(_MOST_PROBE_SECONDS, _PROBE_SHARE * seconds),
        progress=progress,
        with_extras=True,
    )
    if plan.probe is None or plan.probe.extras is None:
        raise BertwrightError(f"nothing could be measured: {plan.why_no_probe}", fix="lower --micro-batch-tokens")
    held_out = ShardSet.open(data).manifest.counts["held_out"].example_tokens
    costs = Costs.of(plan, plan.probe.extras, held_out)
    left = seconds - (time.monotonic() - begun)
    steps = costs.steps(left)
    if steps < 1:
        what = f"a budget of {seconds:,.0f} seconds has no time for a step: {seconds - left:,.0f} went into measuring, "
        what += f"and a run of a single step takes {costs.seconds(1):,.1f}"
        raise BertwrightError(what, fix="give more time, a smaller recipe, or fewer --batch-tokens or --eval-tokens")
    return dataclasses.replace(config, steps=steps)
