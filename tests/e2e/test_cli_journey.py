"""Every command as a newcomer types it, one after the other, on real text: the manual that every Python carries."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data import topics

import pytest

from bertwright.cli import run
from bertwright.demo import prose

TRAINING = ["--micro-batch-tokens", "512", "--threads", "1", "--precision", "fp32", "--log-every", "1"]
TOPICS = (
    "assert",
    "import",
    "with",
    "try",
    "for",
    "while",
    "class",
    "function",
    "strings",
    "numbers",
    "booleans",
    "del",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a newcomer works, with a corpus and labelled sentences."""
    folder = tmp_path_factory.mktemp("journey")
    documents = ["\n".join(prose(topics.topics[name])) for name in TOPICS]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    for name, start in (("train", 0), ("dev", 1)):
        rows = [
            {"text": line[:200], "label": label}
            for label, topic in (("text", "strings"), ("flow", "for"), ("types", "types"))
            for line in list(prose(topics.topics[topic]))[start::2][:12]
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def life(folder: Path) -> Path:
    """The folder after vocabulary, shards, pre-training and fine-tuning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LC_ALL", "C.UTF-8")
        for command in (
            "vocab corpus.txt --out vocab --size 1000",
            "data build corpus.txt --vocab vocab --out shards --max-length 32 --workers 1 --held-out-prob 0.2",
            "pretrain tiny --data shards --out run --steps 4 --batch-tokens 512 --checkpoint-every 2 --eval-every 2",
            "finetune classify --train train.jsonl --dev dev.jsonl --init run/model --out labels --epochs 2 --lr 1e-3",
        ):
            extra = TRAINING if command.startswith(("pretrain", "finetune")) else []
            assert run([*command.split(), *extra]) == 0, command
    return folder


@pytest.fixture
def here(life: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(life)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    return life


def test_what_training_leaves_behind(here: Path) -> None:
    for name in (
        "config.json",
        "metrics.jsonl",
        "versions.json",
        "report.html",
        "model/vocab.txt",
        "model/config.json",
    ):
        assert (here / "run" / name).is_file(), name
    for name in ("config.json", "metrics.jsonl", "evaluation.json", "report.html", "model/model.safetensors"):
        assert (here / "labels" / name).is_file(), name
    assert "<svg" in (here / "run/report.html").read_text(encoding="utf-8")
    assert "Confusion matrix" in (here / "labels/report.html").read_text(encoding="utf-8")


def test_data_show(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "show", "shards", "0"]) == 0
    shown = capsys.readouterr().out
    assert "[CLS]" in shown
    assert "next sentence: B" in shown
    assert run(["data", "show", "shards", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"][0]["shown"] == "[CLS]"


def test_fill(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fill", "run/model", "An import [MASK] is executed.", "--top-k", "3"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == "An import [MASK] is executed."
    assert shown.count("%") == 3
    assert run(["fill", "run/model", "[MASK] is [MASK].", "--json"]) == 0
    gaps = json.loads(capsys.readouterr().out)
    assert [len(gap) for gap in gaps] == [5, 5]
    assert set(gaps[0][0]) == {"score", "token", "token_str", "sequence"}


def test_nsp(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nsp", "run/model", "A loop starts.", "It ends."]) == 0
    assert "B" in capsys.readouterr().out
    assert run(["nsp", "run/model", "A loop starts.", "It ends.", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in ("IsNext", "NotNext")


def test_predict_is_the_same_from_words_files_and_standard_input(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["A string is text.", "The loop ends when the list is empty, after which the else clause runs."]
    (here / "texts.txt").write_text("\n".join(texts) + "\n")
    (here / "texts.csv").write_text("id,text\n" + "".join(f'{number},"{text}"\n' for number, text in enumerate(texts)))
    (here / "body.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    answers = []
    for words in (
        texts,
        ["--input", "texts.txt"],
        ["--input", "texts.csv"],
        ["--input", "body.jsonl", "--text-column", "body"],
    ):
        assert run(["predict", "labels/model", *words]) == 0
        answers.append(capsys.readouterr().out)
    with (here / "texts.txt").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert run(["predict", "labels/model", "--input", "-"]) == 0
    answers.append(capsys.readouterr().out)
    assert len(set(answers)) == 1
    rows = [json.loads(line) for line in answers[0].splitlines()]
    assert [set(row) for row in rows] == [{"label", "score"}] * 2
    assert {row["label"] for row in rows} <= {"text", "flow", "types"}


def test_evaluate(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "labels/model", "--data", "dev.jsonl", "--json", "--out", "scores"]) == 0
    scores = json.loads(capsys.readouterr().out)
    kept = json.loads((here / "labels/evaluation.json").read_text())
    assert scores["accuracy"] == pytest.approx(kept["scores"]["accuracy"])
    assert sum(map(sum, scores["confusion"])) == scores["num_examples"]
    assert (here / "scores/predictions.jsonl").read_text().count("\n") == scores["num_examples"]
    assert run(["evaluate", "labels/model", "--data", "dev.jsonl"]) == 0
    assert f"accuracy      {scores['accuracy']:.4f}" in capsys.readouterr().out


def test_report_again_in_chinese(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "labels", "--lang", "zh"]) == 0
    assert capsys.readouterr().out.strip() == "labels/report.html"
    assert "混淆矩阵" in (here / "labels/report.html").read_text(encoding="utf-8")


def test_a_run_goes_on_from_another_model(here: Path) -> None:
    words = ["--data", "shards", "--init", "run/model", "--steps", "2", "--batch-tokens", "256", "--quiet"]
    assert run(["pretrain", "tiny", *words, "--out", "further", "--config", "run/config.json", *TRAINING]) == 0
    assert json.loads((here / "further/config.json").read_text())["train"]["checkpoint_every"] == 2


def test_quiet_json_prints_one_object(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "finetune",
        "classify",
        "--train",
        "train.jsonl",
        "--dev",
        "dev.jsonl",
        "--init",
        "run/model",
        "--out",
        "random",
        "--epochs",
        "1",
    ]
    assert run([*words, "--random-weights", "--quiet", "--json", *TRAINING]) == 0
    shown = capsys.readouterr()
    assert "error" not in shown.err  # a warning there may be: so short a run comes to nothing
    result = json.loads(shown.out)
    assert Path(result["model"]).is_dir()
    assert 0 <= result["accuracy"] <= 1


def test_ctrl_c_saves_and_resume_ends_as_if_nothing_had_happened(here: Path) -> None:
    def command(out: str, *words: str) -> list[str]:
        settings = [
            "--data",
            "shards",
            "--steps",
            "40",
            "--batch-tokens",
            "512",
            "--checkpoint-every",
            "0",
            "--eval-every",
            "0",
        ]
        return [sys.executable, "-m", "bertwright", "pretrain", "tiny", "--out", out, *settings, *TRAINING, *words]

    environment = {**os.environ, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command("stopped"), stderr=subprocess.PIPE, text=True, env=environment) as process:
        metrics = here / "stopped/metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.read_text()):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate()
    assert process.returncode == 130, shown
    assert "Traceback" not in shown
    assert "--resume" in shown
    for words in (command("stopped", "--resume"), command("whole")):
        subprocess.run(words, check=True, env=environment, capture_output=True)
    weights = [(here / out / "model/model.safetensors").read_bytes() for out in ("stopped", "whole")]
    assert weights[0] == weights[1]
