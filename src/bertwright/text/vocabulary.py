"""Training a WordPiece vocabulary: count words, then merge the most frequent pair of pieces again and again.

The merges are byte-pair encoding's (Sennrich et al. 2016), with `##` before every piece inside a word; the paper's own
trainer was never released. The same text gives the same bytes, in whatever order its files are named and however many
processes count: counts are sums, and of two pairs equally frequent the one whose pieces are older is merged first.
Every character of the corpus is in the vocabulary, so no word of it becomes [UNK].

    trained = train_vocabulary(["corpus/"], VocabConfig(size=30_522))
    trained.wordpiece.save(Path("vocab"))
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import logging
import multiprocessing
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from bertwright.config import VocabConfig
from bertwright.errors import BertwrightError
from bertwright.processes import follow_parent
from bertwright.text.corpus import TEXT_COLUMN, find_files, read_texts
from bertwright.text.lookup import CHINESE
from bertwright.text.rules import TextRules
from bertwright.text.wordpiece import WordPiece

Progress = Callable[[str, float], None]
"""Called with the stage (`count` or `merge`) and the share of it that is done."""

_UNUSED_BEFORE_SPECIALS = 99
_MAX_MERGED_WORDS = 1 << 20
_MAX_COUNTED_CHUNKS = 1 << 20
_PARALLEL_FROM_BYTES = 16_000_000
_HAS_CHINESE = re.compile(f"[{CHINESE}]")
_CHUNKS = re.compile(f"[{CHINESE}]|[^ {CHINESE}]+")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedVocabulary:
    """A vocabulary and what there is to say about its training."""

    wordpiece: WordPiece
    report: dict[str, Any]
    """Plain JSON values by name; see `train_vocabulary`."""


@dataclass
class WordCounts:
    """How often each word, as the normalizer and the splitter make it, occurs in a corpus."""

    words: Counter[str] = field(default_factory=Counter)
    num_documents: int = 0
    num_bytes: int = 0

    def add(self, other: WordCounts) -> None:
        """Add the counts of another part of the corpus."""
        self.words.update(other.words)
        self.num_documents += other.num_documents
        self.num_bytes += other.num_bytes


def train_vocabulary(
    paths: Sequence[str | Path],
    config: VocabConfig,
    *,
    text_column: str = TEXT_COLUMN,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TrainedVocabulary:
    """Train a WordPiece vocabulary on a corpus.

    Args:
        paths: files, folders and globs, as `text.corpus` reads them.
        config: size, casing and frequencies.
        text_column: what the text is called in the rows of JSON and Parquet.
        threads: processes that count words, one file each at a time; None: one for each core. A small corpus and a
            single file are counted in this process. In a script, several need `if __name__ == "__main__":`.
        progress: told how far it is.

    Returns:
        The vocabulary, in Google's order: [PAD], [unused] slots, [UNK], [CLS], [SEP], [MASK], characters, characters
        inside a word, merged pieces from frequent to rare. The report counts what was read and what became of it;
        `unknown_rate` (share of words that are [UNK]) and `pieces_per_word` are those of the training text.

    Raises:
        BertwrightError: the corpus cannot be read or holds no word, or `config.size` has no room for its characters.
    """
    started = time.perf_counter()
    files = find_files(paths)
    rules = TextRules(lowercase=not config.cased)
    counts = count_corpus(files, rules, text_column=text_column, threads=threads, progress=progress)
    if not counts.words:
        raise BertwrightError("there is no word in this corpus", where=files[0], fix="give files with text in them")
    dropped = _rare_characters(counts.words, config.min_character_frequency)
    usable = _usable(counts.words, dropped, rules.max_word_characters)
    first, inside = _alphabet(usable)
    specials = _specials(config.unused_slots)
    if config.size < (smallest := len(specials) + len(first) + len(inside)):
        raise _too_small(config, smallest, len(specials), counts.words)
    pieces = merge_pairs(usable, first + inside, config.size - len(specials), config.min_frequency, progress)
    wordpiece = WordPiece(specials + pieces, rules)
    report = {
        "size": wordpiece.vocab_size,
        "requested_size": config.size,
        "why_fewer": _why_fewer(config, wordpiece.vocab_size),
        "special_tokens": len(specials) - config.unused_slots,
        "unused_slots": config.unused_slots,
        "characters": len(first),
        "characters_inside_words": len(inside),
        "merged_pieces": len(pieces) - len(first) - len(inside),
        "dropped_characters": len(dropped),
        "files": len(files),
        "documents": counts.num_documents,
        "bytes": counts.num_bytes,
        **_coverage(wordpiece, counts.words),
        "sha256": wordpiece.sha256,
        "seconds": round(time.perf_counter() - started, 2),
    }
    for message in _remarks(report, config, counts.words):
        _logger.warning(message)
    return TrainedVocabulary(wordpiece, report)


def count_corpus(
    files: list[Path], rules: TextRules, *, text_column: str, threads: int | None, progress: Progress | None
) -> WordCounts:
    """Count the words of corpus files; see `train_vocabulary` for the arguments."""
    tell = progress or (lambda stage, share: None)
    count = partial(count_words, rules=rules, text_column=text_column)
    if threads is not None and threads < 0:
        raise BertwrightError(f"threads must not be negative, not {threads}")
    sizes = [file.stat().st_size for file in files]
    workers = min(threads or os.cpu_count() or 1, len(files))
    total, done, counts = max(1, sum(sizes)), 0, WordCounts()
    if workers == 1 or total < _PARALLEL_FROM_BYTES:
        for file, size in zip(files, sizes, strict=True):
            tell("count", done / total)
            counts.add(count(file))
            done += size
        return counts
    # Fresh interpreters: a fork would copy the locks of whatever threads the caller runs.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=follow_parent) as executor:
        running = {executor.submit(count, f): s for f, s in zip(files, sizes, strict=True)}
        try:
            for future in as_completed(running):
                counts.add(future.result())
                tell("count", (done := done + running.pop(future)) / total)
        except BrokenProcessPool:
            raise BertwrightError(
                "a counting process died: it ran out of memory, or the calling script starts again in every process",
                fix="use threads=1; in a script, call this function under `if __name__ == '__main__':`",
            ) from None
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return counts


def count_words(file: Path, rules: TextRules, text_column: str = TEXT_COLUMN) -> WordCounts:
    """Count the words of one corpus file."""
    counts = WordCounts()
    chunks: Counter[str] = Counter()
    for text in read_texts(file, text_column=text_column):
        counts.num_documents += 1
        counts.num_bytes += len(text) if text.isascii() else len(text.encode())
        chunks.update(chunks_of(text.replace("\n", " "), rules))
        if len(chunks) > _MAX_COUNTED_CHUNKS:
            add_chunks(chunks, counts.words, rules)
            chunks.clear()
    add_chunks(chunks, counts.words, rules)
    return counts


def chunks_of(text: str, rules: TextRules) -> list[str]:
    """Return what lies between spaces, and each Chinese character: they repeat, and may be cut into words alone."""
    if rules.split_chinese and not text.isascii() and _HAS_CHINESE.search(text):
        return _CHUNKS.findall(text)
    return text.split(" ")


def add_chunks(chunks: Mapping[str, int], words: Counter[str], rules: TextRules) -> None:
    """Count the words of chunks that occur so often."""
    for chunk, count in chunks.items():
        for word in rules.words(chunk):
            words[word] += count


def _rare_characters(words: Mapping[str, int], min_frequency: int) -> frozenset[str]:
    if min_frequency == 1:
        return frozenset()
    return frozenset(character for character, count in _characters(words).items() if count < min_frequency)


def _usable(words: Mapping[str, int], dropped: frozenset[str], longest: int) -> dict[str, int]:
    return {
        word: count
        for word, count in words.items()
        if len(word) <= longest and not (dropped and dropped.intersection(word))
    }


def _characters(words: Mapping[str, int]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for word, count in words.items():
        for character in word:
            counts[character] += count
    return counts


def _alphabet(words: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Return every character, and every character seen inside a word with `##` before it, each sorted."""
    inside = set().union(*(word[1:] for word in words))
    return sorted(inside.union(word[0] for word in words)), ["##" + character for character in sorted(inside)]


def _specials(unused_slots: int) -> list[str]:
    # As in the released vocabularies, where [UNK] is 100 and [MASK] 103.
    slots = [f"[unused{slot}]" for slot in range(unused_slots)]
    before, after = slots[:_UNUSED_BEFORE_SPECIALS], slots[_UNUSED_BEFORE_SPECIALS:]
    return ["[PAD]", *before, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *after]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Merging makes sets by the hundred thousand and no cycles; looking for these takes a tenth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_garbage_collection()
def merge_pairs(
    words: Mapping[str, int], alphabet: list[str], size: int, min_frequency: int, tell: Progress | None = None
) -> list[str]:
    """Return the alphabet and the pieces that merging adds to it, `size` entries at most.

    Args:
        words: how often each word occurs; every character must be in the alphabet, with `##` where it is inside a word.
        alphabet: the pieces that merging starts from, in the order that breaks ties.
        size: entries wanted.
        min_frequency: a pair that occurs less often is not merged.
        tell: told how far it is.
    """
    # A piece is written as one character of Python text, its number; a word is then a string, and a merge str.replace.
    pieces = list(alphabet)
    symbol_of = {piece: _symbol(number) for number, piece in enumerate(pieces)}
    inside = str.maketrans({piece[2:]: symbol for piece, symbol in symbol_of.items() if len(piece) > 2})
    if len(words) > _MAX_MERGED_WORDS:
        _logger.warning("merging on the %d most frequent of %d different words", _MAX_MERGED_WORDS, len(words))
        words = dict(heapq.nsmallest(_MAX_MERGED_WORDS, words.items(), key=lambda item: (-item[1], item[0])))
    spelled = [symbol_of[word[0]] + word[1:].translate(inside) for word in words]
    counts = list(words.values())
    pair_counts: dict[str, int] = defaultdict(int)
    words_with: dict[str, set[int]] = defaultdict(set)
    for index, (word, count) in enumerate(zip(spelled, counts, strict=True)):
        for pair in map("".join, pairwise(word)):
            pair_counts[pair] += count
            words_with[pair].add(index)
    heap = [(-count, pair) for pair, count in pair_counts.items() if count >= min_frequency]
    heapq.heapify(heap)
    while heap and len(pieces) < size:
        negative_count, pair = heapq.heappop(heap)
        count = pair_counts.get(pair, 0)
        if count != -negative_count:  # it has changed since it was put here
            if count >= min_frequency:
                heapq.heappush(heap, (-count, pair))
            continue
        piece = pieces[_number(pair[0])] + pieces[_number(pair[1])][2:]
        if piece not in symbol_of:  # the same letters may come together in two ways
            symbol_of[piece] = _symbol(len(pieces))
            pieces.append(piece)
            if tell and len(pieces) % 1000 == 0:
                tell("merge", len(pieces) / size)
        for changed in _merge(pair, symbol_of[piece], spelled, counts, pair_counts, words_with):
            if (count := pair_counts[changed]) >= min_frequency:
                heapq.heappush(heap, (-count, changed))
    if tell:
        tell("merge", 1.0)
    return pieces


def _merge(
    pair: str,
    symbol: str,
    spelled: list[str],
    counts: list[int],
    pair_counts: dict[str, int],
    words_with: dict[str, set[int]],
) -> set[str]:
    """Merge a pair in every word that holds it and return the pairs that became more frequent."""
    grown = set()
    left, right = pair[0], pair[1]
    for index in words_with.pop(pair):
        before, count = spelled[index], counts[index]
        if (start := before.find(pair)) < 0:  # an earlier merge has used one half
            continue
        end = start + 2
        spelled[index] = after = before.replace(pair, symbol)
        if before.find(pair, end) < 0:
            lost, gained = [], []
            if start:
                lost.append(before[start - 1] + left)
                gained.append(before[start - 1] + symbol)
            if end < len(before):
                lost.append(right + before[end])
                gained.append(symbol + before[end])
        else:
            lost, gained = list(map("".join, pairwise(before))), list(map("".join, pairwise(after)))
        for old in lost:
            pair_counts[old] -= count
        for new in gained:
            pair_counts[new] += count
            words_with[new].add(index)
        grown.update(gained)
    pair_counts.pop(pair, None)
    return grown


def _symbol(number: int) -> str:
    return chr(number if number < 0xD800 else number + 0x800)  # over the surrogates, which are no characters


def _number(symbol: str) -> int:
    return ord(symbol) if ord(symbol) < 0xD800 else ord(symbol) - 0x800


def _too_small(config: VocabConfig, smallest: int, num_specials: int, words: Mapping[str, int]) -> BertwrightError:
    what = f"size {config.size:,} has no room for the characters of this corpus; the smallest possible is {smallest:,}"
    fix = f"give --size {smallest} or more"
    counts = _characters(words)
    inside = set().union(*(word[1:] for word in words))
    room = config.size - num_specials
    for character in sorted(counts, key=counts.__getitem__, reverse=True) if room > 0 else ():
        room -= 1 + (character in inside)
        if room < 0:
            threshold = counts[character] + 1
            dropped = sum(count < threshold for count in counts.values())
            fix += f"; or --min-character-frequency {threshold}: words with one of {dropped:,} characters become [UNK]"
            break
    return BertwrightError(what, fix=fix)


def _why_fewer(config: VocabConfig, size: int) -> str | None:
    if size == config.size:
        return None
    return (
        f"{size:,} entries instead of {config.size:,}: no further pair of pieces occurs {config.min_frequency} times; "
        f"give more text, a smaller size, or a lower min_frequency"
    )


def _coverage(wordpiece: WordPiece, words: Mapping[str, int]) -> dict[str, Any]:
    """Measure what the vocabulary makes of the words it was trained on."""
    unknown = too_long = num_pieces = 0
    longest = wordpiece.rules.max_word_characters
    for word, count in words.items():
        pieces = wordpiece.pieces(word)
        num_pieces += count * len(pieces)
        if pieces[0] == wordpiece.unk_id:
            unknown += count
            too_long += count * (len(word) > longest)
    total = sum(words.values())
    return {
        "words": total,
        "different_words": len(words),
        "pieces_per_word": round(num_pieces / total, 4),
        "words_too_long": too_long,
        "unknown_words": unknown - too_long,
        "unknown_rate": (unknown - too_long) / total,
    }


def _remarks(report: Mapping[str, Any], config: VocabConfig, words: Mapping[str, int]) -> list[str]:
    remarks = [report["why_fewer"]] if report["why_fewer"] else []
    if report["words_too_long"]:
        remarks.append(f"{report['words_too_long']:,} words over 200 characters are [UNK] by rule")
    if report["unknown_words"]:
        remarks.append(f"{report['unknown_words']:,} words hold a character rarer than asked for and are [UNK]")
    chinese = sum(count for word, count in words.items() if "\u3400" <= word[0] <= "\u9fff") / report["words"]
    if (config.lang == "en" and chinese > 0.5) or (config.lang == "zh" and chinese < 0.1):
        remarks.append(f"lang is {config.lang!r}, but {chinese:.0%} of the words are Chinese characters")
    return remarks
