"""Tokenization against its sources: Google's published rules in plain Python, and the `tokenizers` package itself.

Over every code point there is, over 10^5 strings that hypothesis made, and over text that means harm.
"""

import itertools
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bertwright.errors import BertwrightError
from bertwright.text.rules import TextRules
from bertwright.text.vocabulary_files import to_tokenizers
from bertwright.text.wordpiece import SPECIAL_TOKENS, WordPiece

CHINESE = [
    range(0x4E00, 0xA000), range(0x3400, 0x4DC0), range(0x20000, 0x2A6E0), range(0x2A700, 0x2B740),
    range(0x2B740, 0x2B820), range(0x2B820, 0x2CEB0), range(0xF900, 0xFB00), range(0x2F800, 0x2FA20),
]  # fmt: skip
CHINESE_CODES = {code for block in CHINESE for code in block}
LETTERS = "abcdexyzABCXYZ0123é中国人①Ωσςαя한글"
PIECES = ["ab", "abc", "xyz", "##bc", "##yz", "12", "##23", "##123", "##ab", "σα", "##ς"]
ALPHABET = (
    LETTERS + "ΣÀÉİıßſŒñÇ㐀𠀀豈\U0002b82f，。！「」、ｶガ한ạ̈\u0301\u0308\u0323\u302e\u302f\U0001d165\U0001d16e\u0344≠"
    "ﬁ½…—–’‘“”!?.,;:'\"#[]()-_/\\@&%^|~ $+<=>`\0\t\n\r\x0b\x1c\x85\xa0\xad\u1680\u2028\u2029\u200b\u200d\u3000\ufeff"
    "\ufffd\ue000\U0001f600\U000e0001\u0378"
)
STRINGS = st.text(st.sampled_from(ALPHABET) | st.characters(exclude_categories=["Cs"]), max_size=14)


def vocabulary(rules: TextRules) -> WordPiece:
    letters = dict.fromkeys(char for char in unicodedata.normalize("NFD", LETTERS + ALPHABET) if not char.isspace())
    tokens = dict.fromkeys([*SPECIAL_TOKENS, *letters, *("##" + letter for letter in letters), *PIECES])
    return WordPiece(list(tokens), rules)


def published_words(text: str, *, lowercase: bool) -> list[str]:
    """The basic tokenizer as google-research/bert publishes it, in the plainest Python."""
    cleaned = ""
    for char in text:
        kind = unicodedata.category(char)
        if char in "\t\n\r" or kind == "Zs":
            cleaned += " "
        elif ord(char) in (0, 0xFFFD) or kind in ("Cc", "Cf"):
            continue
        elif ord(char) in CHINESE_CODES:
            cleaned += f" {char} "
        else:
            cleaned += char
    words = []
    for word in cleaned.split():
        if lowercase:
            word = unicodedata.normalize("NFD", word.lower())
            word = "".join(char for char in word if unicodedata.category(char) != "Mn")
        for char in word:
            code = ord(char)
            ascii_mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
            if ascii_mark or unicodedata.category(char)[0] == "P":
                words += [" ", char, " "]
            else:
                words.append(char)
        words.append(" ")
    return "".join(words).split()


def published_ids(text: str, wordpiece: WordPiece) -> list[int]:
    """Longest piece first, as the WordPiece tokenizer is published."""
    ids = []
    known = {token: number for number, token in enumerate(wordpiece.tokens)}
    for word in published_words(text, lowercase=wordpiece.rules.lowercase):
        found, start = [], 0
        while start < len(word) and len(word) <= 200:
            ends = [end for end in range(len(word), start, -1) if ("##" if start else "") + word[start:end] in known]
            if not ends:
                break
            found.append(known[("##" if start else "") + word[start : ends[0]]])
            start = ends[0]
        ids += found if start == len(word) else [wordpiece.unk_id]
    return ids


def every_code_point():
    for first in range(0, 0x110000, 0x100):
        if not 0xD800 <= first < 0xE000:
            yield [chr(number) for number in range(first, first + 0x100)]


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [True, False])
def test_google_rules_over_every_code_point(lowercase: bool) -> None:
    rules = TextRules(lowercase=lowercase)
    for chars in every_code_point():
        for text in ("".join(f"x{char}y " for char in chars), "a".join(chars)):
            assert rules.words(text) == published_words(text, lowercase=lowercase), hex(ord(chars[0]))


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [True, False])
def test_hugging_face_rules_over_every_code_point(lowercase: bool) -> None:
    rules = TextRules.hugging_face(lowercase=lowercase)
    tokenizer = to_tokenizers(vocabulary(rules))
    for chars in every_code_point():
        for text in (" ".join(chars), "".join(f"x{char}y " for char in chars), "a".join(chars)):
            theirs = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
            assert rules.words(text) == [word for word, _ in theirs], hex(ord(chars[0]))


def test_the_two_renderings_differ_where_the_documentation_says() -> None:
    google, hugging_face = TextRules(lowercase=True), TextRules.hugging_face(lowercase=True)
    different = [
        number for chars in every_code_point() for number in map(ord, chars)
        if google.spelling(chr(number)) != hugging_face.spelling(chr(number))
    ]  # fmt: skip
    assert len(different) > 138_000
    assert sum(0xE000 <= number <= 0xF8FF or number >= 0xF0000 for number in different) == 137_468  # private use
    assert set(range(0x2B820, 0x2B920)) <= set(different)  # CJK Extension E, mis-split


MODES = [
    TextRules(lowercase=True),
    TextRules(lowercase=False),
    TextRules.hugging_face(lowercase=True),
    TextRules.hugging_face(lowercase=False),
    TextRules(True, "hf", strip_accents=False, max_word_characters=100),
    TextRules(False, "hf", strip_accents=True, split_chinese=False, max_word_characters=100),
    TextRules(True, "hf", clean_text=False, max_word_characters=7),
]


def oracle(wordpiece: WordPiece):
    if wordpiece.rules.style == "google":
        return lambda text: published_ids(text, wordpiece)
    tokenizer = Tokenizer.from_str(to_tokenizers(WordPiece(wordpiece.tokens, wordpiece.rules)).to_str())
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.slow
@pytest.mark.parametrize("rules", MODES, ids=lambda rules: f"{rules.style}-{rules.lowercase}-{rules.strip_accents}")
def test_strings_that_hypothesis_made(rules: TextRules) -> None:
    wordpiece = vocabulary(rules)
    expected = oracle(wordpiece)
    checked = 0

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(STRINGS, min_size=30, max_size=60))
    def check(strings: list[str]) -> None:
        nonlocal checked
        plain = [text for text in strings if "[" not in text]  # special tokens have a test of their own
        ids = wordpiece.ids_of_many(plain)
        assert ids == list(map(expected, plain))
        for text, each in zip(plain, ids, strict=True):
            assert wordpiece.ids(text) == each
            encoding = wordpiece.encode(text)
            assert encoding.input_ids[1:-1] == each
            assert len(encoding.offsets) == len(encoding.input_ids)
        checked += len(strings)

    check()
    assert checked >= 15_000


@pytest.mark.parametrize("rules", MODES[2:])
def test_offsets_are_those_of_tokenizers_but_for_accents(rules: TextRules) -> None:
    wordpiece = vocabulary(rules)
    tokenizer = to_tokenizers(wordpiece)
    for text in ("Abc xyz, 中国人 é12.", "a\u200bb \ufeffabc\tİx", "xyz [MASK] abc [SEP]", "한글 abcxyz 123"):
        assert wordpiece.encode(text).offsets == tokenizer.encode(text).offsets, text
        assert wordpiece.encode(text).input_ids == tokenizer.encode(text).ids, text


@pytest.mark.parametrize("rules", MODES[:4])
@pytest.mark.parametrize(
    ("text", "word", "span"),
    [
        ("cafe\u0301 abc", "abc", "abc"),
        ("\ufeffabc", "abc", "abc"),
        ("x\u200by abc", "abc", "abc"),
        ("👨\u200d👩\u200d👧 abc", "abc", "abc"),
        ("中国abc人", "abc", "abc"),
        ("a\u0301b\u0308c", "a", "a\u0301"),
        ("abc\u0301\u0308 y", "abc", "abc\u0301\u0308"),
    ],
)
def test_offsets_cut_the_original_text(rules: TextRules, text: str, word: str, span: str) -> None:
    if not rules.lowercase and "\u0301" in span:
        pytest.skip("cased rules keep accents: they are pieces of their own")
    wordpiece = vocabulary(rules)
    encoding = wordpiece.encode(text)
    found = [text[start:end] for start, end in encoding.offsets[1:-1]]
    if word == "a":
        assert found == ["a\u0301b\u0308", "c"] or found == ["a\u0301b\u0308c"], found
    else:
        assert span in found


@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second", "longer_side"])
def test_truncation_is_that_of_tokenizers(strategy: str) -> None:
    wordpiece = vocabulary(TextRules.hugging_face(lowercase=True))
    tokenizer = to_tokenizers(wordpiece)
    compared = 0
    for first, second, max_length in itertools.product(range(9), range(9), range(5, 16)):
        text, pair = " ".join("a" * first), " ".join("b" * second)
        try:
            ours = wordpiece.encode(text, pair, max_length=max_length, truncation=strategy)
        except BertwrightError:
            assert strategy.startswith("only_")
            continue
        assert len(ours.input_ids) == len(ours.token_type_ids) == len(ours.offsets) <= max_length
        if strategy == "longer_side":  # google-research/bert: pop from the longer one, of equals from B
            lengths = [first, second]
            while sum(lengths) > max_length - 3:
                lengths[0 if lengths[0] > lengths[1] else 1] -= 1
            assert [ours.token_type_ids.count(0) - 2, ours.token_type_ids.count(1) - 1] == lengths
        elif strategy == "longest_first" or first + second + 3 <= max_length or min(first, second):
            tokenizer.enable_truncation(max_length, strategy=strategy)
            assert ours.input_ids == tokenizer.encode(text, pair).ids, (first, second, max_length)
        compared += 1
    assert compared > 200


@pytest.mark.parametrize("stride", [0, 1, 3])
def test_windows_are_those_of_tokenizers(stride: int) -> None:
    wordpiece = vocabulary(TextRules.hugging_face(lowercase=True))
    tokenizer = to_tokenizers(wordpiece)
    for length in range(0, 30, 3):
        text = " ".join("abcdexyz"[number % 8] for number in range(length))
        for pair in (None, text):
            max_length = 9 if pair is None else 12
            question = text if pair is None else "x y"
            tokenizer.enable_truncation(
                max_length, stride=stride, strategy="longest_first" if pair is None else "only_second"
            )
            first = tokenizer.encode(question, pair)
            theirs = [(each.ids, each.offsets) for each in (first, *first.overflowing)]
            ours = wordpiece.windows(question, pair, max_length=max_length, stride=stride)
            assert [(each.input_ids, each.offsets) for each in ours] == theirs


@pytest.mark.parametrize("rules", MODES[:4])
@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "ab" * 90 + " " + "abcdexyz" * 124_000,
        ("abcdexyz" * 24 + " ") * 1_000,
        "a" + "\u0301\u0323" * 150_000,
        "a" + "\u0301\u302e\u0323" * 100_000,
        "Σ" * 200_000 + "\u0301" * 100_000,
        "中" * 200_000,
        "." * 200_000,
        "[MASK]" * 100_000,
        "[" * 200_000,
        "\u200b" * 330_000,
        "\t\u2028" * 250_000,
    ],
    ids=[
        "word",
        "long_words",
        "words",
        "marks",
        "reordered",
        "sigma",
        "chinese",
        "dots",
        "masks",
        "brackets",
        "nothing",
        "blanks",
    ],
)
@pytest.mark.timeout(60)
def test_text_that_means_harm_comes_to_an_end(rules: TextRules, text: str) -> None:
    """What takes the square of a megabyte would run for hours; `benchmarks/bench_tokenize.py` has the seconds."""
    wordpiece = vocabulary(rules)
    encoding = wordpiece.encode(text)
    assert len(encoding.offsets) == len(encoding.input_ids)
    assert encoding.input_ids[1:-1] == encode_by_parts(wordpiece, text)


def encode_by_parts(wordpiece: WordPiece, text: str) -> list[int]:
    """The ids of a text with [MASK] in it, put together from its plain parts."""
    ids = []
    for number, part in enumerate(text.split("[MASK]")):
        ids += [wordpiece.mask_id] * (number > 0) + wordpiece.ids(part)
    return ids
