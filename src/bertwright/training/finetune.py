"""Fine-tuning: one task's examples in, a model folder that answers by itself out. Paper: 4 and A.3.

files = {"train": Path("train.tsv"), "dev": Path("dev.tsv")}
finetune(ClassifyTask(), FinetuneConfig(), **files, init=Path("run/model"), out=Path("sst2"))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertwright.batch import Batch
from bertwright.config import BertConfig, FinetuneConfig, read_json, to_dict
from bertwright.errors import BertwrightError
from bertwright.evaluation import evaluate_examples
from bertwright.files import sha256_of
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.folder import read_config, read_wordpiece, require_both_sides
from bertwright.model.hub import bert_folder
from bertwright.model.weights import load_model
from bertwright.predict import Predictor
from bertwright.tasks import Example, Feature, Task, TaskObjective, save_fine_tuned, task_to_json
from bertwright.text.wordpiece import WordPiece
from bertwright.training.checkpoint import RunFolder
from bertwright.training.loop import OnEvent, fit

_BEST = "best.json"


@dataclass(frozen=True)
class FinetuneResult:
    """What fine-tuning leaves behind."""

    model: Path
    """The model folder of the best evaluation."""
    scores: dict[str, float]
    """Its scores on dev."""
    step: int
    """When it was."""


@dataclass(frozen=True)
class FeatureStep:
    """One optimizer step's features."""

    micro_batches: list[Batch]
    next_position: int


class FeatureStream:
    """A task's features in shuffled order; the whole state is the number of features consumed.

    Args:
        features: encoded once.
        task: lays them end to end.
        batch_size: features in a step; an epoch's last step holds what is left.
        micro_batch_tokens: most tokens in a micro-batch.
        seed: of the order.
    """

    def __init__(
        self, features: Sequence[Feature], task: Task, *, batch_size: int, micro_batch_tokens: int, seed: int
    ) -> None:
        self.features = features
        self.task = task
        self.batch_size = batch_size
        self.micro_batch_tokens = micro_batch_tokens
        self.seed = seed
        self._order = lru_cache(maxsize=1)(self._draw_order)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every feature once."""
        return -(-len(self.features) // self.batch_size)

    def batches_at(self, position: int) -> FeatureStep:
        """Return the step that starts at a position; it never crosses the end of an epoch."""
        epoch, index = divmod(position, len(self.features))
        chosen = [self.features[i] for i in self._order(epoch)[index : index + self.batch_size]]
        chosen.sort(key=lambda feature: len(feature.input_ids))  # attention works on sequences of like length
        micro_batches, tokens = [[chosen[0]]], len(chosen[0].input_ids)
        for feature in chosen[1:]:
            tokens += len(feature.input_ids)
            if tokens > self.micro_batch_tokens:
                micro_batches.append([])
                tokens = len(feature.input_ids)
            micro_batches[-1].append(feature)
        return FeatureStep([self.task.collate(part) for part in micro_batches], position + len(chosen))

    def _draw_order(self, epoch: int) -> list[int]:
        order: list[int] = (
            np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self.features)).tolist()
        )
        return order


def finetune(
    task: Task,
    config: FinetuneConfig,
    *,
    train: Path,
    dev: Path,
    init: Path,
    out: Path,
    random_weights: bool = False,
    resume: bool = False,
    on_event: OnEvent = lambda event: None,
) -> FinetuneResult:
    """Fine-tune a pre-trained model and keep the weights that did best on dev.

    Args:
        task: with its column names; what it learns from the training file (labels) is added here.
        config: every dial.
        train: labelled examples.
        dev: labelled examples to choose by.
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
    device = machine.prepare(config.threads)
    folder = bert_folder(init)
    model_config = read_config(folder)
    require_both_sides(model_config, "be fine-tuned on its [CLS]")
    wordpiece = read_wordpiece(folder, model_config)
    _require_room(model_config, config, init)
    examples = task.read(train)
    task = task.learn(examples)
    dev_examples = task.read(dev)
    dtype = machine.compute_dtype(config.precision, device)
    config = dataclasses.replace(config, precision="fp32" if dtype.itemsize == 4 else "bf16")
    model_config = dataclasses.replace(
        model_config, hidden_dropout_prob=config.dropout, attention_probs_dropout_prob=config.dropout
    )
    objective = TaskObjective(task)
    heads, seed = objective.heads(model_config), config.seed
    start = Bert(model_config, heads, seed=seed) if random_weights else None
    model = start or load_model(folder, heads, config=model_config, seed=seed)
    model.compute_dtype = dtype
    model.to(device)
    stream = _stream(task, examples, wordpiece, config)
    run_config = _run_config(task, config, train, dev, init) | {"random_weights": random_weights}
    with RunFolder.create(out, run_config, resume=resume, tensorboard=config.tensorboard) as run:
        run.write_json("data.json", {"train_examples": len(examples), "dev_examples": len(dev_examples)})
        keeper = _BestKeeper(model, task, wordpiece, config.max_length, dev_examples, run)
        steps = stream.steps_per_epoch * config.epochs
        config = _at_epoch_ends(config, stream.steps_per_epoch)
        fit(model, objective, stream, config, steps=steps, run=run, evaluate=keeper.evaluate, on_event=on_event)
    best = read_json(out / _BEST)
    return FinetuneResult(out / "model", best["scores"], best["step"])


def _at_epoch_ends(config: FinetuneConfig, epoch: int) -> FinetuneConfig:
    return dataclasses.replace(
        config, eval_every=config.eval_every or epoch, checkpoint_every=config.checkpoint_every or epoch
    )


def _stream(task: Task, examples: list[Example], wordpiece: WordPiece, config: FinetuneConfig) -> FeatureStream:
    return FeatureStream(
        task.encode(examples, wordpiece, config.max_length),
        task,
        batch_size=config.batch_size,
        micro_batch_tokens=config.micro_batch_tokens,
        seed=config.seed,
    )


def _require_room(model: BertConfig, config: FinetuneConfig, init: Path) -> None:
    if config.max_length > model.max_position_embeddings:
        raise BertwrightError(
            f"max_length {config.max_length} is longer than the model takes ({model.max_position_embeddings})",
            where=init,
            fix=f"use --max-length {model.max_position_embeddings}",
        )


def _run_config(task: Task, config: FinetuneConfig, train: Path, dev: Path, init: Path) -> dict[str, Any]:
    return {
        "kind": "finetune",
        "task": task_to_json(task),
        "train": to_dict(config),
        "init": str(init),
        "train_file": str(train),
        "train_sha256": sha256_of(train),
        "dev_file": str(dev),
        "dev_sha256": sha256_of(dev),
    }


@dataclass
class _BestKeeper:
    """Scores the model along the path that `predict` takes, and keeps the weights that do best."""

    model: Bert
    task: Task
    wordpiece: WordPiece
    max_length: int
    examples: list[Example]
    run: RunFolder

    def evaluate(self, step: int) -> dict[str, float]:
        predictor = Predictor(self.model.eval(), self.wordpiece, self.task, max_length=self.max_length)
        trained_in, self.model.compute_dtype = self.model.compute_dtype, torch.float32  # as the saved model answers
        try:
            evaluation = evaluate_examples(predictor, self.examples)
        finally:
            self.model.compute_dtype = trained_in
        best_file = self.run.path / _BEST
        best = read_json(best_file) if best_file.exists() else None
        key = self.task.best_by
        usable = all(map(math.isfinite, evaluation.scores.values()))
        if usable and (best is None or evaluation.scores[key] > best["scores"][key]):
            folder = self.run.path / "model"
            save_fine_tuned(self.model, folder, wordpiece=self.wordpiece, task=self.task, max_length=self.max_length)
            evaluation.save(self.run.path)
            self.run.write_json(_BEST, {"step": step, "scores": evaluation.scores})
        return evaluation.scores
