"""A corpus to a shard folder: complete or not there, the same bytes for any number of workers, refusals that help."""

import errno
import gzip
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from bertwright.config import DataConfig
from bertwright.data import build, progress
from bertwright.data.build import build_shards
from bertwright.data.partition import partition
from bertwright.data.shards import ShardSet
from bertwright.data.show import describe_example
from bertwright.errors import BertwrightError, DiskFullError
from bertwright.text.corpus import read_texts
from bertwright.text.rules import TextRules
from bertwright.text.sentences import split_sentences
from bertwright.text.wordpiece import WordPiece

WORDS = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400)]


@pytest.fixture(scope="module")
def wordpiece():
    return WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS], TextRules(lowercase=True))


def document(rng, sentences):
    return "\n".join(" ".join(rng.choice(WORDS, rng.integers(3, 30))) + "." for _ in range(sentences))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("corpus")
    for name in ("b.jsonl", "a.jsonl"):
        rows = [json.dumps({"text": document(rng, rng.integers(1, 15))}) for _ in range(60)]
        (folder / name).write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 5,000 characters, so that a small corpus has many."""
    monkeypatch.setattr(build, "partition", partial(partition, shard_characters=5000))


def write(path, *documents):
    path.write_text("\n\n".join(documents) + "\n")
    return path


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.usefixtures("small_shards")
def test_the_same_bytes_for_any_number_of_workers(corpus, wordpiece, tmp_path):
    for workers in (1, 2, 8):
        build_shards([corpus], wordpiece, tmp_path / str(workers), DataConfig(held_out_prob=0.1), workers=workers)
    backwards = [corpus / "b.jsonl", corpus / "a.jsonl"]
    build_shards(backwards, wordpiece, tmp_path / "4", DataConfig(held_out_prob=0.1), workers=1)
    first = contents(tmp_path / "1")
    assert sum(name.endswith(".tokens") for name in first) > 5
    assert contents(tmp_path / "2") == contents(tmp_path / "8") == contents(tmp_path / "4") == first


@pytest.mark.usefixtures("small_shards")
def test_the_same_bytes_from_every_kind_of_file(corpus, wordpiece, tmp_path):
    """JSON Lines, packed JSON Lines under another key, and Parquet under another column."""
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `data` is not installed")
    from pyarrow import parquet

    texts = [text for path in sorted(corpus.iterdir()) for text in read_texts(path)]
    rows = "".join(json.dumps({"text": 1, "body": text}) + "\n" for text in texts)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    table = pyarrow.table({"id": range(len(texts)), "body": texts})
    parquet.write_table(table, str(tmp_path / "a.parquet"), row_group_size=50)
    build_shards([corpus], wordpiece, tmp_path / "plain", DataConfig(), workers=1)
    expected = contents(tmp_path / "plain")
    for name in ("a.jsonl.gz", "a.parquet"):
        heard = []
        build_shards(
            [tmp_path / name],
            wordpiece,
            tmp_path / "out",
            DataConfig(),
            text_column="body",
            workers=1,
            overwrite=True,
            progress=heard.append,
        )
        found = contents(tmp_path / "out")
        assert {**found, "manifest.json": None} == {**expected, "manifest.json": None}
        shares = [state.share for state in heard]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("rule", ["google", "paper"])
def test_segments_are_text_of_the_corpus(corpus, wordpiece, tmp_path, rule):
    config = DataConfig(max_length=40, next_sentence_rule=rule, held_out_prob=0.1)
    manifest = build_shards([corpus], wordpiece, tmp_path / "out", config, workers=1)
    texts = [
        np.array(
            [token for ids in wordpiece.ids_of_many(split_sentences(text)) for token in ids], dtype="<u2"
        ).tobytes()
        for path in sorted(corpus.iterdir())
        for text in read_texts(path)
    ]
    owner_split = {}
    shards = ShardSet.open(tmp_path / "out", verify=True)
    for name in ("train", "held_out"):
        split = shards.split(name)
        for raw in split.gather(np.arange(len(split))):
            owners_a = {number for number, text in enumerate(texts) if raw.a.tobytes() in text}
            owners_b = {number for number, text in enumerate(texts) if raw.b.tobytes() in text}
            assert owners_a
            assert owners_b
            if len(raw.a) > 4 and len(raw.b) > 4:  # long enough to stand in one document only
                assert (owners_a == owners_b) == (raw.next_sentence_label == 0)
                for owner in owners_a | owners_b:
                    assert owner_split.setdefault(owner, name) == name
    assert manifest == shards.manifest
    total = manifest.counts["train"] + manifest.counts["held_out"]
    assert total.documents == 120
    assert total.tokens == sum(len(text) // 2 for text in texts)
    for name in ("train", "held_out"):
        counts, lengths = manifest.counts[name], shards.split(name).lengths()
        assert counts.examples == len(lengths)
        assert counts.example_tokens == lengths.sum(dtype=np.int64)
        assert lengths.max() <= 40


def test_single_segments_hold_every_token_once(corpus, wordpiece, tmp_path):
    config = DataConfig(max_length=40, objective="mlm", held_out_prob=0.0)
    counts = build_shards([corpus], wordpiece, tmp_path / "out", config).counts["train"]
    assert counts.random_next == 0
    assert counts.example_tokens == counts.tokens + 2 * counts.examples


def test_documents_may_be_cut_several_times(corpus, wordpiece, tmp_path):
    found = []
    for factor in (1, 3):
        build_shards([corpus], wordpiece, tmp_path / str(factor), DataConfig(max_length=32, dupe_factor=factor))
        found.append(ShardSet.open(tmp_path / str(factor)))
    parts = [shards.split("train")._shards for shards in found]
    one, three = (np.concatenate([part.examples for part in split]) for split in parts)
    assert (three[: len(one)] == one).all(), "the first time is that of a single one"
    second = three[len(one) : 2 * len(one)]
    assert len(three) == pytest.approx(3 * len(one), rel=0.1)
    assert (second["b_start"] != one["b_start"][: len(second)]).any(), "partners differ"
    texts = [[part.tokens.tolist() for part in split] for split in parts]
    assert texts[0] == texts[1], "the text is there once"
    assert len(found[0].split("held_out")) == len(found[1].split("held_out"))
    with pytest.raises(BertwrightError, match="dupe_factor must lie between 1 and 1,000, not 0"):
        DataConfig(dupe_factor=0)


def test_a_large_vocabulary_takes_wider_tokens(corpus, wordpiece, tmp_path):
    large = WordPiece([*wordpiece.tokens, *(f"x{i}" for i in range(70_000))], TextRules(lowercase=True))
    for name, vocabulary in (("small", wordpiece), ("large", large)):
        build_shards([corpus], vocabulary, tmp_path / name, DataConfig())
    small, wide = (ShardSet.open(tmp_path / name).split("train") for name in ("small", "large"))
    assert len(small) == len(wide)
    assert wide.example(5).a.dtype == np.uint32
    assert small.example(5).a.tolist() == wide.example(5).a.tolist()


def test_documents_are_held_out_by_seed_and_at_least_two(wordpiece, tmp_path):
    rng = np.random.default_rng(0)
    four = write(tmp_path / "four.txt", *(document(rng, 5) for _ in range(4)))
    counts = build_shards([four], wordpiece, tmp_path / "4", DataConfig()).counts
    assert (counts["train"].documents, counts["held_out"].documents) == (2, 2)
    many = write(tmp_path / "many.txt", *(document(rng, 2) for _ in range(1000)))
    found = [
        build_shards([many], wordpiece, tmp_path / str(seed), DataConfig(held_out_prob=0.1, seed=seed)).counts
        for seed in (0, 1)
    ]
    for counts in found:
        assert binomtest(counts["held_out"].documents, 1000, 0.1).pvalue > 1e-4
    assert contents(tmp_path / "0")["held_out-00000.tokens"] != contents(tmp_path / "1")["held_out-00000.tokens"]


def test_a_corpus_too_small_for_it_says_that_nothing_is_held_out(wordpiece, tmp_path, caplog):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "two.txt", document(rng, 5), document(rng, 5))
    counts = build_shards([path], wordpiece, tmp_path / "out", DataConfig()).counts
    assert (counts["train"].documents, counts["held_out"].documents) == (2, 0)
    assert "no held-out examples: the corpus has only 2 documents" in caplog.text


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (["waa wab.\nwac wad."], "needs two documents, the corpus is a single one"),
        (["waa wab.", "wac.", "wad wae waf."], "needs documents of two sentences, here is none"),
    ],
)
def test_where_pairs_are_impossible_the_way_out_is_named(wordpiece, tmp_path, documents, message):
    path = write(tmp_path / "a.txt", *documents)
    with pytest.raises(BertwrightError, match=message) as caught:
        build_shards([path], wordpiece, tmp_path / "out", DataConfig())
    assert "--objective mlm" in caught.value.fix
    assert list(tmp_path.iterdir()) == [path]
    assert build_shards([path], wordpiece, tmp_path / "out", DataConfig(objective="mlm")).counts["train"].examples


def test_what_was_left_out_is_said(wordpiece, tmp_path, caplog):
    path = write(tmp_path / "a.txt", "\ufffd", "foreign words.\nwaa wab.", "wac wad.", "wae.\nwaf wag.")
    config = DataConfig(next_sentence_rule="paper", held_out_prob=0.0)
    counts = build_shards([path], wordpiece, tmp_path / "out", config).counts["train"]
    assert (counts.documents, counts.empty_documents, counts.single_sentence_documents) == (3, 1, 1)
    assert counts.unknown_tokens == 2
    assert "left out 1 documents without a token" in caplog.text
    assert "1 documents of one sentence serve only as random B" in caplog.text
    assert "of the tokens are [UNK]" in caplog.text


def test_an_error_while_reading_leaves_nothing(corpus, wordpiece, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text((corpus / "a.jsonl").read_text() + "{broken\n")
    with pytest.raises(BertwrightError, match=r"bad\.jsonl, row 61"):
        build_shards([bad], wordpiece, tmp_path / "out", DataConfig())
    assert list(tmp_path.iterdir()) == [bad]


def test_a_full_disk_is_said_and_leaves_nothing(corpus, wordpiece, tmp_path, monkeypatch):
    def full(_path, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    wordpiece.save(tmp_path / "vocab")
    monkeypatch.setattr(WordPiece, "save", lambda _self, _folder: None)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match="disk is full"):
        build_shards([corpus], wordpiece, tmp_path / "out", DataConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["vocab"]


def test_nothing_is_overwritten_unasked(corpus, wordpiece, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    build_shards([corpus], wordpiece, out, DataConfig())  # an empty folder is no obstacle
    before = contents(out)
    with pytest.raises(BertwrightError, match="not empty") as caught:
        build_shards([corpus], wordpiece, out, DataConfig(seed=1))
    assert "--overwrite" in caught.value.fix
    assert contents(out) == before
    build_shards([corpus], wordpiece, out, DataConfig(seed=1), overwrite=True)
    assert contents(out) != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_shards_are_ever_overwritten(corpus, wordpiece, tmp_path):
    (tmp_path / "out").mkdir()
    thesis = tmp_path / "out" / "thesis.txt"
    thesis.write_text("years of work")
    with pytest.raises(BertwrightError, match="other things than shards"):
        build_shards([corpus], wordpiece, tmp_path / "out", DataConfig(), overwrite=True)
    with pytest.raises(BertwrightError, match="a file is in the way"):
        build_shards([corpus], wordpiece, thesis, DataConfig(), overwrite=True)
    assert thesis.read_text() == "years of work"


@pytest.mark.usefixtures("small_shards")
def test_progress_is_a_share_that_ends_at_one(corpus, wordpiece, tmp_path):
    heard = []
    build_shards([corpus], wordpiece, tmp_path / "out", DataConfig(), workers=1, progress=heard.append)
    shares = [state.share for state in heard]
    assert len(shares) > 5
    assert all(0 < share <= 1 for share in shares)
    assert shares[-1] == pytest.approx(1)
    assert heard[-1].seconds_left == 0
    assert heard[-1].bytes_per_second > 0
    assert heard[-1].documents == 120
    assert heard[-1].text_bytes == sum(len(text) for path in corpus.iterdir() for text in read_texts(path))
    counts = ShardSet.open(tmp_path / "out").manifest.counts
    assert heard[-1].examples == counts["train"].examples + counts["held_out"].examples


@pytest.mark.usefixtures("small_shards")
def test_a_document_beyond_the_cap_is_said(wordpiece, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "SHARD_CHARACTERS", 5000)
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.txt", document(rng, 5), document(rng, 200), document(rng, 5), document(rng, 5))
    build_shards([path], wordpiece, tmp_path / "free", DataConfig(), workers=1)
    assert "--ram" not in caplog.text
    build_shards([path], wordpiece, tmp_path / "capped", DataConfig(), workers=1, ram="1GB")
    assert "characters is larger than a shard: --ram does not cover it" in caplog.text
    assert str(path) in caplog.text
    assert contents(tmp_path / "capped") == contents(tmp_path / "free")


def test_an_example_is_shown_as_training_sees_it(corpus, wordpiece, tmp_path):
    build_shards([corpus], wordpiece, tmp_path / "out", DataConfig(max_length=64))
    shards = ShardSet.open(tmp_path / "out")
    raw = shards.split("train").example(3)
    view = describe_example(shards, 3, seed=1, epoch=2)
    assert [token.original for token in view.tokens] == [
        "[CLS]",
        *(wordpiece.tokens[i] for i in raw.a),
        "[SEP]",
        *(wordpiece.tokens[i] for i in raw.b),
        "[SEP]",
    ]
    assert [token.segment for token in view.tokens] == [0] * (len(raw.a) + 2) + [1] * (len(raw.b) + 1)
    assert view.next_sentence_label == raw.next_sentence_label
    assert view.text_a == wordpiece.decode(raw.a.tolist())
    assert view.text_b == wordpiece.decode(raw.b.tolist())
    states = [token.state for token in view.tokens]
    assert states.count("special") == 3
    predicted = [token for token in view.tokens if token.state in ("mask", "random", "kept")]
    assert len(predicted) == max(1, round(0.15 * (len(states) - 3)))
    for token in view.tokens:
        assert (token.shown == "[MASK]") == (token.state == "mask")
        assert (token.shown == token.original) == (token.state not in ("mask", "random"))
    assert describe_example(shards, 3, seed=1, epoch=3) != view


def test_google_sample_text(shared_data, tmp_path):
    wordpiece = WordPiece.load(shared_data / "vocab/bert-base-uncased-vocab.txt")
    sample = shared_data / "corpora/google-sample_text.txt"
    for rule in ("google", "paper"):
        config = DataConfig(max_length=128, next_sentence_rule=rule, held_out_prob=0.0)
        counts = build_shards([sample], wordpiece, tmp_path / rule, config).counts["train"]
        assert counts.documents == 3
        assert counts.examples > 5
