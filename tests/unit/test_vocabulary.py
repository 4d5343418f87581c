"""A trained vocabulary: complete, repeatable, of the size asked for, or a clear word why not."""

import json
import logging
import random
from pathlib import Path

import pytest

from bertwright.config import VocabConfig
from bertwright.errors import BertwrightError
from bertwright.text import vocabulary
from bertwright.text.corpus import read_texts
from bertwright.text.vocabulary import train_vocabulary
from bertwright.text.wordpiece import WordPiece

LINES = "low lower lowest newer wider widest, new low. " * 3 + "École naïve 中文 文中 x9"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(LINES, encoding="utf-8")
    return path


def test_google_order_and_exact_size(corpus: Path) -> None:
    trained = train_vocabulary([corpus], VocabConfig(size=150, unused_slots=101))
    tokens = trained.wordpiece.tokens
    assert len(tokens) == trained.report["size"] == 150
    assert tokens[:2] == ["[PAD]", "[unused0]"]
    assert tokens[100:106] == ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused99]", "[unused100]"]
    first = tokens[106 : 106 + trained.report["characters"]]
    assert first == sorted(first)
    assert set(first) == set("lowernid,.stecolnaivx9中文w")
    inside = tokens[106 + len(first) :][: trained.report["characters_inside_words"]]
    assert inside == sorted(inside)
    assert all(token.startswith("##") and len(token) == 3 for token in inside)
    assert tokens[106 + len(first) + len(inside)] == "lo"  # 12 times in the text, before 'low' can be
    assert trained.report["why_fewer"] is None


def test_cased_keeps_case_and_accents(corpus: Path) -> None:
    trained = train_vocabulary([corpus], VocabConfig(size=80, cased=True))
    assert {"É", "##ï"} < set(trained.wordpiece.tokens)
    assert not trained.wordpiece.rules.lowercase


def test_nothing_of_the_text_is_unknown(corpus: Path) -> None:
    trained = train_vocabulary([corpus], VocabConfig(size=70))
    assert trained.report["unknown_rate"] == 0
    assert trained.wordpiece.unk_id not in trained.wordpiece.ids(LINES)
    pieces = len(trained.wordpiece.ids(LINES))
    assert trained.report["pieces_per_word"] == pytest.approx(pieces / trained.report["words"], abs=1e-4)
    assert trained.report["bytes"] == len(LINES.encode()) + 1


def test_fewer_entries_than_asked_for_are_explained(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trained = train_vocabulary([corpus], VocabConfig(size=5000))
    assert trained.wordpiece.vocab_size == trained.report["size"] < 5000
    assert "no further pair of pieces occurs 2 times" in trained.report["why_fewer"]
    assert trained.report["why_fewer"] in caplog.text


def test_a_size_below_the_alphabet_is_refused_with_a_way_out(corpus: Path) -> None:
    with pytest.raises(BertwrightError) as caught:
        train_vocabulary([corpus], VocabConfig(size=30))
    smallest = int(str(caught.value).split("give --size ")[1].split()[0])
    threshold = int(str(caught.value).split("--min-character-frequency ")[1].split(":")[0])
    assert train_vocabulary([corpus], VocabConfig(size=smallest)).wordpiece.vocab_size == smallest
    with pytest.raises(BertwrightError, match="smallest possible"):
        train_vocabulary([corpus], VocabConfig(size=smallest - 1))
    assert (
        train_vocabulary([corpus], VocabConfig(size=30, min_character_frequency=threshold)).wordpiece.vocab_size == 30
    )


def test_rare_characters_can_be_left_out_and_are_counted(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trained = train_vocabulary([corpus], VocabConfig(size=60, min_character_frequency=2))
    assert trained.report["dropped_characters"] == 5  # 9 a c v x
    assert trained.report["unknown_words"] == 3
    assert trained.wordpiece.ids(LINES).count(trained.wordpiece.unk_id) == 3
    assert "rarer than asked for" in caplog.text


def test_words_over_200_characters_are_the_one_exception(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("aaa bbb aaa " + "b" * 200 + " " + "c" * 201)
    with caplog.at_level(logging.WARNING):
        trained = train_vocabulary([tmp_path], VocabConfig(size=20))
    assert trained.report["words_too_long"] == 1
    assert trained.report["unknown_rate"] == 0
    assert "c" not in trained.wordpiece.tokens
    assert "over 200 characters" in caplog.text


def test_the_wrong_language_is_said(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus.write_text("Not a word of Chinese.")
    with caplog.at_level(logging.WARNING):
        train_vocabulary([corpus], VocabConfig(size=60, lang="zh"))
    assert "lang is 'zh'" in caplog.text


def test_a_corpus_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\x01\x02 \u200b")
    with pytest.raises(BertwrightError, match="no word in this corpus"):
        train_vocabulary([tmp_path], VocabConfig(size=60))


def test_progress_is_told(corpus: Path) -> None:
    told: list[tuple[str, float]] = []
    train_vocabulary([corpus], VocabConfig(size=60), progress=lambda stage, share: told.append((stage, share)))
    assert {stage for stage, _ in told} == {"count", "merge"}
    assert all(0 <= share <= 1 for _, share in told)
    assert told[-1] == ("merge", 1.0)


def write_files(folder: Path, texts: list[str], num_files: int) -> None:
    folder.mkdir()
    for number in range(num_files):
        rows = [json.dumps({"text": text}, ensure_ascii=number % 2 == 0) for text in texts[number::num_files]]
        (folder / f"{number}.jsonl").write_text("\n".join(rows), encoding="utf-8")


def test_real_text_gives_the_same_bytes_for_any_processes_and_order(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = []
    for name in ("en-wikipedia-featured", "zh-wikipedia-part"):
        texts += [
            text for text, _ in zip(read_texts(shared_data / f"corpora/{name}.jsonl.xz"), range(15), strict=False)
        ]
    write_files(tmp_path / "one", texts, 1)
    write_files(tmp_path / "four", random.Random(0).sample(texts, len(texts)), 4)
    monkeypatch.setattr(vocabulary, "_PARALLEL_FROM_BYTES", 0)
    monkeypatch.setattr(vocabulary, "_MAX_COUNTED_CHUNKS", 5000)
    config = VocabConfig(size=9000, lang="multi")
    first = train_vocabulary([tmp_path / "one"], config)
    second = train_vocabulary([tmp_path / "four" / "[32]*", tmp_path / "four"], config, threads=2)
    for name, trained in (("a", first), ("b", second)):
        trained.wordpiece.save(tmp_path / name)
        assert trained.report["unknown_rate"] == 0
        assert trained.report["size"] == 9000
        unknown = trained.wordpiece.unk_id
        assert not any(unknown in ids for ids in trained.wordpiece.ids_of_many(texts))
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert WordPiece.load(tmp_path / "a").sha256 == first.report["sha256"]


def test_the_pieces_are_those_of_the_public_trainer(shared_data: Path, tmp_path: Path) -> None:
    from tokenizers import BertWordPieceTokenizer

    documents = read_texts(shared_data / "corpora/en-wikipedia-featured.jsonl.xz")
    texts = [text for text, _ in zip(documents, range(15), strict=False)]
    write_files(tmp_path / "corpus", texts, 1)
    ours = set(train_vocabulary([tmp_path / "corpus"], VocabConfig(size=5000)).wordpiece.tokens)
    peer = BertWordPieceTokenizer(lowercase=True)
    peer.train_from_iterator(texts, vocab_size=5000, min_frequency=2, show_progress=False)
    assert len(ours & set(peer.get_vocab())) > 4900, "apart from ties they must agree"


def test_an_error_in_a_counting_process_is_the_same_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_PARALLEL_FROM_BYTES", 0)
    write_files(tmp_path / "corpus", ["Some text."], 1)
    (tmp_path / "corpus" / "bad.jsonl").write_text('{"body": "x"}')
    with pytest.raises(BertwrightError, match=r"bad.jsonl, row 1: expected a string under 'text'"):
        train_vocabulary([tmp_path / "corpus"], VocabConfig(size=60), threads=2)
