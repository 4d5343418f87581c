"""The diagrams of a report: SVG without words of its own, in the colours and fonts of the page around it.

curve([(10, 9.1), (20, 8.4)], [(20, 8.5)])  # "<svg ...": training as a line, evaluations as points
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]

MAX_POINTS = 600
"""Per curve; more are averaged, so that a page about a million steps stays small."""
MAX_DOTS = 1000
"""Of a scatter diagram; of more, every n-th is drawn."""
LINE, POINTS, AXIS = "#a10001", "#a10002", "#a10003"  # stand-ins that become CSS variables


@dataclass(frozen=True)
class Chart:
    """One small diagram."""

    title: str
    svg: str
    keys: list[tuple[str, str]]
    """(CSS class, words) of its curves."""


def series(rows: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """Return (step, value) of the rows that have a finite number under a name, averaged to `MAX_POINTS` at most."""
    found = [
        (row["step"], row[name]) for row in rows if isinstance(row.get(name), (int, float)) and math.isfinite(row[name])
    ]
    size = math.ceil(len(found) / MAX_POINTS) or 1
    groups = (found[start : start + size] for start in range(0, len(found), size))
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def curve(
    line: Sequence[Point],
    points: Sequence[Point],
    *,
    percent: bool = False,
    smooth: bool = True,
    from_zero: bool = False,
) -> str:
    """Draw a line over steps (pale as it is, bold when smoothed) and points; return the SVG element."""
    from matplotlib.ticker import MaxNLocator

    with _diagram(3.7, 2.3) as (axes, drawn):
        axes.grid(axis="y")
        if line:
            x, y = zip(*line, strict=True)
            noisy = smooth and len(line) > 20
            marker = "o" if len(line) == 1 else ""
            axes.plot(
                x,
                y,
                color=LINE,
                linewidth=1 if noisy else 1.8,
                alpha=0.35 if noisy else 1,
                marker=marker,
                markersize=3.5,
            )
            if noisy:
                axes.plot(x, _smoothed(y), color=LINE, linewidth=1.8)
        if points:
            axes.plot(*zip(*points, strict=True), color=POINTS, linewidth=1.4, marker="o", markersize=3.5)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.xaxis.set_major_formatter(lambda value, _: _tick(value))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%" if percent else _tick(value))
        if from_zero:
            axes.set_ylim(bottom=0)
    return drawn[0]


def reliability(bins: Sequence[Mapping[str, float]]) -> str:
    """Draw accuracy against confidence, a dot for each step of confidence, larger for more examples.

    Args:
        bins: `confidence` and `accuracy`, shares, and `count` of each.
    """
    most = max(each["count"] for each in bins)
    with _diagram(4.4, 4.1) as (axes, drawn):
        axes.grid()
        axes.plot([0, 1], [0, 1], color=AXIS, linewidth=1, linestyle="--")
        x, y = [each["confidence"] for each in bins], [each["accuracy"] for each in bins]
        axes.plot(x, y, color=LINE, linewidth=1.2, alpha=0.5)
        axes.scatter(x, y, s=[16 + 110 * each["count"] / most for each in bins], color=LINE, alpha=0.85, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
            axis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    return drawn[0]


def scatter(points: Sequence[Point]) -> str:
    """Draw answers (up) against right numbers (across) on one scale, at least one pair."""
    shown = thinned(points)
    low, high = min(map(min, shown)), max(map(max, shown))
    room = 0.04 * (high - low) or 1
    with _diagram(4.4, 4.1) as (axes, drawn):
        axes.grid()
        axes.plot([low, high], [low, high], color=AXIS, linewidth=1, linestyle="--")
        axes.plot(
            *zip(*shown, strict=True),
            color=LINE,
            linestyle="",
            marker="o",
            markersize=3.5,
            alpha=0.5,
            markeredgewidth=0,
        )
        axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: _tick(value))
    return drawn[0]


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Return every n-th point, `MAX_DOTS` at most."""
    return points[:: math.ceil(len(points) / MAX_DOTS) or 1]


@contextmanager
def _diagram(width: float, height: float) -> Iterator[tuple[Axes, list[str]]]:
    """Give axes to draw on, sizes in inches; once drawn, the SVG element is in the list."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "bertwright", "font.size": 9, "axes.linewidth": 0.8,
        "axes.edgecolor": AXIS, "xtick.color": AXIS, "ytick.color": AXIS, "grid.color": AXIS, "grid.alpha": 0.25,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "ytick.major.size": 0,
    }  # fmt: skip
    drawn: list[str] = []
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.add_subplot(), drawn
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    drawn.append(follow_the_page(buffer.getvalue()))


def follow_the_page(svg: str) -> str:
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
    return f"{value:.6g}"
