"""What a person sees of labelled data and of trials: a check before training, a table after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bertwright.cli.console import out, print_json
from bertwright.errors import BertwrightError
from bertwright.messages import Lang, say

if TYPE_CHECKING:
    from bertwright.tasks import Example, Prediction, Task
    from bertwright.tasks.checking import Aligned, Check

_SHARES = ("truncated", "unknown_tokens")
_MOST_ANSWERS = 12


def print_check(check: Check, lang: Lang, console: Console) -> None:
    """Print figures about labelled data, its answers, what is doubtful, and a few examples token by token."""
    colon = "：" if lang == "zh" else ": "
    names = {name: say(f"check_{name}", lang) for name in check.facts}
    width = max(map(cell_len, names.values()))
    for name, value in check.facts.items():
        shown = f"{value:.1%}" if name in _SHARES else f"{value:,}"
        doubtful = value and name in ("contradictory", "also_in_dev", "truncated")
        line = Text(names[name] + " " * (width - cell_len(names[name]) + 2))
        console.print(line.append(shown, style="bold yellow" if doubtful else "bold"))
    if check.balance:
        total = sum(check.balance.values())
        parts = [f"{answer} {count / total:.1%}" for answer, count in list(check.balance.items())[:_MOST_ANSWERS]]
        rest = ["…"] if len(check.balance) > _MOST_ANSWERS else []
        console.print(Text(say("check_balance", lang) + colon + ", ".join(parts + rest)))
    for title, pairs in (("check_contradiction", check.contradictions), ("check_overlap", check.overlaps)):
        for first, second in pairs[:2]:
            console.print(Text(f"{say(title, lang)}{colon}{first} · {second}", style="yellow"))
    if check.shown:
        console.print(Text(say("check_shown", lang), style="dim"))
    for aligned in check.shown:
        console.print(_aligned(aligned, 3 * console.width))


def print_trials(rows: Sequence[Mapping[str, Any]], best_by: str, lang: Lang, console: Console) -> None:
    """Print settings and their mean over seeds, best first."""
    from bertwright.training.trials import shown

    table = Table(box=None, pad_edge=False, header_style="dim")
    known = ("name", "mean", "deviation", "seeds", "degenerate")
    dials = [name for name in rows[0] if name not in known]
    for name in (*dials, "seeds", best_by):
        table.add_column(name, justify="right")
    for place, row in enumerate(rows):
        spread = f" ± {row['deviation']:.4f}" if len(row["seeds"]) > 1 else ""
        number = str(len(row["seeds"]))
        if row["degenerate"]:
            number += f" ({say('trials_degenerate', lang, count=len(row['degenerate']))})"
        cells = [*(shown(row[dial]) for dial in dials), number, f"{row['mean']:.4f}{spread}"]
        table.add_row(*cells, style="bold" if place == 0 else "")
    console.print(table)


def print_per_class(scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print precision, recall, F1 and how many there are of each label or kind of entity."""
    if not scores or len(scores) > 40:
        return
    names = list(next(iter(scores.values())))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for label, row in scores.items():
        cells = (f"{row[name]:.4f}" if isinstance(row[name], float) else f"{row[name]:,}" for name in names)
        table.add_row(Text(label), *cells)
    out.print(table)


def write_answers(task: Task, examples: Sequence[Example], answers: Sequence[Prediction], form: str) -> None:
    """Print answers to standard output: a line of JSON each, or as the official scorers read them.

    Raises:
        BertwrightError: the task has no such form.
    """
    match form, task.name:
        case ("jsonl", _):
            for example, answer in zip(examples, answers, strict=True):
                print_json(({} if example.id is None else {"id": example.id}) | answer)
        case ("squad", "qa"):
            if nameless := next((example for example in examples if example.id is None), None):
                raise BertwrightError("the question has no id", where=nameless.where, fix="leave --format out")
            print_json({example.id: answer["answer"] for example, answer in zip(examples, answers, strict=True)})
        case ("conll", "tag"):
            from bertwright.tasks import TagTask
            from bertwright.tasks.tagged_files import conll_lines

            assert isinstance(task, TagTask)
            for line in conll_lines(examples, answers, scheme=task.scheme):
                out.out(line, highlight=False)
        case _:
            raise BertwrightError(f"answers of the task {task.name!r} have no form {form!r}", fix="leave --format out")


def _aligned(aligned: Aligned, room: int) -> Text:
    """Return tokens in a row, each with what the model is to say there behind it."""
    text = Text("  ")
    for token, mark in aligned:
        if cell_len(text.plain) > room:
            return text.append("…", style="dim")
        text.append(token, style="dim" if token.startswith("[") else "cyan")
        text.append(f"={mark} " if mark else " ", style="bold green")
    return text
