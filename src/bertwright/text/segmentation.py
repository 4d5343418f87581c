"""Which tokens are one word: what whole word masking goes by.

A segmenter cuts a text into words, and so says which tokens belong together; which tokens there are, it has no say in.
Whatever it says, the `##` pieces of a word stay with the piece before them.

    segmenter = find_segmenter("jieba")
    ids, lengths, goes_on = tokens_and_words(wordpiece, ["使用语言模型"], segmenter)
    goes_on.tolist()                      # [False, True, False, True, False, True]: 使用 语言 模型
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bertwright.errors import BertwrightError, nearest
from bertwright.files import sha256_of
from bertwright.text.corpus import read_lines
from bertwright.text.places import flat_places_of_many
from bertwright.text.rules import encodable
from bertwright.text.wordpiece import WordPiece

Cut = Callable[[str], list[int]]
"""From a text to the lengths of its words and of what stands between them, characters; their sum is the text's."""

NAMES = ("jieba", "pre-segmented", "whitespace")
"""Segmenters that are no file."""

_SPACED_WORDS = re.compile(r"\w+|\s+|.", re.DOTALL)


@dataclass(frozen=True)
class Segmenter:
    """A way to cut text into words."""

    name: str
    """One of `NAMES`, or a lexicon's file name."""
    facts: dict[str, Any]
    """What else decides the words: the version of a package; the sha256 of a lexicon and how many words it holds."""
    cut: Cut | None
    """None where words are those that white space and punctuation separate, which WordPiece knows by itself."""


def find_segmenter(how: str) -> Segmenter:
    """Return the segmenter of a name, or one that goes by the lexicon at a path.

    - `jieba` is the package rjieba, which cuts as jieba does.
    - `pre-segmented`: the corpus has white space between its words; punctuation stands alone.
    - `whitespace`: words are what white space and punctuation separate, and every Chinese character.
    - a lexicon: from left to right, the longest word that it holds; see `read_lexicon`.

    Raises:
        BertwrightError: rjieba is not installed, there is no such lexicon, or it cannot be used.
    """
    if how == "jieba":
        try:
            import_module("rjieba")
        except ImportError:
            fix = "pip install 'bertwright[zh]', or cut the corpus into words yourself: --whole-word pre-segmented"
            raise BertwrightError("--whole-word jieba needs the package rjieba", fix=fix) from None
        return Segmenter(how, {"rjieba": metadata.version("rjieba")}, _cut_by_jieba)
    if how == "pre-segmented":
        return Segmenter(how, {}, _cut_at_blanks)
    if how == "whitespace":
        return Segmenter(how, {}, None)
    path = Path(how)
    if not path.exists():
        raise BertwrightError(
            f"--whole-word: no such way to find words, and no file of that name: {how!r}{nearest(how, NAMES)}",
            fix=f"give one of {', '.join(NAMES)}, or a lexicon: a text file with one word a line",
        )
    lexicon = read_lexicon(path)
    return Segmenter(path.name, {"sha256": sha256_of(path), "words": len(lexicon.words)}, lexicon.cut)


class Lexicon:
    """A set of words; a text is cut by taking the longest of them from the left, again and again.

    Args:
        words: those of a single character make no difference.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = frozenset(word for word in words if len(word) > 1)
        lengths: dict[str, set[int]] = {}
        for word in self.words:
            lengths.setdefault(word[:2], set()).add(len(word))
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}

    def cut(self, text: str) -> list[int]:
        """Return the lengths of the words of a text; a character that begins none is one by itself."""
        find, words, found, start = self._lengths.get, self.words, [], 0
        while start < len(text):
            size = 1
            for length in find(text[start : start + 2], ()):
                if text[start : start + length] in words:
                    size = min(length, len(text) - start)
                    break
            found.append(size)
            start += size
        return found


def read_lexicon(path: Path) -> Lexicon:
    """Read a lexicon: a word a line; what follows white space, such as a frequency, is left out.

    Raises:
        BertwrightError: the file is no text, or holds no word of two characters.
    """
    lexicon = Lexicon(line.split()[0] for line in read_lines(path) if not line.isspace())
    if not lexicon.words:
        raise BertwrightError(
            "the lexicon holds no word of two characters or more", where=path, fix="write one word a line"
        )
    return lexicon


def tokens_and_words(
    wordpiece: WordPiece, texts: Sequence[str], segmenter: Segmenter
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `wordpiece.flat_ids_of_many` does, and of each token whether it goes on with the word before it.

    Args:
        wordpiece: the vocabulary.
        texts: no word goes from one into the next.
        segmenter: who says what a word is.
    """
    if segmenter.cut is None:
        ids, lengths = wordpiece.flat_ids_of_many(texts)
        return ids, lengths, wordpiece.goes_on[ids]
    ids, lengths, places = flat_places_of_many(wordpiece, texts)
    sizes = np.fromiter(chain.from_iterable((*segmenter.cut(text), 1) for text in texts), np.int64)
    pieces = wordpiece.goes_on[ids]
    # Pieces are in the word in which the first of them is, should the segmenter cut between them.
    first = np.maximum.accumulate(np.where(pieces, 0, np.arange(len(ids))))
    words = np.repeat(np.arange(sizes.size), sizes)[places[first]]
    return ids, lengths, pieces | (np.diff(words, prepend=-1) == 0)


def _cut_by_jieba(text: str) -> list[int]:
    return list(map(len, import_module("rjieba").cut(encodable(text))))


def _cut_at_blanks(text: str) -> list[int]:
    return list(map(len, _SPACED_WORDS.findall(text)))
