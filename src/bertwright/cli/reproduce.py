"""`bertwright reproduce`: the paper's experiments, from shards and task folders to a table beside the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from bertwright.cli import console, view
from bertwright.cli.console import print_json
from bertwright.cli.flags import Output, Switch
from bertwright.errors import BertwrightError
from bertwright.messages import Lang, language, say
from bertwright.reproduce.experiments import get_experiment
from bertwright.reproduce.scales import Settings, get_scale

if TYPE_CHECKING:
    from bertwright.reproduce.results import Results
    from bertwright.reproduce.runs import Training
    from bertwright.reproduce.workbench import Order
    from bertwright.training.checkpoint import Event

_WIDE = 500
"""Columns that a table may take on the screen: its lines are folded by the terminal, not its cells."""
Several = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())]


def reproduce(
    experiment: str,
    /,
    *,
    scale: str,
    data: Path,
    tasks: Path,
    out: Path,
    data_single: Path | None = None,
    long_data: Path | None = None,
    models: Path | None = None,
    seeds: int = 3,
    pretrain_seeds: int = 1,
    only: Several = (),
    score_on: Several = (),
    plan: Switch = False,
    probe_seconds: float = 5.0,
    lang: Lang | None = None,
    dials: Annotated[Settings, Parameter(name="*", group="Dials")] = Settings(),
    output: Output = Output(),
) -> None:
    """Run one of the paper's experiments and write its table, the paper's numbers beside.

    Stopped in any way, the same command goes on.

    Args:
        experiment: table5 (pre-training tasks), table6 (sizes), table7 (features), mask-mix (C.2) or steps (C.1).
        scale: tiny, mini or base, which is the paper's own.
        data: Folder of shards that `bertwright data build` wrote.
        tasks: Holds a folder for each task: MNLI, QNLI, MRPC, SST-2 as GLUE gives them out, SQuAD, CoNLL-2003.
        out: Folder for table.md, table.html, results.json and all runs.
        data_single: Shards of single segments for the rows that learn no next sentences; else they read the pairs.
        long_data: Shards with longer examples, for the last steps of every pre-training.
        models: Folder of the pre-trainings, which experiments of one scale may share; by default inside --out.
        seeds: Fine-tunings of each cell from one pre-training; the paper averages 5.
        pretrain_seeds: Pre-trainings of each row.
        only: Rows to run, by their names in folders: bert,no-nsp; by default all.
        score_on: Tasks to score on, also such as the paper's table lacks: MRPC,RTE; by default the table's.
        plan: Show all trainings and about how long they take, and run none.
        probe_seconds: With --plan: how long each kind of pre-training is tried; 0: not at all.
        lang: Language of tables and reports, en or zh; by default that of the locale.
    """
    chosen, size = get_experiment(experiment), get_scale(scale)
    from bertwright.reproduce.workbench import Order

    order = Order(
        experiment=chosen, scale=size, data=data, tasks=tasks, out=out, data_single=data_single, long_data=long_data,
        models=models, only=_split(only), score_on=_split(score_on), seeds=seeds, pretrain_seeds=pretrain_seeds,
        settings=dials,
    )  # fmt: skip
    if plan:
        _plan(order, probe_seconds, language(lang), output)
    else:
        _run(order, language(lang), output)


def _run(order: Order, lang: Lang, output: Output) -> None:
    from bertwright.reproduce.engine import run_experiment
    from bertwright.reproduce.tables import TABLE_FILES

    shown = view.TrainingView(lang, quiet=output.quiet)

    def tell(event: Event) -> None:
        if event["kind"] != "run":
            shown(event)
        elif not output.quiet:
            console.err.print(_progress(event, lang), style="bold")

    with shown:
        results = run_experiment(order, lang=lang, on_event=tell)
    if output.json:
        print_json(results.to_json())
        return
    _print(results, lang)
    paths = ", ".join(str(order.out / name) for name in TABLE_FILES)
    console.err.print(say("reproduce_saved", lang, paths=paths))


def _split(words: tuple[str, ...]) -> tuple[str, ...]:
    """Take `a,b c` for three words."""
    return tuple(part for word in words for part in word.split(",") if part)


def _progress(event: Event, lang: Lang) -> Text:
    parts = [say("reproduce_progress", lang, number=event["number"], of=event["of"], what=_named(event["run"], lang))]
    for key, seconds in (("reproduce_about", event["seconds"]), ("reproduce_all_left", event["left"])):
        if seconds is not None:
            parts.append(say(key, lang, time=view.clock(seconds)))
    return Text(" · ".join(parts))


def _named(run: Training, lang: Lang) -> str:
    from bertwright.reproduce.runs import kind_of

    return say(f"reproduce_{kind_of(run)}", lang, name=run.folder)


def _print(results: Results, lang: Lang) -> None:
    from bertwright.reproduce.tables import page_of

    page = page_of(results, lang)
    for heading, found in page.parts[:2]:
        table = Table(title=heading, title_justify="left", box=None, pad_edge=False, header_style="dim")
        for name, is_number in found.columns:
            table.add_column(Text(name), justify="right" if is_number else "left")
        for row in found.rows:
            table.add_row(*map(Text, row))
        console.out.print(table, width=_WIDE)
        console.out.print(Text(found.note, style="dim"))
    for note in page.notes:
        console.out.print(Text(f"· {note}", style="dim"))


def _plan(order: Order, probe_seconds: float, lang: Lang, output: Output) -> None:
    from bertwright.reproduce.cost import Cost
    from bertwright.reproduce.runs import kind_of
    from bertwright.reproduce.workbench import Workbench

    if probe_seconds < 0:
        raise BertwrightError(f"--probe-seconds must not be negative, not {probe_seconds:g}")
    bench = Workbench(order)
    cost = Cost(bench)
    with view.stage_bar(quiet=output.quiet) as progress:
        cost.probe(probe_seconds, progress)
    runs, left = bench.runs.trainings, cost.left()
    todo = sum(not cost.is_done(run) for run in runs)
    begun = {run: (bench.folder(run) / "config.json").exists() for run in runs}
    if output.json:
        rows = [{"run": run.folder, "kind": kind_of(run), "done": cost.is_done(run), "begun": begun[run],
                 "seconds": cost.seconds(run), "flops": cost.flops(run)} for run in runs]  # fmt: skip
        print_json({"runs": rows, "seconds_left": left, "left_out": bench.missing})
        return
    width = max(cell_len(_named(run, lang)) for run in runs)
    for run in runs:
        name, seconds = _named(run, lang), cost.seconds(run)
        line = Text(name + " " * (width - cell_len(name) + 2)).append(f"{view.clock(seconds) if seconds else '–':>8}")
        if begun[run]:
            line.append("  " + say("reproduce_state_done" if cost.is_done(run) else "reproduce_state_begun", lang))
        console.out.print(line)
    counts = {"pretrain": len(bench.runs.pretrainings), "finetune": len(bench.runs.finetunings)}
    console.out.print(say("reproduce_plan", lang, count=len(runs), **counts))
    if left is None:
        console.out.print(say("reproduce_plan_unknown", lang, count=todo))
    else:
        console.out.print(say("reproduce_plan_left", lang, count=todo, time=view.clock(left)))
        console.out.print(Text(say("reproduce_plan_note", lang), style="dim"))
