"""Before a long run: its parameters, memory, arithmetic, disk, time on this machine, and what is known of loss.

    plan = plan_pretraining(get_recipe("mini").model, PretrainConfig(), data=Path("shards"))
    plan.seconds                      # {"likely": ..., "at_best": ..., "at_worst": ...}, measured for half a minute

Everything but the time is counted. Of the loss nothing is promised: there are the levels of knowing nothing, and what
our own published runs of that shape reached, on their data.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertwright.config import BertConfig, PretrainConfig
from bertwright.data.course import Course
from bertwright.data.shards import ShardSet
from bertwright.errors import BertwrightError
from bertwright.json_values import to_dict
from bertwright.model.bert import Bert
from bertwright.model.flops import training_flops
from bertwright.model.memory import kept_for_backward
from bertwright.training.optim import is_muons
from bertwright.training.pretrain import Setup, assemble
from bertwright.training.probe import Probe, measure

log = logging.getLogger(__name__)

_FLOAT = 4
"""Bytes of a weight, of a gradient, and of each of Adam's two moments: all fp32."""
_SAMPLED_STEPS = 8
"""Steps whose tokens, examples and arithmetic stand for all."""
_PUBLISHED: dict[tuple[int, int], tuple[dict[str, Any], ...]] = {
    (4, 256): (
        {"text": "English Wikipedia", "million_tokens": 36.5, "mlm_loss": 4.41, "mlm_accuracy": 0.344,
         "nsp_accuracy": 0.834, "page": "docs/results/first-pretraining.md"},
        {"text": "Chinese Wikipedia", "million_tokens": 31.5, "mlm_loss": 3.75, "mlm_accuracy": 0.371,
         "nsp_accuracy": 0.889, "page": "docs/results/first-pretraining.zh.md"},
    ),
}  # fmt: skip
"""By layers and width: what our published runs reached on held-out text."""


@dataclass(frozen=True)
class Phase:
    """Steps on examples of one greatest length."""

    name: str
    """`short`: cropped examples, first; `whole`; `long`: those of `long_data`, last."""
    steps: int
    tokens_per_step: float
    examples_per_step: float
    flops_per_step: float
    growing: bool = False
    """Whether the batch grows meanwhile, and `tokens_per_step` is a mean."""
    batch_share: float = 1.0
    """Of a whole batch, on average."""
    mask_prob: float = 0.15
    """Share of tokens predicted, on average."""


@dataclass(frozen=True)
class Plan:
    """What there is to say before a run."""

    model: BertConfig
    config: PretrainConfig
    parameters: dict[str, int]
    """By part: `embeddings`, `layers`, `pooler`, and each head; the decoder's matrix is that of the embeddings."""
    memory: dict[str, int]
    """Bytes by part: `weights`, `gradients`, `moments`, `activations` and `logits` of the largest micro-batch seen."""
    disk: dict[str, int]
    """Bytes: `checkpoint` (one), `checkpoints` (those kept, and one more while it is written), `model`."""
    phases: tuple[Phase, ...]
    data: dict[str, float]
    """`examples`, `tokens` (in one epoch), `tokens_seen`, `epochs`."""
    chance: dict[str, float]
    """Losses of knowing nothing: `uniform`, `unigram` (how often each token occurs), and for NSP the labels' shares."""
    published: tuple[dict[str, Any], ...]
    """Our own runs of this shape, on other data perhaps, and with their settings."""
    probe: Probe | None = None
    why_no_probe: str | None = None

    @property
    def flops(self) -> dict[str, float]:
        """Floating-point operations of training: `per_token`, `per_step` and `per_run`."""
        run = sum(phase.steps * phase.flops_per_step for phase in self.phases)
        return {"per_token": run / self.data["tokens_seen"], "per_step": run / self.config.steps, "per_run": run}

    @property
    def seconds(self) -> dict[str, float] | None:
        """How long the steps will take, without evaluations and checkpoints: `likely`, `at_best`, `at_worst`."""
        if self.probe is None:
            return None
        pairs = list(zip(self.phases, self.probe.speeds, strict=True))
        rates = {"likely": "tokens_per_second", "at_best": "fastest", "at_worst": "slowest"}
        return {
            name: sum(phase.steps * phase.tokens_per_step / getattr(speed, rate) for phase, speed in pairs)
            for name, rate in rates.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        probe = None if self.probe is None else dataclasses.asdict(self.probe)
        return fields | {
            "model": to_dict(self.model),
            "config": to_dict(self.config),
            "phases": [dataclasses.asdict(phase) for phase in self.phases],
            "published": list(self.published),
            "probe": probe,
            "flops": self.flops,
            "seconds": self.seconds,
        }


def plan_pretraining(
    model: BertConfig,
    config: PretrainConfig,
    *,
    data: Path,
    long_data: Path | None = None,
    init: Path | None = None,
    probe_seconds: float = 30.0,
    progress: Callable[[str, float], None] = lambda stage, share: None,
    with_extras: bool = False,
) -> Plan:
    """Say what a pre-training run will cost. Nothing is kept, and nothing in this process is changed.

    Args:
        model: the shape, as `pretrain` takes it.
        config: every dial of the run.
        data: a shard folder.
        long_data: one for the last phase, as `pretrain` takes it.
        init: a model folder to go on from.
        probe_seconds: how long training is tried; 0: not at all. In a script this needs `if __name__ == "__main__":`.
        progress: told how far the probe is.
        with_extras: also measure evaluation, checkpoint, start and end.

    Raises:
        BertwrightError: what `pretrain` would refuse, or the probe ran out of memory.
    """
    if not 0 <= probe_seconds < math.inf:
        raise BertwrightError(f"probe_seconds must not be negative, not {probe_seconds!r}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setup = assemble(model, config, device, data=data, long_data=long_data, init=init, on_event=_log_message)
    with torch.device("meta"):
        skeleton = Bert(setup.model, setup.objective.heads(setup.model))
    parameters = count_parameters(skeleton)
    phases, memory = _phases(setup)
    plan = Plan(
        model=setup.model,
        config=setup.config,
        parameters=parameters,
        memory=_state(skeleton, parameters, setup.config) | memory,
        disk=_disk(skeleton, parameters, setup.config),
        phases=phases,
        data=_data(setup.shards, phases),
        chance=chance_levels(setup.shards, setup.config),
        published=_PUBLISHED.get((setup.model.num_hidden_layers, setup.model.hidden_size), ()),
    )
    if not probe_seconds:
        return plan
    needed, free = sum(plan.memory.values()), _free_bytes() if device.type == "cpu" else None
    if free is not None and needed > free:
        why = f"the run needs at least {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
        return dataclasses.replace(plan, why_no_probe=why)
    settings = [_settings(config, phase) for phase in plan.phases]
    probe = measure(model, settings, data=data, long_data=long_data, init=init, flops_per_token=plan.flops["per_token"],
                    seconds=probe_seconds, progress=progress, with_extras=with_extras)  # fmt: skip
    return dataclasses.replace(plan, probe=probe)


def _settings(config: PretrainConfig, phase: Phase) -> PretrainConfig:
    """Return the settings under which every step is like the mean step of a phase."""
    return dataclasses.replace(
        config,
        short_ratio=float(phase.name == "short"),
        long_ratio=float(phase.name == "long"),
        batch_tokens=max(1, round(phase.batch_share * config.batch_tokens)),
        long_batch_tokens=round(phase.batch_share * config.long_batch_tokens),
        batch_ramp_ratio=0.0,
        mask_prob=phase.mask_prob,
        mask_prob_end=0.0,
    )


def _data(shards: ShardSet, phases: Sequence[Phase]) -> dict[str, float]:
    examples = len(shards.split("train"))
    return {
        "examples": examples,
        "tokens": shards.manifest.counts["train"].example_tokens,
        "tokens_seen": sum(phase.steps * phase.tokens_per_step for phase in phases),
        "epochs": sum(phase.steps * phase.examples_per_step for phase in phases) / examples,
    }


def _log_message(event: dict[str, Any]) -> None:
    log.info("%s", event["text"])


def count_parameters(model: Bert) -> dict[str, int]:
    """Return how many numbers each part has."""
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = ".".join(name.split(".")[: 2 if name.startswith("heads.") else 1])
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def _unread(model: Bert, parameters: dict[str, int]) -> int:
    """Return the parameters of a pooler that no head reads: it gets no gradient, and is not saved with the model."""
    return 0 if any(head.pooled for head in model.heads.values()) else parameters["pooler"]


def _moments(model: Bert, config: PretrainConfig) -> int:
    """Return the bytes of the optimizer's moments: Adam's two of a number, Muon's one."""
    named = model.named_parameters()
    return _FLOAT * sum((1 if is_muons(name, each, config) else 2) * each.numel() for name, each in named)


def _state(model: Bert, parameters: dict[str, int], config: PretrainConfig) -> dict[str, int]:
    total = sum(parameters.values())
    gradients = _FLOAT * (total - _unread(model, parameters))
    return {"weights": _FLOAT * total, "gradients": gradients, "moments": _moments(model, config)}


def _disk(model: Bert, parameters: dict[str, int], config: PretrainConfig) -> dict[str, int]:
    total, every = sum(parameters.values()), config.checkpoint_every
    saved = 1 if not every else -(-config.steps // every)
    checkpoint = _FLOAT * total + _moments(model, config)
    return {
        "checkpoint": checkpoint,
        "checkpoints": checkpoint * min(saved, config.keep_checkpoints + 1),
        "model": _FLOAT * (total - _unread(model, parameters)),
    }


def _phases(setup: Setup) -> tuple[tuple[Phase, ...], dict[str, int]]:
    """Return the phases of a run, from some of their steps, and the memory of the largest micro-batch among these.

    A phase in which the batch begins to grow or has grown is two. The steps are spread over the phase, so that what
    changes with the step is there on average; the examples are its first ones.
    """
    phases = []
    largest: dict[str, int] = {}
    begin, course = 0, Course.of(setup.config)
    for until in sorted({part.until for part in setup.train.phases} | {min(course.ramp_steps, setup.config.steps)}):
        steps, begin, first = until - begin, until, begin
        if steps <= 0:
            continue
        part = setup.train.at(first)
        tokens = examples = position = 0
        flops = 0.0
        sampled = min(steps, _SAMPLED_STEPS)
        numbers = [first + (2 * number + 1) * steps // (2 * sampled) for number in range(sampled)]
        for number in numbers:
            step = part.loader.batches_at(position, number)
            position = step.next_position
            tokens, examples = tokens + step.num_tokens, examples + step.num_examples
            for batch in step.micro_batches:
                flops += training_flops(setup.model, batch)
                kept = kept_for_backward(setup.model, batch, setup.dtype)
                largest = max(largest, kept, key=lambda parts: sum(parts.values()))
        phases.append(
            Phase(
                part.name,
                steps,
                tokens / sampled,
                examples / sampled,
                flops / sampled,
                growing=first < course.ramp_steps,
                batch_share=sum(map(course.batch_share, numbers)) / sampled,
                mask_prob=sum(map(course.mask_prob, numbers)) / sampled,
            )
        )
    return tuple(phases), largest


def chance_levels(shards: ShardSet, config: PretrainConfig) -> dict[str, float]:
    """Return the losses of models that know nothing, from the shards themselves.

    Returns:
        `uniform`: nats a masked token where each entry is as likely; `unigram`: where each is as likely as it is
        frequent in the training split; with NSP, `nsp_loss` and `nsp_accuracy` of saying the share of the labels,
        or the commoner one.
    """
    counts = shards.split("train").token_counts(shards.wordpiece.vocab_size)
    shares = counts[counts > 0] / counts.sum()
    levels = {"uniform": math.log(len(counts)), "unigram": float(-(shares * np.log(shares)).sum())}
    if config.objective.endswith("+nsp"):
        random = shards.manifest.counts["train"].random_next_share
        entropy = -sum(share * math.log(share) for share in (random, 1 - random) if share > 0)
        levels |= {"nsp_loss": entropy, "nsp_accuracy": max(random, 1 - random)}
    return levels


def _free_bytes() -> int | None:
    """Return the memory that can still be had, or None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
