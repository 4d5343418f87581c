"""From a budget of time to a number of steps, and never past it."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertwright.cli import run
from bertwright.config import BertConfig, PretrainConfig
from bertwright.errors import BertwrightError
from bertwright.recipes import RECIPES, Recipe
from bertwright.training import budget as module
from bertwright.training.budget import Costs, seconds_of, within_budget
from bertwright.training.plan import plan_pretraining
from bertwright.training.probe import Extras, Probe, Speed

SHAPE = BertConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=32
)
DIALS = PretrainConfig(batch_tokens=256, micro_batch_tokens=128, precision="fp32", threads=1)


@pytest.fixture(scope="module")
def shards(invented_shards: Path) -> Path:
    return invented_shards


# Times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45min", 2_700), ("2h", 7_200), ("1h30min", 5_400), ("1.5h", 5_400), ("1 h 5 s", 3_605),
     ("10m", 600), ("1d", 86_400), ("45MIN", 2_700), ("0.5s", 0.5)],
)  # fmt: skip
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "45", "min", "45 minutes ago", "-5min", "4:30", "45minx", "x45min", "1,5h", "inf s", "nan", "0min", "1e3s"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BertwrightError, match="no time"):
        seconds_of(text)


# Costs


def costs(**changes: float) -> Costs:
    plain = Costs(step=0.5, evaluation=7.0, checkpoint=2.0, around=10.0, eval_every=100, checkpoint_every=50)
    return dataclasses.replace(plain, **changes)


def test_evaluations_and_checkpoints_count_as_often_as_they_come() -> None:
    assert costs().seconds(1) == 10 + 0.5 + 7 + 2
    assert costs().seconds(100) == 10 + 50 + 7 + 2 * 2
    assert costs().seconds(101) == 10 + 50.5 + 2 * 7 + 3 * 2
    assert costs(eval_every=0, checkpoint_every=0).seconds(101) == 10 + 50.5 + 7 + 2


@given(
    seconds=st.floats(0.0, 1e6),
    step=st.floats(1e-3, 1e3),
    rest=st.tuples(*[st.floats(0.0, 1e3)] * 3),
    every=st.tuples(*[st.integers(0, 2_000)] * 2),
)
def test_the_steps_end_in_time_and_one_more_would_not(
    seconds: float, step: float, rest: tuple[float, ...], every: tuple[int, ...]
) -> None:
    found = Costs(step, *rest, *every)
    steps = found.steps(seconds)
    assert steps == 0 or found.seconds(steps) <= seconds
    assert found.seconds(steps + 1) > seconds


def test_no_time_left_has_no_steps() -> None:
    assert costs().steps(-5.0) == 0
    assert costs().steps(19.4) == 0
    assert costs().steps(19.6) == 1


def test_costs_are_those_of_the_phases(shards: Path) -> None:
    """Of a run whose batch grows, by hand."""
    config = dataclasses.replace(DIALS, steps=1_000, batch_ramp_ratio=0.5, batch_ramp_start=0.5, eval_every=10)
    plan = plan_pretraining(SHAPE, config, data=shards, probe_seconds=0)
    speeds = tuple(Speed(rate, rate, rate, 0.1, 5, 1.0) for rate in (100.0, 200.0))
    plan = dataclasses.replace(plan, probe=Probe(speeds, 1, 256))
    extras = Extras(start=3.0, evaluation=0.5, checkpoint=0.5, end=2.0)
    found = Costs.of(plan, extras, 1_280)
    growing, grown = plan.phases
    assert (growing.steps, growing.growing, grown.steps, grown.growing) == (500, True, 500, False)
    assert growing.tokens_per_step == pytest.approx(0.75 * grown.tokens_per_step, rel=0.1)
    assert found.step == pytest.approx(0.5 * growing.tokens_per_step / 100 + 0.5 * grown.tokens_per_step / 200)
    assert (found.evaluation, found.checkpoint, found.around, found.eval_every) == (5.0, 0.5, 5.0, 10)
    assert Costs.of(plan, extras, 10**9).evaluation == 0.5 * config.eval_tokens / config.micro_batch_tokens
    assert Costs.of(plan, extras, 100).evaluation == 0.5, "all of it was tried"
    assert Costs.of(plan, extras, 0).evaluation == 0.0


# Runs


def test_a_budget_is_measured_and_steps_fit_in(shards: Path, tmp_path: Path) -> None:
    found = within_budget(SHAPE, DIALS, 60.0, data=shards, out=tmp_path / "run")
    assert found == dataclasses.replace(DIALS, steps=found.steps)
    assert 1 <= found.steps < 1_000_000
    assert not (tmp_path / "run").exists(), "the run has not begun"


def test_no_time_at_all_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BertwrightError, match=r"a budget of 0 seconds has no time for a step: [\d,]+ went into measuring"
    ):
        within_budget(SHAPE, DIALS, 0.1, data=shards, out=tmp_path / "run")


def test_several_processes_measure_nothing(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BertwrightError, match="done by one process, not by 2"):
        within_budget(SHAPE, DIALS, 60.0, data=shards, out=tmp_path / "run")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(RECIPES, "toy", Recipe(name="toy", summary="", model=SHAPE))
    return "modern-toy"


def words(shards: Path, out: Path, *more: str) -> list[str]:
    plain = [
        "--batch-tokens",
        "256",
        "--micro-batch-tokens",
        "128",
        "--eval-tokens",
        "256",
        "--threads",
        "1",
        "--quiet",
    ]
    return ["pretrain", "modern-toy", "--data", str(shards), "--out", str(out), *plain, *more]


def test_the_command_notes_its_steps_and_goes_on_without_measuring(
    shards: Path, tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    real = Costs.steps
    monkeypatch.setattr(Costs, "steps", lambda self, seconds: min(12, real(self, seconds)))  # it may be a fast machine
    assert run(words(shards, out, "--budget", "2min")) == 0, capsys.readouterr().err
    saved = json.loads((out / "config.json").read_text())
    steps = saved["train"]["steps"]
    assert 1 <= steps <= 12
    assert saved["budget_seconds"] == 120.0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == steps
    monkeypatch.setattr(module, "plan_pretraining", None)  # whatever would measure again
    assert run(words(shards, out, "--budget", "120s", "--resume")) == 0, capsys.readouterr().err
    capsys.readouterr()
    for others, what in (
        (["--budget", "3min"], "budget_seconds = 120.0, this command says 180.0"),
        (["--budget", "2min", "--lr", "1e-4"], "train.lr = 0.001, this command says 0.0001"),
        (["--steps", str(steps)], "budget_seconds = 120.0, this command says None"),
    ):
        assert run(words(shards, out, *others, "--resume")) == 1
        assert what in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--budget", "45min", "--steps", "10"], "--budget finds the number of steps by itself"),
        (["--budget", "45"], "'45' is no time"),
        (["--budget", "soon"], "'soon' is no time"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(
    more: list[str], what: str, shards: Path, tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words(shards, tmp_path / "run", *more)) == 1
    assert what in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_of_other_steps_is_not_gone_on_with_a_budget(
    shards: Path, tmp_path: Path, toy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words(shards, tmp_path / "run", "--steps", "2")) == 0
    capsys.readouterr()
    assert run(words(shards, tmp_path / "run", "--budget", "2min", "--resume")) == 1
    assert "budget_seconds = None, this command says 120.0" in capsys.readouterr().err
