"""One part of a corpus, about a million characters, to everything that is counted of it.

examine = Examiner(wordpiece=None, sought=None, max_length=128)
part = examine(Work(0, [Document(0, 1, 0, "One. Two.")]))
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from bertwright.config import DataConfig
from bertwright.data.check.duplicates import DTYPE, Rows, fingerprints
from bertwright.data.check.fragments import PieceCounter, PieceCounts
from bertwright.data.check.leaks import Sought
from bertwright.data.check.shingles import Units, joined, units_of
from bertwright.data.counter import generator
from bertwright.data.pairs import build_examples
from bertwright.text.characters import DOUBTFUL, KINDS, CharacterKinds, chinese_forms, code_points
from bertwright.text.sentences import split_sentences
from bertwright.text.wordpiece import WordPiece

NUM_BUCKETS = 40
"""Of a histogram: bucket b counts numbers from 2^b to 2^(b+1) - 1."""
LONGEST_LINE = 120
"""Characters of a line that are looked at to tell whether it is repeated."""
PIECES_PER_WORD, PIECES_PER_CHARACTER = 1.35, 1.15
"""Tokens, punctuation included, that a word or a Chinese character becomes; for lengths without a vocabulary."""

_AROUND = 16
_SEED = 0
# UTF-8 read as Latin-1, Windows-1252 or GBK, and what GBK shows of uninitialised memory and of U+FFFD.
_MOJIBAKE = re.compile(
    "[\u00c3\u00c2][\u0080-\u009f\u00a1-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152"
    "\u017d\u2018\u2019\u201c\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]"
    "|\u00e2\u20ac.|\u00ef\u00bb\u00bf|\u00ef\u00bc[\u0080-\u00bf\u0152]|\u951f\u65a4\u62f7|\u9225[\u6e85\u6a9a\u6a9b\u6e86\ufffd]"
    "|(?:\u70eb){4,}|(?:\u5c6f){4,}"
)
_kinds = CharacterKinds()
_FIRST_DOUBTFUL = KINDS.index(DOUBTFUL[0])
_HAN, _KANA = KINDS.index("han"), KINDS.index("kana")


class Document(NamedTuple):
    """A raw document and where it is."""

    file: int
    row: int
    """Where it begins."""
    rows_per_line: int
    """1: each of its lines is a row of the file; 0: all of it is one row."""
    text: str


class Work(NamedTuple):
    """Documents that are looked at together."""

    number: int
    documents: list[Document]


@dataclass
class Doubt:
    """Characters of one doubtful kind."""

    count: int = 0
    documents: int = 0
    file: int = 0
    row: int = 0
    """Of the first of them."""
    example: str = ""
    """The first of them and what is around it."""

    def add(self, other: Doubt) -> None:
        """Add those of a later part."""
        if not self.count:
            self.file, self.row, self.example = other.file, other.row, other.example
        self.count += other.count
        self.documents += other.documents


@dataclass
class Part:
    """What was counted."""

    documents: int = 0
    characters: int = 0
    sentences: int = 0
    units: int = 0
    """Words and Chinese characters."""
    single_characters: int = 0
    """Those units that are characters."""
    single_sentence_documents: int = 0
    simplified: int = 0
    """Documents in simplified Chinese."""
    traditional: int = 0
    kinds: Int64[np.ndarray, "K"] = field(default_factory=lambda: np.zeros(len(KINDS), np.int64))
    """Characters by kind, in the order of `KINDS`."""
    document_characters: Int64[np.ndarray, "B"] = field(default_factory=lambda: np.zeros(NUM_BUCKETS, np.int64))
    """Histogram of the documents by their characters; likewise those that follow."""
    document_sentences: Int64[np.ndarray, "B"] = field(default_factory=lambda: np.zeros(NUM_BUCKETS, np.int64))
    sentence_units: Int64[np.ndarray, "B"] = field(default_factory=lambda: np.zeros(NUM_BUCKETS, np.int64))
    longest: tuple[int, int, int] = (0, 0, 0)
    """Characters of the longest document, its file and row."""
    examples: int = 0
    """That `data build` would make, about, with next-sentence labels."""
    random_next: int = 0
    """Those of them whose second segment is random."""
    tokens: int = 0
    unknown_tokens: int = 0
    doubts: dict[str, Doubt] = field(default_factory=dict)
    pieces: PieceCounts = field(default_factory=PieceCounts)
    # What is not summed but collected elsewhere:
    lines: Counter[str] = field(default_factory=Counter)
    """In how many documents each line occurs."""
    split_words: Counter[str] = field(default_factory=Counter)
    """How often each word of several pieces occurs."""
    fingerprints: Rows = field(default_factory=lambda: np.zeros(0, DTYPE))
    leaks: list[tuple[int, int, int]] = field(default_factory=list)
    """Texts that were found: number, file and row of the document."""

    def add(self, other: Part) -> None:
        """Add the sums of a later part."""
        for name in ("documents", "characters", "sentences", "units", "single_characters", "single_sentence_documents",
                     "simplified", "traditional", "kinds", "document_characters", "document_sentences",
                     "sentence_units", "examples", "random_next", "tokens", "unknown_tokens"):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest = max(self.longest, other.longest, key=lambda found: found[0])
        for kind, doubt in other.doubts.items():
            self.doubts.setdefault(kind, Doubt()).add(doubt)
        self.pieces.add(other.pieces)


class Examiner:
    """Looks at parts of a corpus.

    Args:
        wordpiece: to tell what it makes of the text.
        sought: texts to look for.
        max_length: of the examples that are counted, tokens.
    """

    def __init__(self, wordpiece: WordPiece | None, sought: Sought | None, max_length: int) -> None:
        self._wordpiece = wordpiece
        self._sought = sought
        self._config = DataConfig(max_length=max_length)

    def __call__(self, work: Work) -> Part:
        """Return what is counted of a part, none of whose documents is blank."""
        texts = [document.text for document in work.documents]
        part = Part(documents=len(texts), characters=sum(map(len, texts)))
        _count_characters(part, work.documents)
        sentences = [split_sentences(text) for text in texts]
        flat = [sentence for document in sentences for sentence in document]
        counts = np.fromiter(map(len, sentences), np.int64, len(sentences))
        units = units_of(flat)
        self._count_sentences(part, flat, counts, units, work.number)
        by_document = joined(units, np.cumsum(counts))
        files, rows = (np.array([document[place] for document in work.documents]) for place in (0, 1))
        part.fingerprints = fingerprints(by_document, files, rows)
        if self._sought:
            part.leaks = [(text, int(files[at]), int(rows[at])) for text, at in self._sought.find(by_document)]
        for text in texts:
            lines = {line.strip()[:LONGEST_LINE] for line in text.split("\n")} - {""}
            if len(lines) > 1:
                part.lines.update(lines)
        if self._counter:
            part.pieces, part.split_words = self._counter.count(texts)
        return part

    @cached_property
    def _counter(self) -> PieceCounter | None:
        return PieceCounter(self._wordpiece) if self._wordpiece else None

    def _count_sentences(
        self, part: Part, sentences: list[str], counts: Int64[np.ndarray, "D"], units: Units, number: int
    ) -> None:
        lengths = units.lengths
        part.sentences, part.units = len(sentences), len(units.hashes)
        part.single_characters = int(units.is_character.sum())
        part.single_sentence_documents = int((counts == 1).sum())
        part.document_sentences = histogram(counts)
        part.sentence_units = histogram(lengths[lengths > 0])
        if self._wordpiece:
            ids, lengths = self._wordpiece.flat_ids_of_many(sentences)
            part.tokens, part.unknown_tokens = len(ids), int((ids == self._wordpiece.unk_id).sum())
        else:
            characters = np.diff(np.append(0, np.cumsum(units.is_character))[units.ends], prepend=0)
            words = lengths - characters
            lengths = np.ceil(PIECES_PER_WORD * words + PIECES_PER_CHARACTER * characters).astype(np.int64)
            part.tokens = int(lengths.sum())
        spelled = [[length for length in document.tolist() if length]
                   for document in np.split(lengths, np.cumsum(counts)[:-1])]  # fmt: skip
        examples = build_examples([each for each in spelled if each], self._config, generator(_SEED, number))
        part.examples = len(examples)
        part.random_next = int(np.count_nonzero(examples["next_sentence_label"]))


def histogram(numbers: Int64[np.ndarray, "N"]) -> Int64[np.ndarray, "B"]:
    """Return how many positive numbers have 1, 2, 3, ... binary digits."""
    return np.bincount(np.frexp(numbers.astype(np.float64))[1] - 1, minlength=NUM_BUCKETS).astype(np.int64)


def _count_characters(part: Part, documents: Sequence[Document]) -> None:
    text = "\n".join(document.text for document in documents) + "\n"
    sizes = np.array([len(document.text) for document in documents])
    starts = np.cumsum(sizes + 1) - sizes - 1
    points = code_points(text)
    kinds = _kinds.of(points)
    part.kinds = np.bincount(kinds, minlength=len(KINDS)).astype(np.int64)
    part.kinds[KINDS.index("space")] -= len(documents)  # the line ends that were put between them
    part.document_characters = histogram(sizes)
    longest = int(sizes.argmax())
    part.longest = int(sizes[longest]), documents[longest].file, documents[longest].row
    if part.kinds[_HAN]:
        forms = chinese_forms(points)
        han, kana, simplified, traditional = (
            np.add.reduceat(of.astype(np.int64), starts)
            for of in (kinds == _HAN, kinds == _KANA, forms == 1, forms == 2)
        )
        chinese = kana * 10 < han
        part.simplified = int((chinese & (simplified > traditional)).sum())
        part.traditional = int((chinese & (traditional > simplified)).sum())
    doubtful = np.flatnonzero(kinds >= _FIRST_DOUBTFUL)
    found = {KINDS[kind]: doubtful[kinds[doubtful] == kind] for kind in np.unique(kinds[doubtful])}
    if not text.isascii() and (garbled := [match.start() for match in _MOJIBAKE.finditer(text)]):
        found["mojibake"] = np.array(garbled)
    for kind, places in found.items():
        inside = np.unique(np.searchsorted(starts, places, "right"))
        first, document = int(places[0]), documents[int(inside[0]) - 1]
        start = int(starts[inside[0] - 1])
        row = document.row + document.rows_per_line * text.count("\n", start, first)
        example = text[max(start, first - _AROUND) : min(first + _AROUND, start + len(document.text))]
        part.doubts[kind] = Doubt(len(places), len(inside), document.file, row, example)
