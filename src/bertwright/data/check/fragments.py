"""What a vocabulary makes of a text's words: how many pieces, by script, and which characters it does not know.

counts = PieceCounter(WordPiece.load("vocab")).count(["unaffable 龘"])
counts.unknown_characters            # {"龘": 1}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bertwright.text.characters import kind_of
from bertwright.text.lookup import Cache
from bertwright.text.vocabulary import add_chunks, chunks_of
from bertwright.text.wordpiece import WordPiece

_CACHED_WORDS = 1 << 18


@dataclass
class PieceCounts:
    """Words and their pieces."""

    words: Counter[str] = field(default_factory=Counter)
    """By script of the first character."""
    pieces: Counter[str] = field(default_factory=Counter)
    """Likewise; an unknown word is one piece, [UNK]."""
    unknown_words: Counter[str] = field(default_factory=Counter)
    """Likewise."""
    unknown_characters: Counter[str] = field(default_factory=Counter)
    """In unknown words, those the vocabulary has neither at the beginning of words nor inside."""

    def add(self, other: PieceCounts) -> None:
        """Add the counts of another text."""
        self.words.update(other.words)
        self.pieces.update(other.pieces)
        self.unknown_words.update(other.unknown_words)
        self.unknown_characters.update(other.unknown_characters)

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return words, pieces and unknown words of each script, the most frequent script first."""
        return {
            script: {"words": count, "pieces": self.pieces[script], "unknown": self.unknown_words[script]}
            for script, count in self.words.most_common()
        }


class PieceCounter:
    """Counts pieces; words that were met before cost a look-up.

    Args:
        wordpiece: the vocabulary.
    """

    def __init__(self, wordpiece: WordPiece) -> None:
        self._wordpiece = wordpiece
        self._known = {*wordpiece.tokens}
        self._facts = Cache(self._facts_of, _CACHED_WORDS)

    def count(self, texts: Sequence[str]) -> tuple[PieceCounts, Counter[str]]:
        """Return the counts of texts, and how often each word of several pieces occurs, as `word → pie ##ces`."""
        chunks: Counter[str] = Counter()
        for text in texts:
            chunks.update(chunks_of(text.replace("\n", " "), self._wordpiece.rules))
        words: Counter[str] = Counter()
        add_chunks(chunks, words, self._wordpiece.rules)
        counts, split = PieceCounts(), Counter[str]()
        for word, count in words.items():
            script, pieces, shown = self._facts[word]
            counts.words[script] += count
            counts.pieces[script] += max(pieces, 1) * count
            if not pieces:
                counts.unknown_words[script] += count
                for char in word:
                    if char not in self._known and "##" + char not in self._known:
                        counts.unknown_characters[char] += count
            elif pieces > 1:
                split[shown] += count
        return counts, split

    def _facts_of(self, word: str) -> tuple[str, int, str]:
        """Return a word's script, its pieces (0: unknown), and how it is shown."""
        ids = self._wordpiece.pieces(word)
        unknown = ids == [self._wordpiece.unk_id]
        tokens = " ".join(self._wordpiece.tokens[number] for number in ids)
        return kind_of(word[0]), 0 if unknown else len(ids), f"{word} → {tokens}"
