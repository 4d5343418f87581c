"""The words of a text that get a tag each, and how named stretches of characters lie on them.

    split_words("Smith's dog (U.S.)")   # the places of: Smith 's dog ( U.S. )
    join_words(["EU", "rejects"])       # ('EU rejects', ((0, 2), (3, 10)))

Differs: google-research/bert has no code for the paper's 5.3; CoNLL's files come with their words.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from bertwright.errors import BertwrightError
from bertwright.tasks.base import Example
from bertwright.tasks.entities import Chunk
from bertwright.text.lookup import CHINESE

Place = tuple[int, int]
"""Start and end of a word in a text, characters."""

_CHINESE_SIGNS = r"\u3001-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
_ALONE = rf"{CHINESE}{_CHINESE_SIGNS}\uf900-\ufaff\U00020000-\U0003ffff"
_STRETCHES = re.compile(rf"[{_ALONE}]|[^\s{_ALONE}]+")
_CLOSE = re.compile(rf"[{_ALONE}\u3040-\u30ff\uff00-\uffef]")
_ABBREVIATION = re.compile(r"(?:[^\W\d_]{1,3}\.){2,}")
_RUN = re.compile(r"(.)\1*")


class Entity(NamedTuple):
    """A stretch of a text that has a name, or a word that has a tag."""

    start: int
    """Its first character, from 0."""
    end: int
    """The character after its last one."""
    label: str
    """What it is, such as PER."""


class Sentence(NamedTuple):
    """Words as a file gives them."""

    where: str
    """File and row, of the first word where each has one."""
    words: list[str]
    """At least one; none is empty or white space."""
    tags: list[str]
    """As many, or none where they are unknown."""
    rows: list[int]
    """Of a file of a word a line: the row of each."""


def split_words(text: str) -> tuple[Place, ...]:
    """Return the words of raw text.

    White space separates. Punctuation at either side of a stretch is taken off, a run of one sign being one word;
    inside it stays (AL-AIN, 3.5), and so does the dot at the end of U.S. or a.m.; a final 's is a word, as in CoNLL's
    files. Every Chinese character and sign is a word.
    """
    found: list[Place] = []
    for match in _STRETCHES.finditer(text):
        start, end = match.span()
        if match.group().isalnum():
            found.append((start, end))
        else:
            found += _peeled(text, start, end)
    return tuple(found)


def split_characters(text: str) -> tuple[Place, ...]:
    """Return every character of raw text that is no white space."""
    return tuple((place, place + 1) for place, character in enumerate(text) if not character.isspace())


def are_characters(examples: Sequence[Example]) -> bool:
    """Return whether all examples come with words, each of them a single character and some of them Chinese."""
    single = all(example.words and all(end - start == 1 for start, end in example.words) for example in examples)
    return single and any(_CLOSE.search(example.text) for example in examples)


def join_words(words: Sequence[str]) -> tuple[str, tuple[Place, ...]]:
    """Return the text that words make, and the place of each.

    A space stands between two words, but none between two Chinese characters or signs; nor between any two where all
    words are single characters and one of them is Chinese, as in Chinese files of one character a line.
    """
    chinese = all(len(word) == 1 for word in words) and any(_CLOSE.match(word) for word in words)
    parts: list[str] = []
    places: list[Place] = []
    size, before = 0, ""
    for word in words:
        if before and not chinese and not (_CLOSE.match(before) and _CLOSE.match(word)):
            parts.append(" ")
            size += 1
        parts.append(word)
        places.append((size, size + len(word)))
        size, before = size + len(word), word[-1]
    return "".join(parts), tuple(places)


def checked_words(words: object, where: str | None) -> list[str]:
    """Return what shall be a list of words.

    Raises:
        BertwrightError: it is none, or a word of it is empty, white space or no text.
    """
    if not isinstance(words, list | tuple) or not words:
        raise BertwrightError(f"expected a list of words, not {words!r:.50}", where=where)
    for place, word in enumerate(words, start=1):
        if not isinstance(word, str) or not word.strip():
            raise BertwrightError(f"word {place:,} is {word!r:.50}", where=where, fix="every word must be text")
    return list(words)


def words_of(example: Example) -> tuple[Place, ...]:
    """Return the places of an example's words; found in its text where it does not say."""
    return example.words or split_words(example.text)


def lines_of(example: Example) -> list[Place]:
    """Return the first word of each line of a text that has words, and the word after its last one."""
    words = words_of(example)
    breaks = [
        place for place, ((_, end), (start, _)) in enumerate(pairwise(words), 1) if "\n" in example.text[end:start]
    ]
    return list(pairwise([0, *breaks, len(words)]))


def chunks_of(example: Example) -> tuple[list[Chunk], int]:
    """Return the words that each entity of an example touches, and how many entities begin or end inside a word.

    A word that two entities touch is the first one's; an entity that has no word of its own is left out.
    """
    words = words_of(example)
    starts, ends = [start for start, _ in words], [end for _, end in words]
    found: list[Chunk] = []
    inside = after = 0
    for entity in example.label or ():
        first = max(bisect_right(ends, entity.start), after)
        after = max(bisect_left(starts, entity.end), after)
        if first < after:
            found.append((first, after, entity.label))
        inside += first >= after or (starts[first], ends[after - 1]) != entity[:2]
    return found, inside


def _peeled(text: str, start: int, end: int) -> list[Place]:
    """Take the punctuation at both sides of a stretch off."""
    first, last = start, end
    while first < end and _is_sign(text[first]):
        first += 1
    while last > first and _is_sign(text[last - 1]):
        last -= 1
    if first < last < end and _ABBREVIATION.fullmatch(text, first, last + 1):
        last += 1
    core = [first, last]
    if last - first > 2 and text[last - 2 : last].lower() in ("'s", "’s"):
        core.insert(1, last - 2)
    before, behind = ([match.span() for match in _RUN.finditer(text, *each)] for each in ((start, first), (last, end)))
    return [*before, *(place for place in pairwise(core) if place[0] < place[1]), *behind]


@cache
def _is_sign(char: str) -> bool:
    return unicodedata.category(char)[0] in "PS"
