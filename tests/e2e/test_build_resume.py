"""Kill `bertwright data build` anywhere, type it again: the same bytes as if it had never stopped."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial

import pytest

from bertwright.config import DataConfig
from bertwright.data import build
from bertwright.data.build import build_shards
from bertwright.data.partition import partition
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

pytestmark = pytest.mark.slow

SHARD_CHARACTERS = 20_000
NUM_KILLS = 6  # for each number of workers
MOST_SECONDS = 600
WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(300)]
WORDPIECE = WordPiece([*SPECIAL_TOKENS, ".", *WORDS], TextRules(lowercase=True))
# The real command, but with small shards, so that a small corpus has many of them; and Ctrl-C reaches it, though the
# tests may run in the background of a shell, where it is ignored.
SCRIPT = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from functools import partial
from bertwright.data import build
build.partition = partial(build.partition, shard_characters={SHARD_CHARACTERS})
from bertwright.cli import main
main()
"""


def sentence(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 30))) + "."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng, folder = random.Random(0), tmp_path_factory.mktemp("corpus")
    for name in ("b.jsonl", "a.jsonl"):
        rows = ["\n".join(sentence(rng) for _ in range(rng.randint(1, 25))) for _ in range(500)]
        (folder / name).write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    WORDPIECE.save(folder / "vocab")
    return folder


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """The build that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "shards"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "partition", partial(partition, shard_characters=SHARD_CHARACTERS))
        build_shards([corpus], WORDPIECE, out, DataConfig(max_length=32, held_out_prob=0.1), workers=1)
    return contents(out)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@contextmanager
def command(corpus, out, workers):
    """The command, running; it is gone when the block ends."""
    words = f"data build {corpus} --vocab {corpus / 'vocab'} --out {out} --max-length 32 --held-out-prob 0.1"
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words.split(), "--workers", str(workers)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def num_lines(out):
    path = out.with_name(f"{out.name}.partial") / "progress.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stop(corpus, out, workers, number, *, delay):
    """Start the command, signal it once it has built a few shards more; return its exit status and what it said."""
    before = num_lines(out)
    with command(corpus, out, workers) as process:
        deadline = time.monotonic() + MOST_SECONDS
        while process.poll() is None and num_lines(out) < before + 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(number)
        _, text = process.communicate(timeout=MOST_SECONDS)
        return process.returncode, text


def finish(corpus, out, workers):
    with command(corpus, out, workers) as process:
        _, text = process.communicate(timeout=MOST_SECONDS)
        assert process.returncode == 0, text
        return text


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again(corpus, whole, tmp_path, workers):
    """At moments that differ at every run of this test; between two kills at least one shard more is whole."""
    out, kills = tmp_path / "shards", 0
    while kills < NUM_KILLS and not out.exists():
        stop(corpus, out, workers, signal.SIGKILL, delay=random.uniform(0, 0.05))
        kills += 1
    if not out.exists():
        assert num_lines(out) > 1
        assert "going on with" in finish(corpus, out, workers)
    assert kills > 1
    assert contents(out) == whole
    assert [path.name for path in tmp_path.iterdir() if path.name != "shards.partial"] == ["shards"]


def test_ctrl_c_says_how_to_go_on(corpus, whole, tmp_path):
    out = tmp_path / "shards"
    status, text = stop(corpus, out, 1, signal.SIGINT, delay=0)
    assert status == 130, text
    assert "Stopped. What is finished is kept; type the same command to go on." in text
    assert str(tmp_path / "shards.partial") in text.replace("\n", "")
    assert "Traceback" not in text
    finish(corpus, out, 2)
    assert contents(out) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]
