"""The page of fine-tuning results, from the files that `finetune_sets.py` keeps.

print(page(Path("benchmarks/results/fine-tuning")))
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
"""One data set's file."""

NAMES = {
    "accuracy": "accuracy",
    "mcc": "Matthews correlation",
    "f1": "F1",
    "exact": "exact match",
    "pearson": "Pearson",
    "spearman": "Spearman",
}
"""Metrics as people write them."""

MISSING = "–"

HEAD = """# Fine-tuning results, beside transformers' Trainer

The same encoder, the same examples, the same learning rate, epochs, batch size, longest input, warm-up (0.1), linear
decay and weight decay (0.01) on both sides; the scores are those after the last epoch, by the same official metrics.
Everything else is each side's own default. The command, every run and every figure are in
`benchmarks/results/fine-tuning`.

```
python benchmarks/finetune_sets.py --zh-init RUN/model
python benchmarks/finetune_sets.py --table
```
"""

SPEED_NOTE = """Training alone: reading, encoding and evaluation are left out on both sides. Both were run one after
the other, with nothing else running, on {threads} threads. The ratio is between what users of either get there without
asking, {ours} here and fp32 there. The other columns are ours in fp32, and the peer in bf16, and as tutorials have it,
with its inputs padded to the longest allowed.
"""


def page(folder: Path) -> str:
    """Return the page in Markdown."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    found = [figures for figures in found if figures["runs"]]
    if not found:
        raise SystemExit(f"no figures in {folder} yet")
    found.sort(key=lambda figures: (figures["language"], figures["title"]))
    precisions = {run["precision"] for figures in found for run in runs_of(figures, "ours")}
    threads = {str(each["made_by"]["threads"]) for figures in found for each in figures["speed"].values()}
    note = SPEED_NOTE.format(ours=" or ".join(sorted(precisions)), threads=" or ".join(sorted(threads)))
    parts = [HEAD, _made_by(found), "## Scores\n", _scores(found), "## Speed\n", note, _speeds(found)]
    parts += ["## What was trained\n", _dials(found)]
    if problems := _problems(found):
        parts += ["## Runs that came to nothing\n", problems]
    return "\n".join(parts)


def runs_of(figures: Figures, side: str) -> list[Figures]:
    """Return the runs of one side, by seed."""
    return [run for name, run in sorted(figures["runs"].items()) if name.startswith(f"{side},")]


def _made_by(found: Sequence[Figures]) -> str:
    versions = [run["made_by"]["versions"] for figures in found for run in figures["runs"].values()]
    machines = {
        f"{each['processor']}, torch {each['torch']}, transformers {each['transformers']}." for each in versions
    }
    return f"{' '.join(sorted(machines))} Mean ± standard deviation over seeds; scores × 100.\n"


def _scores(found: Sequence[Figures]) -> str:
    rows = []
    for figures in found:
        for of in (name for name in figures["examples"] if name != "train"):
            for metric in figures["metrics"]:
                ours, peer = (
                    [run["scores"][of][metric] * 100 for run in runs_of(figures, s)] for s in ("ours", "peer")
                )
                difference = f"{statistics.fmean(ours) - statistics.fmean(peer):+.1f}" if ours and peer else MISSING
                what = NAMES.get(metric, metric) + (f", {of}" if of != "dev" else "")
                seeds = f"{len(ours)} and {len(peer)}" if len(ours) != len(peer) else str(len(ours))
                rows.append((figures["title"], what, seeds, _mean(ours), _mean(peer), difference))
    return _table(("data set", "score", "seeds", "Bertwright", "Trainer", "difference"), rows)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _speeds(found: Sequence[Figures]) -> str:
    head = ("data set", "Bertwright", "Trainer", "ratio", "Bertwright fp32", "Trainer bf16", "Trainer `max_length`")
    rows = []
    for figures in found:
        cases = ("ours", "peer", "ours fp32", "peer bf16", "peer max_length")
        ours, peer, *others = (figures["speed"].get(case, {}).get("examples_per_second") for case in cases)
        ratio = f"**{ours / peer:.1f}×**" if ours and peer else MISSING
        rows.append((figures["title"], _rate(ours), _rate(peer), ratio, *map(_rate, others)))
    return "Examples a second:\n\n" + _table(head, rows)


def _rate(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _dials(found: Sequence[Figures]) -> str:
    rows = []
    for figures in found:
        dials, sizes, encoder = figures["dials"], figures["examples"], figures["encoder"]
        counts = " / ".join(f"{sizes[name]:,}" for name in sizes)
        values = (dials["epochs"], f"{dials['lr']:g}", dials["batch_size"], dials["max_length"])
        shape = f"{encoder['layers']} layers, {encoder['width']} wide"
        rows.append((figures["title"], f"{counts} ({' / '.join(sizes)})", *map(str, values), shape))
    head = ("data set", "examples", "epochs", "learning rate", "batch size", "longest input", "encoder")
    return _table(head, rows)


def _problems(found: Sequence[Figures]) -> str:
    lines = [
        f"- {figures['title']}, {name}: the model {problem}"
        for figures in found
        for name, run in figures["runs"].items()
        for problem in run.get("problems", [])
    ]
    return "\n".join(lines) + ("\n" if lines else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:" for _ in head[1:]]]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))
