"""A build that was stopped: what is used again, what is built anew, what is refused, and what is left behind."""

import dataclasses
import json
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bertwright.config import DataConfig
from bertwright.data import build
from bertwright.data.build import build_shards
from bertwright.data.journal import Journal
from bertwright.data.partition import Work, partition
from bertwright.errors import BertwrightError
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import WordPiece

WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400)]
WORDPIECE = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS], TextRules(lowercase=True))
CONFIG = DataConfig(held_out_prob=0.1)


class Stop(Exception):
    """What interrupts a build here."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    """Shards of 5,000 characters, so that a small corpus has many."""
    monkeypatch.setattr(build, "partition", partial(partition, shard_characters=5000))


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(1)
    rows = [
        "\n".join(" ".join(rng.choice(WORDS, rng.integers(3, 30))) + "." for _ in range(rng.integers(1, 15)))
        for _ in range(100)
    ]
    return write(tmp_path / "corpus.jsonl", rows)


def write(path, rows):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    return path


def rows_of(path):
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def make(corpus, out, *, workers=1, config=CONFIG, **options):
    return build_shards([corpus], WORDPIECE, out, config, workers=workers, **options)


def stop_after(shards):
    def tell(_state):
        nonlocal shards
        shards -= 1
        if not shards:
            raise Stop

    return tell


def stopped(corpus, out, shards, **options):
    with pytest.raises(Stop):
        make(corpus, out, progress=stop_after(shards), **options)
    return out.with_name(f"{out.name}.partial")


def journal_lines(folder):
    return [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]


@pytest.fixture
def built(monkeypatch):
    """The numbers of the shards that are really built."""
    numbers = []
    plain = build._build_shard

    def remember(work, *rest):
        numbers.append((work.split, work.number))
        return plain(work, *rest)

    monkeypatch.setattr(build, "_build_shard", remember)
    return numbers


def test_the_same_call_goes_on(corpus, tmp_path, built, caplog):
    make(corpus, tmp_path / "whole")
    everything = built.copy()
    built.clear()
    caplog.set_level(logging.INFO)
    folder = stopped(corpus, tmp_path / "out", 4)
    assert f"4 shards are kept in {folder}" in caplog.text
    assert built == everything[:4]
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["progress.jsonl", "shards"]
    stopped(corpus, tmp_path / "out", 6)  # counts those that were there
    assert built == everything[:6]
    assert f"going on with 4 shards that lie in {folder}" in caplog.text
    heard = []
    make(corpus, tmp_path / "out", progress=heard.append)
    assert built == everything
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not folder.exists()
    assert [state.bytes_per_second is None for state in heard[:7]] == [True] * 6 + [False]


def test_one_process_goes_on_with_what_several_began(corpus, tmp_path):
    make(corpus, tmp_path / "whole")
    stopped(corpus, tmp_path / "out", 3, workers=2)
    stopped(corpus, tmp_path / "out", 6, workers=1)
    make(corpus, tmp_path / "out", workers=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_changed_corpus_gives_what_a_fresh_build_gives(corpus, tmp_path, built, caplog):
    caplog.set_level(logging.INFO)
    stopped(corpus, tmp_path / "out", 8)
    rows = rows_of(corpus)
    changed = [*rows[:40], rows[40].replace(rows[40][:3], "wzz"), *rows[41:90]]
    write(corpus, changed)
    make(corpus, tmp_path / "whole")
    built.clear()
    make(corpus, tmp_path / "out")
    assert ("train", 0) not in built
    assert built
    assert "shards that were there were built again: their text or files have changed" in caplog.text
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_shorter_corpus_leaves_no_shard_behind(corpus, tmp_path):
    stopped(corpus, tmp_path / "out", 8)
    write(corpus, rows_of(corpus)[:20])
    make(corpus, tmp_path / "whole")
    make(corpus, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_mended_file_goes_on(corpus, tmp_path, built):
    good = corpus.read_text()
    corpus.write_text(good + "{broken\n")
    with pytest.raises(BertwrightError, match="row 101"):
        make(corpus, tmp_path / "out")
    done = built.copy()
    built.clear()
    corpus.write_text(good)
    make(corpus, tmp_path / "out")
    assert done
    assert not {*done} & {*built}


@pytest.mark.parametrize("damage", ["cut", "other bytes", "gone", "journal cut", "journal longer", "a stranger"])
def test_damage_is_built_again(corpus, tmp_path, built, damage):
    make(corpus, tmp_path / "whole")
    folder = stopped(corpus, tmp_path / "out", 5)
    path, journal = folder / "shards/train-00001.tokens", folder / "progress.jsonl"
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[:-2])
        case "other bytes":
            path.write_bytes(data[:-2] + b"\1\1")
        case "gone":
            path.unlink()
        case "journal cut":  # as a kill in the middle of a line leaves it
            journal.write_bytes(journal.read_bytes()[:-7])
        case "journal longer":
            journal.write_bytes(journal.read_bytes() + b'{"split": "tr')
        case "a stranger":
            (folder / "shards/train-00099.tokens").write_bytes(data)
            (folder / "building-left/sub").mkdir(parents=True)
    built.clear()
    stopped(corpus, tmp_path / "out", 7)
    make(corpus, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    again = {"cut": [("train", 1)], "other bytes": [("train", 1)], "gone": [("train", 1)]}.get(damage, [])
    assert [each for each in built[:1] if each == ("train", 1)] == again
    assert len(built) == len({*built})


def test_other_settings_are_refused_and_overwritten_on_request(corpus, tmp_path, built):
    folder = stopped(corpus, tmp_path / "out", 3)
    before = contents(folder / "shards")
    other = dataclasses.replace(CONFIG, max_length=64, seed=7)
    with pytest.raises(BertwrightError, match="max_length was 128, now it is 64; seed was 0, now it is 7") as caught:
        make(corpus, tmp_path / "out", config=other)
    assert caught.value.where == str(folder)
    assert "--overwrite" in caught.value.fix
    assert contents(folder / "shards") == before
    with pytest.raises(BertwrightError, match="vocabulary was"):
        build_shards([corpus], WordPiece([*WORDPIECE.tokens, "new"], WORDPIECE.rules), tmp_path / "out", CONFIG)
    make(corpus, tmp_path / "whole", config=other)
    built.clear()
    make(corpus, tmp_path / "out", config=other, overwrite=True)
    assert ("train", 0) in built
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not folder.exists()


def test_overwriting_goes_on_too_and_the_old_shards_stay_until_the_end(corpus, tmp_path, built):
    out = tmp_path / "out"
    make(corpus, out, config=dataclasses.replace(CONFIG, seed=9))
    old = contents(out)
    stopped(corpus, out, 4, overwrite=True)
    assert contents(out) == old
    built.clear()
    make(corpus, out, overwrite=True)
    assert ("train", 0) not in built
    assert contents(out) != old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "out"]


def test_what_is_no_unfinished_build_is_left_alone(corpus, tmp_path):
    folder = tmp_path / "out.partial"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(BertwrightError, match="something else is where unfinished shards would lie"):
            make(corpus, tmp_path / "out", overwrite=overwrite)
    assert contents(folder) == {"thesis.txt": b"years of work"}
    (folder / "thesis.txt").unlink()
    (folder / "progress.jsonl").write_text("years of work\n")
    with pytest.raises(BertwrightError, match="of another format"):
        make(corpus, tmp_path / "out")
    assert contents(folder) == {"progress.jsonl": b"years of work\n"}


@pytest.mark.parametrize("journal", [b"", b'{"format": "bertwri'])
def test_a_build_that_was_killed_at_once_is_begun_again(corpus, tmp_path, journal):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial/progress.jsonl").write_bytes(journal)
    make(corpus, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_two_builds_of_one_folder_do_not_meet(corpus, tmp_path):
    def second(_state):
        make(corpus, tmp_path / "out", config=CONFIG)

    with pytest.raises(BertwrightError, match="another process is building these shards"):
        make(corpus, tmp_path / "out", progress=second)
    make(corpus, tmp_path / "out")


def test_a_work_is_the_same_after_packing():
    work = Work("train", 3, ["plain", "", "zwölf 二 😀", "half \udfff"])
    packed = work.packed()
    assert packed.unpacked() == work
    assert packed.sha256 == work.packed().sha256
    others = [["plain", "", "zwölf 二 😀half \udfff"], ["plain", "zwölf 二 😀", "", "half \udfff"], []]
    assert len({packed.sha256, *(Work("train", 3, texts).packed().sha256 for texts in others)}) == 4


def test_the_journal_is_on_disk_line_by_line(corpus, tmp_path):
    folder = stopped(corpus, tmp_path / "out", 3)
    header, *lines = journal_lines(folder)
    assert header["format"] == "bertwright-build"
    assert header["settings"]["max_length"] == 128
    assert [(line["split"], line["number"]) for line in lines] == [("train", 0), ("train", 1), ("train", 2)]
    names = sorted(name for line in lines for name in line["files"])
    assert names == sorted(path.name for path in (folder / "shards").iterdir() if path.name.startswith("train"))
    with Journal.open(tmp_path / "out", header["settings"], overwrite=False) as journal:
        assert journal.folder == Path(folder)
        journal.finish(names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
