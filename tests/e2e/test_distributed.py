"""Several processes train as one does, to rounding; when one dies, the others say which, and the run goes on later."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

PRETRAIN = (
    "pretrain tiny --steps 30 --batch-tokens 400 --micro-batch-tokens 120 --lr 1e-3 --log-every 1 --eval-every 10"
    " --eval-tokens 400 --checkpoint-every 5 --threads 1 --precision fp32"
)
MOST_SECONDS = 300
MUON_TOLERANCE = 5e-4
DEATH_SECONDS = 30
"""What a death may take until all others have ended."""


@contextmanager
def processes(size, arguments, *, resume=False, command=(sys.executable, "-m", "bertwright")):
    """As many commands as a group has members, running; they are gone when the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [*command, *arguments, *(["--resume"] if resume else [])]
    place = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"} | (place | {"RANK": str(rank)} if size > 1 else {}),
        )
        for rank in range(size)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def ends(started, seconds=MOST_SECONDS):
    """Wait for all; return exit statuses and what was printed."""
    deadline = time.monotonic() + seconds
    texts = [process.communicate(timeout=max(0.1, deadline - time.monotonic()))[0] for process in started]
    return [process.returncode for process in started], texts


def train(size, arguments, *, resume=False):
    with processes(size, arguments, resume=resume) as started:
        statuses, texts = ends(started)
    assert statuses == [0] * size, texts
    return texts


def rows(out):
    path = out / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def wait_for_step(started, out, step):
    deadline = time.monotonic() + MOST_SECONDS
    while max((row["step"] for row in rows(out)), default=0) < step:
        assert time.monotonic() < deadline
        assert [process.poll() for process in started] == [None] * len(started), "all are running"
        time.sleep(0.005)


def assert_same_training(found, expected):
    """Every step's figures and the final weights, to the rounding of sums in another order."""
    assert len(rows(found)) == len(rows(expected))
    for one, other in zip(rows(found), rows(expected), strict=True):
        assert (one["kind"], one["step"]) == (other["kind"], other["step"])
        names = [name for name in other if name not in ("kind", "tokens_per_second", "mfu", "seconds", "data_seconds")]
        assert {name: one[name] for name in names} == pytest.approx({name: other[name] for name in names}, rel=2e-6)
    one, other = (load_file(run / "model" / "model.safetensors") for run in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def arguments(shards):
    return [*PRETRAIN.split(), "--data", str(shards)]


@pytest.fixture(scope="module")
def alone(arguments, tmp_path_factory):
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    train(1, [*arguments, "--out", str(out)])
    return out


@pytest.mark.parametrize("size", [2, 6])
def test_several_train_as_one_does(size, arguments, alone, tmp_path):
    """Six is more than a step has micro-batches: some have nothing to do."""
    texts = train(size, [*arguments, "--out", str(tmp_path / "run")])
    assert_same_training(tmp_path / "run", alone)
    assert "Saved" in texts[0]
    assert ("some have nothing to do" in texts[0]) == (size == 6)
    assert texts[1:] == [""] * (size - 1), "one process speaks"


def test_muon_and_growing_batches_are_the_same_for_several(arguments, tmp_path):
    """Rounding in another order is bf16's where Muon makes its steps orthogonal: a larger tolerance."""
    modern = ["pretrain", "modern-tiny", *arguments[2:]]
    for size in (1, 2):
        train(size, [*modern, "--out", str(tmp_path / str(size))])
    losses = [[row["mlm_loss"] for row in rows(tmp_path / size)] for size in ("1", "2")]
    assert losses[1] == pytest.approx(losses[0], rel=MUON_TOLERANCE)


def test_a_run_goes_on_with_more_and_with_fewer(arguments, alone, tmp_path):
    out = tmp_path / "run"
    for size, step in ((1, 7), (2, 16)):
        with processes(size, [*arguments, "--out", str(out)], resume=True) as started:
            wait_for_step(started, out, step)
            started[-1].send_signal(signal.SIGTERM)  # one of them hears of it, all stop
            statuses, texts = ends(started)
        assert statuses == [143] * size, texts
        assert "and saved" in texts[0]
    train(1, [*arguments, "--out", str(out)], resume=True)
    assert_same_training(out, alone)


@pytest.mark.parametrize(("victim", "blow"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_death_is_named_and_the_run_goes_on(victim, blow, arguments, alone, tmp_path):
    out = tmp_path / "run"
    with processes(3, [*arguments, "--out", str(out)]) as started:
        wait_for_step(started, out, 6)
        started[victim].send_signal(blow)
        others = [process for rank, process in enumerate(started) if rank != victim]
        statuses, texts = ends(others, DEATH_SECONDS)
    assert statuses == [1, 1]
    assert [f"process {victim} of 3" in text for text in texts] == [True, True], texts
    assert ["--resume" in text for text in texts] == [True, True]
    assert [text.count("Traceback") for text in texts] == [0, 0], texts
    train(2, [*arguments, "--out", str(out)], resume=True)
    assert_same_training(out, alone)


# Weights that are cut into parts


@pytest.mark.parametrize("size", [2, 3])
def test_with_parts_of_the_weights_they_train_as_with_whole_ones(size, arguments, alone, tmp_path):
    """Three: some steps have no micro-batch for one of them, and evaluations end unevenly."""
    texts = train(size, [*arguments, "--shard-weights", "--out", str(tmp_path / "run")])
    assert_same_training(tmp_path / "run", alone)
    assert texts[1:] == [""] * (size - 1), "one process speaks"
    names = "checkpoints/step-00000030/state.safetensors"
    one, other = (load_file(run / names) for run in (tmp_path / "run", alone))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in one.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in other.items()
    }
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    samples = [json.loads((run / "samples.json").read_text()) for run in (tmp_path / "run", alone)]
    assert [each["text"] for each in samples[0]] == [each["text"] for each in samples[1]]


def test_a_run_goes_on_with_parts_and_without(arguments, alone, tmp_path):
    out = tmp_path / "run"
    for size, step, more in ((2, 6, ["--shard-weights"]), (1, 12, []), (3, 18, ["--shard-weights"]), (2, 24, [])):
        with processes(size, [*arguments, *more, "--out", str(out)], resume=True) as started:
            wait_for_step(started, out, step)
            started[-1].send_signal(signal.SIGTERM)
            statuses, texts = ends(started)
        assert statuses == [143] * size, texts
    train(2, [*arguments, "--shard-weights", "--out", str(out)], resume=True)
    assert_same_training(out, alone)


def test_going_on_with_parts_is_bit_for_bit(arguments, tmp_path):
    """The same processes, stopped between two checkpoints and not stopped."""
    words = [*arguments, "--shard-weights", "--async-checkpoints"]
    train(2, [*words, "--out", str(tmp_path / "whole")])
    with processes(2, [*words, "--out", str(tmp_path / "parts")]) as started:
        wait_for_step(started, tmp_path / "parts", 12)
        started[0].kill()
        ends(started[1:], DEATH_SECONDS)
    train(2, [*words, "--out", str(tmp_path / "parts")], resume=True)
    for name in ("model/model.safetensors", "checkpoints/step-00000030/state.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(("victim", "blow"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_death_is_named_where_parts_are_kept(victim, blow, arguments, alone, tmp_path):
    out = tmp_path / "run"
    with processes(2, [*arguments, "--shard-weights", "--out", str(out)]) as started:
        wait_for_step(started, out, 6)
        started[victim].send_signal(blow)
        statuses, texts = ends([started[1 - victim]], DEATH_SECONDS)
    assert statuses == [1]
    assert f"process {victim} of 2" in texts[0]
    assert texts[0].count("Traceback") == 0, texts
    train(1, [*arguments, "--out", str(out)], resume=True)
    assert_same_training(out, alone)


KEPT = """
import sys, torch
from bertwright.config import PretrainConfig
from bertwright.model.bert import Bert
from bertwright.objectives import MaskedLMAndNextSentence
from bertwright.recipes import get_recipe
from bertwright.batch import Batch
from bertwright.training.distributed import join, local
from bertwright.training.optim import BertAdam
from bertwright.training.sharding import shard

def kept(tensors):
    memory = [local(tensor).untyped_storage() for tensor in tensors]
    return sum({each.data_ptr(): each.nbytes() for each in memory}.values())  # gradients share theirs

with join() as group:
    objective, config = MaskedLMAndNextSentence(), get_recipe("mini").model
    model = Bert(config, objective.heads(config))
    total = kept(model.parameters())
    group = shard(group, model)
    optimizer = BertAdam(model, PretrainConfig())
    batch = Batch.pack([[1, 2, 3]], [[0, 0, 0]], {
        "masked_rows": torch.tensor([1]), "masked_labels": torch.tensor([5]), "next_sentence_label": torch.tensor([0])})
    for last in (False, True):
        output = group.run(objective, model, batch)
        group.backward(sum(term.total for term in output.losses.values()), last=last)
    gradients = [parameter.grad for parameter in model.parameters()]
    assert len(gradients) == len([each for each in gradients if each is not None])
    print(*(kept(each) / total for each in (model.parameters(), gradients, optimizer.state().values())))
"""


@pytest.mark.parametrize("size", [2, 4])
def test_each_process_keeps_its_part_alone(size, tmp_path):
    """Weights, gradients and moments: a half or a quarter each, and a little for rows that do not divide evenly."""
    (tmp_path / "kept.py").write_text(KEPT)
    with processes(size, [], command=[sys.executable, str(tmp_path / "kept.py")]) as started:
        statuses, texts = ends(started)
    assert statuses == [0] * size, texts
    for text in texts:
        weights, gradients, moments = (float(word) for word in text.split())
        assert weights == pytest.approx(1 / size, rel=0.01)
        assert gradients == pytest.approx(1 / size, rel=0.01)
        assert moments == pytest.approx(2 / size, rel=0.01)


# What is refused


def test_what_the_first_process_refuses_is_said_once(arguments, alone):
    with processes(2, [*arguments, "--out", str(alone)]) as started:
        statuses, texts = ends(started)
    assert statuses == [1, 1]
    assert "a run is here already" in texts[0]
    assert texts[1] == ""


def test_an_incomplete_environment_is_refused(arguments, tmp_path):
    words = [sys.executable, "-m", "bertwright", *arguments, "--out", str(tmp_path / "run")]
    found = subprocess.run(words, env={**os.environ, "WORLD_SIZE": "2"}, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "WORLD_SIZE is 2, but RANK is not set" in found.stderr
    assert "torchrun" in found.stderr
