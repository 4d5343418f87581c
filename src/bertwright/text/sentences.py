"""One raw text to its sentences: English and Chinese rules together, a few regular expressions and no model.

    split_sentences("Dr. Smith paid $3.50. “真的吗？”他问。")    # ['Dr. Smith paid $3.50.', '“真的吗？”', '他问。']

How lines are read is settled for each document:

- *One sentence a line*: hardly any line holds several sentences, so every line is a sentence, whatever it looks like.
- *Wrapped*: lines break in mid-sentence, as in e-mail or a README; they are joined, and the whole is split.
- *Running text*: a line is a paragraph or a heading; each is split by itself.
"""

from __future__ import annotations

import re
from itertools import pairwise

_SPLIT_SHARE = 0.2
"""A document in which lines of several sentences hold less than this share of the characters is one sentence a line."""
_WRAPPED_SHARE = 0.3
"""A document in which more than this share of the line ends break a sentence is wrapped."""

# A western mark needs a space or a Chinese character after it, so that 3.5, example.com and U.S.A. stay whole.
# A run of marks is tried from its first mark alone, or a long one would take quadratic time.
# Where white space stands between Chinese words, it also stands before marks and closing quotes.
# Both patterns begin with one set of characters: the engine searches for that several times faster than for a branch.
_ASCII_BOUNDARY = re.compile(r"[.!?](?<![.!?]{2})[.!?]*(?:\[\d+\])*[\"')\]]*\s+")
_BOUNDARY = re.compile(
    r"[.!?。！？；｡…](?:(?<=[.!?])(?<![.!?]{2})[.!?]*(?:\[\d+\])*[\"'”’)\]]*(?:\s+|(?=[\u3040-\u30ff\u3400-\u9fff]))"
    r"|(?<=[。！？；｡…])(?:[.!?]|\s*[。！？；｡…])*[”’」』）\"')]*(?:\s+[”’」』）](?=\s|$))*\s*)"
)
_WORD = 64
"""Characters that are looked at to learn what word comes next."""
_FINAL = ".!?:;。！？：；…"
_OPENING = "\"'“‘([«「『（"
_NOT_AFTER_CHINESE_MARK = frozenset("，、,：:)）》〉】]")

# Never the end of a sentence: something must follow them.
_BOUND = frozenset(
    "mr mrs ms dr prof st mt ft gen col lt maj capt cmdr sgt adm rev hon gov sen rep pres fr messrs mme mlle vs v viz "  # noqa: SIM905
    "cf e.g i.e ed eds op cit dept univ".split()
)
# Not the end of a sentence if a number follows.
_BEFORE_NUMBER = frozenset(
    "no nos vol vols p pp fig figs eq eqs sec ch chap art approx ca c b d r est jan feb mar apr jun jul aug sep sept "  # noqa: SIM905
    "oct nov dec mon tue wed thu fri sat sun".split()
)
# The end of a sentence only if the next word likes to begin one; so are initials (J. Smith, the U.S. Army).
_DOUBTFUL = frozenset("jr sr co corp inc ltd bros etc al a.m p.m ph.d b.a m.a b.c a.d u.s u.k u.n d.c".split())  # noqa: SIM905
_STARTERS = frozenset(
    "The A An In On At By For From With To Of As After Before During Since Until When While Where If Although Though "  # noqa: SIM905
    "Because But And Or So Yet However Moreover Thus He She It They We You I His Her Its Their Our This That These "
    "Those There Here One Two Some Many Most Several Both Each Another Such What Who Why How According Despite Under "
    "Over Then Later Also Not".split()
)


def split_sentences(text: str) -> list[str]:
    """Return the sentences of one document, stripped, none empty; the module's text tells how lines are read."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if len(lines) > 1 and _is_wrapped(lines):
        return _split(" ".join(lines))
    sentences: list[str] = []
    split_characters = 0
    for line in lines:
        before = len(sentences)
        sentences += _split(line)
        if len(sentences) > before + 1:
            split_characters += len(line)
    if len(lines) > 1 and split_characters < _SPLIT_SHARE * len(text):
        return lines
    return sentences


def _is_wrapped(lines: list[str]) -> bool:
    broken = sum(line[0].islower() and before[-1] not in _FINAL for before, line in pairwise(lines))
    # Where nothing is in upper case, a line that begins in lower case says nothing.
    return broken > _WRAPPED_SHARE * (len(lines) - 1) and not all(map(str.islower, lines))


def _split(line: str) -> list[str]:
    sentences = []
    start = 0
    boundary = _ASCII_BOUNDARY if line.isascii() else _BOUNDARY
    for match in boundary.finditer(line):
        end = match.end()
        if end < len(line) and _ends_sentence(line, start, match.start(), end):
            sentences.append(line[start:end].rstrip())
            start = end
    sentences.append(line[start:])
    return sentences


def _ends_sentence(line: str, start: int, mark: int, end: int) -> bool:
    following = line[end]
    if line[mark] not in ".!?":
        if following in _NOT_AFTER_CHINESE_MARK:
            return False
        return line[mark] != "…" or not following.islower()
    first = line[end + 1] if following in _OPENING and end + 1 < len(line) else following
    if first.islower() or first in ",;:-–—":
        return False
    if line[mark] != "." or line[mark + 1] == ".":
        return True
    if not line[end - 1].isspace() and line[mark - 1].isascii():
        return False  # a Chinese word after a Western abbreviation
    word = line[max(start, line.rfind(" ", start, mark) + 1) : mark].lstrip(_OPENING)
    if not word and "\u3040" <= line[max(start, mark - 2)] <= "\u9fff":
        return True  # Chinese words with white space between them
    if not word or (word.isdigit() and not line[start:mark].strip(word)):
        return False  # a bare mark, or the number of a list item
    lowered = word.lower()
    if lowered in _BOUND or (following.isdigit() and lowered in _BEFORE_NUMBER):
        return False
    if lowered in _DOUBTFUL or (len(word) == 1 and word.isupper()) or _is_initials(word):
        return line[end : end + _WORD].split(None, 1)[0].strip(_OPENING) in _STARTERS
    return True


def _is_initials(word: str) -> bool:
    return len(word) > 1 and word[1] == "." and word.replace(".", "").isupper()
