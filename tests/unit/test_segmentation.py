"""Words: what each segmenter says, the same tokens whoever says it, and refusals that help."""

import gzip
import hashlib
import pickle
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertwright.errors import BertwrightError
from bertwright.text.rules import TextRules
from bertwright.text.segmentation import Lexicon, find_segmenter, read_lexicon, tokens_and_words
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

SENTENCE = "使用语言模型来预测下一个词的probability。"
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
ODD = "αςσéßİ½ﬁ〇かカ한\u0301\u0338\0\t\n\r\u200b\u3000\ufffd𠀀"


def made(*more: str, lowercase: bool = True) -> WordPiece:
    characters = dict.fromkeys("使用语言模型来预测下一个词的我爱北京天安门红楼梦作者是。，《》“”.,!'-+%&#0123456789")
    pieces = ["pro", "##ba", "##bility", *(f"##{letter}" for letter in LETTERS)]
    return WordPiece([*SPECIAL_TOKENS, *characters, *LETTERS, *pieces, *more], TextRules(lowercase=lowercase))


def words(texts: list[str], how: str, wordpiece: WordPiece | None = None) -> list[str]:
    """The tokens of each word, side by side, as `data show` prints them."""
    wordpiece = wordpiece or made()
    ids, lengths, goes_on = tokens_and_words(wordpiece, texts, find_segmenter(how))
    plain_ids, plain_lengths = wordpiece.flat_ids_of_many(texts)
    assert ids.tolist() == plain_ids.tolist()
    assert lengths.tolist() == plain_lengths.tolist()
    found: list[str] = []
    for number, joined in zip(ids.tolist(), goes_on.tolist(), strict=True):
        token = wordpiece.tokens[number]
        if joined:
            found[-1] += token
        else:
            found.append(token)
    return found


def test_jieba_says_what_the_readme_of_chinese_bert_wwm_says():
    assert words([SENTENCE], "jieba") == "使用 语言 模型 来 预测 下 一个 词 的 pro##ba##bility 。".split()  # noqa: SIM905


def test_white_space_of_a_corpus_is_where_words_end():
    spaced = "使用 语言 模型 来 预测 下 一个 词 的 probability 。"
    assert words([spaced], "pre-segmented") == words([SENTENCE], "jieba")
    wordpiece = made()
    assert wordpiece.ids(spaced) == wordpiece.ids(SENTENCE)


def test_punctuation_stands_alone_in_a_corpus_with_white_space():
    assert words(["《红楼梦》 作者 是 我，“我 爱”。", "isn't 3.4%"], "pre-segmented") == [
        *("《", "红楼梦", "》", "作者", "是", "我", "，", "“", "我", "爱", "”", "。"),
        *("i##s##n", "'", "t", "3", ".", "4", "%"),
    ]


def test_by_white_space_a_word_is_a_piece_and_its_continuations():
    assert words(["probability isn't ab.", "语言model"], "whitespace") == [
        *("pro##ba##bility", "i##s##n", "'", "t", "a##b", "."),
        *("语", "言", "m##o##d##e##l"),
    ]


def test_a_lexicon_is_matched_longest_first_from_the_left(tmp_path):
    path = tmp_path / "terms.txt"
    path.write_text("北京\n北京天安\n天安门\n言模\n我\n红楼梦\t23\n使用 5 v\n\n", encoding="utf-8")
    assert words(["我爱北京天安门，语言模型", "使用红楼梦"], str(path)) == [
        *("我", "爱", "北京天安", "门", "，", "语", "言模", "型"),
        *("使用", "红楼梦"),
    ]
    segmenter = find_segmenter(str(path))
    assert segmenter.name == "terms.txt"
    assert segmenter.facts == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "words": 6}


def plain_cut(lexicon: set[str], text: str) -> list[int]:
    sizes, start = [], 0
    while start < len(text):
        size = max([1, *(n for n in range(2, len(text) - start + 1) if text[start : start + n] in lexicon)])
        sizes.append(size)
        start += size
    return sizes


@settings(max_examples=200, deadline=None)
@given(st.sets(st.text("甲乙丙丁", min_size=2, max_size=5), max_size=12), st.text("甲乙丙丁戊", max_size=30))
def test_a_lexicon_cuts_as_its_plain_twin(lexicon, text):
    sizes = Lexicon(lexicon).cut(text)
    assert sizes == plain_cut(lexicon, text)
    assert sum(sizes) == len(text)


def test_a_word_does_not_go_from_one_sentence_into_the_next(tmp_path):
    path = tmp_path / "terms.txt"
    path.write_text("语言\n", encoding="utf-8")
    for how in ("jieba", "pre-segmented", str(path)):
        assert words(["我爱语", "言"], how) == [*words(["我爱语"], how), "言"]


def plain_words(wordpiece: WordPiece, text: str, cut: list[int]) -> list[bool]:
    """Token by token: it goes on with the word before it if it is a ## piece, or if both are in the same word.

    A ## piece is in the word of the piece before it.
    """
    ends = np.cumsum(cut)
    numbers = [int(np.searchsorted(ends, start, side="right")) for start, _ in wordpiece.encode(text).offsets[1:-1]]
    pieces = [wordpiece.tokens[number].startswith("##") for number in wordpiece.ids(text)]
    for place in range(1, len(numbers)):
        if pieces[place]:
            numbers[place] = numbers[place - 1]
    return [place > 0 and (pieces[place] or numbers[place] == numbers[place - 1]) for place in range(len(pieces))]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("使用语言模型ab c0。，.'+%" + ODD), max_size=25), min_size=1, max_size=4),
    st.sampled_from(["jieba", "pre-segmented", "whitespace"]),
    st.booleans(),
)
@example(["语言模型ας用语言"], "jieba", True)
@example(["0\u200ba使", "a\u200b语言\ufffdab使"], "pre-segmented", False)
@example(["语言e\u0338\u0301模型 使用"], "jieba", True)
def test_whatever_the_text_tokens_are_the_same_and_words_those_of_the_plain_twin(texts, how, lowercase):
    wordpiece = made("α", "##α", "##ς", lowercase=lowercase)
    segmenter = find_segmenter(how)
    ids, lengths, goes_on = tokens_and_words(wordpiece, texts, segmenter)
    assert ids.tolist() == [number for text in texts for number in wordpiece.ids(text)]
    assert lengths.tolist() == [len(wordpiece.ids(text)) for text in texts]
    ends = np.cumsum([0, *lengths]).tolist()
    for text, (start, end) in zip(texts, pairwise(ends), strict=True):
        found = goes_on[start:end].tolist()
        assert not any(found[:1])
        if segmenter.cut is None:
            assert found == [wordpiece.tokens[number].startswith("##") for number in wordpiece.ids(text)]
            continue
        cut = segmenter.cut(text)
        assert sum(cut) == len(text)
        assert found == plain_words(wordpiece, text, cut)


def test_half_a_surrogate_pair_is_no_obstacle():
    segmenter = find_segmenter("jieba")
    assert segmenter.cut is not None
    assert sum(segmenter.cut("语言\ud800模型")) == 5


def test_segmenters_travel_to_other_processes(tmp_path):
    path = tmp_path / "terms.txt"
    path.write_text("语言\n")
    for how in ("jieba", "pre-segmented", "whitespace", str(path)):
        segmenter = find_segmenter(how)
        again = pickle.loads(pickle.dumps(segmenter))
        if segmenter.cut is not None:
            assert again.cut("语言模型") == segmenter.cut("语言模型")


def test_without_rjieba_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(BertwrightError, match="needs the package rjieba") as caught:
        find_segmenter("jieba")
    assert "bertwright[zh]" in caught.value.fix


def test_a_missing_lexicon_or_a_slip_of_the_pen_is_named():
    with pytest.raises(BertwrightError, match=r"no file of that name: 'jeiba' \(did you mean 'jieba'\?\)") as caught:
        find_segmenter("jeiba")
    assert "jieba, pre-segmented, whitespace, or a lexicon" in caught.value.fix


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no word of two characters"),
        ("\n\n的\n了\n".encode(), "holds no word of two characters"),
        (b"\x7fELF\x00\x01", r"terms\.txt, row 1: binary data, not text"),
        ("语言\n".encode("utf-16"), r"terms\.txt, row 1: UTF-16 text"),
    ],
)
def test_a_lexicon_that_is_none_is_refused(tmp_path, content, message):
    path = tmp_path / "terms.txt"
    path.write_bytes(content)
    with pytest.raises(BertwrightError, match=message):
        find_segmenter(str(path))
    with pytest.raises(BertwrightError, match="cannot be read"):
        find_segmenter(str(tmp_path))


def test_a_lexicon_may_be_gb18030_or_compressed(tmp_path):
    expected = {"语言", "模型"}
    plain, packed = tmp_path / "gbk.txt", tmp_path / "words.txt.gz"
    plain.write_bytes("语言\n模型\n".encode("gb18030"))
    packed.write_bytes(gzip.compress("语言\r\n模型".encode()))
    assert read_lexicon(plain).words == read_lexicon(packed).words == expected
