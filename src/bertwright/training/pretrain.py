"""Pre-training: shards in, a run folder with a model folder out. Paper: 3.1 and A.2.

recipe = get_recipe("mini")
pretrain(recipe.model, PretrainConfig(steps=20_000, lr=1e-3), data=Path("shards"), out=Path("run"))
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bertwright.config import BertConfig, PretrainConfig, to_dict
from bertwright.data.loader import PretrainLoader, ShortFirst
from bertwright.data.shards import ShardSet, Split
from bertwright.files import sha256_of
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.folder import read_config, read_wordpiece, require_both_sides
from bertwright.model.hub import bert_folder
from bertwright.model.weights import load_model, save_model
from bertwright.objectives import OBJECTIVES, Objective
from bertwright.predict import Predictor
from bertwright.text.wordpiece import WordPiece
from bertwright.training.checkpoint import Follower, RunFolder
from bertwright.training.distributed import Group, join
from bertwright.training.loop import Event, OnEvent, Stream, evaluate_means, fit

_SAMPLE_LENGTH = 32
"""Tokens of a sample text in the report."""


def pretrain(
    model: BertConfig,
    config: PretrainConfig,
    *,
    data: Path,
    out: Path,
    init: Path | None = None,
    resume: bool = False,
    on_event: OnEvent = lambda event: None,
) -> Path:
    """Pre-train a BERT and return its model folder, `out/model`.

    Args:
        model: the shape; its vocabulary size is that of the shards, its dropout that of `config`. With `init`, that of
            the model it names.
        config: every dial of training.
        data: a shard folder.
        out: the run folder.
        init: a model folder to go on from, or a name on the hub, with the vocabulary of the shards.
        resume: go on with the run in `out`.
        on_event: told of every row of `metrics.jsonl` and every message.

    Several processes that `torchrun` or the like has started train together (`training.distributed`); the folders of
    data and `init` must be there for all of them, and the first one writes.

    Raises:
        TrainingInterrupted: a signal came; the run was saved.
        ProcessDiedError: another process is gone.
        BertwrightError: data, model and configuration do not fit each other, or the run folder is another run's.
    """
    with join() as group:
        return _pretrain(group, model, config, data, out, init, resume, on_event if group.leads else _ignore)


def _ignore(_event: Event) -> None:
    """Leave it to the first process."""


def _pretrain(
    group: Group,
    model: BertConfig,
    config: PretrainConfig,
    data: Path,
    out: Path,
    init: Path | None,
    resume: bool,
    on_event: OnEvent,
) -> Path:
    device = machine.prepare(config.threads)
    shards = ShardSet.open(data)
    if init is None:
        model = dataclasses.replace(model, vocab_size=shards.wordpiece.vocab_size)
    else:
        model = _shape_of(init, model, shards, on_event)
    model = _fitted(model, config, shards.wordpiece)
    dtype = machine.compute_dtype(config.precision, device)
    config = dataclasses.replace(config, precision="fp32" if dtype.itemsize == 4 else "bf16")
    train = _short_first(shards.split("train"), shards.wordpiece, model, config)
    rest = shards.split("held_out")
    held_out = _loader(rest, shards.wordpiece, model, config) if len(rest) else None
    objective = OBJECTIVES[config.objective]()
    bert = _fresh_or_loaded(model, config, objective, init)
    bert.compute_dtype = dtype
    bert.to(device)

    def evaluate(_step: int) -> dict[str, float]:
        if held_out is None:
            return {}
        return evaluate_means(bert, objective, held_out.eval_batches(config.eval_tokens), group)

    run_config, folder = _run_config(model, config, shards, init), out / "model"
    create = partial(RunFolder.create, out, run_config, resume=resume, tensorboard=config.tensorboard)
    with group.led(create, partial(Follower, out)) as run:
        manifest = dataclasses.asdict(shards.manifest)
        run.write_json("data.json", {key: value for key, value in manifest.items() if key != "files"})
        if (parts := len(train.batches_at(0).micro_batches)) < group.size:
            what = f"a step has {parts} micro-batches for {group.size} processes: some have nothing to do"
            on_event({"kind": "message", "text": f"{what}; lower --micro-batch-tokens"})
        if held_out is None:
            on_event({"kind": "message", "text": "the shards have no held-out split: nothing is evaluated"})
        fit(
            bert,
            objective,
            train,
            config,
            steps=config.steps,
            run=run,
            evaluate=evaluate,
            on_event=on_event,
            group=group,
        )
        if group.leads:
            save_model(bert, folder, wordpiece=shards.wordpiece)
            run.write_json("samples.json", _samples(bert.eval(), shards))
    return folder


def _fitted(model: BertConfig, config: PretrainConfig, wordpiece: WordPiece) -> BertConfig:
    return dataclasses.replace(
        model,
        pad_token_id=wordpiece.pad_id,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
    )


def _short_first(split: Split, wordpiece: WordPiece, model: BertConfig, config: PretrainConfig) -> Stream:
    whole = _loader(split, wordpiece, model, config)
    short_steps = round(config.short_ratio * config.steps)
    if not short_steps or config.short_length >= split.config.max_length:
        return whole
    short = _loader(split.cropped(config.short_length), wordpiece, model, config)
    return ShortFirst(short, whole, until=short_steps * (config.batch_tokens // config.short_length))


def _loader(split: Split, wordpiece: WordPiece, model: BertConfig, config: PretrainConfig) -> PretrainLoader:
    return PretrainLoader(
        split,
        wordpiece=wordpiece,
        masking=config.masking,
        batch_tokens=config.batch_tokens,
        micro_batch_tokens=config.micro_batch_tokens,
        seed=config.seed,
        objective=config.objective,
        max_length_limit=model.max_position_embeddings,
    )


def _shape_of(init: Path, recipe: BertConfig, shards: ShardSet, on_event: OnEvent) -> BertConfig:
    """Return the shape of the model to go on from, which must know the vocabulary of the shards."""
    folder = bert_folder(init)
    model = read_config(folder)
    require_both_sides(model, "be trained to fill in a [MASK]")
    shards.check_vocabulary(read_wordpiece(folder, model))
    if (recipe.num_hidden_layers, recipe.hidden_size) != (model.num_hidden_layers, model.hidden_size):
        shape = f"{model.num_hidden_layers} layers, hidden size {model.hidden_size}"
        on_event({"kind": "message", "text": f"the shape is that of {init} ({shape}), not the recipe's"})
    return model


def _fresh_or_loaded(model: BertConfig, config: PretrainConfig, objective: Objective, init: Path | None) -> Bert:
    heads = objective.heads(model)
    if init is None:
        return Bert(model, heads, seed=config.seed)
    return load_model(bert_folder(init), heads, config=model, seed=config.seed)


def _run_config(model: BertConfig, config: PretrainConfig, shards: ShardSet, init: Path | None) -> dict[str, Any]:
    return {
        "kind": "pretrain",
        "model": to_dict(model),
        "train": to_dict(config),
        "data": str(shards.folder),
        "shards_sha256": sha256_of(shards.folder / "manifest.json"),
        "examples": len(shards.split("train")),
        "init": None if init is None else str(init),
    }


def _samples(model: Bert, shards: ShardSet, count: int = 8) -> list[dict[str, Any]]:
    """Hide one word in each of a few held-out texts and let the model guess, for the report."""
    wordpiece, predictor = shards.wordpiece, Predictor(model, shards.wordpiece)
    split = shards.split("held_out" if len(shards.split("held_out")) else "train")
    samples = []
    for index in np.linspace(0, len(split) - 1, min(count, len(split))).astype(int):
        ids = split.example(int(index)).a[:_SAMPLE_LENGTH].tolist()
        whole = [place for place, id in enumerate(ids) if wordpiece.tokens[id].isalpha()] or [0]
        place = whole[len(whole) // 2]
        answer, ids[place] = wordpiece.tokens[ids[place]], wordpiece.mask_id
        text = wordpiece.decode(ids)
        if text.count("[MASK]") != 1:  # the text itself speaks of [MASK]
            continue
        samples.append({"text": text, "answer": answer, "after": predictor.fill(text)})
    return samples
