"""New words for an old vocabulary: those of a domain's text that it cuts into pieces, the costliest first.

    counts = count_corpus(find_files(["papers/"]), wordpiece.rules)
    extension = extend(wordpiece, counts.words, size=1_000, min_count=5)
    extension.words[0]               # NewWord(word='angioplasty', count=812, pieces=(17076, 3695, ...), ...)
    extension.wordpiece.vocab_size   # as before, where [unusedN] slots sufficed

Words are taken whole, as the model's own rules make them; a Chinese character is a word. Nothing depends on the order
of files or on how many processes counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertwright.errors import BertwrightError
from bertwright.text.wordpiece import WordPiece

_UNUSED = re.compile(r"\[unused\d+\]")


@dataclass(frozen=True)
class NewWord:
    """A word that gets an entry of its own."""

    word: str
    """As the rules make it: lowered where they lower the case."""
    count: int
    """How often the corpus has it."""
    pieces: tuple[int, ...]
    """Ids of what it was cut into until now: two at least, or [UNK]."""

    @property
    def tokens_saved(self) -> int:
        """By how many tokens the corpus gets shorter: nought for what was [UNK], which is one token too."""
        return self.count * (len(self.pieces) - 1)


@dataclass(frozen=True)
class Extension:
    """A vocabulary with new words, and what there is to say about it."""

    old: WordPiece
    """The vocabulary as it was."""
    wordpiece: WordPiece
    """The new one; whatever was in the old one, but for filled slots, has its old id."""
    words: tuple[NewWord, ...]
    """What was [UNK] first, then what saves most tokens."""
    ids: tuple[int, ...]
    """The new words' ids."""
    shares: tuple[tuple[float, ...], ...]
    """For each new word and each of its pieces: the share of the piece's occurrences that are in this word."""
    report: dict[str, Any]
    """Plain JSON values by name: what was read, and tokens and [UNK] before and after, counted on the corpus itself."""

    def to_json(self) -> dict[str, Any]:
        """Return the report and every new word as JSON values."""
        words = [
            {
                "word": each.word,
                "id": number,
                "count": each.count,
                "pieces": [self.old.tokens[piece] for piece in each.pieces],
                "tokens_saved": each.tokens_saved,
            }
            for number, each in zip(self.ids, self.words, strict=True)
        ]
        return {**self.report, "new_words": words}


Pieces = Mapping[str, list[int]]
"""The ids that each word is cut into."""


def extend(wordpiece: WordPiece, counts: Mapping[str, int], *, size: int, min_count: int) -> Extension:
    """Choose new words and give them ids: those of `[unusedN]` slots first, then further ones.

    A word that was [UNK] goes before one that was cut; then what was more often [UNK], or saves more tokens; then what
    sorts first. WordPiece takes the longest piece from the left, so a new word is also found at the start of longer
    words: it is left out if it makes one of these [UNK], or costs more tokens there than it saves.

    Args:
        wordpiece: the model's vocabulary.
        counts: how often the corpus has each word.
        size: new words at most.
        min_count: a word that occurs less often is not taken.

    Raises:
        BertwrightError: there is nothing to add, or no room for it.
    """
    for name, value in (("size", size), ("min_count", min_count)):
        if value < 1:
            raise BertwrightError(f"{name} must be at least 1, not {value}")
    room = _room(wordpiece)
    before = {word: wordpiece.pieces(word) for word in counts}
    cut = {word: ids for word, ids in before.items() if len(ids) > 1 or ids[0] == wordpiece.unk_id}
    candidates = _candidates(wordpiece, counts, cut, min_count)
    while True:
        words = candidates[: size if room is None else min(size, room)]
        if not words:
            raise _nothing(wordpiece, counts, cut, min_count)
        extended, ids = _with_words(wordpiece, words)
        after = {word: extended.pieces(word) for word in cut}
        harmful = _harmful(words, counts, cut, after, wordpiece.unk_id)
        if not harmful:
            break
        candidates = [each for each in candidates if each.word not in harmful]
    occurrences = Counter[int]()
    for word, pieces in before.items():
        for piece in pieces:
            occurrences[piece] += counts[word]
    shares = tuple(tuple(each.count / occurrences[piece] for piece in each.pieces) for each in words)
    num_slots = sum(number < wordpiece.vocab_size for number in ids)
    report = {
        "size": extended.vocab_size,
        "added": len(words),
        "requested": size,
        "why_fewer": _why_fewer(len(words), size, room, min_count),
        "slots_filled": num_slots,
        "appended": len(words) - num_slots,
        "words": sum(counts.values()),
        "different_words": len(counts),
        "before": _measured(counts, before, wordpiece.unk_id),
        "after": _measured(counts, {**before, **after}, wordpiece.unk_id),
    }
    return Extension(wordpiece, extended, tuple(words), tuple(ids), shares, report)


def _slots(wordpiece: WordPiece) -> list[int]:
    taken = {token.content for token in wordpiece.added}
    pieces = enumerate(wordpiece.tokens[: wordpiece.num_pieces])
    return [number for number, token in pieces if _UNUSED.fullmatch(token) and token not in taken]


def _room(wordpiece: WordPiece) -> int | None:
    """Return how many words there is room for; None: for any number."""
    if wordpiece.num_pieces == wordpiece.vocab_size:
        return None
    if slots := len(_slots(wordpiece)):
        return slots
    behind = wordpiece.vocab_size - wordpiece.num_pieces
    raise BertwrightError(
        f"no room for new words: there is no [unused] slot, and {behind:,} added tokens stand behind the vocabulary, "
        "whose ids must not change",
        fix="extend the model as it was before tokens were added",
    )


def _candidates(wordpiece: WordPiece, counts: Mapping[str, int], cut: Pieces, min_count: int) -> list[NewWord]:
    """Return the words that may be taken, best first."""
    longest = wordpiece.rules.max_word_characters
    known = {*wordpiece.tokens}  # tokens that were added are known, though words are not cut into them
    words = [
        NewWord(word, counts[word], tuple(ids))
        for word, ids in cut.items()
        if counts[word] >= min_count and len(word) <= longest and word not in known
    ]
    return sorted(words, key=lambda each: (len(each.pieces) > 1, -each.count * max(1, len(each.pieces) - 1), each.word))


def _with_words(wordpiece: WordPiece, words: Sequence[NewWord]) -> tuple[WordPiece, list[int]]:
    """Return the vocabulary with these words in it, and their ids."""
    tokens = list(wordpiece.tokens)
    slots = _slots(wordpiece)[: len(words)]
    ids = slots + list(range(len(tokens), len(tokens) + len(words) - len(slots)))
    tokens += [""] * (len(words) - len(slots))
    for number, each in zip(ids, words, strict=True):
        tokens[number] = each.word
    num_pieces = wordpiece.num_pieces + len(words) - len(slots)
    return WordPiece(tokens, wordpiece.rules, added=wordpiece.added, num_pieces=num_pieces), ids


def _harmful(words: Sequence[NewWord], counts: Mapping[str, int], cut: Pieces, after: Pieces, unk_id: int) -> set[str]:
    """Return the new words that make a longer one [UNK], or cost more tokens in longer ones than they save."""
    saved = {each.word: each.count * max(1, len(each.pieces) - 1) for each in words}
    harmful = set()
    for word, pieces in cut.items():
        if word in saved or after[word] == pieces:
            continue
        start = next(word[:end] for end in range(len(word), 0, -1) if word[:end] in saved)
        if after[word] == [unk_id]:
            harmful.add(start)
        saved[start] += counts[word] * (len(pieces) - len(after[word])) if pieces != [unk_id] else 0
    return harmful | {word for word, tokens in saved.items() if tokens < 0}


def _measured(counts: Mapping[str, int], pieces: Pieces, unk_id: int) -> dict[str, Any]:
    tokens = sum(count * len(pieces[word]) for word, count in counts.items())
    unknown = sum(count for word, count in counts.items() if pieces[word] == [unk_id])
    return {
        "tokens": tokens,
        "tokens_per_word": round(tokens / sum(counts.values()), 4),
        "unknown_words": unknown,
    }


def _nothing(wordpiece: WordPiece, counts: Mapping[str, int], cut: Pieces, min_count: int) -> BertwrightError:
    """Say why there is no word to add."""
    if not cut:
        what = f"nothing to add: each of the {len(counts):,} different words of the corpus is one token already"
        return BertwrightError(what, fix="use the model as it is")
    if possible := _candidates(wordpiece, counts, cut, 1):
        best = max(possible, key=lambda each: each.count)
        if best.count < min_count:
            return BertwrightError(
                f"nothing to add: of {len(possible):,} words in pieces, the commonest ({best.word!r}) occurs "
                f"{best.count:,} times, fewer than {min_count:,}", fix=f"give more text, or --min-count {best.count}",
            )  # fmt: skip
        return BertwrightError("nothing to add: every new word would break longer ones that begin with it",
                               fix="give more text")  # fmt: skip
    return BertwrightError(
        f"nothing to add: the {len(cut):,} words that are no token are longer than "
        f"{wordpiece.rules.max_word_characters} characters, or tokens that were added to this vocabulary",
        fix="use the model as it is",
    )


def _why_fewer(added: int, size: int, room: int | None, min_count: int) -> str | None:
    if added == size:
        return None
    if added == room:
        return f"{added:,} words instead of {size:,}: tokens added behind the vocabulary leave no room but in its slots"
    return f"{added:,} words instead of {size:,}: no further word in pieces occurs {min_count:,} times"
