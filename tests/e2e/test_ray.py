"""Two machines of a Ray cluster, played by one: the same bytes and weights as without Ray, whoever is killed."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from bertwright import cluster
from bertwright.config import DataConfig
from bertwright.data import build
from bertwright.data.build import build_shards
from bertwright.errors import BertwrightError
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: pip install 'bertwright[ray]'"),
]

SHARD_CHARACTERS = 20_000
MOST_SECONDS = 300
NUM_LOOKS = 300
"""How long a worker is sought that is at work: none may be left."""
WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(300)]
WORDPIECE = WordPiece([*SPECIAL_TOKENS, ".", *WORDS], TextRules(lowercase=True))
BUILD = "--max-length 32 --held-out-prob 0.1 --dupe-factor 10"
PRETRAIN = (
    "pretrain tiny --steps 30 --batch-tokens 400 --micro-batch-tokens 120 --lr 1e-3 --log-every 1 --eval-every 10"
    " --eval-tokens 400 --checkpoint-every 5 --threads 1 --precision fp32"
)
# The real command, but with small shards, so that a small corpus has many of them.
SCRIPT = f"""
from functools import partial
from bertwright.data import build
build.partition = partial(build.partition, shard_characters={SHARD_CHARACTERS})
from bertwright.cli import main
main()
"""


class Nodes:
    """The cluster, seen from outside."""

    def __init__(self, address, raylets, environment):
        self.address = address
        self.environment = environment | {"RAY_ADDRESS": address, "LC_ALL": "C.UTF-8"}
        self._raylets = raylets

    def workers(self, title):
        """Process ids of the workers whose title begins so; `ray::IDLE` is one that waits."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in self._raylets and (folder / "cmdline").read_text().startswith(title):
                    found.append(int(folder.name))
            except (OSError, ValueError, IndexError):
                continue  # no process, or one that has just ended
        return found

    @contextmanager
    def command(self, *words):
        """A command that uses the cluster, running; it is gone when the block ends."""
        with subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *words):
        """A command that uses the cluster, to its end: exit status and what was printed."""
        with self.command(*words) as process:
            return ended(process)


def ended(process):
    text, _ = process.communicate(timeout=MOST_SECONDS)
    return process.returncode, text


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A cluster of two nodes with a processor each; its processes end with this one, however that ends."""
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "HOME": str(home)}
    script = Path(__file__).with_name("ray_nodes.py")
    with (
        (home / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            line = process.stdout.readline()
            assert line, (home / "log").read_text()
            yield Nodes(**json.loads(line), environment=environment)
        finally:
            process.stdin.close()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()  # what it started watches it, and ends


def wait_until(true, process):
    deadline = time.monotonic() + MOST_SECONDS
    while not true():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)


def kill_one(nodes, *titles, process):
    """Kill a worker with signal 9, if it can be one with the first title."""

    def killed():
        nonlocal looks
        looks += 1
        for pid in nodes.workers(titles if looks > NUM_LOOKS else titles[0]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    looks = 0
    wait_until(killed, process)


# Building shards


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng, folder = random.Random(0), tmp_path_factory.mktemp("corpus")

    def sentence():
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 30))) + "."

    for name in ("b.jsonl", "a.jsonl"):
        rows = ["\n".join(sentence() for _ in range(rng.randint(1, 25))) for _ in range(500)]
        (folder / name).write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    WORDPIECE.save(folder / "vocab")
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def num_shards(out):
    path = out.with_name(f"{out.name}.partial") / "progress.jsonl"
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def test_shards_have_the_bytes_of_a_local_build(nodes, corpus, tmp_path):
    words = ["data", "build", corpus, "--vocab", corpus / "vocab", *BUILD.split()]
    plain = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, words), "--workers", "1", "--out", str(tmp_path / "plain")], check=True
    )
    assert plain.returncode == 0
    whole = contents(tmp_path / "plain")
    assert len(whole) > 50

    status, text = nodes.run(*words, "--engine", "ray", "--out", tmp_path / "undisturbed")
    assert status == 0, text
    assert f"Ray at {nodes.address}: 2 machines, 2 CPUs" in text
    assert "ray::" not in text
    assert contents(tmp_path / "undisturbed") == whole

    with nodes.command(*words, "--engine", "ray", "--out", tmp_path / "killed") as process:
        for number in (1, 10, 20):
            wait_until(lambda number=number: num_shards(tmp_path / "killed") >= number, process)
            kill_one(nodes, "ray::_call", "ray::IDLE", process=process)
        status, text = ended(process)
    assert status == 0, text
    assert contents(tmp_path / "killed") == whole

    with nodes.command(*words, "--engine", "ray", "--out", tmp_path / "resumed") as process:
        wait_until(lambda: num_shards(tmp_path / "resumed") >= 5, process)
        process.kill()
    status, text = nodes.run(*words, "--engine", "ray", "--out", tmp_path / "resumed")
    assert status == 0, text
    assert "going on with" in text
    assert contents(tmp_path / "resumed") == whole

    status, text = nodes.run(*words, "--engine", "ray", "--out", tmp_path / "refused", "--workers", "3")
    assert status == 1, text
    assert "3 workers with 1 CPU each do not fit into the cluster: it has 2 machines, 2 CPUs" in text
    assert "--workers 2" in text
    assert not (tmp_path / "refused").exists()


# Training


@pytest.fixture(scope="module")
def two_processes(shards, tmp_path_factory):
    """The run of two processes without Ray."""
    out = tmp_path_factory.mktemp("plain") / "run"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    words = [sys.executable, "-m", "bertwright", *PRETRAIN.split(), "--data", str(shards), "--out", str(out), "--quiet"]
    started = [
        subprocess.Popen(words, env=os.environ | place | {"RANK": str(rank), "OMP_NUM_THREADS": "1"})
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=MOST_SECONDS) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    return out


def rows(out):
    path = out / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def step(out):
    return max((row["step"] for row in rows(out)), default=0)


def figures(out):
    times = ("tokens_per_second", "mfu", "seconds", "data_seconds")
    return [{name: value for name, value in row.items() if name not in times} for row in rows(out)]


def test_training_is_that_of_two_processes(nodes, shards, two_processes, tmp_path):
    """Bit for bit, through Ctrl-C, `--resume`, and a worker that is killed."""
    out = tmp_path / "run"
    words = [*PRETRAIN.split(), "--data", shards, "--out", out, "--engine", "ray", "--workers", "2"]
    with nodes.command(*words) as process:
        wait_until(lambda: step(out) >= 7, process)
        process.send_signal(signal.SIGINT)
        status, text = ended(process)
    assert status == 130, text
    assert "and saved" in text
    assert "--resume" in text
    assert "Traceback" not in text

    status, text = nodes.run(*words)
    assert status == 1
    assert "a run is here already" in text
    assert text.count("error:") == 1, text

    with nodes.command(*words, "--resume") as process:
        wait_until(lambda: step(out) >= 16, process)
        kill_one(nodes, "ray::RayTrainWorker", process=process)
        status, text = ended(process)
    assert status == 0, text
    assert "a worker died" in text
    assert "Saved" in text
    assert "held‑out step 30" in text
    assert "Traceback" not in text
    assert figures(out) == figures(two_processes)
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (out, two_processes)]
    assert weights[0] == weights[1]


# What cannot be


def test_a_cluster_that_is_not_there(corpus, tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = f"data build {corpus} --vocab {corpus / 'vocab'} --out {tmp_path / 'shards'} --engine ray"
    found = subprocess.run(
        [sys.executable, "-m", "bertwright", *words.split()],
        env=os.environ | {"RAY_ADDRESS": address, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
    )
    assert found.returncode == 1
    assert f"error: RAY_ADDRESS={address}: no Ray cluster could be joined" in found.stderr
    assert "Traceback" not in found.stderr


def test_ray_is_not_installed(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(BertwrightError, match=r"pip install 'bertwright\[ray\]'"):
        build_shards([corpus], WORDPIECE, tmp_path / "shards", DataConfig(max_length=32), engine="ray")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("threads", "gpus", "room"), [(1, 0, 5), (2, 0, 2), (3, 0, 1), (1, 1, 2)], ids=["1", "2", "3", "gpu"]
)
def test_workers_take_whole_machines(threads, gpus, room):
    """Two processors of one machine and one of another are no place for a worker with two threads each."""
    found = cluster.Cluster(({"CPU": 3.0, "GPU": 2.0}, {"CPU": 2.0}, {}))
    assert found.workers(None, cpus=threads, gpus=gpus) == room
    assert found.workers(1, cpus=threads, gpus=gpus) == 1
    with pytest.raises(BertwrightError, match=f"--workers {room}"):
        found.workers(room + 1, cpus=threads, gpus=gpus)
    with pytest.raises(BertwrightError, match="add machines"):
        found.workers(None, cpus=4, gpus=gpus)


def test_other_machines_must_see_the_place_and_have_the_same_versions(tmp_path):
    work = next(build.partition(["One text. Two sentences.", "Another."], DataConfig())).packed()
    job = build._Job.of(WORDPIECE, DataConfig())
    with pytest.raises(BertwrightError, match="does not see this folder"):
        build._build_elsewhere(work, job, tmp_path / "away", build._made_by())
    with pytest.raises(BertwrightError, match=r"would make other bytes: it has numpy .*, not 1\.0"):
        build._build_elsewhere(work, job, tmp_path, build._made_by() | {"numpy": "1.0"})
