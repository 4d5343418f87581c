"""Whatever the text: the cache agrees with the plain tokenizer, nothing is lost, and vocabularies are repeatable."""

import json
import pickle
import random
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertwright.config import VocabConfig
from bertwright.text.corpus import read_texts
from bertwright.text.rules import TextRules
from bertwright.text.sentences import split_sentences
from bertwright.text.vocabulary import merge_pairs, train_vocabulary
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

ALPHABET = (
    "abcexyzABZ019éÉßİıſŒñçαΣςяЖ中国人々〇你㐀𠀀豈，。！「」、かなカ한글مرحبا"
    "\u0301\u0308\u0302\u0344\u0338≠ﬁ½…—–’‘“”!?.,;:'\"#[]()-_/\\@&%^|~ "
)
ODD = (
    "\0\t\n\r\x0b\x0c\x1c\x1f\x7f\x85\xa0\xad\u1680\u2028\u2029\u200b\u200d\u202f\u205f\u3000\ufeff"
    "\ufffd\ue000\U0001f600\U000e0001"
)
texts = st.text(st.sampled_from(ALPHABET + ODD) | st.characters(exclude_categories=["Cs"]), max_size=60)
quick = settings(max_examples=150, deadline=None)


@cache
def home_made(lowercase: bool) -> WordPiece:
    letters = [c for c in dict.fromkeys(ALPHABET) if not c.isspace()]
    pieces = ["ab", "##bc", "##yz", "xyz", "##019", "##ab", "中国"]
    return WordPiece([*SPECIAL_TOKENS, *letters, *("##" + c for c in letters), *pieces], TextRules(lowercase=lowercase))


def plain(wordpiece: WordPiece, text: str) -> list[int]:
    """The plain twin of every cache and table: rule by rule, word by word."""
    return [number for word in wordpiece.rules.plain_words(text) for number in wordpiece.pieces(word)]


@pytest.mark.parametrize("lowercase", [True, False])
@quick
@given(texts)
@example("[MASK] [UNK]##ab x" + "y" * 101 + " 中́a\x0bb!\u0301=\u0338")
def test_the_cache_changes_nothing(lowercase: bool, text: str) -> None:
    wordpiece = home_made(lowercase)
    assert wordpiece.ids(text) == plain(wordpiece, text)
    assert wordpiece.ids(text) == plain(wordpiece, text), "the second time, from the cache"


@quick
@given(st.lists(texts, max_size=4))
@example([])
@example(["", "ab", "", "", "abc xyz"])
@example(["a\0b", "\0", "ab", " \0 "])
@example(["\0", "中国"])
def test_flat_ids_are_the_lists_end_to_end(many: list[str]) -> None:
    wordpiece = home_made(True)
    expected = [plain(wordpiece, text) for text in many]
    for flat, lengths in (wordpiece.flat_ids_of_many(many), wordpiece.plain_ids_of_many(many)):
        assert flat.tolist() == [number for ids in expected for number in ids]
        assert lengths.tolist() == list(map(len, expected))
    assert wordpiece.ids_of_many(many) == expected


@quick
@given(st.text("abcxyz01", min_size=1, max_size=12), st.integers(7, 19))
def test_pieces_are_the_longest_from_the_left(word: str, num_pieces: int) -> None:
    letters = home_made(True)
    entries = [
        *SPECIAL_TOKENS,
        "a",
        "##b",
        "##x",
        "xy",
        "##yz",
        "##z01",
        "##0",
        "ab",
        "abc",
        "##cx",
        "##",
        "z",
        "x",
        "##1",
    ]
    wordpiece = WordPiece(entries, letters.rules, num_pieces=num_pieces)
    expected, rest = [], word
    while rest:
        prefix = "##" if expected else ""
        known = enumerate(entries[:num_pieces])
        inside = [(n, entry[len(prefix) :]) for n, entry in known if entry.startswith(prefix)]
        fitting = [(len(piece), n) for n, piece in inside if piece and rest.startswith(piece)]
        if not fitting:
            expected = [wordpiece.unk_id]
            break
        length, number = max(fitting)
        expected.append(number)
        rest = rest[length:]
    assert wordpiece.pieces(word) == expected


@pytest.mark.parametrize("style", ["google", "hf"])
@pytest.mark.parametrize("lowercase", [True, False])
@quick
@given(st.text(st.characters(max_codepoint=127), max_size=40))
@example("".join(map(chr, range(32, 127))))
@example("".join(map(chr, range(128))))
def test_ascii_is_cut_as_the_plain_twin_cuts_it(style: Literal["google", "hf"], lowercase: bool, text: str) -> None:
    rules = TextRules(lowercase=lowercase, style=style)
    assert rules.words(text) == rules.plain_words(text)


@pytest.mark.parametrize("name", ["uncased", "cased", "chinese", "multilingual-cased"])
def test_released_vocabularies_on_real_and_random_text(shared_data: Path, name: str) -> None:
    wordpiece = WordPiece.load(shared_data / "vocab" / f"bert-base-{name}-vocab.txt")
    for corpus in ("en-wikipedia-featured", "zh-wikipedia-part"):
        documents = read_texts(shared_data / "corpora" / f"{corpus}.jsonl.xz")
        sentences = [
            sentence for text, _ in zip(documents, range(8), strict=False) for sentence in split_sentences(text)
        ]
        assert wordpiece.ids_of_many(sentences) == [plain(wordpiece, sentence) for sentence in sentences]
    rng = random.Random(0)
    for _ in range(800):
        text = "".join(chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x30000)))) for _ in range(12))
        assert wordpiece.ids(text) == plain(wordpiece, text)


@quick
@given(texts, texts | st.none(), st.none() | st.integers(5, 40))
def test_an_encoding_is_well_formed(text: str, pair: str | None, max_length: int | None) -> None:
    wordpiece = home_made(True)
    encoding = wordpiece.encode(text, pair, max_length=max_length)
    assert len(encoding.input_ids) == len(encoding.token_type_ids) == len(encoding.offsets)
    assert len(encoding.input_ids) <= (max_length or 10**9)
    assert encoding.input_ids[0] == wordpiece.cls_id
    assert encoding.input_ids[-1] == wordpiece.sep_id
    assert encoding.token_type_ids == sorted(encoding.token_type_ids)
    for segment, source in enumerate([text] if pair is None else [text, pair]):
        spans = [
            o for o, t in zip(encoding.offsets, encoding.token_type_ids, strict=True) if t == segment and o != (0, 0)
        ]
        assert all(0 <= start < end <= len(source) for start, end in spans)
        assert [start for start, _ in spans] == sorted(start for start, _ in spans)


@quick
@given(texts)
def test_sentences_lose_nothing_but_white_space(text: str) -> None:
    sentences = split_sentences(text)
    assert all(sentence == sentence.strip() and sentence for sentence in sentences)
    assert "".join("".join(sentences).split()) == "".join(text.split())


@quick
@given(st.text("ab中Z .\n-é", max_size=60), st.booleans())
def test_decoding_and_encoding_again_changes_nothing(text: str, lowercase: bool) -> None:
    wordpiece = home_made(lowercase)
    ids = wordpiece.ids(text)
    assert wordpiece.ids(wordpiece.decode(ids)) == ids


corpora = st.lists(st.text("abcdé中文 .,", min_size=1, max_size=40).filter(str.strip), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(corpora, st.integers(0, 120), st.randoms(use_true_random=False))
def test_a_vocabulary_depends_on_the_text_alone(lines: list[str], extra: int, rng: random.Random) -> None:
    def train(folder: Path, order: list[str], num_files: int, size: int) -> WordPiece:
        folder.mkdir()
        for number in range(num_files):
            if rows := [json.dumps({"text": text}) for text in order[number::num_files]]:
                (folder / f"{number}.jsonl").write_text("\n".join(rows))
        config = VocabConfig(size=size, min_frequency=1, unused_slots=2)
        trained = train_vocabulary([folder], config, threads=1)
        assert trained.report["unknown_rate"] == 0
        assert trained.wordpiece.unk_id not in {i for text in order for i in trained.wordpiece.ids(text)}
        return trained.wordpiece

    with tempfile.TemporaryDirectory() as name:
        shuffled = rng.sample(lines, len(lines))
        first = train(Path(name) / "a", lines, 1, 30 + extra)
        second = train(Path(name) / "b", shuffled, 3, 30 + extra)
    assert first.tokens == second.tokens
    assert pickle.loads(pickle.dumps(first)).sha256 == second.sha256


def merge_slowly(words: dict[str, int], alphabet: list[str], size: int, min_frequency: int) -> list[str]:
    """The plain twin of `merge_pairs`: every count anew for every merge."""
    pieces = list(alphabet)
    spelled = {word: [word[0], *("##" + character for character in word[1:])] for word in words}
    while len(pieces) < size:
        counts: dict[tuple[int, int], int] = {}
        for word, spelling in spelled.items():
            for left, right in pairwise(spelling):
                pair = pieces.index(left), pieces.index(right)
                counts[pair] = counts.get(pair, 0) + words[word]
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < min_frequency:
            break
        left, right = pieces[best[0]], pieces[best[1]]
        merged = left + right[2:]
        if merged not in pieces:
            pieces.append(merged)
        for spelling in spelled.values():
            for at in range(len(spelling)):
                if spelling[at : at + 2] == [left, right]:
                    spelling[at : at + 2] = [merged]
    return pieces


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text("ab", min_size=1, max_size=9), st.integers(1, 4), min_size=1, max_size=8),
    st.integers(1, 40),
    st.integers(1, 3),
)
@example({"aaaa": 1, "aaab": 2}, 9, 1)
def test_merging_agrees_with_its_plain_twin(words: dict[str, int], extra: int, min_frequency: int) -> None:
    alphabet = ["a", "b", "##a", "##b"]
    size = len(alphabet) + extra
    assert merge_pairs(words, alphabet, size, min_frequency) == merge_slowly(words, alphabet, size, min_frequency)
