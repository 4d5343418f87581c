"""The demo: its text is real, its dev set unseen, and the whole life runs, here with a model too small to learn."""

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from bertwright import demo
from bertwright.cli import run
from bertwright.demo import FAMILIES, LABELLED, Docstring, prose, standard_library, write_corpus, write_labelled
from bertwright.text.corpus import documents


@pytest.fixture(scope="module")
def docstrings() -> list[Docstring]:
    return standard_library()


def test_the_standard_library_has_plenty_of_english(docstrings: list[Docstring], tmp_path: Path) -> None:
    assert write_corpus(tmp_path / "corpus.txt", docstrings) > 300
    text = (tmp_path / "corpus.txt").read_text(encoding="utf-8")
    assert len(text) > 1_000_000
    assert ">>>" not in text
    found = list(documents([tmp_path / "corpus.txt"]))
    assert sum(map(len, found)) > 10_000
    assert sum(len(sentences) > 1 for sentences in found) > 300


def test_dev_has_other_modules_and_other_text_than_training(docstrings: list[Docstring], tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.txt", docstrings)
    sizes = write_labelled(tmp_path / "train.csv", tmp_path / "dev.csv", docstrings)
    rows = {}
    for name, size in zip(("train", "dev"), sizes, strict=True):
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows[name] = list(csv.DictReader(file))
        assert len(rows[name]) == size
        assert set(Counter(row["label"] for row in rows[name])) == set(FAMILIES)
    assert sizes[0] == LABELLED * len(FAMILIES)
    assert sizes[1] > 400
    assert not {row["text"] for row in rows["train"]} & {row["text"] for row in rows["dev"]}


def test_no_module_is_in_two_places() -> None:
    names = [name for modules in FAMILIES.values() for part in modules for name in part.split()]
    assert len(names) == len(set(names))
    assert not [name for name in names for other in names if name.startswith(f"{other}/")]


def test_prose_leaves_code_and_tables_out() -> None:
    text = "Return the number of\nitems in it.\n\n>>> len([1, 2])\n2\n\nx = {1: 2, (3, 4): [5]}\n\nToo short"
    assert list(prose(text)) == ["Return the number of items in it."]


@pytest.fixture
def small(docstrings: list[Docstring], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage with little of everything."""
    few = [docstring for docstring in docstrings if len(docstring.module) % 4 == 0][:1500]
    training = {"precision": "fp32", "threads": 1}
    monkeypatch.setattr(demo, "standard_library", lambda: few)
    monkeypatch.setattr(demo, "VOCAB", dataclasses.replace(demo.VOCAB, size=1_200))
    shape = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    monkeypatch.setattr(demo, "MODEL", dataclasses.replace(demo.MODEL, **shape))
    steps = {"steps": 3, "batch_tokens": 512, "eval_tokens": 512, "eval_every": 2}
    monkeypatch.setattr(demo, "PRETRAIN", dataclasses.replace(demo.PRETRAIN, **steps, **training))
    monkeypatch.setattr(demo, "FINETUNE", dataclasses.replace(demo.FINETUNE, epochs=1, batch_size=256, **training))


@pytest.mark.usefixtures("small")
def test_the_whole_life(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert run(["demo", "--out", str(out), "--lang", "zh"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "1  语料",
        "2  词表",
        "3  训练样本",
        "4  预训练",
        "5  填空",
        "6  微调",
        "个百分点",
        "[CLS]",
        str(out / "report.html"),
    ):
        assert words in shown
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<h2>") == 3
    assert "混淆矩阵" in page
    assert "训练前" in page
    samples = json.loads((out / "pretrain/samples.json").read_text(encoding="utf-8"))
    assert all(sample["before"] != sample["after"] for sample in samples)
    for folder in ("vocab", "shards", "pretrain/model", "finetune/model", "finetune-random/model"):
        assert (out / folder).is_dir()


def test_nothing_of_others_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert run(["demo", "--out", str(tmp_path)]) == 1
    assert "something else is here already" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()
