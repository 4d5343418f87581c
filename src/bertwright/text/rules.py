"""How text becomes words: cleaned, lowered, its accents stripped, set apart at punctuation and Chinese characters.

Two renderings of the same idea. `google` follows google-research/bert `tokenization.py`, with the Unicode tables of the
running Python; `hf` asks the `tokenizers` package, which knows other characters as control characters, punctuation and
Chinese, and lowers them one by one.

    rules = TextRules(lowercase=True)
    rules.words("Él dijo: hi")           # ['el', 'dijo', ':', 'hi']
    rules.spans("Él dijo")               # [('el', [0, 1]), ('dijo', [3, 4, 5, 6])]

Neither rendering looks further than one character, but for the final sigma and the order of marks (`needs_context`). So
a table from a character to its spelling, filled as characters are met, does all the work.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from typing import Any, Literal

from tokenizers import normalizers, pre_tokenizers

_ASCII_WORDS = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")
_SURROGATES = re.compile("[\ud800-\udfff]")
MARKS = "Mn"
"""The Unicode category of accents that stand on the character before them."""


@dataclass(frozen=True)
class TextRules:
    """What is done to text before WordPiece sees it."""

    lowercase: bool
    """Lower the case."""
    style: Literal["google", "hf"] = "google"
    """Whose rendering: google-research/bert's or that of the `tokenizers` package."""
    strip_accents: bool | None = None
    """Drop accents; None: where the case is lowered."""
    split_chinese: bool = True
    """Make every Chinese character a word."""
    clean_text: bool = True
    """Drop control characters and turn every white space into a blank; `google` always does."""
    max_word_characters: int = 200
    """Longer words are [UNK]: 200 in google-research/bert, 100 in the `tokenizers` package."""

    @classmethod
    def hugging_face(cls, *, lowercase: bool) -> TextRules:
        """Return the rules of Hugging Face's `BertTokenizer`."""
        return cls(lowercase, "hf", max_word_characters=100)

    def __getstate__(self) -> dict[str, Any]:
        return asdict(self)  # without the table

    @property
    def strips_accents(self) -> bool:
        """Whether accents are dropped."""
        return self.lowercase if self.strip_accents is None else self.strip_accents

    @property
    def canonical(self) -> TextRules:
        """The same rules, `strip_accents` said in the shortest way."""
        accents = None if self.strips_accents == self.lowercase else self.strip_accents
        return replace(self, strip_accents=accents, clean_text=self.clean_text or self.style == "google")

    def words(self, text: str) -> list[str]:
        """Return the words of a text."""
        if text.isascii() and text.isprintable():  # the same in both renderings, and twice as fast as the table
            return _ASCII_WORDS.findall(text.lower() if self.lowercase else text)
        table = self._table
        spelled = text.translate(table)
        if text.isascii() or not table.has_context(text):
            return [word for word in spelled.split(" ") if word]
        chunks = text.split(" ")
        found = (self.plain_words(chunk) if table.has_context(chunk) else self.words(chunk) for chunk in chunks)
        return [word for words in found for word in words]

    def spans(self, text: str) -> list[tuple[str, list[int]]]:
        """Return each word and, for each of its characters, the place in the text of the character it came from."""
        table = self._table
        sources = [place for place, char in enumerate(text) for made in table[ord(char)] if made != " "]
        spans, start = [], 0
        for word in self.words(text):
            spans.append((word, sources[start : start + len(word)]))
            start += len(word)
        return spans

    @cached_property
    def plain_words(self) -> Callable[[str], list[str]]:
        """The plain twin of `words`: every rule on the whole text, one after the other."""
        return _google_words(self) if self.style == "google" else _hugging_face_words(self)

    def is_mark(self, char: str) -> bool:
        """Tell whether a character is dropped as an accent of the one before it."""
        return unicodedata.category(char) == MARKS and self._table[ord(char)] == ""

    def spelling(self, char: str) -> str:
        """Return what stands in place of a character: with blanks around it if it is a word by itself."""
        return self._table[ord(char)]

    def needs_context(self, char: str) -> bool:
        """Tell whether the spelling of a character depends on its neighbours."""
        self.spelling(char)
        return self._table.has_context(char)

    @cached_property
    def _table(self) -> _Spellings:
        return _spellings(self)


class _Spellings(dict[int, str]):
    """From a code point to what `str.translate` puts in its place: with blanks around it if it is a word by itself.

    A character is spelled by what the plain twin makes of it between two letters.
    """

    def __init__(self, rules: TextRules) -> None:
        self._words = rules.plain_words
        self._context: set[str] = set()
        """Met characters whose spelling depends on their neighbours, or which may change places with them."""
        self._sigma = rules.lowercase and rules.style == "google"
        self._reorders = rules.strips_accents

    def __missing__(self, number: int) -> str:
        char = chr(number)
        spelling = " ".join(self._words(f"x{char}x"))[1:-1]
        if (self._sigma and char == "Σ") or (self._reorders and any(map(unicodedata.combining, spelling))):
            self._context.add(char)  # before anybody can find the spelling
        self[number] = spelling
        return spelling

    def has_context(self, text: str) -> bool:
        """Tell whether a text, translated before, holds a character that the plain twin has to see in its place."""
        return not self._context.isdisjoint(text)


@cache
def _spellings(rules: TextRules) -> _Spellings:
    return _Spellings(rules)


def _google_words(rules: TextRules) -> Callable[[str], list[str]]:
    """google-research/bert `BasicTokenizer`, step by step."""

    def words(text: str) -> list[str]:
        cleaned = "".join(" " if char.isspace() else char for char in text if not _is_dropped(char))
        if rules.split_chinese:
            cleaned = _CHINESE.sub(r" \g<0> ", cleaned)
        found = []
        for word in cleaned.split():
            word = word.lower() if rules.lowercase else word
            word = _without_accents(word) if rules.strips_accents else word
            found += "".join(f" {char} " if _is_punctuation(char) else char for char in word).split()
        return found

    return words


def _hugging_face_words(rules: TextRules) -> Callable[[str], list[str]]:
    normalize, split = bert_normalizer(rules).normalize_str, pre_tokenizers.BertPreTokenizer().pre_tokenize_str

    def words(text: str) -> list[str]:
        text = text if text.isascii() else encodable(text)
        return [word for word, _ in split(normalize(text))]

    return words


def bert_normalizer(rules: TextRules) -> Any:
    """Return the `tokenizers` package's normalizer for these rules; for `google` the nearest it has."""
    return normalizers.BertNormalizer(
        clean_text=rules.clean_text,
        handle_chinese_chars=rules.split_chinese,
        strip_accents=rules.strip_accents,
        lowercase=rules.lowercase,
    )


def encodable(text: str) -> str:
    """Return the text with half surrogate pairs, which no encoding can write, as U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


@cache
def _is_dropped(char: str) -> bool:
    if char in "\t\n\r":
        return False
    return char in "\0\ufffd" or unicodedata.category(char) in ("Cc", "Cf", "Cs")


@cache
def _is_punctuation(char: str) -> bool:
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char).startswith("P")


_CHINESE = re.compile(
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f"
    "\U0002b740-\U0002b81f\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f]"
)
"""The blocks that google-research/bert calls CJK."""


def _without_accents(text: str) -> str:
    return "".join(char for char in decomposed(text) if char.isascii() or unicodedata.category(char) != MARKS)


def decomposed(text: str) -> str:
    """Return `unicodedata.normalize("NFD", text)`, in linear time whatever the text.

    The standard library sorts combining marks by insertion, which takes minutes for a hundred thousand of them.
    """
    if text.isascii():
        return text
    chars = [made for char in text for made in unicodedata.normalize("NFD", char)]
    start = 0
    while start < len(chars):
        if not unicodedata.combining(chars[start]):
            start += 1
            continue
        end = start + 1
        while end < len(chars) and unicodedata.combining(chars[end]):
            end += 1
        chars[start:end] = sorted(chars[start:end], key=unicodedata.combining)
        start = end
    return "".join(chars)
