"""Real fine-tuning results beside the peer: the same encoder, examples and dials, both scored by the official metrics.

    python benchmarks/finetune_sets.py --sets mrpc rte --zh-init runs/mini-zh/model     train, score, keep the figures
    python benchmarks/finetune_sets.py --table en                                       the page from what is kept

Every data set, side and seed is one run in a process of its own; its figures are kept as soon as they are there, in
`results/fine-tuning/SET.json`, and a run that is kept is not run again: kill it at any time and start it again.

- Scores are those after the last epoch, on both sides; those of our best epoch, which `bertwright finetune` keeps,
  stand beside them in the file. Nothing is started again with another seed.
- Each side trains in the precision that its users get: ours in bf16 where the processor multiplies it, the peer in
  fp32.
- Speed is measured apart, on `--speed-steps` steps of each side, one after the other, with nothing else running:
  several runs that share a machine cost no score, but tell nothing of speed. There each side is also tried in the other
  precision, and the peer with its inputs padded to the longest allowed. `--seeds 0` measures speed alone, and
  `--speed-steps 0` scores alone.
- Seconds are those of training alone, without reading, encoding and evaluation: the sum of `seconds` in our
  metrics.jsonl, and the peer's `train_runtime`.

What is not a dial of the set is each side's own default: Adam's epsilon (1e-6 and 1e-8), and that our steps cut a
batch into micro-batches.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import common
from bench_finetune import minilm
from bertwright.config import FinetuneConfig, Precision
from bertwright.errors import BertwrightError
from bertwright.files import new_file, sha256_of
from bertwright.json_values import read_json
from bertwright.predict import Predictor
from bertwright.tasks import Example, Prediction
from bertwright.training.finetune import finetune_examples
from finetune_data import SETS, FineTuningSet, Split, draw
from finetune_table import SPEED_CASES, page
from peer_trainer import Peer

SIDES = ("ours", "peer")

Scores = dict[str, dict[str, float]]
"""Metrics by what was scored."""


@dataclass(frozen=True)
class Side:
    """One side with one data set, in a process of its own.

    Args:
        name: of the data set.
        side: `ours` or `peer`.
        init: model folder of the encoder.
        data: folder of the shared data.
        epochs: 0 takes those of the set.
        limit: most examples of any kind; 0: all.
    """

    name: str
    side: str
    init: Path
    data: Path
    epochs: int
    limit: int

    def __post_init__(self) -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    @property
    def chosen(self) -> FineTuningSet:
        """The data set with its dials."""
        chosen = SETS[self.name]
        return replace(chosen, epochs=self.epochs or chosen.epochs)

    def splits(self) -> list[Split]:
        """Read the examples."""
        with tempfile.TemporaryDirectory() as work:
            return self.chosen.read(self.data, Path(work), limit=self.limit)

    def run(self, seed: int) -> common.Results:
        """Train and score on every split; scores are means over splits, seconds sums."""
        train = train_ours if self.side == "ours" else train_peer
        splits = self.splits()
        runs = [train(split, self.chosen, self.init, seed) for split in splits]
        result: common.Results = {"scores": mean_scores([run["scores"] for run in runs])}
        if best := [run["best"] for run in runs if "best" in run]:
            result["best"] = mean_scores(best)
        seconds = sum(run["seconds"] for run in runs)
        examples = sum(len(split.train) for split in splits) * self.chosen.epochs
        return result | {
            "precision": runs[0]["precision"],
            "examples": examples,
            "seconds": seconds,
            "examples_per_second": examples / seconds,
            "problems": [run["problem"] for run in runs if run.get("problem")],
        }

    def speed(self, case: str, steps: int) -> common.Results:
        """Train for some steps on examples drawn from the training set, and only look how long that takes."""
        split = self.splits()[0]
        split = replace(split, train=draw(split.train, steps * self.chosen.batch_size), scored={})
        if self.side == "ours":
            precision: Precision = "fp32" if case == "ours fp32" else "auto"
            chosen = replace(self.chosen, epochs=1)
            seconds = train_ours(split, chosen, self.init, 0, precision=precision)["seconds"]
        else:
            peer = Peer(split, self.chosen, self.init)
            padding = "max_length" if case == "peer max_length" else True
            seconds = peer.train(0, epochs=1, bf16=case == "peer bf16", padding=padding)
        return {"examples": len(split.train), "seconds": seconds, "examples_per_second": len(split.train) / seconds}


def _end_with(parent: Any) -> None:
    """End this process as soon as its parent is gone, killed perhaps: nobody waits for its figures any more."""
    parent.join()
    os._exit(1)


def train_ours(
    split: Split, chosen: FineTuningSet, init: Path, seed: int, *, precision: Precision = "auto"
) -> common.Results:
    """Run `finetune`, and score the last epoch's weights and those of the best."""
    config = FinetuneConfig(**chosen.dials(), seed=seed, restarts=0, precision=precision)
    dev = split.scored.get("dev") or split.train[:64]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result = finetune_examples(split.task, config, train=split.train, dev=dev, init=init, out=out)
        rows = [json.loads(row) for row in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        figures: common.Results = {
            "seconds": sum(row["seconds"] for row in rows if row["kind"] == "train"),
            "precision": read_json(out / "config.json")["train"]["precision"],
        }
        predictor = Predictor.load(result.model)
        best = judged = judge(predictor.predict_examples, split)
        if result.step < rows[-1]["step"]:
            judged = judge(_last(predictor, out).predict_examples, split)
    return figures | judged | {"best": best["scores"]}


def _last(predictor: Predictor, run: Path) -> Predictor:
    """Put the last checkpoint's weights into a predictor, in place."""
    weights = load_file(max((run / "checkpoints").iterdir()) / "state.safetensors")
    with torch.no_grad():
        for name, parameter in predictor.model.named_parameters():
            parameter.copy_(weights[f"model.{name}"])
    return predictor


def train_peer(split: Split, chosen: FineTuningSet, init: Path, seed: int) -> common.Results:
    """Run `Trainer`, and score what it ends with."""
    peer = Peer(split, chosen, init)
    seconds = peer.train(seed, epochs=chosen.epochs)
    return {"seconds": seconds, "precision": "fp32", **judge(peer.predict, split)}


def judge(predict: Callable[[Sequence[Example]], list[Prediction]], split: Split) -> common.Results:
    """Score answers by the task's official metrics, and tell if those on dev say that training came to nothing."""
    answers = {name: predict(examples) for name, examples in split.scored.items()}
    scores = {name: split.task.score(answers[name], examples) for name, examples in split.scored.items()}
    problem = split.task.degenerate(answers["dev"], split.scored["dev"]) if answers else None
    return {"scores": scores, "problem": problem}


def mean_scores(several: Sequence[Mapping[str, Mapping[str, float]]]) -> Scores:
    """Return the mean of each score over splits."""
    return {
        name: {metric: statistics.fmean(scores[name][metric] for scores in several) for metric in several[0][name]}
        for name in several[0]
    }


def rounded(value: Any) -> Any:
    """Return JSON values with five decimal places."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 5) if isinstance(value, float) else value


class Kept:
    """The figures of one data set in their file.

    Args:
        path: the file; it may not be there yet.
        settings: what all of its runs are made with.
    """

    def __init__(self, path: Path, settings: common.Results) -> None:
        self.path = path
        self.values: common.Results = {"what": "fine-tuning results", **settings, "runs": {}, "speed": {}}
        if path.exists():
            saved = json.loads(path.read_text(encoding="utf-8"))
            if other := [name for name, value in settings.items() if saved.get(name) != value]:
                raise SystemExit(f"{path}: made with another {other[0]}: give another --out, or remove the file")
            self.values = saved

    def add(self, part: str, name: str, compute: Callable[[], common.Results]) -> None:
        """Compute a figure unless it is kept, and keep it at once, with what it depends on."""
        if name in self.values[part]:
            return
        machine = common.describe_machine("transformers", "accelerate")
        figures = compute()
        self.values[part][name] = rounded(figures | {"made_by": machine})
        with new_file(self.path) as file:
            file.write((json.dumps(self.values, indent=2, ensure_ascii=False) + "\n").encode())
        told = {
            of: {metric: scores[metric] for metric in self.values["metrics"]}
            for of, scores in figures.get("scores", {}).items()
        }
        print(
            f"{self.path.stem:<13} {name:<15} {figures['examples_per_second']:9.1f} examples/s  {rounded(told) or ''}"
        )


def work(options: argparse.Namespace) -> None:
    """Run what is not kept yet: seed by seed, both sides one after the other, so that they meet the same machine."""
    for name in options.sets:
        init = options.zh_init if SETS[name].language == "zh" else options.init
        sides = [side for side in SIDES if options.side in (side, "both")]
        given = {side: (name, side, init, options.data, options.epochs, options.limit) for side in sides}
        kept = Kept(options.out / f"{name}.json", settings(Side(*given[sides[0]])))

        def call(side: str, method: str, *arguments: Any) -> common.Results:
            process = common.InOwnProcess(options.threads, Side, *given[side])  # noqa: B023  (called in this very turn)
            result: common.Results = process.call(method, *arguments)
            return result

        for seed in range(options.seeds):
            for side in sides:
                kept.add("runs", f"{side}, seed {seed}", lambda: call(side, "run", seed))  # noqa: B023
        for case in SPEED_CASES if options.speed_steps else ():
            if (side := case.split()[0]) in sides:
                kept.add("speed", case, lambda: call(side, "speed", case, options.speed_steps))  # noqa: B023


def settings(side: Side) -> common.Results:
    """Return what all runs of a data set are made with."""
    splits = side.splits()
    sizes: Counter[str] = Counter()
    for split in splits:
        sizes.update({"train": len(split.train)} | {name: len(examples) for name, examples in split.scored.items()})
    shape = read_json(side.init / "config.json")
    return {
        "title": side.chosen.title,
        "language": side.chosen.language,
        "metrics": list(side.chosen.metrics),
        "dials": side.chosen.dials(),
        "splits": len(splits),
        "examples": {name: round(count / len(splits)) for name, count in sizes.items()},
        "encoder": {
            "layers": shape["num_hidden_layers"],
            "width": shape["hidden_size"],
            "sha256": sha256_of(side.init / "model.safetensors"),
        },
        "limit": side.limit,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, help="default: all of which the encoder is given")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side with each set (default: 3)")
    parser.add_argument("--side", choices=[*SIDES, "both"], default="both")
    parser.add_argument("--init", type=Path, help="English model folder (default: all-MiniLM-L6-v2 from its package)")
    parser.add_argument("--zh-init", type=Path, help="Chinese model folder")
    parser.add_argument("--data", type=Path, default=common.SHARED, help="folder of the shared data")
    parser.add_argument("--out", type=Path, default=common.BASE / "results" / "fine-tuning", help="where figures go")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: torch's choice")
    parser.add_argument("--speed-steps", type=int, default=60, help="of the other precisions; 0: none (default: 60)")
    parser.add_argument("--limit", type=int, default=0, help="most examples of any kind, for a trial")
    parser.add_argument("--epochs", type=int, default=0, help="instead of the set's own, for a trial")
    parser.add_argument("--table", choices=("en", "zh"), help="print the page of results and run nothing")
    options = parser.parse_args(arguments)
    if options.table:
        return options
    options.init = options.init or minilm()
    options.sets = options.sets or [name for name, one in SETS.items() if one.language == "en" or options.zh_init]
    if not options.zh_init and (chinese := [name for name in options.sets if SETS[name].language == "zh"]):
        raise SystemExit(f"{', '.join(chinese)}: name a Chinese model folder with --zh-init")
    for folder in filter(None, (options.init, options.zh_init)):
        if not (folder / "model.safetensors").exists():
            raise SystemExit(f"{folder}: no model.safetensors there")
    if not (options.data / "tasks").is_dir():
        raise SystemExit(f"no data sets at {options.data}: name the folder that has `tasks` with --data")
    return options


def main() -> None:
    """Run, or print what was found."""
    options = parse()
    if options.table:
        print(page(options.out, options.table))
        return
    torch.set_num_threads(options.threads)
    try:
        work(options)
    except BertwrightError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
