"""Run every benchmark, one after the other, and hold the figures against the goals.

    python benchmarks/run_all.py                 everything: about half an hour on two idle cores
    python benchmarks/run_all.py pretrain        the scripts whose command contains the word
    python benchmarks/run_all.py --show          the table alone, from the figures in benchmarks/results

A goal that is missed is shown, and is no failure; a script that fails is one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

BASE = Path(__file__).resolve().parent
SCRIPTS = {
    "pretrain-mini": ["bench_pretrain.py", "--model", "mini"],
    "pretrain-base": ["bench_pretrain.py", "--model", "base", "--steps", "1"],
    "finetune": ["bench_finetune.py"],
    "data": ["bench_data.py"],
    "vocab": ["bench_vocab.py"],
    "tokenize": ["bench_tokenize.py"],
}
"""By the name of the file in `results` that each one writes."""


@dataclass(frozen=True)
class Goal:
    """A figure in a results file and what it has to reach."""

    result: str
    what: str
    figure: Callable[[dict[str, Any]], float]
    least: float
    unit: str = "×"
    share: Callable[[dict[str, Any]], float] | None = None
    """The share of the machine's peak behind the figure."""


def ratio(result: str, what: str, ours: str, theirs: str, least: float) -> Goal:
    """A goal on how much quicker one case is than another."""
    pair = f"{ours} vs {theirs}"
    return Goal(result, what, lambda x: x["ratios"][pair]["median"], least, share=lambda x: x["share_of_peak"][ours])


def pretraining(model: str, bf16: float) -> list[Goal]:
    """The three goals of a pre-training step."""
    result, what = f"pretrain-{model}", f"pre-training step, {model}"
    ours, theirs = "bertwright", "transformers"
    return [
        ratio(result, f"{what}, bf16", f"{ours} bf16", f"{theirs} bf16", bf16),
        ratio(result, f"{what}, fp32", f"{ours} fp32", f"{theirs} fp32", 3.0),
        ratio(result, f"{what}, fp32, the peer on oneDNN too", f"{ours} fp32", f"{theirs} fp32 oneDNN", 1.6),
    ]


def finetuning(precision: str, padding: str, least: float) -> Goal:
    """A goal of fine-tuning."""
    what = f"fine-tuning, {precision}, the peer with {padding}"
    return ratio("finetune", what, f"bertwright {precision}", f"transformers {precision}, {padding}", least)


def tokenizing(language: str, case: str, what: str, least: float) -> Goal:
    """A goal of encoding text, with the peer's rules."""
    name = {"en": "English", "zh": "Chinese"}[language]
    return Goal("tokenize", f"{what}, {name}", lambda x: x["text"][f"{language}, hf"]["ratios"][case]["median"], least)


GOALS = [
    *pretraining("mini", 2.5),
    *pretraining("base", 1.7),
    finetuning("bf16", "dynamic padding", 5.0),
    finetuning("fp32", "dynamic padding", 5.0),
    finetuning("bf16", "max_length", 15.0),
    finetuning("fp32", "max_length", 15.0),
    Goal("data", "text to shards, one core", lambda x: x["build"]["1_workers"]["megabytes_per_second"], 5.0, " MB/s"),
    Goal("vocab", "training a vocabulary", lambda x: x["train"]["ratio"], 1.0),
    tokenizing("en", "ids, cold", "text to ids, caches empty at first", 3.0),
    tokenizing("zh", "ids, cold", "text to ids, caches empty at first", 3.0),
    tokenizing("en", "ids, warm", "text to ids, caches full", 3.0),
    tokenizing("zh", "ids, warm", "text to ids, caches full", 3.0),
    tokenizing("en", "offsets, cold", "text to ids and offsets, caches empty at first", 1.0),
    tokenizing("zh", "offsets, cold", "text to ids and offsets, caches empty at first", 1.0),
]


HEADER = ("benchmark", "figure", "goal", "met", "share of peak")


def rows(results: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """Hold results against goals; what was not measured says so."""
    found = []
    for goal in GOALS:
        wanted = f"≥ {goal.least:g}{goal.unit}"
        if goal.result not in results:
            found.append((goal.what, "not measured", wanted, "", ""))
            continue
        result = results[goal.result]
        figure = goal.figure(result)
        share = f"{goal.share(result):.0%}" if goal.share else ""
        found.append((goal.what, f"{figure:.2f}{goal.unit}", wanted, "yes" if figure >= goal.least else "no", share))
    return found


def write_summary(results: dict[str, dict[str, Any]]) -> None:
    """Write the table as `results/README.md`."""
    lines = [
        "# Figures",
        "",
        "Written by `python benchmarks/run_all.py`; every repeat is in the JSON file beside it.",
        "",
    ]
    measured = next((results[name] for name in SCRIPTS if "peaks" in results.get(name, {})), None)
    if measured:
        versions, peaks = measured["versions"], {name: peak / 1e9 for name, peak in measured["peaks"].items()}
        lines += [
            f"{versions['processor']}, {measured['threads']} threads, torch {versions['torch']}, "
            f"transformers {versions['transformers']}. One product reaches {peaks['bf16']:,.0f} GFLOP/s in bf16, "
            f"{peaks['fp32']:,.0f} in fp32, {peaks['fp32_default_library']:,.0f} in fp32 by torch's default library.",
            "",
        ]
    lines += [f"| {' | '.join(cells)} |" for cells in (HEADER, ["---"] * len(HEADER), *rows(results))]
    (BASE / "results" / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def load(names: list[str]) -> dict[str, dict[str, Any]]:
    """Read the results files that are there."""
    paths = {name: BASE / "results" / f"{name}.json" for name in names}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="run those whose command contains one of these words; default: all")
    parser.add_argument("--show", action="store_true", help="run nothing")
    options = parser.parse_args()
    chosen = {
        name: command
        for name, command in SCRIPTS.items()
        if not options.words or any(word in " ".join(command) for word in options.words)
    }
    failed = []
    for name, (script, *arguments) in {} if options.show else chosen.items():
        print(f"\n$ python benchmarks/{' '.join([script, *arguments])}", flush=True)
        if subprocess.run([sys.executable, str(BASE / script), *arguments]).returncode:
            failed.append(name)
    write_summary(load(list(SCRIPTS)))
    table = Table(*HEADER, title="Bertwright against its goals")
    for cells in rows(load([name for name in chosen if name not in failed])):
        table.add_row(*cells)
    Console(width=120).print(table)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
