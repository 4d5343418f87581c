"""Fine-tuning: one task's examples in, a model folder that answers by itself out. Paper: 4 and A.3.

    files = {"train": Path("train.tsv"), "dev": Path("dev.tsv")}
    finetune(ClassifyTask(), FinetuneConfig(), **files, init=Path("run/model"), out=Path("sst2"))

A run that comes to nothing (one answer to everything, a loss no better than guessing) is found out, set aside, and
started again with another seed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bertwright.config import BertConfig, FinetuneConfig
from bertwright.errors import BertwrightError
from bertwright.evaluation import evaluate_examples
from bertwright.files import sha256_of
from bertwright.json_values import read_json, to_dict
from bertwright.messages import Problem, language, say
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.folder import read_config, read_wordpiece
from bertwright.model.hub import bert_folder
from bertwright.model.weights import load_model
from bertwright.predict import Predictor
from bertwright.tasks import Example, Task, TaskObjective, save_fine_tuned, task_to_json
from bertwright.tasks.checking import check_examples
from bertwright.text.wordpiece import WordPiece
from bertwright.training.board import boards_of
from bertwright.training.checkpoint import SET_ASIDE, OnEvent, RunFolder
from bertwright.training.distributed import require_alone
from bertwright.training.features import FeatureStream
from bertwright.training.loop import fit

BEST_FILE = "best.json"
"""Step, scores and fate of the evaluation whose weights a run folder keeps."""
SEEDS_APART = 10_000
"""Between the seed of a run and that of its restart."""
_UNFINISHED = ".unfinished"
LEAST_STEPS = 100
"""A shorter run that comes to nothing was too short: it is named, but not started again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinetuneResult:
    """What fine-tuning leaves behind."""

    model: Path
    """The model folder of the best evaluation."""
    scores: dict[str, float]
    """Its scores on dev."""
    step: int
    """When it was."""
    problem: str | None = None
    """Why the run came to nothing, in words that follow "the model "; None if it did not."""
    problem_zh: str | None = None
    """The same as a Chinese sentence, where the task says it."""


def finetune(
    task: Task,
    config: FinetuneConfig,
    *,
    train: Path,
    dev: Path,
    init: str | Path,
    out: Path,
    random_weights: bool = False,
    resume: bool = False,
    on_event: OnEvent = lambda event: None,
) -> FinetuneResult:
    """Fine-tune a pre-trained model and keep the weights that did best on dev.

    Args:
        task: with its column names; what it learns from the training file (labels) is added here.
        config: every dial.
        train: file of labelled examples.
        dev: file of labelled examples to choose by.
        init: the model folder to start from, or a name on the hub.
        out: the run folder.
        random_weights: take shape and vocabulary from `init`, but start from random weights: what pre-training is
            compared with.
        resume: go on with the run in `out`.
        on_event: told of every row of `metrics.jsonl` and every message.

    Raises:
        TrainingInterrupted: a signal came; the run was saved.
        BertwrightError: a file is not as the task needs it, or the run folder is another run's.
    """
    return finetune_examples(
        task,
        config,
        **read_examples(task, train, dev),
        init=init,
        out=out,
        random_weights=random_weights,
        resume=resume,
        on_event=on_event,
    )


def read_examples(task: Task, train: Path, dev: Path) -> dict[str, Any]:
    """Return what `finetune_examples` takes as `train`, `dev` and `source`: a label that only dev has is refused."""
    source = {"train_file": str(train), "train_sha256": sha256_of(train)}
    source |= {"dev_file": str(dev), "dev_sha256": sha256_of(dev)}
    examples = task.read(train)
    return {"train": examples, "dev": task.learn(examples).read(dev), "source": source}


def finetune_examples(
    task: Task,
    config: FinetuneConfig,
    *,
    train: Sequence[Example],
    dev: Sequence[Example],
    init: str | Path,
    out: Path,
    random_weights: bool = False,
    resume: bool = False,
    on_event: OnEvent = lambda event: None,
    source: Mapping[str, Any] | None = None,
) -> FinetuneResult:
    """Fine-tune on examples that are read already; see `finetune`.

    Args:
        dev: none, to keep the last weights, and set nothing by examples.
        source: what the run folder says of where they are from, and knows them by when it is resumed; their sha256
            unless given.
    """
    require_alone("fine-tuning")
    task = task.learn(train)
    source = source or {"train_sha256": _sha256(train), "dev_sha256": _sha256(dev)}
    spoilt = _spoilt(out)  # of a run that is resumed
    while True:
        seed = config.seed + SEEDS_APART * len(spoilt)
        attempt = _Attempt(task, dataclasses.replace(config, seed=seed), Path(init), out, random_weights)
        result, steps = attempt.run(train, dev, source, resume=resume, on_event=on_event)
        if result.problem is None:
            return result
        may_restart = steps >= LEAST_STEPS and len(spoilt) < config.restarts
        lang = language()
        problem = (lang == "zh" and result.problem_zh) or result.problem
        said = {"out": out, "seed": seed + SEEDS_APART, "problem": problem}
        _log.warning("%s", say("problem_restart" if may_restart else "problem_stays", lang, **said))
        if not may_restart:
            return result
        spoilt.append(_set_aside(out, len(spoilt) + 1))
        resume = False


def _spoilt(out: Path) -> list[Path]:
    """Return the folders of attempts that came to nothing; one whose move was interrupted is moved to its end."""
    for unfinished in out.glob(f"{SET_ASIDE}*{_UNFINISHED}"):
        _set_aside(out, int(unfinished.name.removeprefix(SET_ASIDE).removesuffix(_UNFINISHED)))
    return sorted(out.glob(f"{SET_ASIDE}*"))


def _set_aside(out: Path, number: int) -> Path:
    """Move what a degenerate run has written into a folder of its own inside the run folder; renamed last: it is whole.

    Its checkpoints are dropped: nothing goes on from there.
    """
    folder = out / f"{SET_ASIDE}{number}"
    unfinished = out / f"{folder.name}{_UNFINISHED}"
    unfinished.mkdir(exist_ok=True)
    for file in list(out.iterdir()):
        if not file.name.startswith((SET_ASIDE, "run.lock")):
            file.rename(unfinished / file.name)
    shutil.rmtree(unfinished / "checkpoints", ignore_errors=True)
    return unfinished.rename(folder)


@dataclass(frozen=True)
class _Attempt:
    """One training from its first step to its last."""

    task: Task
    config: FinetuneConfig
    init: Path
    out: Path
    random_weights: bool

    def run(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        source: Mapping[str, Any],
        *,
        resume: bool,
        on_event: OnEvent,
    ) -> tuple[FinetuneResult, int]:
        """Train, and return what came of it and after how many steps."""
        device = machine.prepare(self.config.threads)
        folder = bert_folder(self.init)
        model_config = read_config(folder)
        wordpiece = read_wordpiece(folder, model_config)
        dtype = machine.compute_dtype(self.config.precision, device)
        config = dataclasses.replace(
            self.config,
            precision="fp32" if dtype.itemsize == 4 else "bf16",
            max_length=self.config.max_length or min(self.task.usual_length, model_config.max_position_embeddings),
        )
        _require_room(model_config, config, self.init)
        model = self._model(folder, model_config).to(device)
        model.compute_dtype = dtype
        features = self.task.encode(train, wordpiece, config.max_length)
        stream = FeatureStream(
            features,
            self.task,
            batch_size=config.batch_size,
            micro_batch_tokens=config.micro_batch_tokens,
            seed=config.seed,
        )
        steps = stream.steps_per_epoch * config.epochs
        with RunFolder.create(
            self.out, self._run_config(config, source), resume=resume, boards=boards_of(config)
        ) as run:
            check = check_examples(self.task, train, features, wordpiece, dev=dev)
            run.write_json("data.json", check.to_json())
            if not any(self.out.glob(f"{SET_ASIDE}*")):
                on_event({"kind": "check", "check": check})
            judge = _Judge(model, self.task, wordpiece, config.max_length, dev, run, steps)
            fit(
                model,
                TaskObjective(self.task),
                stream,
                _at_epoch_ends(config, stream.steps_per_epoch),
                steps=steps,
                run=run,
                evaluate=judge.evaluate,
                on_event=on_event,
            )
            return judge.verdict(self.task.chance_loss(train)), steps

    def _model(self, folder: Path, model_config: BertConfig) -> Bert:
        config = dataclasses.replace(
            model_config,
            hidden_dropout_prob=self.config.dropout,
            attention_probs_dropout_prob=self.config.dropout,
            pool_last=model_config.is_decoder,
        )
        heads, seed = TaskObjective(self.task).heads(config), self.config.seed
        start = Bert(config, heads, seed=seed) if self.random_weights else None
        model = start or load_model(folder, heads, config=config, seed=seed)
        model.freeze(self.config.freeze)
        return model

    def _run_config(self, config: FinetuneConfig, source: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "kind": "finetune",
            "task": task_to_json(self.task),
            "train": to_dict(config),
            "init": str(self.init),
            **source,
            "random_weights": self.random_weights,
        }


def _at_epoch_ends(config: FinetuneConfig, epoch: int) -> FinetuneConfig:
    return dataclasses.replace(
        config, eval_every=config.eval_every or epoch, checkpoint_every=config.checkpoint_every or epoch
    )


def _require_room(model: BertConfig, config: FinetuneConfig, init: Path) -> None:
    if config.max_length > model.max_position_embeddings:
        raise BertwrightError(
            f"max_length {config.max_length} is longer than the model takes ({model.max_position_embeddings})",
            where=init,
            fix=f"use --max-length {model.max_position_embeddings}",
        )


def _sha256(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr(example).encode())
    return digest.hexdigest()


@dataclass
class _Judge:
    """Scores the model along the path that `predict` takes, keeps the weights that do best, and tells a spoilt run."""

    model: Bert
    task: Task
    wordpiece: WordPiece
    max_length: int
    examples: Sequence[Example]
    run: RunFolder
    steps: int

    def evaluate(self, step: int) -> dict[str, float]:
        """Score the model on dev, and save it if it is the best so far; where there is no dev, save the last."""
        if not self.examples:
            if step == self.steps:
                self._keep(self.task, {"step": step, "scores": {}, "problem": None})
            return {}
        predictor = Predictor(self.model.eval(), self.wordpiece, self.task, max_length=self.max_length)
        trained_in, self.model.compute_dtype = self.model.compute_dtype, torch.float32  # as the saved model answers
        try:
            evaluation = evaluate_examples(predictor, self.examples, calibrate=True)
        finally:
            self.model.compute_dtype = trained_in
        best_file = self.run.path / BEST_FILE
        best = read_json(best_file) if best_file.exists() else None
        usable = all(map(math.isfinite, evaluation.scores.values()))
        problem = self.task.degenerate(evaluation.predictions, evaluation.examples)
        found = {"step": step, "scores": evaluation.scores, **_problem(problem)}
        if usable and (best is None or self._rank(found) > self._rank(best)):
            evaluation.save(self.run.path)
            self._keep(predictor.require_task(), found)  # with what it has set by dev
        return evaluation.scores

    def _rank(self, found: Mapping[str, Any]) -> tuple[bool, float, float]:
        """Return what is compared: whether it came to anything, the task's score, and of equal ones the loss."""
        scores = found["scores"]
        return found["problem"] is None, scores[self.task.best_by], -scores["loss"]

    def _keep(self, task: Task, best: dict[str, Any]) -> None:
        folder = self.run.path / "model"
        save_fine_tuned(self.model, folder, wordpiece=self.wordpiece, task=task, max_length=self.max_length)
        self.run.write_json(BEST_FILE, best)

    def verdict(self, chance_loss: float | None) -> FinetuneResult:
        """Return what was kept, after a look whether the run came to anything."""
        best = read_json(self.run.path / BEST_FILE)
        if best["problem"] is None and chance_loss is not None:
            rows = map(json.loads, (self.run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
            losses = [row["loss"] for row in rows if row["kind"] == "train" and row["step"] > 0.9 * self.steps]
            if (loss := sum(losses) / len(losses)) > 0.99 * chance_loss:
                best |= _problem(Problem("problem_loss", loss=loss, chance=chance_loss))
                self.run.write_json(BEST_FILE, best)
        problem, chinese = best["problem"], best.get("problem_zh")
        return FinetuneResult(self.run.path / "model", best["scores"], best["step"], problem, chinese)


def _problem(problem: str | None) -> dict[str, Any]:
    """Return a problem as `best.json` has it."""
    return {"problem": problem} | ({"problem_zh": problem.zh} if isinstance(problem, Problem) else {})
