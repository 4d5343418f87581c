"""Whole words from a corpus to what training and people see."""

import json
import shutil
from functools import partial

import numpy as np
import pytest

from bertwright.cli import run
from bertwright.config import DataConfig, MaskingConfig, PretrainConfig
from bertwright.data import build
from bertwright.data.build import build_shards
from bertwright.data.loader import PretrainLoader
from bertwright.data.partition import partition
from bertwright.data.shards import Manifest, ShardSet
from bertwright.data.show import describe_example
from bertwright.errors import BertwrightError
from bertwright.json_values import read_json
from bertwright.recipes import get_recipe
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece
from bertwright.training.pretrain import pretrain

CHARACTERS = "使用语言模型来预测下一个词的我爱北京天安门红楼梦作者是。，"
TERMS = ["使用", "语言", "模型", "语言模型", "预测", "一个", "北京", "天安门", "红楼梦", "作者"]


@pytest.fixture(scope="module")
def wordpiece():
    return WordPiece(
        [*SPECIAL_TOKENS, *dict.fromkeys(CHARACTERS), "pro", "##ba", "##bility"], TextRules(lowercase=True)
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "zh.jsonl"
    units = [*TERMS, "probability，", "我", "爱", "的", "，"]
    rows = ["".join("".join(rng.choice(units, rng.integers(3, 20))) + "。" for _ in range(8)) for _ in range(60)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory):
    path = tmp_path_factory.mktemp("lexicon") / "terms.txt"
    path.write_text("\n".join(TERMS) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shards(corpus, wordpiece, lexicon, tmp_path_factory):
    """Pairs and single segments, with words and without."""
    folder = tmp_path_factory.mktemp("shards")
    for objective in ("mlm+nsp", "mlm"):
        for name, how in (("words", str(lexicon)), ("tokens", "")):
            config = DataConfig(max_length=40, objective=objective, held_out_prob=0.2, whole_word=how)
            build_shards([corpus], wordpiece, folder / f"{objective}-{name}", config, workers=1)
    return folder


def words_of(raw, wordpiece):
    found = []
    for ids, goes_on in ((raw.a, raw.a_goes_on), (raw.b, raw.b_goes_on)):
        for place, number in enumerate(ids.tolist() if ids is not None else ()):
            if place and goes_on[place]:
                found[-1] += wordpiece.tokens[number]
            else:
                found.append(wordpiece.tokens[number])
    return found


def test_shards_differ_in_nothing_but_their_words(shards):
    for objective in ("mlm+nsp", "mlm"):
        with_words, without = shards / f"{objective}-words", shards / f"{objective}-tokens"
        names = {path.name for path in without.iterdir()}
        assert {path.name for path in with_words.iterdir()} - names == {"train-00000.words", "held_out-00000.words"}
        for name in names - {"manifest.json"}:
            assert (with_words / name).read_bytes() == (without / name).read_bytes()
        assert (with_words / "train-00000.words").stat().st_size == ShardSet.open(with_words).manifest.counts[
            "train"
        ].tokens


def test_segments_are_made_of_the_lexicons_words(shards, wordpiece):
    known = {
        *TERMS,
        *"我爱的，。使用语言模型来预测下一个词北京天安门红楼梦作者是",
        "pro##ba##bility",
        "##ba##bility",
        "##bility",
    }
    known |= {"pro", "pro##ba", "##ba"} | {term[i:j] for term in TERMS for i in range(4) for j in range(i + 1, 5)}
    for name in ("mlm+nsp-words", "mlm-words"):
        split = ShardSet.open(shards / name, verify=True).split("train")
        found = [words_of(raw, wordpiece) for raw in split.gather(np.arange(len(split)))]
        assert {word for words in found for word in words} <= known
        whole = [word for words in found for word in words[1:-1]]
        assert sum(len(word) > 1 for word in whole) > len(whole) / 3


def test_the_manifest_says_how_and_not_where(shards, lexicon):
    manifest = ShardSet.open(shards / "mlm-words").manifest
    assert manifest.config.whole_word == "terms.txt"
    assert manifest.segmenter is not None
    assert manifest.segmenter["words"] == len(TERMS)
    assert len(manifest.segmenter["sha256"]) == 64
    text = (shards / "mlm-words" / "manifest.json").read_text()
    assert str(lexicon.parent) not in text
    assert '"train-00000.words"' in text
    assert 0 < manifest.counts["train"].words < manifest.counts["train"].tokens
    assert ShardSet.open(shards / "mlm-tokens").manifest.counts["train"].words == 0


def test_the_same_bytes_for_any_number_of_workers(corpus, wordpiece, lexicon, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "partition", partial(partition, shard_characters=5000))
    for how in ("jieba", str(lexicon)):
        found = []
        for workers in (1, 2):
            out = tmp_path / str(workers)
            build_shards([corpus], wordpiece, out, DataConfig(whole_word=how), workers=workers, overwrite=True)
            found.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
        assert sum(name.endswith(".words") for name in found[0]) > 2
        assert found[0] == found[1]


def test_shards_of_earlier_versions_open_as_before(shards, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(shards / "mlm+nsp-tokens", old)
    values = read_json(old / "manifest.json")
    del values["segmenter"], values["config"]["whole_word"]
    for counts in values["counts"].values():
        del counts["words"]
    (old / "manifest.json").write_text(json.dumps(values))
    assert Manifest.load(old) == Manifest.load(shards / "mlm+nsp-tokens")
    raw = ShardSet.open(old).split("train").example(0)
    assert raw.a_goes_on is None
    assert raw.b_goes_on is None


def test_a_damaged_or_missing_file_of_words_is_named(shards, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(shards / "mlm-words", folder)
    path = folder / "train-00000.words"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(BertwrightError, match=r"train-00000\.words: file is damaged: its sha256"):
        ShardSet.open(folder, verify=True)
    path.unlink()
    with pytest.raises(BertwrightError, match=r"train-00000\.words: file is missing"):
        ShardSet.open(folder)


def places_of_words(ids, marks, wordpiece):
    """Where the tokens of each word stand in an example."""
    special, found = {wordpiece.cls_id, wordpiece.sep_id}, []
    for place in range(1, len(ids)):
        if ids[place] in special:
            continue
        if marks[place] and ids[place - 1] not in special:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def batches(split, wordpiece, objective, **dials):
    masking = MaskingConfig(**dials)
    data = PretrainLoader(split, wordpiece=wordpiece, masking=masking, batch_tokens=3000, objective=objective)
    return data.batches_at(0).micro_batches


@pytest.mark.parametrize("objective", ["mlm+nsp", "mlm"])
@pytest.mark.parametrize("crop", [0, 16])
def test_training_masks_whole_words_and_none_beyond_an_edge(shards, wordpiece, objective, crop):
    found = ShardSet.open(shards / f"{objective}-words").split("train")
    split = found.cropped(crop) if crop else found
    words = {}
    for raw in split.gather(np.arange(len(split))):
        ids = [wordpiece.cls_id, *raw.a.tolist(), wordpiece.sep_id]
        marks = [False, *raw.a_goes_on.tolist(), False]
        if raw.b is not None:
            ids, marks = [*ids, *raw.b.tolist(), wordpiece.sep_id], [*marks, *raw.b_goes_on.tolist(), False]
        words[tuple(ids)] = places_of_words(ids, marks, wordpiece)
    longest = 0
    for batch in batches(split, wordpiece, objective):
        ids = batch.input_ids.clone()
        ids[batch.targets["masked_rows"]] = batch.targets["masked_labels"]
        rows = set(batch.targets["masked_rows"].tolist())
        for start, end in zip(batch.cu_seqlens.tolist(), batch.cu_seqlens.tolist()[1:], strict=False):
            chosen = {row - start for row in rows if start <= row < end}
            assert chosen
            for word in words[tuple(ids[start:end].tolist())]:
                assert chosen.issuperset(word) or chosen.isdisjoint(word)
                longest = max(longest, len(word) if word[0] in chosen else 0)
    assert longest >= 3


def test_a_dial_turns_whole_words_off_and_what_is_not_there_is_not_promised(shards, wordpiece):
    words, tokens = (ShardSet.open(shards / f"mlm-{name}").split("train") for name in ("words", "tokens"))
    rows = {}
    for name, split, dial in (
        ("off", words, False),
        ("none", tokens, None),
        ("on", words, True),
        ("as is", words, None),
    ):
        rows[name] = [
            batch.targets["masked_rows"].tolist() for batch in batches(split, wordpiece, "mlm", whole_word=dial)
        ]
    assert rows["off"] == rows["none"]
    assert rows["on"] == rows["as is"]
    assert rows["on"] != rows["off"]
    with pytest.raises(BertwrightError, match="do not know which tokens are one word") as caught:
        batches(tokens, wordpiece, "mlm", whole_word=True)
    assert "data build --whole-word" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "dial", "written"), [("words", None, True), ("words", False, False), ("tokens", None, False)]
)
def test_a_run_says_in_its_configuration_what_it_did(shards, tmp_path, name, dial, written):
    config = PretrainConfig(
        steps=1, batch_tokens=256, checkpoint_every=0, eval_tokens=64, objective="mlm", whole_word=dial
    )
    heard = []
    pretrain(get_recipe("tiny").model, config, data=shards / f"mlm-{name}", out=tmp_path / "run", on_event=heard.append)
    assert read_json(tmp_path / "run" / "config.json")["train"]["whole_word"] is written
    assert any("whole words (terms.txt)" in event.get("text", "") for event in heard) == written


def test_an_example_shows_its_words(shards, wordpiece, capsys):
    folder = shards / "mlm+nsp-words"
    opened = ShardSet.open(folder)
    view = describe_example(opened, 0)
    raw = opened.split("train").example(0)
    assert view.whole_word == "terms.txt"
    marks = [token.goes_on for token in view.tokens if token.state != "special"]
    assert marks == [*raw.a_goes_on.tolist(), *raw.b_goes_on.tolist()]
    assert run(["data", "show", str(folder), "0"]) == 0
    text = capsys.readouterr().out
    assert "terms.txt" in text
    plain = [word for word in words_of(raw, wordpiece) if word in TERMS]
    assert any(word in text for word in plain)
    assert run(["data", "show", str(folder), "0", "--no-whole-word"]) == 0
    text = capsys.readouterr().out
    assert not any(word in text for word in plain)
    assert "terms.txt" not in text.split("·", 1)[1]


def test_what_looks_wrong_is_said(corpus, wordpiece, tmp_path, caplog):
    build_shards([corpus], wordpiece, tmp_path / "a", DataConfig(whole_word="whitespace"))
    assert "of the tokens are Chinese characters, each a word by itself" in caplog.text
    caplog.clear()
    build_shards([corpus], wordpiece, tmp_path / "b", DataConfig(whole_word="pre-segmented"))
    assert "is the text cut into words (pre-segmented)?" in caplog.text
    caplog.clear()
    build_shards([corpus], wordpiece, tmp_path / "c", DataConfig(whole_word="jieba"))
    assert caplog.text == ""
    with pytest.raises(BertwrightError, match="no file of that name"):
        build_shards([corpus], wordpiece, tmp_path / "d", DataConfig(whole_word="nowhere.txt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
