"""report.html: one self-contained page about a run, from what lies in its folder.

The charts are SVG without words of their own: the page's text is HTML, so it follows the reader's fonts, language and
light or dark mode. Nothing is fetched from anywhere.

    write_report(Path("run"))  # run/report.html
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertwright.errors import BertwrightError
from bertwright.messages import MESSAGES, Lang, say

Row = dict[str, Any]

MAX_POINTS = 600  # per curve; more are averaged, so that a page about a million steps stays small
TITLES = {
    "lr": "learning_rate",
    "grad_norm": "gradient",
    "tokens_per_second": "tokens_per_second",
    "mfu": "of_peak_title",
}
LINE, POINTS, AXIS = "#a10001", "#a10002", "#a10003"  # stand-ins that become CSS variables


@dataclass(frozen=True)
class Chart:
    """One small diagram over steps."""

    title: str
    svg: str
    keys: list[tuple[str, str]]
    """(CSS class, words) of its curves."""


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
    tiles: list[tuple[str, str]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    samples: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)
    evaluation: Row = field(default_factory=dict)
    facts: list[tuple[str, list[tuple[str, str]], bool]] = field(default_factory=list)
    """(heading, rows, shown at once rather than behind a click)."""


def write_report(run: Path, *, lang: Lang = "en") -> Path:
    """Write a run folder's report.html.

    Args:
        run: a folder with metrics.jsonl and, where they exist, config.json, versions.json, data.json, samples.json
            and evaluation.json.
        lang: language of the page.

    Raises:
        BertwrightError: the folder holds no metrics.jsonl.
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
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}\u202f%"
    words = {key.removeprefix("report_"): text[lang == "zh"] for key, text in MESSAGES.items()}
    page = environment.get_template("report.html").render(
        title=title, parts=parts, comparison=comparison, lang=lang, words=words
    )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(page, encoding="utf-8")
    return temporary.replace(path)


def part_of(run: Path, lang: Lang, *, title: str | None = None) -> Part:
    """Gather what a run folder tells."""
    if not (run / "metrics.jsonl").exists():
        raise BertwrightError("no metrics.jsonl here: this is no run folder", where=run)
    train, evals = read_metrics(run / "metrics.jsonl")
    config, data, versions = (_read(run / name, {}) for name in ("config.json", "data.json", "versions.json"))
    pretraining = any("mlm_loss" in row for row in (*train, *evals))
    part = Part(title or say("report_pretrain" if pretraining else "report_finetune", lang), str(run))
    best = _best(evals, _read(run / "best.json", {}))
    part.tiles = _tiles(train, evals, best, lang)
    part.charts = _charts(train, evals, lang)
    part.samples = _read(run / "samples.json", [])
    part.epochs = [] if pretraining else [{**row, "best": row is best} for row in evals]
    part.evaluation = _read(run / "evaluation.json", {})
    for key, values, shown in (
        ("report_data", data, True),
        ("report_configuration", config, False),
        ("report_versions", versions, False),
    ):
        if values:
            part.facts.append((say(key, lang), list(_flat(values)), shown))
    return part


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
        if row.get("kind") in ("train", "eval"):
            rows[row["kind"], row["step"]] = row
    ordered = [rows[key] for key in sorted(rows, key=lambda key: key[1])]
    return [row for row in ordered if row["kind"] == "train"], [row for row in ordered if row["kind"] == "eval"]


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def _best(evals: list[Row], kept: Row) -> Row | None:
    """Return the evaluation whose weights were kept, if this is a fine-tuning run."""
    scored = [row for row in evals if "accuracy" in row]
    return max(scored, key=lambda row: (row["step"] == kept.get("step"), row["accuracy"]), default=None)


def _tiles(train: list[Row], evals: list[Row], best: Row | None, lang: Lang) -> list[tuple[str, str]]:
    tiles = []
    last = evals[-1] if evals else train[-1] if train else {}
    name = say("dev" if evals and "f1" in evals[-1] else "held_out" if evals else "train", lang)
    if best is not None:
        tiles.append((f"{name}: {say('accuracy', lang)}", _percent(best["accuracy"])))
        if "f1" in best:
            tiles.append((f"{name}: F1", _percent(best["f1"])))
    for prefix, label in (("mlm", "MLM"), ("nsp", "NSP")):
        if f"{prefix}_loss" in last:
            tiles.append((f"{label} {say('loss', lang)}, {name}", f"{last[f'{prefix}_loss']:.3f}"))
            tiles.append((f"{label} {say('accuracy', lang)}, {name}", _percent(last[f"{prefix}_accuracy"])))
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
    held_out = say("dev" if any("f1" in row for row in evals) else "held_out", lang)
    for prefix, label in (("mlm_", "MLM "), ("nsp_", "NSP "), ("", "")):
        for metric in ("loss", "accuracy"):
            name = f"{prefix}{metric}"
            curve, points = _series(train, name), _series(evals, name)
            if curve or points:
                keys = [("line", say("train", lang))] * bool(curve) + [("points", held_out)] * bool(points)
                charts.append(Chart(label + say(metric, lang), _svg(curve, points, percent=metric == "accuracy"), keys))
    pace = ("tokens_per_second", "mfu") if any("mlm_loss" in row for row in train) else ()
    for name in ("lr", "grad_norm", *pace):
        if curve := _series(train, name):
            svg = _svg(curve, [], percent=name == "mfu", smooth=name == "grad_norm", from_zero=name != "grad_norm")
            charts.append(Chart(say(TITLES[name], lang), svg, []))
    return charts


def _series(rows: list[Row], name: str) -> list[tuple[float, float]]:
    found = [
        (row["step"], row[name]) for row in rows if isinstance(row.get(name), (int, float)) and math.isfinite(row[name])
    ]
    size = math.ceil(len(found) / MAX_POINTS) or 1
    groups = (found[start : start + size] for start in range(0, len(found), size))
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _svg(
    curve: list[tuple[float, float]],
    points: list[tuple[float, float]],
    *,
    percent: bool = False,
    smooth: bool = True,
    from_zero: bool = False,
) -> str:
    """Draw a curve (pale as it is, bold when smoothed) and points; return the SVG element."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "bertwright", "font.size": 9, "axes.linewidth": 0.8,
        "axes.edgecolor": AXIS, "xtick.color": AXIS, "ytick.color": AXIS, "grid.color": AXIS, "grid.alpha": 0.25,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "ytick.major.size": 0,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(3.7, 2.3), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(axis="y")
        if curve:
            x, y = zip(*curve, strict=True)
            noisy = smooth and len(curve) > 20
            axes.plot(x, y, color=LINE, linewidth=1 if noisy else 1.8, alpha=0.35 if noisy else 1)
            if noisy:
                axes.plot(x, _smoothed(y), color=LINE, linewidth=1.8)
        if points:
            axes.plot(*zip(*points, strict=True), color=POINTS, linewidth=1.4, marker="o", markersize=3.5)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: _tick(value))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%" if percent else _tick(value))
        if from_zero:
            axes.set_ylim(bottom=0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _follow_the_page(buffer.getvalue())


def _follow_the_page(svg: str) -> str:
    """Let an SVG take colours and fonts from the page, and drop ids that would occur twice on it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: [0-9.]+px [^;\"]*", "font-size: 9px", svg)
    svg = re.sub(r"(<svg[^>]*?) (?:width|height)=\"[^\"]*\"", r"\1", svg)
    svg = re.sub(r"(<svg[^>]*?) (?:width|height)=\"[^\"]*\"", r"\1", svg)
    svg = re.sub(r'<g>\s*<path d="[^"]*" style="fill: #ffffff"/>\s*</g>', "", svg)
    for stand_in, variable in ((LINE, "--line"), (POINTS, "--points"), (AXIS, "--muted")):
        svg = svg.replace(stand_in, f"var({variable})")
    return svg


def _smoothed(values: Sequence[float]) -> list[float]:
    """Return the mean of a window of about a twentieth of the values around each."""
    half = max(1, len(values) // 40)
    windows = (values[max(0, middle - half) : middle + half + 1] for middle in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _tick(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.3g}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
            rows.append((prefix + name, text if isinstance(text, str) else json.dumps(value, ensure_ascii=False)))
    return rows


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u202f%"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u202fh\u202f{minutes:02}\u202fmin" if hours else f"{minutes}\u202fmin\u202f{rest:02}\u202fs"
