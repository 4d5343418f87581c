"""Bad input at the command line: one message (what, where, what to type), status 1, no traceback, nothing lost."""

import errno
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data import topics

import pytest

from bertwright.cli import run
from bertwright.demo import prose

TRAINING = ["--micro-batch-tokens", "512", "--threads", "1", "--precision", "fp32", "--quiet"]
LABELLED = "text,label\na good film,yes\na bad film,no\n"

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, two vocabularies, shards and a pre-trained model."""
    folder = tmp_path_factory.mktemp("made")
    documents = ["\n".join(prose(topics.topics[name])) for name in ("assert", "import", "with", "try", "for", "class")]
    (folder / "corpus.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    (folder / "train.csv").write_text(LABELLED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (
            "vocab corpus.txt --out vocab --size 600 --quiet",
            "vocab corpus.txt --out other --size 500 --quiet",
            "data build corpus.txt --vocab vocab --out shards --max-length 32 --workers 1 --quiet",
            f"pretrain tiny --data shards --out run --steps 2 --batch-tokens 256 {' '.join(TRAINING)}",
        ):
            assert run(command.split()) == 0, command
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder with what `made` made."""
    for path in made.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused; return its one message."""

    def check(command: str, *words: str, status: int = 1) -> str:
        capsys.readouterr()
        assert run([*command.split(), *words]) == status
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        assert shown.err.count("error: ") == 1
        assert "something unexpected" not in shown.err
        assert shown.out == ""
        return shown.err

    return check


def fingerprint(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Files


BROKEN_CORPORA = {
    "absent.txt": None,
    "empty.txt": b"",
    "blank.txt": b" \n\n \n",
    "binary.txt": bytes(range(256)) * 40,
    "undecodable.txt": b"A sentence.\n" * 3 + b"\xff\xfe\xfa broken \xc3\x28\n",
    "noise.jsonl": b'{"text": "fine"}\nnot json\n',
    "field.jsonl": b'{"body": "text has another name"}\n',
    "cut.txt.gz": b"\x1f\x8b\x08\x00cut",
    "cut.txt.xz": b"\xfd7zXZ\x00cut",
    "cut.txt.zst": b"\x28\xb5\x2f\xfdcut",
    "picture.png": b"\x89PNG\r\n",
}


@pytest.mark.parametrize("name", BROKEN_CORPORA)
@pytest.mark.parametrize(
    "command", ["vocab {} --out new --size 500", "data build {} --vocab vocab --out new --workers 1"]
)
def test_a_corpus_that_cannot_be_read(name: str, command: str, here: Path, refused: Refused) -> None:
    content = BROKEN_CORPORA[name]
    if content is not None:
        (here / name).write_bytes(content)
    message = refused(command.format(name))
    assert name in message
    assert not (here / "new").exists() or not any((here / "new").iterdir())


@pytest.mark.parametrize("content", [None, b"", bytes(range(256)), b"text,label\n", b"\xff\xfe\xfa,\xc3\x28\n"])
def test_a_table_that_cannot_be_read(content: bytes | None, here: Path, refused: Refused) -> None:
    if content is not None:
        (here / "table.csv").write_bytes(content)
    message = refused("finetune classify --train table.csv --dev train.csv --init run/model --out new", *TRAINING)
    assert "table.csv" in message
    assert not (here / "new/model").exists()


def test_a_column_that_is_not_there(here: Path, refused: Refused) -> None:
    (here / "table.csv").write_text("sentence,label\na,b\n")
    message = refused("finetune classify --train table.csv --dev train.csv --init run/model --out new", *TRAINING)
    for expected in ("table.csv", "'text'", "sentence", "--text-column"):
        assert expected in message


def test_a_label_of_dev_that_training_has_not_seen(here: Path, refused: Refused) -> None:
    (here / "dev.csv").write_text(LABELLED + "an odd film,perhaps\n")
    message = refused("finetune classify --train train.csv --dev dev.csv --init run/model --out new", *TRAINING)
    for expected in ("dev.csv", "4", "'perhaps'", "no, yes"):
        assert expected in message


def test_one_class_only(here: Path, refused: Refused) -> None:
    (here / "table.csv").write_text("text,label\na,yes\nb,yes\n")
    message = refused("finetune classify --train table.csv --dev train.csv --init run/model --out new", *TRAINING)
    assert "'yes'" in message
    assert "table.csv" in message


# Things that do not fit each other


def test_a_vocabulary_that_is_not_the_shards(here: Path, refused: Refused) -> None:
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(here / "other" / name, here / "run/model" / name)
    message = refused("pretrain tiny --data shards --init run/model --out new --steps 2", *TRAINING)
    assert "vocabulary" in message
    assert not (here / "new/model").exists()


def test_shards_whose_vocabulary_was_exchanged(here: Path, refused: Refused) -> None:
    shutil.copy(here / "other/vocab.txt", here / "shards/vocab.txt")
    assert "shards" in refused("pretrain tiny --data shards --out new --steps 2", *TRAINING)


def test_damaged_shards(here: Path, refused: Refused) -> None:
    path = next((here / "shards").glob("*.tokens"))
    path.write_bytes(path.read_bytes()[:-7])
    message = refused("pretrain tiny --data shards --out new --steps 2", *TRAINING)
    assert path.name in message
    assert "damaged" in message


def test_nsp_that_is_impossible(here: Path, refused: Refused) -> None:
    (here / "one.txt").write_text("A first sentence of some words.\nA second sentence of some words.\n")
    (here / "lone.txt").write_text("One lone sentence here.\n\nAnother lone sentence here.\n\nAnd yet another one.\n")
    for name in ("one.txt", "lone.txt"):
        message = refused(f"data build {name} --vocab vocab --out new --workers 1 --held-out-prob 0")
        assert "--objective mlm" in message
    assert (
        run(
            [
                "data",
                "build",
                "lone.txt",
                "--vocab",
                "vocab",
                "--out",
                "new",
                "--workers",
                "1",
                "--objective",
                "mlm",
                "--held-out-prob",
                "0",
            ]
        )
        == 0
    )


def test_an_objective_the_shards_do_not_serve(here: Path, refused: Refused) -> None:
    assert (
        run(
            [
                "data",
                "build",
                "corpus.txt",
                "--vocab",
                "vocab",
                "--out",
                "single",
                "--workers",
                "1",
                "--objective",
                "mlm",
                "--max-length",
                "32",
            ]
        )
        == 0
    )
    message = refused("pretrain tiny --data single --out new --steps 2", *TRAINING)
    assert "mlm" in message


def test_a_model_without_the_head_that_is_needed(here: Path, refused: Refused) -> None:
    assert "fine-tune" in refused("predict run/model", "a text")
    assert "no [MASK]" in refused("fill run/model", "no gap")
    words = [
        "finetune",
        "classify",
        "--train",
        "train.csv",
        "--dev",
        "train.csv",
        "--init",
        "run/model",
        "--out",
        "labels",
    ]
    assert run([*words, "--epochs", "1", *TRAINING]) == 0
    assert "head" in refused("fill labels/model", "a [MASK]")
    assert "head" in refused("nsp labels/model a b")


def test_a_model_folder_that_is_none(here: Path, refused: Refused) -> None:
    (here / "run/model/model.safetensors").write_bytes(b"not weights")
    assert "model.safetensors" in refused("fill run/model", "a [MASK]")
    (here / "run/model/model.safetensors").unlink()
    assert "run/model" in refused("fill run/model", "a [MASK]")
    assert "nowhere" in refused("fill nowhere", "a [MASK]")
    (here / "run/model/config.json").write_text("{")
    assert "config.json" in refused("fill run/model", "a [MASK]")


# Folders in the way


def test_a_run_is_never_overwritten(here: Path, refused: Refused) -> None:
    before = fingerprint(here / "run")
    assert "--resume" in refused("pretrain tiny --data shards --out run --steps 2 --batch-tokens 256", *TRAINING)
    message = refused("pretrain tiny --data shards --out run --steps 9 --batch-tokens 256 --lr 0.5 --resume", *TRAINING)
    assert "lr" in message or "steps" in message
    assert fingerprint(here / "run") == before


def test_a_run_in_use(here: Path, refused: Refused) -> None:
    import fcntl

    with (here / "run/run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        message = refused("pretrain tiny --data shards --out run --steps 2 --batch-tokens 256 --resume", *TRAINING)
    assert "another process" in message


def test_shards_and_vocabularies_are_not_overwritten(here: Path, refused: Refused) -> None:
    before = fingerprint(here)
    assert "--out" in refused("data build corpus.txt --vocab vocab --out shards --workers 1")
    assert "--overwrite" in refused("vocab corpus.txt --out vocab --size 550")
    assert fingerprint(here) == before


def test_a_file_in_the_way_of_a_folder(here: Path, refused: Refused) -> None:
    assert "corpus.txt" in refused("vocab corpus.txt --out corpus.txt --size 500")
    assert "corpus.txt" in refused("data build corpus.txt --vocab vocab --out corpus.txt --workers 1")
    assert "corpus.txt" in refused("pretrain tiny --data shards --out corpus.txt --steps 2", *TRAINING)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_place_that_may_not_be_written(here: Path, refused: Refused) -> None:
    (here / "closed").mkdir(mode=0o500)
    assert "closed" in refused("vocab corpus.txt --out closed/vocab --size 500")


# Training that goes wrong


def test_a_full_disk_while_saving(here: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "pretrain",
        "tiny",
        "--data",
        "shards",
        "--out",
        "full",
        "--steps",
        "4",
        "--checkpoint-every",
        "2",
        "--batch-tokens",
        "256",
    ]
    from bertwright.training import checkpoint

    real, saved = checkpoint.save_file, []

    def fail_the_second_time(tensors: object, path: Path) -> None:
        saved.append(path)
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", fail_the_second_time)
    message = refused(" ".join(words), *TRAINING)
    assert "disk is full" in message
    assert [path.name for path in (here / "full/checkpoints").iterdir()] == ["step-00000002"]
    assert run([*words, "--resume", *TRAINING]) == 0
    assert (here / "full/model/model.safetensors").is_file()


def test_a_loss_that_is_not_a_number(here: Path, refused: Refused) -> None:
    message = refused(
        "pretrain tiny --data shards --out nan --steps 40 --lr 1e30 --clip-norm 0 --batch-tokens 256", *TRAINING
    )
    assert "finite" in message or "nan" in message.lower()
    assert "--lr" in message or "lr" in message
    assert not (here / "nan/model").exists()
    rows = (
        [json.loads(line) for line in (here / "nan/metrics.jsonl").read_text().splitlines()]
        if (here / "nan/metrics.jsonl").exists()
        else []
    )
    assert all(row["step"] < 40 for row in rows)


# Words that cannot be meant


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fill run a[MASK]", "this is a run folder"),
        ("report run --lang fr", "fr"),
        ("data build corpus.txt --vocab vocab --out new --workers -1", "workers must not be negative"),
        ("vocab corpus.txt --out new --threads -1", "threads must not be negative"),
        ("vocab corpus.txt --out train.csv", "a file is in the way"),
        ("pretrain tiny --data shards --out new --seed 99999999999999999999", "seed"),
        ("data build corpus.txt --vocab vocab --out new --seed 99999999999999999999", "seed"),
        ("pretrain tiny --data shards --out new --config settings.json", "'train'"),
    ],
)
def test_words_that_cannot_be_meant(command: str, message: str, here: Path, refused: Refused) -> None:
    (here / "settings.json").write_text('{"train": 5}')
    assert message in refused(command)
    assert not (here / "new").exists()


@pytest.mark.parametrize(("given", "message"), [(b"a film\ncaf\xe9\n", "row 2"), (b"", "no text")])
def test_standard_input_that_cannot_be_read(
    given: bytes, message: str, here: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "finetune classify --train train.csv --dev train.csv --init run/model --out labels --epochs 1"
    assert run([*words.split(), *TRAINING]) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert message in refused("predict labels/model --input -")


def test_evaluation_may_name_other_columns(here: Path) -> None:
    words = "finetune classify --train train.csv --dev train.csv --init run/model --out labels --epochs 1"
    assert run([*words.split(), *TRAINING]) == 0
    (here / "other.csv").write_text(LABELLED.replace("text,label", "body,kind"))
    assert (
        run(["evaluate", "labels/model", "--data", "other.csv", "--text-column", "body", "--label-column", "kind"]) == 0
    )
