"""report.html: one self-contained page about a run, from what lies in its folder.

The charts are SVG without words of their own: the page's text is HTML, so it follows the reader's fonts, language and
light or dark mode. Nothing is fetched from anywhere.

    write_report(Path("run"))  # run/report.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertwright import sections
from bertwright.charts import Chart, curve, series
from bertwright.errors import BertwrightError
from bertwright.messages import (
    LEARNT,
    MESSAGES,
    SCORES,
    Lang,
    is_pretraining,
    say,
    score_label,
    score_names,
    score_text,
)
from bertwright.sections import PERCENT

Row = dict[str, Any]

TITLES = {
    "lr": "learning_rate",
    "grad_norm": "gradient",
    "tokens_per_second": "tokens_per_second",
    "mfu": "of_peak_title",
}
MOST_TILES = 5
"""Scores at the top of the page; the table has all of them."""


@dataclass(frozen=True)
class Comparison:
    """The same fine-tuning from several starting weights, the one to look at first."""

    metric: str
    rows: list[tuple[str, float]]


@dataclass
class Part:
    """What the page shows of one run."""

    title: str
    subtitle: str = ""
    problem: str = ""
    """Why the run came to nothing; empty if it did not."""
    restarts: list[str] = field(default_factory=list)
    """The same of earlier attempts, which were set aside."""
    tiles: list[tuple[str, str]] = field(default_factory=list)
    trials: sections.Table | None = None
    charts: list[Chart] = field(default_factory=list)
    breakdown: list[sections.Table] = field(default_factory=list)
    """Which tokens are predicted well, sorted in several ways."""
    breakdown_note: str = ""
    samples: list[Row] = field(default_factory=list)
    epochs: sections.Table | None = None
    evaluation: Row = field(default_factory=dict)
    """Its `labels` and `confusion` are shown as they are."""
    mix_ups: sections.Table | None = None
    classes: sections.Table | None = None
    diagrams: list[sections.Diagram] = field(default_factory=list)
    mistakes: list[sections.Mistake] = field(default_factory=list)
    data: sections.DataCheck | None = None
    facts: list[tuple[str, list[tuple[str, str]], bool]] = field(default_factory=list)
    """(heading, rows, shown at once rather than behind a click)."""


def write_report(run: Path, *, lang: Lang = "en") -> Path:
    """Write a run folder's report.html.

    Args:
        run: a folder with metrics.jsonl or trials.json and, where they exist, config.json, versions.json, data.json,
            samples.json, best.json and evaluation.json.
        lang: language of the page.

    Raises:
        BertwrightError: the folder is no run's, or one of these files is not JSON.
    """
    part = part_of(run, lang)
    return write_page(run / "report.html", f"{part.title} · {run.resolve().name}", [part], lang=lang)


def write_page(
    path: Path, title: str, parts: Sequence[Part], *, lang: Lang = "en", comparison: Comparison | None = None
) -> Path:
    """Write one page about several runs, whole or not at all."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bertwright"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}{PERCENT}"
    words = {key.removeprefix("report_"): text[lang == "zh"] for key, text in MESSAGES.items()}
    page = environment.get_template("report.html").render(
        title=title, parts=parts, comparison=comparison, lang=lang, words=words
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(path)


def part_of(run: Path, lang: Lang, *, title: str | None = None) -> Part:
    """Gather what a run folder tells."""
    trials: Row = _read(run / "trials.json", {})
    if not (run / "metrics.jsonl").exists() and not trials:
        raise BertwrightError("no metrics.jsonl here: this is no run folder", where=run)
    train, evals = read_metrics(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else ([], [])
    pretraining = _is_pretraining(train, evals)
    part = Part(title or say("report_pretrain" if pretraining else "report_finetune", lang), str(run))
    kept = _read(run / "best.json", {})
    best = None if pretraining else _best(evals, kept)
    part.problem = _problem(kept, lang)
    best_trial = _best_trial(run, trials)
    spoilt = (_read(folder / "best.json", {}) for folder in sorted((best_trial or run).glob("degenerate-*")))
    part.restarts = [problem for each in spoilt if (problem := _problem(each, lang))]
    part.tiles = _tiles(train, evals, best, lang)
    part.charts = _charts(train, evals, lang)
    if evals and (tables := sections.breakdown_tables(evals[-1], lang)):
        part.breakdown, part.breakdown_note = tables, say("report_breakdown_note", lang, step=evals[-1]["step"])
    part.samples = _read(run / "samples.json", [])
    part.trials = sections.trials_table(trials, lang)
    part.epochs = None if pretraining else sections.epochs_table(evals, best, lang)
    _add_evaluation(part, _read(run / "evaluation.json", {}), lang)
    _add_facts(part, run, best_trial, lang)
    return part


def _problem(kept: Row, lang: Lang) -> str:
    problem = (lang == "zh" and kept.get("problem_zh")) or kept.get("problem")
    return say("report_problem_why", lang, problem=problem) if problem else ""


def _add_evaluation(part: Part, evaluation: Row, lang: Lang) -> None:
    part.evaluation = evaluation if len(evaluation.get("labels", [])) <= sections.MOST_LABELS else {}
    part.mix_ups = sections.mix_ups(evaluation, lang)
    part.classes = sections.class_table(evaluation, lang)
    found = (sections.calibration_diagram(evaluation, lang), sections.points_diagram(evaluation, lang))
    part.diagrams = [each for each in found if each]
    part.mistakes = sections.mistakes(evaluation, lang)
    if others := sections.other_details(evaluation):
        named = [(say(f"detail_{name}", lang) if f"detail_{name}" in MESSAGES else name, value)
                 for name, value in _flat(others)]  # fmt: skip
        part.facts.append((say("report_details", lang), named, True))


def _add_facts(part: Part, run: Path, best_trial: Path | None, lang: Lang) -> None:
    data = _read(run / "data.json", {}) or (_read(best_trial / "data.json", {}) if best_trial else {})
    part.data = sections.data_check(data, lang)
    facts = [
        ("report_data", {} if part.data else data, True),
        ("report_configuration", _read(run / "config.json", {}), False),
    ]
    if best_trial:
        facts.append(("report_best_configuration", _read(best_trial / "config.json", {}), False))
    facts.append(("report_versions", _read(run / "versions.json", {}), False))
    part.facts += [(say(key, lang), _flat(values), shown) for key, values, shown in facts if values]


def _best_trial(run: Path, trials: Row) -> Path | None:
    """Return the folder of the trial whose model was kept."""
    if not trials.get("rows"):
        return None
    best, key = trials["rows"][0], trials["best_by"]
    seed = max(best["seeds"], key=lambda seed: best["seeds"][seed][key])
    return run / f"{best['name']}-seed={seed}"


def read_metrics(path: Path) -> tuple[list[Row], list[Row]]:
    """Return the training rows and the evaluation rows; a last line cut short by a crash is left out.

    Steps that were run twice, because a run was resumed from a checkpoint before them, count once: the later one.
    """
    rows: dict[tuple[str, int], Row] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise BertwrightError("not a line of JSON", where=f"{path}, line {number}") from None
        if not isinstance(row, dict) or not isinstance(row.get("step", 0), int):
            raise BertwrightError("not a row of metrics", where=f"{path}, line {number}")
        if row.get("kind") in ("train", "eval") and "step" in row:
            rows[row["kind"], row["step"]] = row
    ordered = [rows[key] for key in sorted(rows, key=lambda key: key[1])]
    return [row for row in ordered if row["kind"] == "train"], [row for row in ordered if row["kind"] == "eval"]


def _read(path: Path, default: Any) -> Any:
    if not path.exists():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BertwrightError(f"not valid JSON: {error}", where=path) from None
    if not isinstance(value, type(default)):
        raise BertwrightError(f"expected a JSON {'object' if default == {} else 'list'}", where=path)
    return value


def _is_pretraining(train: list[Row], evals: list[Row]) -> bool:
    return any(map(is_pretraining, (*train, *evals)))


def _best(evals: list[Row], kept: Row) -> Row | None:
    """Return the evaluation whose weights were kept; where that is not known, the one with the best first score."""
    scored = [row for row in evals if score_names(row)]
    lead = score_names(scored[-1])[0] if scored else ""
    return max(scored, key=lambda row: (row["step"] == kept.get("step"), row.get(lead, 0.0)), default=None)


def _tiles(train: list[Row], evals: list[Row], best: Row | None, lang: Lang) -> list[tuple[str, str]]:
    last = evals[-1] if evals else train[-1] if train else {}
    name = say("dev" if best else "held_out" if evals else "train", lang)
    shown, colon = best or {}, "：" if lang == "zh" else ": "
    tiles = [
        (f"{name}{colon}{score_label(score, lang)}", score_text(score, shown[score], sign=PERCENT))
        for score in score_names(shown)[:MOST_TILES]
    ]
    for each in LEARNT:
        if f"{each}_loss" in last:
            tiles.append((f"{each.upper()} {say('loss', lang)}, {name}", f"{last[f'{each}_loss']:.3f}"))
            accuracy = score_text("accuracy", last[f"{each}_accuracy"], sign=PERCENT)
            tiles.append((f"{each.upper()} {say('accuracy', lang)}, {name}", accuracy))
    if train:
        tiles.append((say("report_steps", lang), f"{train[-1]['step']:,}"))
    speeds = sorted(row["tokens_per_second"] for row in train if "tokens_per_second" in row)
    if speeds and best is None:
        tiles.append((say("tokens_per_second", lang), f"{speeds[len(speeds) // 2]:,.0f}"))
    if seconds := sum(row.get("seconds", 0) for row in train):
        tiles.append((say("report_time", lang), _duration(seconds)))
    return tiles


def _charts(train: list[Row], evals: list[Row], lang: Lang) -> list[Chart]:
    charts = []
    pretraining = _is_pretraining(train, evals)
    held_out = say("held_out" if pretraining else "dev", lang)
    for label, name, title in _metrics(evals, pretraining=pretraining):
        line, points = series(train, name), series(evals, name)
        if name == "accuracy" and any("micro_f1" in row for row in evals):
            points = []  # of whole sets of labels; training counts single ones
        if line or points:
            keys = [("line", say("train", lang))] * bool(line) + [("points", held_out)] * bool(points)
            percent = score_text(name.rpartition("_")[2] if pretraining else name, 0.0).endswith("%")
            charts.append(Chart(label + say(title, lang), curve(line, points, percent=percent), keys))
    pace = ("tokens_per_second", "mfu") if pretraining else ()
    for name in ("lr", "grad_norm", *pace):
        if line := series(train, name):
            svg = curve(line, [], percent=name == "mfu", smooth=name == "grad_norm", from_zero=name != "grad_norm")
            charts.append(Chart(say(TITLES[name], lang), svg, []))
    return charts


def _metrics(evals: list[Row], *, pretraining: bool) -> list[tuple[str, str, str]]:
    """Return (label, name in the rows, key of its title) of what gets a curve: of many scores, the best-known two."""
    if pretraining:
        return [(f"{prefix.upper()} ", f"{prefix}_{name}", name) for prefix in LEARNT for name in ("loss", "accuracy")]
    scores = [name for name in score_names(evals[-1] if evals else {}) if name in SCORES and name != "accuracy"]
    return [("", "loss", "loss"), ("", "accuracy", "accuracy"), *(("", name, f"score_{name}") for name in scores[:2])]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
            rows.append((prefix + name, text if isinstance(text, str) else json.dumps(value, ensure_ascii=False)))
    return rows


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u202fh\u202f{minutes:02}\u202fmin" if hours else f"{minutes}\u202fmin\u202f{rest:02}\u202fs"
