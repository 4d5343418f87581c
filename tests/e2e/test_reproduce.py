"""`bertwright reproduce` at the smallest scale on real files: killed, typed again, and refused where it must be."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bertwright.cli import run

pytestmark = pytest.mark.slow

DIALS = (
    "--scale tiny --only bert,no-nsp --seeds 1 --steps 40 --batch-tokens 300 --checkpoint-every 10"
    " --finetune-examples 24 --dev-examples 12 --finetune-epochs 1 --threads 1 --quiet"
)
MOST_SECONDS = 300


@pytest.fixture(scope="module")
def tasks(shared_data, tmp_path_factory):
    """The first lines of real files."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "MRPC").mkdir()
    for source, target in (("msr_paraphrase_train.txt", "train.tsv"), ("dev.tsv", "dev.tsv")):
        lines = (shared_data / "tasks/en/MRPC" / source).read_text(encoding="utf-8-sig").splitlines()
        (folder / "MRPC" / target).write_text("\n".join(lines[:60]) + "\n", encoding="utf-8")
    return folder


def words(shards, tasks, out, experiment="table5", dials=DIALS):
    places = ["--data", str(shards), "--tasks", str(tasks), "--out", str(out)]
    return ["reproduce", experiment, *places, *dials.split()]


def content(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_killed_and_typed_again(shards, tasks, tmp_path, capsys):
    out = tmp_path / "out"
    typed = words(shards, tasks, out)
    second = out / "pretrain/no-nsp-seed0/metrics.jsonl"
    with subprocess.Popen([sys.executable, "-m", "bertwright", *typed], env=os.environ) as process:
        deadline = time.monotonic() + MOST_SECONDS
        while process.poll() is None and not second.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = content(out / "pretrain/bert-seed0")
    assert "done.json" in done, "the first rows come first"
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "| No NSP | – | 86.5 |" in table

    assert run([*typed, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["finished"]
    assert content(out / "pretrain/bert-seed0") == done, "what was done is not repeated"
    assert {*results["left_out"]} == {"MNLI-m", "QNLI", "SST-2", "SQuAD"}
    for row in results["rows"]:
        (score,) = row["cells"]["mrpc"]["scores"]
        saved = json.loads((out / "finetune" / score["run"] / "best.json").read_text())
        assert score["value"] == 100 * saved["scores"]["accuracy"]
    objectives = {name: json.loads((out / f"pretrain/{name}-seed0/config.json").read_text())["train"]["objective"]
                  for name in ("bert", "no-nsp")}  # fmt: skip
    assert objectives == {"bert": "mlm+nsp", "no-nsp": "mlm"}
    assert {each["verdict"] for each in results["holds"]} == {"untold"}, "one run has no spread"

    before = content(out)
    assert run(typed) == 0
    assert "BERT > No NSP" in capsys.readouterr().out
    changed = {name for name, at in content(out).items() if before.get(name) != at}
    assert changed == {"experiment.json", "table.md", "table.html", "results.json"}

    assert run(words(shards, tasks, out, dials=DIALS.replace("tiny", "mini"))) == 1
    message = capsys.readouterr().err
    assert "scale = 'tiny', this command says 'mini'" in message
    assert "Traceback" not in message


def test_models_of_checkpoints(shards, tasks, tmp_path, capsys):
    """Stopped in the middle, the steps of figure 5 are all kept; the plan before it runs nothing."""
    out = tmp_path / "out"
    dials = DIALS.replace("bert,no-nsp", "mlm-10,mlm-50,mlm-100") + " --score-on MRPC"
    typed = words(shards, tasks, out, "steps", dials)
    assert run([*typed, "--plan", "--probe-seconds", "0", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [each["run"] for each in plan["runs"]][:2] == ["bert-over-time-seed0", "mlm-10-seed0/mrpc-seed0"]
    assert plan["seconds_left"] is None
    assert not (out / "pretrain").exists()
    assert run([*typed, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [row["cells"]["mrpc"]["n"] for row in results["rows"]] == [1, 1, 1]
    run_folder = out / "pretrain/bert-over-time-seed0"
    kept = {path.name for path in run_folder.glob("model*")}
    assert kept == {"model", "model-at-4", "model-at-10", "model-at-20", "model-at-30"}
    weights = {(run_folder / name / "model.safetensors").read_bytes() for name in kept}
    assert len(weights) == 5, "all different"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("table5", "table4"), ["unknown experiment 'table4'", "table5, table6"]),
        (("bert,no-nsp", "brt"), ["no row 'brt' (did you mean 'bert'?)", "--only takes some of: bert, no-nsp"]),
        (("--seeds 1", "--seeds 0"), ["--seeds must be at least 1"]),
        (("--seeds 1", "--score-on SST3"), ["unknown task 'SST3' (did you mean 'SST-2'?)"]),
        (("--steps 40", "--steps 4.5"), ["--steps must be a whole number"]),
        (("--scale tiny", "--scale huge"), ["unknown scale 'huge'", "tiny, mini, base"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else value[1],
)
def test_what_is_refused(change, expected, shards, tasks, tmp_path, capsys):
    experiment = change[1] if change[0] == "table5" else "table5"
    assert run(words(shards, tasks, tmp_path / "out", experiment, DIALS.replace(*change))) == 1
    message = capsys.readouterr().err
    assert [word for word in expected if word not in message] == []
    assert message.count("error: ") == 1
    assert not (tmp_path / "out").exists()
