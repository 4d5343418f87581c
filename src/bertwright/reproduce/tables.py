"""An experiment's tables for people: one page of words and numbers, as Markdown, as HTML, and on the screen.

    page = page_of(results, "en")
    markdown(page)
    write_tables(results, Path("out"))            # table.md, table.html, results.json

What was not run yet is `–`. The HTML fetches nothing and looks as a run's report does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bertwright.charts import Chart, curve
from bertwright.files import new_file
from bertwright.messages import LEARNT, MESSAGES, SCORES, Lang, say, score_label
from bertwright.reproduce.experiments import PERPLEXITY, Column, Row
from bertwright.reproduce.results import Cell, Holds, Judgement, Pretrained, Results, title_of
from bertwright.reproduce.runs import FinetuneRun
from bertwright.reproduce.scales import shape_of
from bertwright.reproduce.sources import LIKE_QNLI
from bertwright.sections import Table

NONE = "–"
"""What stands for a number that there is not."""
SIGNS: dict[Judgement, str] = {"agrees": "✓", "disagrees": "✗", "within": "≈", "untold": "?", "missing": NONE}
"""How a verdict looks in a table."""
TABLE_FILES = ("table.md", "table.html", "results.json")
"""What `write_tables` writes."""


@dataclass
class Page:
    """What people read of an experiment."""

    title: str
    intro: str
    parts: list[tuple[str, Table]] = field(default_factory=list)
    """Headings and tables; the first table is the paper's."""
    charts: list[Chart] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_tables(results: Results, out: Path, *, lang: Lang = "en") -> None:
    """Write `table.md`, `table.html` and `results.json`, each in one piece."""
    page = page_of(results, lang)
    values = json.dumps(results.to_json(), indent=2, ensure_ascii=False) + "\n"
    for name, text in zip(TABLE_FILES, (markdown(page), html(page, lang), values), strict=True):
        with new_file(out / name) as file:
            file.write(text.encode())


def page_of(results: Results, lang: Lang) -> Page:
    """Gather what there is to read."""
    order = results.bench.order
    page = Page(
        say("reproduce_title", lang, place=order.experiment.place, scale=order.scale.name),
        say("reproduce_intro", lang, what=say(f"reproduce_{order.experiment.key.replace('-', '_')}", lang)),
    )
    page.parts.append((order.experiment.place, _scores(results, lang)))
    if results.holds:
        page.parts.append((say("reproduce_holds", lang), _holds(results, lang)))
    page.parts.append((say("reproduce_pretraining", lang), _pretraining(results, lang)))
    if tuned := _finetuning(results, lang):
        page.parts.append((say("reproduce_finetuning", lang), tuned))
    page.charts = list(_charts(results, lang))
    page.notes = list(_notes(results, lang))
    return page


def markdown(page: Page) -> str:
    """Return a page as Markdown."""
    parts = [f"# {page.title}\n\n{page.intro}\n"]
    for heading, table in page.parts:
        rule = ["---:" if number else "---" for _, number in table.columns]
        lines = [[name for name, _ in table.columns], rule, *table.rows]
        parts.append(f"## {heading}\n\n" + "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in lines))
        if table.note:
            parts.append(f"{table.note}\n")
    return "\n".join([*parts, "".join(f"- {note}\n" for note in page.notes)])


def html(page: Page, lang: Lang) -> str:
    """Return a page as one self-contained HTML file."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bertwright"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    words = {key.removeprefix("reproduce_"): text[lang == "zh"] for key, text in MESSAGES.items()}
    return environment.get_template("reproduce.html").render(page=page, lang=lang, words=words)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def shown(cell: Cell, digits: int, lang: Lang) -> str:
    """Return a cell as people read it: mean ± standard deviation (number of runs)."""
    if cell.mean is None:
        return NONE
    spread = "" if cell.deviation is None else f" ± {cell.deviation:.{digits}f}"
    spoilt = say("reproduce_spoilt", lang, count=cell.spoilt) if cell.spoilt else ""
    return f"{cell.mean:.{digits}f}{spread} ({len(cell.scores)}{spoilt})"


def _digits(column: Column) -> int:
    return 2 if column.metric == PERPLEXITY else 1


def _heading(results: Results, column: Column, lang: Lang) -> str:
    if column.task is None:
        return say("reproduce_perplexity", lang)
    metric = score_label(column.metric, lang) if column.metric in SCORES else column.metric
    kind = say("reproduce_frozen", lang) if column.features != "none" else ""
    return f"{title_of(results.bench, column)} {metric}{kind}"


def _scores(results: Results, lang: Lang) -> Table:
    ladder = any(row.pretraining.rung is not None for row in results.rows)
    scale = results.bench.order.scale
    columns = [(say("reproduce_row", lang), False)] + ([(say("reproduce_size", lang), False)] if ladder else [])
    for column in results.columns:
        columns += [(_heading(results, column, lang), True), (say("reproduce_paper", lang), True)]
    rows = []
    for row in results.rows:
        line = [row.name] + ([str(shape_of(scale, row.pretraining))] if ladder else [])
        for column in results.columns:
            cell, digits = results.cells[row.key, column.key], _digits(column)
            comparable = cell.paper is not None and title_of(results.bench, column) != LIKE_QNLI
            line += [shown(cell, digits, lang), f"{cell.paper:.{digits}f}" if comparable else NONE]
        rows.append(line)
    return Table(columns, rows, note=say("reproduce_note_cells", lang))


def _holds(results: Results, lang: Lang) -> Table:
    names = {row.key: row.name for row in results.rows}
    pairs = dict.fromkeys((each.better, each.worse) for each in results.holds)
    by_place = {(each.better, each.worse, each.column): each for each in results.holds}
    columns = [column for column in results.columns if any(each.column == column.key for each in results.holds)]
    head = [(say("reproduce_ordering", lang), False)] + [(_heading(results, column, lang), True) for column in columns]
    rows = [
        [f"{names[better]} > {names[worse]}"]
        + [_verdict(by_place.get((better, worse, column.key)), _digits(column)) for column in columns]
        for better, worse in pairs
    ]
    counts = Counter(each.verdict for each in results.holds)
    summary = say("reproduce_summary", lang, all=len(results.holds), **{name: counts[name] for name in SIGNS})
    return Table(head, rows, note=f"{summary} {say('reproduce_signs', lang)}")


def _verdict(holds: Holds | None, digits: int) -> str:
    if holds is None:
        return ""
    if holds.difference is None:
        return NONE
    paper = "" if holds.paper is None else f" ({holds.paper:+.{digits}f})"
    return f"{SIGNS[holds.verdict]} {holds.difference:+.{digits}f}{paper}"


def _pretraining(results: Results, lang: Lang) -> Table:
    heads = ("run", "objective", "size", "dials", "loss", "accuracy", "perplexity", "nsp", "minutes")
    columns = [(say(f"reproduce_{head}", lang), head not in ("run", "objective", "size", "dials")) for head in heads]
    rows = [_pretraining_row(results, each, lang) for each in results.pretrained]
    return Table(columns, rows, note=say("reproduce_note_held_out", lang))


def _pretraining_row(results: Results, each: Pretrained, lang: Lang) -> list[str]:
    config = results.bench.pretraining(each.run)[0]
    tokens = next((name for name in LEARNT if f"{name}_loss" in each.scores), "mlm")

    def of(name: str, digits: int) -> str:
        return shown(each.scores[name], digits, lang) if name in each.scores else NONE

    minutes = f"{sum(each.seconds) / len(each.seconds) / 60:.1f}" if each.seconds else NONE
    dials = say("reproduce_run_dials", lang, steps=config.steps, tokens=config.batch_tokens, lr=f"{config.lr:g}")
    shape = shape_of(results.bench.order.scale, each.run.pretraining)
    figures = (of(f"{tokens}_loss", 3), of(f"{tokens}_accuracy", 1), of(PERPLEXITY, 2), of("nsp_accuracy", 1))
    return [each.name, config.objective.upper(), str(shape), dials, *figures, minutes]


def _finetuning(results: Results, lang: Lang) -> Table | None:
    heads = ("task", "examples", "epochs", "batch_size", "rate", "longest")
    rows = []
    first: dict[tuple[str, bool], FinetuneRun] = {}
    for run in results.bench.runs.finetunings:
        first.setdefault((run.task, run.features != "none"), run)
    for (task, frozen), run in first.items():
        train, dev, _ = results.bench.examples(task)
        config, title = results.bench.finetuning(run), results.bench.found[task].title
        numbers = (config.epochs, config.batch_size, f"{config.lr:g}", config.max_length)
        name = title + (say("reproduce_frozen", lang) if frozen else "")
        rows.append([name, f"{len(train):,} / {len(dev):,}", *map(str, numbers)])
    columns = [(say(f"reproduce_{head}", lang), head != "task") for head in heads]
    return Table(columns, rows, note=say("reproduce_note_best", lang)) if rows else None


def _charts(results: Results, lang: Lang) -> Iterator[Chart]:
    """Yield a curve over steps for each column, if rows are taken from several steps: paper, figure 5."""
    if all(row.pretraining.part == 1.0 for row in results.rows):
        return
    for column in results.columns:
        lines: list[list[tuple[float, float]]] = []
        for objective in ("mlm+nsp", "ltr"):
            rows = [row for row in results.rows if row.pretraining.objective == objective]
            points = ((_step(results, row), results.cells[row.key, column.key].mean) for row in rows)
            lines.append([(step, value / 100) for step, value in points if value is not None])
        if any(lines):
            keys = [
                (key, name) for key, name, line in zip(("line", "points"), ("MLM", "LTR"), lines, strict=True) if line
            ]
            svg = curve(lines[0], lines[1], percent=True, smooth=False)
            yield Chart(_heading(results, column, lang), svg, keys)


def _step(results: Results, row: Row) -> int:
    runs = [run for run in results.bench.runs.finetunings if run.folder.startswith(f"{row.key}-seed")]
    return results.bench.pretraining(runs[0].start)[1][row.pretraining.part] if runs else 0


def _notes(results: Results, lang: Lang) -> Iterator[str]:
    bench = results.bench
    order = bench.order
    if bench.missing:
        count, total = len(bench.missing), len(bench.missing) + len(bench.found)
        lacking = _listed((f"{name} ({what})" for name, what in bench.missing.items()), lang)
        yield say("reproduce_note_missing", lang, count=count, total=total, lacking=lacking)
    if any(found.title == LIKE_QNLI for found in bench.found.values()):
        yield say("reproduce_note_like", lang)
    if order.seeds * order.pretrain_seeds > 1 and order.pretrain_seeds == 1:
        yield say("reproduce_note_one_pretraining", lang)
    if short := [found for found in bench.found.values() if bench.max_length(found) < found.longest]:
        names = _listed((f"{found.title} ({found.longest})" for found in short), lang)
        yield say("reproduce_note_short", lang, longest=bench.longest, names=names)
    if any(cell.spoilt for cell in results.cells.values()):
        yield say("reproduce_note_spoilt", lang)
    for key in order.experiment.notes:
        if key != "reproduce_note_ladder" or order.scale.name != "base":
            yield say(key, lang)
    if order.scale.name != "base":
        yield say("reproduce_note_scale", lang)


def _listed(words: Iterable[str], lang: Lang) -> str:
    return ("、" if lang == "zh" else ", ").join(words)
