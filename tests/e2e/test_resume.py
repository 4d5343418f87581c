"""Stop the real command anywhere, type it again with `--resume`: the same bytes as if it had never stopped."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.slow

SPEEDS = {"tokens_per_second", "mfu", "seconds", "data_seconds"}
PRETRAIN = (
    "pretrain tiny --steps 40 --batch-tokens 300 --micro-batch-tokens 120 --lr 1e-3 --log-every 2 --eval-every 9"
    " --eval-tokens 200 --checkpoint-every 5 --threads 1"
)
FINETUNE = (
    "finetune classify --epochs 3 --batch-size 4 --max-length 24 --lr 1e-3 --log-every 1 --eval-every 7"
    " --checkpoint-every 5 --threads 1"
)
MOST_SECONDS = 600


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, sentence):
    rng, folder = random.Random(1), tmp_path_factory.mktemp("labelled")
    for name, count in (("train", 60), ("dev", 20)):
        rows = [sentence(rng) for _ in range(count)]
        lines = [f"{row}\t{'small' if row.split()[1] in ('cat', 'bird') else 'big'}" for row in rows]
        (folder / f"{name}.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    return ["--train", str(folder / "train.tsv"), "--dev", str(folder / "dev.tsv")]


@contextmanager
def command(arguments, out, *, resume):
    """The command, running; it is gone when the block ends."""
    words = [sys.executable, "-m", "bertwright", *arguments, "--out", str(out), *(["--resume"] if resume else [])]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(arguments, out, *, resume):
    with command(arguments, out, resume=resume) as process:
        text, _ = process.communicate(timeout=MOST_SECONDS)
        assert process.returncode == 0, text


def stop(arguments, out, number, *, resume, delay=0.0, steps=4):
    """Start the command, signal it once it has trained some steps, and return its exit status and what it printed."""
    before = last_step(out)
    with command(arguments, out, resume=resume) as process:
        deadline = time.monotonic() + MOST_SECONDS
        while process.poll() is None and last_step(out) < before + steps:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(number)
        text, _ = process.communicate(timeout=MOST_SECONDS)
        return process.returncode, text


def rows(out):
    path = out / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def last_step(out):
    return max((row["step"] for row in rows(out)), default=0)


def without_speeds(out):
    return [{name: value for name, value in row.items() if name not in SPEEDS} for row in rows(out)]


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same_run(found, expected, *files):
    assert content(found / "model") == content(expected / "model")
    assert without_speeds(found) == without_speeds(expected)
    for name in ("config.json", *files):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    assert not [path for path in found.rglob(".*") if path.name.endswith((".tmp", ".old"))], (
        "nothing is left lying about"
    )


@pytest.fixture(scope="module", params=["fp32", "ltr+nsp", "three phases", "modern"])
def whole(request, shards, tmp_path_factory):
    """The run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    arguments = [*PRETRAIN.split(), "--data", str(shards)]
    if request.param == "fp32":
        arguments += ["--precision", "fp32"]
    elif request.param == "ltr+nsp":
        arguments += ["--objective", "ltr+nsp"]
    elif request.param == "modern":
        arguments[1] = "modern-tiny"
    else:
        arguments += ["--short-ratio", "0.2", "--short-length", "16", "--static-masks", "2"]
        arguments += ["--long-data", str(shards.with_name("long-shards")), "--long-ratio", "0.5"]
    finish(arguments, out, resume=False)
    return arguments, out


def test_pretraining_goes_on_bit_for_bit(whole, tmp_path):
    """Ctrl-C, SIGTERM, and kill -9 at two moments that differ at every run of this test."""
    arguments, expected = whole
    out = tmp_path / "run"
    for resume, number, status in ((False, signal.SIGINT, 130), (True, signal.SIGTERM, 143)):
        found, text = stop(arguments, out, number, resume=resume)
        assert found == status, text
        [step] = re.findall(r"stopped at step (\d+) and saved", text)
        assert (out / f"checkpoints/step-{int(step):08d}").is_dir()
        assert "Traceback" not in text
    for _ in range(2):
        stop(arguments, out, signal.SIGKILL, resume=True, delay=random.uniform(0, 0.2))
    finish(arguments, out, resume=True)
    assert_same_run(out, expected, "samples.json")
    newest = "checkpoints/step-00000040"
    assert content(out / newest) == content(expected / newest)


def kill_inside_a_save(arguments, out, *, steps):
    """Start the command; after some steps, kill it while a checkpoint is written; return whether that was so."""
    folder = out / "checkpoints"
    with command(arguments, out, resume=True) as process:
        deadline = time.monotonic() + MOST_SECONDS
        while process.poll() is None and (last_step(out) < steps or not list(folder.glob(".step-*.tmp"))):
            assert time.monotonic() < deadline
        process.kill()
        process.communicate()
    return bool(list(folder.glob(".step-*.tmp")))


def killed_inside_a_save(arguments, out, *, steps):
    """Return a run folder whose training was killed while a checkpoint was written: a save may end before the kill."""
    for attempt in range(9):
        folder = out / str(attempt)
        if kill_inside_a_save(arguments, folder, steps=steps):
            return folder
    pytest.fail("nine kills, and each save had ended just before")


def flip_a_bit(folder, rng):
    """Change one bit of the newest checkpoint."""
    newest = max(folder.glob("step-*"))
    path = newest / rng.choice(["state.safetensors", "state.json", "manifest.json"])
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def test_killed_at_random_moments(whole, tmp_path):
    """`make trials` makes many, and prints what came of them."""
    arguments, expected = whole
    trials, rng = int(os.environ.get("TRIALS", "2")), random.Random()
    counts = {"kills": 0, "of them inside a save": 0, "flipped bits": 0, "runs that ended bit for bit the same": 0}
    for trial in range(trials):
        out = tmp_path / str(trial)
        steps = rng.randint(0, 30)
        own = [*arguments, "--async-checkpoints"] if trial % 4 > 1 else arguments
        if trial % 2:
            stop(own, out, signal.SIGKILL, resume=False, delay=rng.uniform(0, 0.3), steps=steps)
        else:
            out = killed_inside_a_save(own, out, steps=steps)
            counts["of them inside a save"] += 1
        counts["kills"] += 1
        if len(list((out / "checkpoints").glob("step-*"))) > 1 and rng.random() < 0.5:
            flip_a_bit(out / "checkpoints", rng)
            counts["flipped bits"] += 1
        finish(own, out, resume=True)
        assert content(out / "model") == content(expected / "model")
        assert without_speeds(out) == without_speeds(expected)
        counts["runs that ended bit for bit the same"] += 1
    print(", ".join(f"{count} {what}" for what, count in counts.items()))


def test_a_run_is_not_begun_twice(whole):
    arguments, out = whole
    before = content(out)
    with command(arguments, out, resume=False) as process:
        text, _ = process.communicate(timeout=MOST_SECONDS)
    assert process.returncode == 1
    assert "a run is here already" in text
    assert "--resume" in text
    assert content(out / "model") == {
        name.removeprefix("model/"): data for name, data in before.items() if name.startswith("model/")
    }


@pytest.mark.parametrize("more", ["", "--bilstm 1"])
def test_fine_tuning_goes_on_bit_for_bit(more, whole, labelled, tmp_path):
    _, pretrained = whole
    arguments = [*FINETUNE.split(), *more.split(), *labelled, "--init", str(pretrained / "model")]
    finish(arguments, tmp_path / "whole", resume=False)
    stop(arguments, tmp_path / "parts", signal.SIGKILL, resume=False, delay=random.uniform(0, 0.2))
    finish(arguments, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "parts", tmp_path / "whole", "best.json", "evaluation.json", "predictions.jsonl")
