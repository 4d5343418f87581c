"""Shards on disk: what was written is what is read, and damage is named."""

import json

import numpy as np
import pytest

from bertwright.config import DataConfig
from bertwright.data.counter import generator
from bertwright.data.pairs import build_examples
from bertwright.data.shards import Counts, Manifest, ShardSet, token_dtype, write_shard
from bertwright.errors import BertwrightError
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import WordPiece

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SHARDS = [[[5, 9, 30], [4, 4]], [[7, 7, 7, 7], [60, 2], [3]]]


def wordpiece(size=120):
    return WordPiece([*SPECIALS, *(f"w{i}" for i in range(size - 5))], TextRules(lowercase=True))


@pytest.fixture
def make(tmp_path):
    def build(config=None, size=120):
        config = config or DataConfig(max_length=32)
        vocabulary = wordpiece(size)
        vocabulary.save(tmp_path)
        files, tables = {}, []
        for number, documents in enumerate(SHARDS):
            total = sum(map(sum, documents))
            tokens = (np.arange(total) % 100 + 10 * number + 5).astype(token_dtype(size))
            examples = build_examples(documents, config, generator(number))
            files |= write_shard(tmp_path, f"train-{number:05d}", tokens, examples)
            tables.append((tokens, examples))
        counts = {"train": Counts(examples=sum(len(table) for _, table in tables)), "held_out": Counts()}
        Manifest(
            config=config,
            vocabulary={"sha256": vocabulary.sha256, "size": size},
            corpus=[{"name": "a.txt", "bytes": 10}],
            counts=counts,
            files=files,
        ).save(tmp_path)
        return tmp_path, tables

    return build


@pytest.mark.parametrize("size", [120, 70_000])
def test_examples_come_back_across_shards(make, size):
    folder, tables = make(size=size)
    split = ShardSet.open(folder, verify=True).split("train")
    assert len(split) == sum(len(examples) for _, examples in tables)
    index = 0
    for tokens, examples in tables:
        for a_start, a_length, b_start, b_length, label in examples.tolist():
            found = split.example(index)
            assert found.a.tolist() == tokens[a_start : a_start + a_length].tolist()
            assert found.b.tolist() == tokens[b_start : b_start + b_length].tolist()
            assert found.next_sentence_label == label
            assert split.lengths()[index] == a_length + b_length + 3
            assert found.a.dtype == (np.uint16 if size == 120 else np.uint32)
            index += 1
    backwards = split.gather(np.arange(len(split))[::-1])
    assert [raw.a.tolist() for raw in backwards] == [split.example(i).a.tolist() for i in range(index)][::-1]


def test_single_segments_have_neither_b_nor_label(make):
    folder, _ = make(DataConfig(max_length=16, objective="mlm"))
    split = ShardSet.open(folder).split("train")
    raw = split.example(0)
    assert raw.b is None
    assert raw.next_sentence_label is None
    assert split.lengths()[0] == len(raw.a) + 2
    assert split.lengths().max() <= 16


def test_a_missing_split_is_empty(make):
    folder, _ = make()
    split = ShardSet.open(folder).split("held_out")
    assert len(split) == 0
    assert len(split.lengths()) == 0


def test_an_example_out_of_range_is_refused(make):
    folder, _ = make()
    with pytest.raises(BertwrightError, match="no example 1,000,000: train holds"):
        ShardSet.open(folder).split("train").example(1_000_000)


def test_a_manifest_comes_back(make):
    folder, _ = make()
    manifest = Manifest.load(folder)
    again = folder / "again"
    again.mkdir()
    manifest.save(again)
    assert (again / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()
    assert Manifest.load(again) == manifest


def test_no_shards_at_all(tmp_path):
    with pytest.raises(BertwrightError, match="no shards here") as caught:
        ShardSet.open(tmp_path / "nowhere")
    assert "data build" in caught.value.fix


def test_a_missing_file_is_named(make):
    folder, _ = make()
    (folder / "train-00001.tokens").unlink()
    with pytest.raises(BertwrightError, match=r"train-00001\.tokens: file is missing"):
        ShardSet.open(folder)


def test_a_short_file_is_named(make):
    folder, _ = make()
    path = folder / "train-00000.examples"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BertwrightError, match=r"train-00000\.examples: file is damaged: \d+ bytes instead of"):
        ShardSet.open(folder)


def test_a_flipped_bit_is_found_by_verifying(make):
    folder, _ = make()
    path = folder / "train-00001.tokens"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    ShardSet.open(folder)
    with pytest.raises(BertwrightError, match=r"train-00001\.tokens: file is damaged: its sha256"):
        ShardSet.open(folder, verify=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 1, found"),
        ({"format": "other"}, "bertwright-shards"),
        ({"counts": {"train": {}}}, "'documents' is missing"),
        ({"config": {"max_lenght": 3}}, "did you mean 'max_length'"),
    ],
)
def test_another_manifest_is_refused(make, change, message):
    folder, _ = make()
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BertwrightError, match=message):
        ShardSet.open(folder)


def test_a_manifest_cut_short_is_refused(make):
    folder, _ = make()
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(BertwrightError, match="not valid JSON"):
        ShardSet.open(folder)


def test_the_vocabulary_travels_with_the_shards(make):
    folder, _ = make()
    shards = ShardSet.open(folder)
    assert shards.wordpiece.tokens == wordpiece().tokens
    shards.check_vocabulary(wordpiece())
    with pytest.raises(BertwrightError, match="another vocabulary: 120 entries"):
        shards.check_vocabulary(wordpiece(121))
    (folder / "vocab.txt").write_text("\n".join([*SPECIALS, "other"]) + "\n")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BertwrightError, match="another vocabulary"):
        _ = ShardSet.open(folder).wordpiece


def test_counts_add_up():
    total = Counts(examples=3, random_next=1) + Counts(examples=1, tokens=5, random_next=1)
    assert total == Counts(examples=4, tokens=5, random_next=2)
    assert total.random_next_share == 0.5
    assert Counts().random_next_share == 0.0
