"""Pre-training: shards in, a run folder with a model folder out. Paper: 3.1, A.2, and 5.1 for left to right.

recipe = get_recipe("mini")
pretrain(recipe.model, PretrainConfig(steps=20_000, lr=1e-3), data=Path("shards"), out=Path("run"))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertwright.config import LEFT_TO_RIGHT, BertConfig, PretrainConfig
from bertwright.data.course import Course
from bertwright.data.loader import Phase, Phases, PretrainLoader
from bertwright.data.shards import ShardSet, Split
from bertwright.errors import BertwrightError
from bertwright.files import sha256_of
from bertwright.json_values import to_dict
from bertwright.model import machine
from bertwright.model.bert import Bert
from bertwright.model.compiling import compile_layers
from bertwright.model.folder import read_config, read_wordpiece, require_both_sides, require_left_to_right
from bertwright.model.hub import bert_folder
from bertwright.model.weights import load_model, save_model
from bertwright.objectives import OBJECTIVES, Objective
from bertwright.predict import Predictor
from bertwright.text.wordpiece import WordPiece
from bertwright.training.board import boards_of
from bertwright.training.breakdown import Breakdown
from bertwright.training.checkpoint import Event, Follower, OnEvent, RunFolder
from bertwright.training.distributed import Group, join
from bertwright.training.loop import evaluate_means, fit

_SAMPLE_LENGTH = 32
"""Tokens of a sample text in the report."""


def pretrain(
    model: BertConfig,
    config: PretrainConfig,
    *,
    data: Path,
    out: Path,
    long_data: Path | None = None,
    init: Path | None = None,
    resume: bool = False,
    budget_seconds: float | None = None,
    on_event: OnEvent = lambda event: None,
) -> Path:
    """Pre-train a BERT and return its model folder, `out/model`.

    Args:
        model: the shape; its vocabulary size is that of the shards, its dropout that of `config`, and it reads from
            left to right if the objective does. With `init`, that of the model it names, which must read the same way.
        config: every dial of training.
        data: a shard folder.
        out: the run folder.
        long_data: a shard folder with longer examples of the same vocabulary, for the last steps; see `long_ratio`.
        init: a model folder to go on from, or a name on the hub, with the vocabulary of the shards.
        resume: go on with the run in `out`.
        budget_seconds: what the number of steps was found from (`training.budget`), for the record.
        on_event: told of every row of `metrics.jsonl` and every message.

    Several processes that `torchrun` or the like has started train together (`training.distributed`); the folders of
    data and `init` must be there for all of them, and the first one writes.

    Raises:
        TrainingInterrupted: a signal came; the run was saved.
        ProcessDiedError: another process is gone.
        BertwrightError: data, model and configuration do not fit each other, or the run folder is another run's.
    """
    with join() as group:
        return _pretrain(
            model,
            config,
            group=group,
            data=data,
            long_data=long_data,
            out=out,
            init=init,
            resume=resume,
            budget_seconds=budget_seconds,
            on_event=on_event if group.leads else _ignore,
        )


def _ignore(_event: Event) -> None:
    """Leave it to the first process."""


def _pretrain(
    model: BertConfig,
    config: PretrainConfig,
    *,
    group: Group,
    data: Path,
    long_data: Path | None,
    out: Path,
    init: Path | None,
    resume: bool,
    budget_seconds: float | None,
    on_event: OnEvent,
) -> Path:
    device = machine.prepare(config.threads)
    setup = assemble(model, config, device, data=data, long_data=long_data, init=init, on_event=on_event)
    config, shards, train, objective = setup.config, setup.shards, setup.train, setup.objective
    bert = _fresh_or_loaded(setup, init)
    bert.compute_dtype = setup.dtype
    bert.to(device)
    if config.compile == "on":
        compile_layers(bert)
    if config.shard_weights:
        from bertwright.training.sharding import shard  # takes a second, of those who want it

        group = shard(group, bert)
    breakdown = Breakdown(shards.wordpiece, config.objective.partition("+")[0])

    def evaluate(step: int) -> dict[str, float]:
        held_out = train.at(step - 1).held_out
        if held_out is None:
            return {}
        return evaluate_means(bert, objective, held_out.eval_batches(config.eval_tokens), group, breakdown)

    run_config, folder = _run_config(setup, init, budget_seconds), out / "model"
    create = partial(RunFolder.create, out, run_config, resume=resume, boards=boards_of(config))
    with group.led(create, partial(Follower, out)) as run:
        manifest = dataclasses.asdict(shards.manifest)
        run.write_json("data.json", {key: value for key, value in manifest.items() if key != "files"})
        for text in _messages(setup, group):
            on_event({"kind": "message", "text": text})
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
        trained = _whole(bert, setup, group)
        if group.leads:
            save_model(trained, folder, wordpiece=shards.wordpiece)
            run.write_json("samples.json", _samples(trained.eval(), shards))
    return folder


def _messages(setup: Setup, group: Group) -> Iterator[str]:
    """Yield what a person should know before the first step."""
    train = setup.train
    if setup.config.whole_word:
        yield f"masks hide whole words ({setup.shards.manifest.config.whole_word})"
    if (parts := len(train.batches_at(0, 0).micro_batches)) < group.size:
        what = f"a step has {parts} micro-batches for {group.size} processes: some have nothing to do"
        yield f"{what}; lower --micro-batch-tokens"
    if train.phases[0].held_out is None:
        yield "the shards have no held-out split: nothing is evaluated"


@torch.no_grad()
def _whole(bert: Bert, setup: Setup, group: Group) -> Bert:
    """Return the model as one process can run it; of use in the first one alone."""
    if not setup.config.shard_weights or group.size == 1:
        return bert
    weights = group.gathered(dict(bert.named_parameters()))
    if not group.leads:
        return bert
    whole = Bert(setup.model, setup.objective.heads(setup.model))
    whole.compute_dtype, whole.labels = bert.compute_dtype, bert.labels
    whole.pooler.is_drawn = bert.pooler.is_drawn
    for name, parameter in whole.named_parameters():
        parameter.copy_(weights[name])
    return whole.to(next(bert.parameters()).device)


@dataclass(frozen=True)
class Setup:
    """Data, model and dials, once they are known to fit each other."""

    shards: ShardSet
    long_shards: ShardSet | None
    """Of the last phase, if there is one."""
    model: BertConfig
    """With the vocabulary of the shards."""
    config: PretrainConfig
    """With what `auto` means here."""
    dtype: torch.dtype
    """Of activations."""
    objective: Objective
    train: Phases
    """The data, and what each phase of it is evaluated on."""


def assemble(
    model: BertConfig,
    config: PretrainConfig,
    device: torch.device,
    *,
    data: Path,
    long_data: Path | None = None,
    init: Path | None,
    on_event: OnEvent,
) -> Setup:
    """Open everything that a run needs but its weights; see `pretrain` for the arguments and what is refused."""
    shards = ShardSet.open(data)
    long_shards = None if long_data is None else _longer(long_data, shards)
    if init is None:
        model = dataclasses.replace(model, vocab_size=shards.wordpiece.vocab_size)
    else:
        model = _shape_of(init, model, shards, config, on_event)
    model = _fitted(model, config, shards.wordpiece)
    dtype = machine.compute_dtype(config.precision, device)
    masks_words = config.objective not in LEFT_TO_RIGHT and shards.split("train").masks_words(config.masking)
    config = dataclasses.replace(
        config,
        precision="fp32" if dtype.itemsize == 4 else "bf16",
        compile="on" if machine.compiles(config.compile, device) else "off",
        whole_word=masks_words,
    )
    train = _phases(shards, long_shards, model, config)
    return Setup(shards, long_shards, model, config, dtype, OBJECTIVES[config.objective](), train)


def _fitted(model: BertConfig, config: PretrainConfig, wordpiece: WordPiece) -> BertConfig:
    causal = config.objective in LEFT_TO_RIGHT
    if not causal:
        require_both_sides(model, "be trained to fill in a [MASK]", fix="use --objective ltr, or another model")
    return dataclasses.replace(
        model,
        is_decoder=causal,
        pool_last=causal,
        pad_token_id=wordpiece.pad_id,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
    )


def _longer(folder: Path, shards: ShardSet) -> ShardSet:
    """Open the shards of the last phase."""
    long_shards = ShardSet.open(folder)
    long_shards.check_vocabulary(shards.wordpiece)
    length, before = (each.manifest.config.max_length for each in (long_shards, shards))
    if length <= before:
        raise BertwrightError(
            f"their examples reach {length} tokens, those of {shards.folder} reach {before}: they shall be longer",
            where=folder,
            fix="exchange --data and --long-data, or build longer ones with `bertwright data build --max-length 512`",
        )
    return long_shards


def _phases(shards: ShardSet, long_shards: ShardSet | None, model: BertConfig, config: PretrainConfig) -> Phases:
    """Return the phases of a run: cropped examples, whole ones, longer ones; mostly it is only the second."""
    split, length = shards.split("train"), shards.manifest.config.max_length
    until = config.steps if long_shards is None else config.steps - round(config.long_ratio * config.steps)
    held_out = _held_out(shards, model, config)
    phases = [Phase("whole", _loader(split, shards, model, config), until, held_out)]
    if config.short_ratio and config.short_length < length:
        short = _loader(split.cropped(config.short_length), shards, model, config)
        phases.insert(0, Phase("short", short, min(round(config.short_ratio * config.steps), until), held_out))
    if long_shards is not None:
        sequences = config.batch_tokens / length
        tokens = config.long_batch_tokens or round(sequences * long_shards.manifest.config.max_length)
        config = dataclasses.replace(config, batch_tokens=tokens)
        loader = _loader(long_shards.split("train"), long_shards, model, config)
        phases.append(Phase("long", loader, config.steps, _held_out(long_shards, model, config), from_start=True))
    return Phases(phases)


def _held_out(shards: ShardSet, model: BertConfig, config: PretrainConfig) -> PretrainLoader | None:
    split = shards.split("held_out")
    config = dataclasses.replace(config, mask_prob=config.eval_mask_prob, mask_prob_end=0.0)
    return _loader(split, shards, model, config) if len(split) else None


def _loader(split: Split, shards: ShardSet, model: BertConfig, config: PretrainConfig) -> PretrainLoader:
    return PretrainLoader(
        split,
        wordpiece=shards.wordpiece,
        masking=config.masking,
        course=Course.of(config),
        batch_tokens=config.batch_tokens,
        micro_batch_tokens=config.micro_batch_tokens,
        seed=config.seed,
        objective=config.objective,
        max_length_limit=model.max_position_embeddings,
        static_masks=config.static_masks,
    )


def _shape_of(
    init: Path, recipe: BertConfig, shards: ShardSet, config: PretrainConfig, on_event: OnEvent
) -> BertConfig:
    """Return the shape of the model to go on from, which must know the vocabulary of the shards."""
    folder = bert_folder(init)
    model = read_config(folder)
    if config.objective in LEFT_TO_RIGHT:
        fix = "leave out --init: its weights look to the right, where there is nothing to see now"
        require_left_to_right(model, "go on from left to right", fix)
    shards.check_vocabulary(read_wordpiece(folder, model))
    told = ("num_hidden_layers", "hidden_size", "norm_first")
    if any(getattr(recipe, name) != getattr(model, name) for name in told):
        shape = f"{model.num_hidden_layers} layers, hidden size {model.hidden_size}"
        shape += ", normalised first" if model.norm_first else ""
        on_event({"kind": "message", "text": f"the shape is that of {init} ({shape}), not the recipe's"})
    return model


def _fresh_or_loaded(setup: Setup, init: Path | None) -> Bert:
    heads, seed = setup.objective.heads(setup.model), setup.config.seed
    if init is None:
        return Bert(setup.model, heads, seed=seed)
    return load_model(bert_folder(init), heads, config=setup.model, seed=seed)


def _run_config(setup: Setup, init: Path | None, budget_seconds: float | None) -> dict[str, Any]:
    shards, longer = setup.shards, {}
    if setup.long_shards is not None:
        folder = setup.long_shards.folder
        longer = {"long_data": str(folder), "long_shards_sha256": sha256_of(folder / "manifest.json")}
    return {
        "kind": "pretrain",
        "model": to_dict(setup.model),
        "train": to_dict(setup.config),
        "data": str(shards.folder),
        "shards_sha256": sha256_of(shards.folder / "manifest.json"),
        **longer,
        "examples": len(shards.split("train")),
        "init": None if init is None else str(init),
        **({} if budget_seconds is None else {"budget_seconds": budget_seconds}),
    }


def _samples(model: Bert, shards: ShardSet, count: int = 8) -> list[dict[str, Any]]:
    """Hide one word in each of a few held-out texts and let the model guess, for the report.

    From left to right the text ends with it.
    """
    wordpiece, predictor = shards.wordpiece, Predictor(model, shards.wordpiece)
    split = shards.split("held_out" if len(shards.split("held_out")) else "train")
    samples = []
    for index in np.linspace(0, len(split) - 1, min(count, len(split))).astype(int):
        ids = split.example(int(index)).a[:_SAMPLE_LENGTH].tolist()
        whole = [place for place, id in enumerate(ids) if wordpiece.tokens[id].isalpha()] or [0]
        place = whole[len(whole) // 2]
        answer, ids[place] = wordpiece.tokens[ids[place]], wordpiece.mask_id
        text = wordpiece.decode(ids[: place + 1] if model.config.is_decoder else ids)
        if text.count("[MASK]") != 1:  # the text itself speaks of [MASK]
            continue
        samples.append({"text": text, "answer": answer, "after": predictor.fill(text)})
    return samples
