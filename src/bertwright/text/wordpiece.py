"""A WordPiece vocabulary, and how text becomes its ids and back.

Text is cut into words by `text.rules`; a word becomes the longest pieces that the vocabulary knows, from the left
(google-research/bert `WordpieceTokenizer`). Caches from chunks of text to their ids stand in front of it all.

    wordpiece = WordPiece.load("model/")
    wordpiece.ids("unaffable")                    # [14477, 20961, 3468]
    wordpiece.encode("Paris is a [MASK].")        # [CLS] ... [SEP], with offsets
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bertwright.errors import BertwrightError, nearest
from bertwright.text.encoding import Encoding, Segment, Truncation, assemble, truncated_lengths, window_starts
from bertwright.text.lookup import CHINESE, Cache, CharacterLookup
from bertwright.text.rules import TextRules

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""What every vocabulary holds, in Google's order."""

_CACHED_CHUNKS = 1 << 19
_CACHED_WORDS = 1 << 18
_BATCH_CHARACTERS = 1 << 20
_BREAK, _BREAK_ID = "\0", 2**32 - 1
"""What is put between texts that are looked up together, and its id; no vocabulary is so large."""
_HAS_CHINESE = re.compile(f"[{CHINESE}]")
_Pieces = tuple[dict[str, int], dict[str, int]]
"""The ids of pieces, and by first two characters the longest piece (in characters)."""
_BLANKS = str.maketrans("\t\n\r", "   ")
_SPACED_CHUNKS = re.compile("[^ ]+")
_CHINESE_CHUNKS = re.compile(rf"[{CHINESE}](?=[{CHINESE} -~，。、]|$)|[{CHINESE}]?[^ {CHINESE}]+")


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in the text as it is written, before the text is cut into words."""

    content: str
    any_case: bool = False
    """Whether it is found in whatever case it is written, where the rules lower the case."""
    lstrip: bool = False
    """Whether it takes the white space before it."""
    rstrip: bool = False
    """Whether it takes the white space after it."""
    single_word: bool = False
    """Whether it must not touch a letter or a digit."""
    special: bool = False
    """Whether it is no part of a text, as [SEP] is not; kept for Hugging Face's library."""


class WordPiece:
    """A vocabulary and how text becomes its ids.

    Args:
        tokens: the entries in order of their ids; must hold `SPECIAL_TOKENS`, and nothing twice.
        rules: how text becomes words.
        added: entries that `encode` finds in the text as they are written, beside the special tokens.
        num_pieces: entries that words are cut into; those behind them are found as they are written, or not at all.
            All of them unless given.

    Raises:
        BertwrightError: a special or an added token is missing, or an entry is empty or there twice.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        rules: TextRules,
        *,
        added: Sequence[AddedToken] = (),
        num_pieces: int | None = None,
    ) -> None:
        self.tokens = list(tokens)
        self.rules = rules
        self.added = tuple(added)
        self.num_pieces = len(self.tokens) if num_pieces is None else num_pieces
        self._id_of = {token: number for number, token in enumerate(self.tokens)}
        if len(self._id_of) < len(self.tokens) or "" in self._id_of:
            token, count = Counter(self.tokens).most_common(1)[0]
            what = f"the entry {token!r} is there {count} times" if count > 1 else "an entry is empty"
            raise BertwrightError(what, where=f"vocabulary, row {self.tokens.index(token if count > 1 else '') + 1:,}")
        for kind, names in (("special", SPECIAL_TOKENS), ("added", [token.content for token in self.added])):
            if missing := [name for name in names if name not in self._id_of]:
                raise BertwrightError(f"{kind} tokens are missing: {', '.join(missing)}", where="vocabulary")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = map(self._id_of.__getitem__, SPECIAL_TOKENS)
        self._words = Cache(self._ids_of_word, _CACHED_WORDS)
        self._chunks = Cache(self._ids_of_chunk, _CACHED_CHUNKS)
        self._chunks[_BREAK] = array("I", [_BREAK_ID]).tobytes()
        self.chunk_offsets = Cache(self._offsets_in_chunk, _CACHED_WORDS)
        self._piece_sizes = Cache(self._sizes_of_pieces, _CACHED_WORDS)

    def __reduce__(self) -> Any:
        return _rebuild, (self.tokens, self.rules, self.added, self.num_pieces)

    @classmethod
    def load(cls, path: str | Path, *, lowercase: bool | None = None) -> WordPiece:
        """Read a vocabulary from a model folder, a `vocab.txt` or a `tokenizer.json`; see `vocabulary_files`."""
        from bertwright.text.vocabulary_files import load_wordpiece

        return load_wordpiece(Path(path), lowercase=lowercase)

    def save(self, folder: Path, *, max_length: int = 512) -> None:
        """Write `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`; see `vocabulary_files`."""
        from bertwright.text.vocabulary_files import save_wordpiece

        save_wordpiece(self, folder, max_length=max_length)

    @property
    def vocab_size(self) -> int:
        """Entries."""
        return len(self.tokens)

    @cached_property
    def sha256(self) -> str:
        """Of the entries and the rules: what shards and checkpoints know their vocabulary by."""
        rules = dataclasses.asdict(self.rules.canonical)
        added = [self.num_pieces, *(dataclasses.asdict(token) for token in self.added)]
        text = json.dumps([self.tokens, rules, added], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def convert(self, token: str) -> int:
        """Return the id of a token.

        Raises:
            BertwrightError: the token is not in the vocabulary.
        """
        if (number := self._id_of.get(token)) is None:
            raise BertwrightError(f"no such token in the vocabulary: {token!r}{nearest(token, self.tokens)}")
        return number

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, without [CLS] and [SEP]; `[MASK]` or an added token in it is ordinary text."""
        return self.ids_of_many([text])[0]

    def ids_of_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, as `ids` does."""
        flat, lengths = self.flat_ids_of_many(texts)
        ids, ends = flat.tolist(), np.cumsum(lengths).tolist()
        return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def flat_ids_of_many(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return all ids end to end (uint32, not to be written to) and how many belong to each text (int64)."""
        if not texts or any(_BREAK in text for text in texts):
            return self.plain_ids_of_many(texts)
        if len(texts) == 1:
            ids = np.frombuffer(self._ids_of_text(texts[0]), np.uint32)
            return ids, np.array([len(ids)], np.int64)
        chinese = _HAS_CHINESE.search("".join(texts[:64]))
        many = self._characters_of if chinese else self._by_chunk
        parts = [many(batch) for batch in batches(texts)]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([lengths for _, lengths in parts])

    def plain_ids_of_many(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The plain twin of `flat_ids_of_many`: text by text, and no chunk is remembered."""
        packed = [b"".join(map(self._ids_of_chunk, text.split(" "))) for text in texts]
        lengths = np.fromiter(map(len, packed), np.int64, len(packed)) // np.dtype(np.uint32).itemsize
        return np.frombuffer(b"".join(packed), np.uint32), lengths

    def encode(
        self, text: str, pair: str | None = None, *, max_length: int | None = None, truncation: Truncation | None = None
    ) -> Encoding:
        """Turn what a user wrote into one model input.

        Args:
            text: segment A; a special token written in it, such as `[MASK]`, is that token.
                Differs: in google-research/bert it is three ordinary tokens, as in `ids`.
            pair: segment B.
            max_length: tokens at most, specials included.
            truncation: which segment loses tokens; as the library does whose rules these are, unless given.

        Raises:
            BertwrightError: `max_length` has no room for a token of each segment.
        """
        segments = [self._segment(each) for each in ([text] if pair is None else [text, pair])]
        lengths = [len(segment.ids) for segment in segments]
        room = sum(lengths) if max_length is None else max_length - 1 - len(segments)
        if room < len(segments) and sum(lengths) > room:
            raise BertwrightError(f"max_length {max_length} is too short", fix=f"give at least {1 + 2 * len(segments)}")
        kept = truncated_lengths(lengths, room, truncation or self._truncation)
        parts = tuple((segment, 0, length) for segment, length in zip(segments, kept, strict=True))
        return assemble(parts, self.cls_id, self.sep_id, truncated=kept != lengths)

    def windows(self, text: str, pair: str | None = None, *, max_length: int, stride: int = 0) -> list[Encoding]:
        """Turn a long text into as many model inputs as it takes to show every token.

        Args:
            text: segment A: what windows slide over, unless there is a pair; then every input holds all of it.
            pair: segment B, what windows slide over.
            max_length: tokens of an input at most, specials included.
            stride: tokens that two neighbouring windows share.

        Raises:
            BertwrightError: no token of the sliding text fits beside the other, or `stride` is too large.
        """
        fixed = () if pair is None else ((whole := self._segment(text), 0, len(whole.ids)),)
        sliding = self._segment(text if pair is None else pair)
        length = len(sliding.ids)
        room = max_length - 2 - sum(end + 1 for _, _, end in fixed)
        starts = window_starts(length, room, stride)
        return [
            assemble(
                (*fixed, (sliding, start, min(start + room, length))),
                self.cls_id,
                self.sep_id,
                truncated=len(starts) > 1,
            )
            for start in starts
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids: pieces joined, spaces where English wants them, none between Chinese characters."""
        tokens = [self.tokens[number] for number in ids]
        joined = (token[2:] if token.startswith("##") and len(token) > 2 else f" {token}" for token in tokens[1:])
        return _tidy("".join([*tokens[:1], *joined]))

    def pieces(self, word: str) -> list[int]:
        """Return the ids of one word: its longest known pieces from the left, or [UNK]."""
        if len(word) > self.rules.max_word_characters:
            return [self.unk_id]
        (ids, longest), inside = self._piece_tables
        found, start = [], 0
        while start < len(word):
            for end in range(min(len(word), start + longest.get(word[start : start + 2], 1)), start, -1):
                if (number := ids.get(word[start:end])) is not None:
                    break
            else:
                return [self.unk_id]
            found.append(number)
            start = end
            ids, longest = inside
        return found

    @cached_property
    def goes_on(self) -> np.ndarray:
        """Of every entry, whether it goes on with a word that another has begun, as `##ing` does (bool)."""
        return np.array([token.startswith("##") and len(token) > 2 for token in self.tokens])

    @property
    def _truncation(self) -> Truncation:
        return "longer_side" if self.rules.style == "google" else "longest_first"

    @cached_property
    def _piece_tables(self) -> tuple[_Pieces, _Pieces]:
        """Of pieces that begin a word, and of those inside one (without their `##`)."""
        first: _Pieces = {}, {}
        inside: _Pieces = {}, {}
        for number, token in enumerate(self.tokens[: self.num_pieces]):
            for (ids, longest), piece in ((first, token), (inside, token[2:] if token.startswith("##") else "")):
                ids[piece] = number
                longest[piece[:2]] = max(longest.get(piece[:2], 1), len(piece))
        return first, inside

    @cached_property
    def by_character(self) -> CharacterLookup:
        """Looks up text in which most characters are words by themselves."""
        return CharacterLookup(self.rules, self._words.__getitem__, self._chunk_ids)

    @cached_property
    def _marked(self) -> tuple[re.Pattern[str], list[tuple[AddedToken, int]]]:
        """Finds the special and the added tokens, exact and longer ones first; and each group's token and its id."""
        found = {token.content: token for token in (*map(AddedToken, SPECIAL_TOKENS), *self.added)}
        tokens = sorted(found.values(), key=lambda token: (token.any_case, -len(token.content)))
        pattern = "|".join(f"({_pattern(token, self.rules.lowercase)})" for token in tokens)
        return re.compile(pattern), [(token, self.convert(token.content)) for token in tokens]

    def _segment(self, text: str) -> Segment:
        ids: list[int] = []
        for part, _, number in self._parts(text):
            ids += self.ids(part) if number is None else [number]
        return Segment(text, ids, self._offsets)

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Return start and end of each token in a text; an accent belongs to the letter that it stands on."""
        offsets: list[tuple[int, int]] = []
        chunks = _CHINESE_CHUNKS if self.rules.split_chinese else _SPACED_CHUNKS
        for part, origin, number in self._parts(text):
            if number is not None:
                offsets.append((origin, origin + len(part)))
                continue
            for match in chunks.finditer(part.translate(_BLANKS)):
                start = origin + match.start()
                offsets += [(start + first, start + end) for first, end in self.chunk_offsets[match.group()]]
        return offsets

    def _offsets_in_chunk(self, chunk: str) -> list[tuple[int, int]]:
        offsets = []
        may_have_marks = not chunk.isascii()
        for word, sources in self.rules.spans(chunk):
            first = 0
            for size in self._piece_sizes[word] if len(word) > 1 else (1,):
                end = sources[first + size - 1] + 1
                while may_have_marks and end < len(chunk) and self.rules.is_mark(chunk[end]):
                    end += 1
                offsets.append((sources[first], end))
                first += size
        return offsets

    def _sizes_of_pieces(self, word: str) -> list[int]:
        """Return how many characters of a word each of its pieces stands for."""
        ids = self.pieces(word)
        if ids == [self.unk_id]:
            return [len(word)]
        return [len(self.tokens[number]) - 2 * (place > 0) for place, number in enumerate(ids)]

    def _parts(self, text: str) -> Iterator[tuple[str, int, int | None]]:
        """Yield the plain parts of a text and the tokens marked in it: what, where it begins, and the token's id."""
        pattern, tokens = self._marked
        start = 0
        for match in pattern.finditer(text):
            assert match.lastindex is not None
            token, number = tokens[match.lastindex - 1]
            begin = match.start()
            if token.lstrip:  # no part of the pattern: it would be tried from every blank
                begin = start + len(text[start:begin].rstrip())
            if begin > start:
                yield text[start:begin], start, None
            yield text[begin : match.end()], begin, number
            start = match.end()
        if start < len(text):
            yield text[start:], start, None

    def _chunk_ids(self, chunk: str) -> bytes:
        return self._ids_of_chunk(chunk) if _BREAK in chunk else self._chunks[chunk]

    def _characters_of(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        found = self.by_character.find(texts)
        return found.ids, found.lengths

    def _by_chunk(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Look up what lies between blanks, of all texts at once; they must not hold `_BREAK`."""
        ids = np.frombuffer(self._ids_of_text(f" {_BREAK} ".join(texts)), np.uint32)
        ends = np.flatnonzero(ids == _BREAK_ID)
        lengths = np.diff(ends, prepend=-1, append=len(ids)) - 1
        return ids[ids != _BREAK_ID], lengths

    def _ids_of_text(self, text: str) -> bytes:
        return b"".join(map(self._chunks.__getitem__, text.split(" ")))

    def _ids_of_word(self, word: str) -> bytes:
        return array("I", self.pieces(word) if word else ()).tobytes()

    def _ids_of_chunk(self, chunk: str) -> bytes:
        return b"".join(map(self._words.__getitem__, self.rules.words(chunk)))


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut texts into runs of a size that the processor's caches like."""
    start = size = 0
    for place, text in enumerate(texts):
        if size > _BATCH_CHARACTERS:
            yield texts[start:place]
            start, size = place, 0
        size += len(text)
    yield texts[start:]


def _rebuild(tokens: list[str], rules: TextRules, added: tuple[AddedToken, ...], num_pieces: int) -> WordPiece:
    return WordPiece(tokens, rules, added=added, num_pieces=num_pieces)


def _pattern(token: AddedToken, lowercase: bool) -> str:
    body = re.escape(token.content)
    body = f"(?i:{body})" if token.any_case and lowercase else body
    body = rf"(?<!\w){body}(?!\w)" if token.single_word else body
    return body + (r"\s*" if token.rstrip else "")


_CLOSE = r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
_TIDY = (
    (re.compile(rf"(?<={_CLOSE}) | (?={_CLOSE})"), ""),
    (re.compile(r" (?=[.,!?;:%)\]}’”])|(?<=[(\[{$#‘“]) "), ""),
    (re.compile(r"(?<=\w) ?(['’\-–/@_&.]) ?(?=\w)"), r"\1"),
)


def _tidy(text: str) -> str:
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    return text
