"""A plan says what a run then costs; its probe leaves nothing behind."""

import dataclasses
import json
import math
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertwright.cli import app, run
from bertwright.config import BertConfig, PretrainConfig
from bertwright.data.shards import ShardSet
from bertwright.errors import BertwrightError
from bertwright.model.bert import Bert
from bertwright.objectives import OBJECTIVES
from bertwright.text.wordpiece import WordPiece
from bertwright.training import plan as module
from bertwright.training.optim import BertAdam
from bertwright.training.plan import Plan, plan_pretraining
from bertwright.training.pretrain import pretrain
from bertwright.training.probe import Probe, Speed, speed_of

SHAPE = BertConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=32
)
DIALS = PretrainConfig(
    steps=40, batch_tokens=256, micro_batch_tokens=128, precision="fp32", threads=1, checkpoint_every=10
)
OVERHEAD = 20_000
"""Bytes of names, vocabulary and card beside weights."""


@pytest.fixture(scope="module")
def shards(invented_shards: Path) -> Path:
    return invented_shards


def planned(shards: Path, *, probe_seconds: float = 0.0, **changes: Any) -> Plan:
    return plan_pretraining(SHAPE, dataclasses.replace(DIALS, **changes), data=shards, probe_seconds=probe_seconds)


# What is counted


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp"])
def test_parameters_and_their_memory_are_those_of_a_real_step(shards: Path, objective: Any) -> None:
    plan = planned(shards, objective=objective)
    task = OBJECTIVES[objective]()
    model = Bert(plan.model, task.heads(plan.model))
    assert plan.model.vocab_size == ShardSet.open(shards).wordpiece.vocab_size
    assert sum(plan.parameters.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert plan.parameters["layers"] == sum(parameter.numel() for parameter in model.layers.parameters())
    assert plan.parameters["embeddings"] == sum(parameter.numel() for parameter in model.embeddings.parameters())
    setup = module.assemble(SHAPE, plan.config, torch.device("cpu"), data=shards, init=None, on_event=print)
    optimizer = BertAdam(model, plan.config)
    for batch in setup.train.batches_at(0, 0).micro_batches:
        sum(term.total for term in task(model, batch).losses.values()).backward()
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    for name, tensors in (("weights", model.parameters()), ("gradients", gradients),
                          ("moments", optimizer.state().values())):  # fmt: skip
        assert plan.memory[name] == sum(tensor.nbytes for tensor in tensors), name


@pytest.mark.parametrize(
    "changes",
    [{}, {"keep_checkpoints": 1, "checkpoint_every": 15}, {"checkpoint_every": 0, "objective": "mlm"}],
)
def test_disk_is_what_a_run_leaves(shards: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    plan = planned(shards, **changes)
    model = pretrain(SHAPE, plan.config, data=shards, out=tmp_path / "run")
    left = list((tmp_path / "run/checkpoints").glob("step-*"))
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in left]
    assert all(0 <= size - plan.disk["checkpoint"] < OVERHEAD for size in sizes)
    more = 1 if plan.config.checkpoint_every and plan.config.steps > plan.config.checkpoint_every * len(left) else 0
    assert plan.disk["checkpoints"] == (len(left) + more) * plan.disk["checkpoint"]
    assert 0 <= (model / "model.safetensors").stat().st_size - plan.disk["model"] < OVERHEAD


def test_tokens_and_epochs_are_what_the_steps_see(shards: Path) -> None:
    plan = planned(shards, steps=60)
    setup = module.assemble(SHAPE, plan.config, torch.device("cpu"), data=shards, init=None, on_event=print)
    position = tokens = 0
    for number in range(60):
        step = setup.train.batches_at(position, number)
        position, tokens = step.next_position, tokens + step.num_tokens
    assert plan.data["tokens_seen"] == pytest.approx(tokens, rel=0.02)
    assert plan.data["epochs"] == pytest.approx(position / plan.data["examples"], rel=0.02)
    assert plan.data["tokens"] == int(setup.shards.split("train").lengths().sum())


def test_cropped_examples_are_a_phase_of_their_own(shards: Path) -> None:
    plan = planned(shards, short_ratio=0.25, short_length=16)
    assert [(phase.name, phase.steps) for phase in plan.phases] == [("short", 10), ("whole", 30)]
    short, whole = plan.phases
    assert short.tokens_per_step / short.examples_per_step <= 16 < whole.tokens_per_step / whole.examples_per_step
    assert plan.flops["per_run"] == 10 * short.flops_per_step + 30 * whole.flops_per_step
    assert plan.flops["per_step"] * 40 == pytest.approx(plan.flops["per_run"])
    assert plan.flops["per_token"] * plan.data["tokens_seen"] == pytest.approx(plan.flops["per_run"])


MODERN = {
    "optimizer": "muon", "mask_prob": 0.3, "mask_prob_end": 0.15, "batch_ramp_ratio": 0.4, "batch_ramp_start": 0.25,
    "schedule": "trapezoid",
}  # fmt: skip


def test_a_modern_runs_parts_are_those_of_a_real_one(shards: Path, tmp_path: Path) -> None:
    shape, config = dataclasses.replace(SHAPE, norm_first=True), dataclasses.replace(DIALS, **MODERN)
    plan = plan_pretraining(shape, config, data=shards, probe_seconds=0)
    task = OBJECTIVES["mlm+nsp"]()
    model = Bert(plan.model, task.heads(plan.model))
    assert sum(plan.parameters.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert plan.parameters["norm"] == 2 * SHAPE.hidden_size
    moments = BertAdam(model, plan.config).state().values()
    assert plan.memory["moments"] == sum(tensor.nbytes for tensor in moments)
    assert plan.memory["moments"] < 2 * plan.memory["weights"], "Muon keeps one moment"
    folder = pretrain(shape, plan.config, data=shards, out=tmp_path / "run")
    [newest, *_] = sorted((tmp_path / "run/checkpoints").glob("step-*"), reverse=True)
    assert 0 <= sum(file.stat().st_size for file in newest.iterdir()) - plan.disk["checkpoint"] < OVERHEAD
    assert 0 <= (folder / "model.safetensors").stat().st_size - plan.disk["model"] < OVERHEAD


def test_growing_batches_are_a_phase_of_their_own(shards: Path) -> None:
    plan = planned(shards, steps=100, **MODERN | {"short_ratio": 0.2, "short_length": 16})
    assert [(phase.name, phase.steps, phase.growing) for phase in plan.phases] == [
        ("short", 20, True), ("whole", 20, True), ("whole", 60, False),
    ]  # fmt: skip
    assert [phase.batch_share for phase in plan.phases] == pytest.approx([0.4375, 0.8125, 1.0], abs=0.02)
    assert [phase.mask_prob for phase in plan.phases] == pytest.approx([0.285, 0.255, 0.195], abs=0.002)
    setup = module.assemble(SHAPE, plan.config, torch.device("cpu"), data=shards, init=None, on_event=print)
    position = tokens = 0
    for number in range(100):
        step = setup.train.batches_at(position, number)
        position, tokens = step.next_position, tokens + step.num_tokens
    assert plan.data["tokens_seen"] == pytest.approx(tokens, rel=0.03)
    assert plan.data["epochs"] == pytest.approx(position / plan.data["examples"], rel=0.03)


def test_the_probe_of_growing_batches_has_their_mean_size(shards: Path) -> None:
    plan = planned(shards, probe_seconds=0.5, batch_tokens=512, **MODERN)
    assert plan.probe is not None
    assert len(plan.probe.speeds) == len(plan.phases) == 2
    assert plan.probe.extras is None


def test_levels_of_chance_come_from_the_shards(shards: Path) -> None:
    chance = planned(shards).chance
    split = ShardSet.open(shards).split("train")
    counts: Counter[int] = Counter()
    for part in split._shards:
        counts.update(part.tokens.tolist())
    total = counts.total()
    assert chance["uniform"] == math.log(66)
    assert chance["unigram"] == pytest.approx(-sum(n / total * math.log(n / total) for n in counts.values()))
    assert chance["unigram"] < chance["uniform"]
    labels = [split.example(index).next_sentence_label for index in range(len(split))]
    random_share = sum(label == 1 for label in labels) / len(labels)
    assert chance["nsp_accuracy"] == pytest.approx(max(random_share, 1 - random_share))
    other = [share * math.log(share) for share in (random_share, 1 - random_share)]
    assert chance["nsp_loss"] == pytest.approx(-sum(other))
    assert "nsp_loss" not in planned(shards, objective="mlm").chance


def test_published_figures_are_those_of_the_page(root: Path) -> None:
    for shape, runs in module._PUBLISHED.items():
        assert shape == (4, 256)
        for each in runs:
            text = (root / each["page"]).read_text(encoding="utf-8")
            for figure in (f"**{each['mlm_loss']:.2f}**", f"{100 * each['mlm_accuracy']:.1f} %",
                           f"**{100 * each['nsp_accuracy']:.1f} %**"):  # fmt: skip
                assert figure in text, figure


# Time


def row(tokens_per_second: float, seconds: float, mfu: float = 0.5) -> dict[str, float]:
    return {"tokens_per_second": tokens_per_second, "seconds": seconds, "mfu": mfu}


def test_speed_leaves_the_warm_up_out_and_ranges_over_four_parts() -> None:
    rows = [row(1, 9), row(2, 9), *(row(rate, 2, rate / 1000) for rate in (100, 100, 200, 200, 400, 400, 100, 100))]
    speed = speed_of(rows)
    assert (speed.tokens_per_second, speed.slowest, speed.fastest) == (200, 100, 400)
    assert (speed.steps, speed.seconds) == (8, 16)
    assert speed.share_of_peak == pytest.approx(0.2)
    slow, quick = row(50, 4), row(100, 1)  # a mean over tokens, not over steps
    assert speed_of([row(1, 9), slow, quick]).tokens_per_second == pytest.approx(300 / 5)


def test_the_time_is_that_of_each_phase_at_its_speed(shards: Path) -> None:
    plan = planned(shards, short_ratio=0.25, short_length=16)
    assert plan.seconds is None
    speeds = (Speed(100, 50, 200, 0.5, 8, 9.0), Speed(400, 300, 500, 0.5, 8, 9.0))
    plan = dataclasses.replace(plan, probe=Probe(speeds, 1, 256))
    short, whole = (phase.steps * phase.tokens_per_step for phase in plan.phases)
    assert plan.seconds == {
        "likely": pytest.approx(short / 100 + whole / 400),
        "at_best": pytest.approx(short / 200 + whole / 500),
        "at_worst": pytest.approx(short / 50 + whole / 300),
    }


def test_the_probe_measures_and_leaves_nothing_behind(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torch"))  # which torch would choose and make itself
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path / "here")

    def state() -> tuple[Any, ...]:
        files = {file.name: file.read_bytes() for file in shards.iterdir()}
        # (Python's own generator is drawn from by the checker of annotations, in tests alone.)
        drawn = torch.get_rng_state().tolist(), str(np.random.get_state())  # noqa: NPY002
        return torch.get_num_threads(), drawn, torch.backends.mkldnn.matmul.fp32_precision, dict(os.environ), files

    before = state()
    plan = planned(shards, probe_seconds=0.5, short_ratio=0.5, short_length=16, threads=2)
    assert state() == before
    assert [*(tmp_path / "temporary").iterdir(), *(tmp_path / "here").iterdir()] == []
    assert plan.probe is not None
    assert len(plan.probe.speeds) == 2
    for speed in plan.probe.speeds:
        assert 0 < speed.slowest <= speed.tokens_per_second * 1.001
        assert speed.tokens_per_second <= speed.fastest * 1.001
    assert plan.probe.peak_bytes > sum(plan.memory.values())
    assert plan.probe.batch_tokens in (128, 256)
    assert json.loads(json.dumps(plan.to_json()))["probe"]["peak_bytes"] == plan.probe.peak_bytes


def test_no_probe_where_memory_would_not_do(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_free_bytes", lambda: 1000)
    plan = planned(shards, probe_seconds=30)
    assert plan.probe is None
    assert "the run needs at least" in (plan.why_no_probe or "")


# The command


def test_flags_are_those_of_pretrain(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"train": {"lr": 3e-4, "steps": 77}}), encoding="utf-8")
    words = ["mini", "--data", "d", "--config", str(tmp_path / "run.json"), "--steps", "9", "--batch-tokens", "512",
             "--micro-batch-tokens", "256", "--precision", "fp32", "--short-ratio", "0.5"]  # fmt: skip
    found = []
    for command in (["pretrain", *words, "--out", "o"], ["plan", *words]):
        _, bound, _ = app.parse_args(command, exit_on_error=False, print_error=False)
        found.append(bound.arguments["dials"])
    assert found[0] == found[1]
    assert (found[1].lr, found[1].steps, found[1].batch_tokens) == (3e-4, 9, 512)


def test_the_command_in_both_languages(
    shards: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["plan", "mini", "--data", str(shards), "--steps", "20", "--probe-seconds", "0"]
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert run([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["seconds"] is None
    assert said["data"]["examples"] == len(ShardSet.open(shards).split("train"))
    assert run(words) == 0
    shown = capsys.readouterr().out
    assert f"{sum(said['parameters'].values()):,}" in shown
    assert "not measured (--probe-seconds 0)" in shown
    assert "no forecast" in shown
    assert "English Wikipedia, 36.5 million tokens: MLM 4.41 (34.4%)" in shown
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert run(words) == 0
    assert "并非预测" in capsys.readouterr().out
    assert run(["plan", "tiny", *words[2:]]) == 0
    assert "36.5" not in capsys.readouterr().out, "no run of that shape was published"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--probe-seconds", "-1"], "probe_seconds must not be negative"),
        (["--probe-seconds", "nan"], "probe_seconds must not be negative"),
        (["--data", "no-such-shards"], "manifest.json is missing"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--init", "no-such-model/x/y"], "no such folder"),
    ],
)
def test_what_pretrain_would_refuse(
    shards: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    given = [] if "--data" in flags else ["--data", str(shards)]
    assert run(["plan", "tiny", *given, *flags]) == 1
    assert words in capsys.readouterr().err


def test_a_model_to_start_from_gives_the_shape_and_must_know_the_vocabulary(shards: Path, tmp_path: Path) -> None:
    wordpiece = ShardSet.open(shards).wordpiece
    shape = dataclasses.replace(SHAPE, vocab_size=wordpiece.vocab_size, hidden_size=48, num_hidden_layers=1)
    Bert(shape).save_pretrained(tmp_path / "init", wordpiece)
    plan = plan_pretraining(SHAPE, DIALS, data=shards, init=tmp_path / "init", probe_seconds=0)
    assert (plan.model.hidden_size, plan.model.num_hidden_layers) == (48, 1)
    other = WordPiece([*wordpiece.tokens[:-1], "another"], wordpiece.rules)
    Bert(shape).save_pretrained(tmp_path / "other", other)
    with pytest.raises(BertwrightError, match="another vocabulary"):
        plan_pretraining(SHAPE, DIALS, data=shards, init=tmp_path / "other", probe_seconds=0)


def test_shards_longer_than_the_model_are_refused_before_the_probe(shards: Path) -> None:
    short = dataclasses.replace(SHAPE, max_position_embeddings=16)
    with pytest.raises(BertwrightError, match="the model takes 16"):
        plan_pretraining(short, DIALS, data=shards)
