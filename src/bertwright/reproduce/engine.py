"""Run an experiment: every training once, each in a run folder of its own, and after each the table anew.

    results = run_experiment(Order(experiment=get_experiment("table5"), scale=get_scale("tiny"), data=..., ...))
    # OUT/table.md, OUT/table.html, OUT/results.json, OUT/pretrain/bert-seed0/report.html ...

Stopped in any way, the same call goes on: what is done is not repeated, what was begun goes on from its last
checkpoint. Paper: 5.1 to 5.3, C.1 and C.2.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bertwright.config import BertConfig
from bertwright.errors import BertwrightError
from bertwright.files import new_file
from bertwright.json_values import from_dict, read_json
from bertwright.messages import Lang
from bertwright.model.bert import Bert
from bertwright.model.weights import save_model
from bertwright.objectives import OBJECTIVES
from bertwright.report import read_metrics, write_report
from bertwright.reproduce.cost import Cost
from bertwright.reproduce.results import Results, collect
from bertwright.reproduce.runs import FinetuneRun, PretrainRun, Training
from bertwright.reproduce.tables import write_tables
from bertwright.reproduce.workbench import DONE_FILE, Order, Workbench, model_name
from bertwright.text.wordpiece import WordPiece
from bertwright.training.checkpoint import Event, OnEvent
from bertwright.training.distributed import require_alone
from bertwright.training.finetune import finetune_examples
from bertwright.training.loop import TrainingInterrupted
from bertwright.training.pretrain import pretrain


def run_experiment(order: Order, *, lang: Lang = "en", on_event: OnEvent = lambda event: None) -> Results:
    """Run what is not done yet of an experiment, and write its tables.

    Args:
        order: what is asked for.
        lang: language of tables and reports.
        on_event: told of every row of training and every message, and before each training of
            `{"kind": "run", "run", "number", "of", "seconds", "left"}`; seconds may be None.

    Returns:
        Everything that the tables show.

    Raises:
        TrainingInterrupted: a signal came; what was done is saved.
        BertwrightError: the parts do not fit each other, or `order.out` holds results of something else.
    """
    require_alone("reproducing an experiment")
    bench = Workbench(order)
    bench.open()
    cost = Cost(bench)
    trainings = bench.runs.trainings
    for number, run in enumerate(trainings, start=1):
        if cost.is_done(run):
            continue
        on_event({"kind": "run", "run": run, "number": number, "of": len(trainings),
                  "seconds": cost.seconds(run), "left": cost.left()})  # fmt: skip
        try:
            _train(bench, run, lang, on_event)
        except TrainingInterrupted as stopped:
            stopped.fix = "type the same command to go on"
            raise
        cost.look()
        write_tables(collect(bench), bench.out, lang=lang)
    results = collect(bench)
    write_tables(results, bench.out, lang=lang)
    return results


def _train(bench: Workbench, run: Training, lang: Lang, on_event: OnEvent) -> None:
    """Run a training to its end, write its report, and mark it as done; its checkpoints are dropped."""
    folder, begin = bench.folder(run), time.monotonic()
    done = _pretrain(bench, run, on_event) if isinstance(run, PretrainRun) else _finetune(bench, run, on_event)
    train, _ = read_metrics(folder / "metrics.jsonl")
    # Of a run that was stopped in between, the time of its steps is what there is.
    seconds = max(time.monotonic() - begin, sum(row["seconds"] for row in train))
    write_report(folder, lang=lang)
    with new_file(folder / DONE_FILE) as file:
        file.write((json.dumps({**done, "seconds": round(seconds, 1)}, indent=2) + "\n").encode())
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _pretrain(bench: Workbench, run: PretrainRun, on_event: OnEvent) -> dict[str, Any]:
    folder = bench.folder(run)
    config, ends = bench.pretraining(run)
    looked_at = [step for part, step in ends.items() if part < 1.0]

    def listen(event: Event) -> None:
        on_event(event)
        if event["kind"] == "saved":
            keep_models(folder, looked_at, bench.shards.wordpiece)

    keep_models(folder, looked_at, bench.shards.wordpiece)  # killed between a checkpoint and its model
    pretrain(
        bench.model(run),
        config,
        data=bench.shards_of(run).folder,
        long_data=bench.order.long_data,
        out=folder,
        resume=(folder / "config.json").exists(),
        on_event=listen,
    )
    if lost := [step for step in looked_at if not (folder / model_name(step)).is_dir()]:
        raise BertwrightError(f"the weights after step {lost[0]:,} were not kept", where=folder,
                              fix="remove this folder and type the same command again")  # fmt: skip
    _, evals = read_metrics(folder / "metrics.jsonl")
    scores = {name: value for name, value in (evals[-1] if evals else {}).items() if name not in ("kind", "step")}
    return {"made_from": bench.made_from(run), "steps": config.steps, "scores": scores}


def _finetune(bench: Workbench, run: FinetuneRun, on_event: OnEvent) -> dict[str, Any]:
    folder, (train, dev, source) = bench.folder(run), bench.examples(run.task)
    result = finetune_examples(
        bench.task(run),
        bench.finetuning(run),
        train=train,
        dev=dev,
        source=source,
        init=bench.weights(run),
        out=folder,
        resume=(folder / "config.json").exists(),
        on_event=lambda event: None if event["kind"] == "check" else on_event(event),
    )
    return {"scores": result.scores, "step": result.step, "problem": result.problem}


def keep_models(run: Path, steps: Iterable[int], wordpiece: WordPiece) -> None:
    """Make model folders, `model-at-STEP`, of those of a run's checkpoints that are wanted and there.

    Args:
        run: the folder of a pre-training.
        steps: after which the weights are wanted.
        wordpiece: its vocabulary.
    """
    for step in steps:
        checkpoint, target = run / "checkpoints" / f"step-{step:08d}", run / model_name(step)
        if checkpoint.is_dir() and not target.is_dir():
            saved = read_json(run / "config.json")
            config = from_dict(BertConfig, saved["model"], where=run / "config.json")
            bert = Bert(config, OBJECTIVES[saved["train"]["objective"]]().heads(config))
            tensors = load_file(checkpoint / "state.safetensors")
            with torch.no_grad():
                for name, parameter in bert.named_parameters():
                    parameter.copy_(tensors[f"model.{name}"])
            save_model(bert, target, wordpiece=wordpiece)
