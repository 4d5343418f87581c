"""What a person sees of a plan: what a run will cost, part by part, and what is known of its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from bertwright.cli.console import out
from bertwright.cli.view import clock
from bertwright.messages import Lang, say

if TYPE_CHECKING:
    from bertwright.training.plan import Plan

Row = tuple[str, str]
"""A name and what stands beside it."""


def print_plan(plan: Plan, lang: Lang) -> None:
    """Print a plan: a group of figures under each heading, then the time and the loss in words."""
    groups = {
        "plan_parameters": _parameters(plan, lang),
        "plan_memory": _memory(plan, lang),
        "plan_arithmetic": [(say(f"plan_{name}", lang), _count(value, "FLOP")) for name, value in plan.flops.items()],
        "plan_disk": [(say(f"plan_{name}", lang), _size(value)) for name, value in plan.disk.items()],
        "plan_data": _data(plan, lang),
        "plan_time": _time(plan, lang),
        "plan_loss": _loss(plan, lang),
    }
    width = 2 + max(cell_len(name) for rows in groups.values() for name, _ in rows)
    for title, rows in groups.items():
        out.print(Text(say(title, lang), style="bold"))
        for name, value in rows:
            out.print(Text("  " + name + " " * (width - cell_len(name))).append(value, style="bold"))
    if plan.probe is not None and plan.probe.batch_tokens < plan.config.batch_tokens:
        tokens, whole = plan.probe.batch_tokens, plan.config.batch_tokens
        out.print(Text(say("plan_smaller_steps", lang, tokens=tokens, whole=whole), style="dim"))
    out.print(Text(say("plan_loss_note", lang), style="dim"))


def _parameters(plan: Plan, lang: Lang) -> list[Row]:
    parts = [(say(f"plan_{name.replace('.', '_')}", lang), f"{count:,}") for name, count in plan.parameters.items()]
    return [*parts, (say("plan_all", lang), f"{sum(plan.parameters.values()):,}")]


def _memory(plan: Plan, lang: Lang) -> list[Row]:
    parts = [(say(f"plan_{name}", lang), _size(size)) for name, size in plan.memory.items()]
    parts.append((say("plan_all", lang), _size(sum(plan.memory.values()))))
    if plan.probe is not None:
        parts.append((say("plan_peak", lang), _size(plan.probe.peak_bytes)))
    return parts


def _data(plan: Plan, lang: Lang) -> list[Row]:
    rows = [(say(f"plan_{name}", lang), f"{plan.data[name]:,.0f}") for name in ("examples", "tokens", "tokens_seen")]
    return [*rows, (say("plan_epochs", lang), f"{plan.data['epochs']:.2f}")]


def _time(plan: Plan, lang: Lang) -> list[Row]:
    rows = [(say("plan_steps", lang), f"{plan.config.steps:,}")]
    if plan.probe is None or plan.seconds is None:
        return [*rows, (say("plan_here", lang), plan.why_no_probe or say("plan_not_measured", lang))]
    for phase, speed in zip(plan.phases, plan.probe.speeds, strict=True):
        alone = len({each.name for each in plan.phases}) == 1
        name = say("plan_speed" if alone else f"plan_speed_{phase.name}", lang)
        name += say("plan_growing", lang) if phase.growing else ""
        share = say("of_peak", lang, share=speed.share_of_peak)
        rows.append((name, f"{speed.tokens_per_second:,.0f} {say('tokens_per_second', lang)} · {share}"))
    likely, best, worst = (clock(plan.seconds[name]) for name in ("likely", "at_best", "at_worst"))
    return [*rows, (say("plan_here", lang), say("plan_range", lang, likely=likely, best=best, worst=worst))]


def _loss(plan: Plan, lang: Lang) -> list[Row]:
    rows = [(say(f"plan_{name}", lang), f"{plan.chance[name]:.3f}") for name in ("uniform", "unigram")]
    if "nsp_loss" in plan.chance:
        rows.append((say("plan_nsp", lang), f"{plan.chance['nsp_loss']:.3f} · {plan.chance['nsp_accuracy']:.1%}"))
    return rows + [(say("plan_published", lang), say("plan_published_run", lang, **run)) for run in plan.published]


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"


def _count(count: float, what: str) -> str:
    for prefix in ("", "k", "M", "G", "T", "P"):
        if count < 1000:
            return f"{count:.3g} {prefix}{what}"
        count /= 1000
    return f"{count:,.3g} E{what}"
