"""A corpus to a shard folder, on any number of processes, with the same bytes for every number.

The corpus is cut into shards of about 16 million characters, whole documents each, in reading order; every shard draws
from its own generator, keyed by (seed, split, number). So it does not matter who builds a shard, or when.

Memory is bounded, whatever the size of the corpus: the reader holds at most `workers + 5` shards of raw text (16 MB of
ASCII each), and every worker builds one (about 300 MB with the interpreter). A single document is never divided: one
larger than a shard makes its shard as large as itself.

    build_shards(["corpus/"], wordpiece, Path("shards"), DataConfig(max_length=128))
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertwright.config import DataConfig
from bertwright.data.counter import generator
from bertwright.data.pairs import build_examples, num_specials
from bertwright.data.partition import Work, partition
from bertwright.data.shards import SPLITS, Counts, Manifest, token_dtype, write_shard
from bertwright.errors import BertwrightError
from bertwright.files import new_folder, sha256_of
from bertwright.processes import follow_parent
from bertwright.text.corpus import find_files, read_texts
from bertwright.text.sentences import split_sentences
from bertwright.text.wordpiece import WordPiece

Progress = Callable[[str, float], None]
"""Told what has been built so far, and which share of the corpus that is (an estimate while it is still being read)."""

_UNKNOWN_WARNING = 0.05
_WORTH_A_PROCESS = 3  # shards; fewer are built before other processes have started
_logger = logging.getLogger(__name__)


def build_shards(
    paths: Sequence[str | Path],
    wordpiece: WordPiece,
    out: str | Path,
    config: DataConfig | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Build a shard folder from a corpus.

    The folder appears complete or not at all: it is built beside its place under a hidden name, and renamed at the end.

    Args:
        paths: files, folders and globs.
        wordpiece: the vocabulary; it is copied into the folder.
        out: the folder to make; it may exist if it is empty.
        config: how documents become examples.
        workers: processes; None or 0 uses every processor, 1 none but this one.
        overwrite: replace a shard folder that is there already.
        progress: called after every shard.

    Raises:
        BertwrightError: the folder holds something, the corpus cannot be read, or no examples can be made of it.
    """
    config = config or DataConfig()
    if workers is not None and workers < 0:
        raise BertwrightError(f"workers must not be negative, not {workers}")
    files = find_files(paths)
    reader = _Reader(files)
    counts = dict.fromkeys(SPLITS, Counts())
    records: dict[str, dict[str, Any]] = {}
    characters = 0
    out = Path(out).resolve()
    _check_place(out, overwrite)
    with new_folder(out) as folder:
        wordpiece.save(folder)
        for path in sorted(folder.iterdir()):
            records[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        works = partition(reader.texts(), config)
        with closing(_build_all(works, wordpiece, config, folder, workers or os.cpu_count() or 1)) as results:
            for built in results:
                counts[built.split] += built.counts
                records |= built.files
                characters += built.characters
                if progress:
                    total = counts["train"] + counts["held_out"]
                    progress(f"{total.documents:,} documents, {total.examples:,} examples", reader.share_of(characters))
        _check(counts, config)
        manifest = Manifest(
            config=config,
            vocabulary={"sha256": wordpiece.sha256, "size": wordpiece.vocab_size},
            corpus=[{"name": path.name, "bytes": path.stat().st_size} for path in files],
            counts=counts,
            files=dict(sorted(records.items())),
        )
        manifest.save(folder)
    return manifest


class _Reader:
    """Reads the corpus and keeps an eye on how far it has come."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._bytes = sum(path.stat().st_size for path in files)
        self._bytes_done = 0
        self._characters = 0

    def texts(self) -> Iterator[str]:
        """Yield every document."""
        for path in self._files:
            for text in read_texts(path):
                self._characters += len(text)
                yield text
            self._bytes_done += path.stat().st_size

    def share_of(self, characters: int) -> float:
        """Return which share of the corpus so many characters are, taking the unread files to be like those read."""
        if not self._bytes_done:
            # Inside the first file: text is rarely packed tighter than four to one.
            packed = self._files[0].suffix in (".gz", ".xz", ".zst")
            return min(0.99, characters / ((4 if packed else 1) * self._bytes))
        return characters / (self._characters * max(1.0, self._bytes / self._bytes_done))


class _Built(NamedTuple):
    """What is left to say of a shard once its files are written."""

    split: str
    characters: int
    counts: Counts
    files: dict[str, dict[str, Any]]


def _build_shard(work: Work, wordpiece: WordPiece, config: DataConfig, folder: Path) -> _Built:
    dtype = token_dtype(wordpiece.vocab_size)
    documents: list[list[int]] = []
    arrays = [np.zeros(0, dtype=dtype)]
    for text in work.texts:
        ids, lengths = wordpiece.flat_ids_of_many(split_sentences(text))
        if len(ids):
            documents.append(lengths[lengths > 0].tolist())
            arrays.append(ids.astype(dtype))
    tokens = np.concatenate(arrays)
    examples = build_examples(documents, config, generator(config.seed, SPLITS.index(work.split), work.number))
    used = int(examples["a_length"].sum(dtype=np.int64) + examples["b_length"].sum(dtype=np.int64))
    counts = Counts(
        documents=len(documents),
        empty_documents=len(work.texts) - len(documents),
        single_sentence_documents=sum(len(document) == 1 for document in documents),
        sentences=sum(map(len, documents)),
        tokens=len(tokens),
        unknown_tokens=int(np.count_nonzero(tokens == wordpiece.unk_id)),
        examples=len(examples),
        example_tokens=used + num_specials(config) * len(examples),
        random_next=int(np.count_nonzero(examples["next_sentence_label"])),
    )
    files = write_shard(folder, f"{work.split}-{work.number:05d}", tokens, examples) if len(examples) else {}
    return _Built(work.split, sum(map(len, work.texts)), counts, files)


def _build_all(
    works: Iterator[Work], wordpiece: WordPiece, config: DataConfig, folder: Path, workers: int
) -> Generator[_Built, None, None]:
    """Build the shards and yield what was built, in order."""
    head = list(islice(works, _WORTH_A_PROCESS))
    in_process = workers == 1 or len(head) < _WORTH_A_PROCESS
    works = chain(head, works)
    del head  # or its texts would live as long as this generator
    if in_process:
        for work in works:
            yield _build_shard(work, wordpiece, config, folder)
        return
    # Fresh interpreters: a fork would copy the locks of whatever threads the caller runs.
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(folder, config)
    )
    pending: deque[Future[_Built]] = deque()
    try:
        for work in works:
            pending.append(executor.submit(_build_in_worker, work))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise BertwrightError(
            "a worker process died: it ran out of memory, or the calling script starts again in every worker",
            fix="use fewer workers; in a script, call build_shards under `if __name__ == '__main__':`",
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_job: tuple[WordPiece, DataConfig, Path]
"""In a worker process: what all its shards have in common."""


def _start_worker(folder: Path, config: DataConfig) -> None:
    global _job
    follow_parent()
    _job = WordPiece.load(folder), config, folder


def _build_in_worker(work: Work) -> _Built:
    wordpiece, config, folder = _job
    return _build_shard(work, wordpiece, config, folder)


def _check_place(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if out.is_mount():
        raise BertwrightError(
            "this is a mount point", where=out, fix=f"name a folder inside it: --out {out / 'shards'}"
        )
    if not out.is_dir():
        raise BertwrightError("a file is in the way of the shard folder", where=out, fix="choose another --out")
    if any(out.iterdir()):
        if not overwrite:
            fix = "choose another --out, or add --overwrite"
            raise BertwrightError("the folder is not empty", where=out, fix=fix)
        if not (out / "manifest.json").is_file():
            raise BertwrightError("the folder holds other things than shards", where=out, fix="choose another --out")


def _check(counts: dict[str, Counts], config: DataConfig) -> None:
    """Refuse a corpus that yields no examples; log what a person should know of one that does."""
    total = counts["train"] + counts["held_out"]
    if not total.tokens:
        raise BertwrightError(
            "the corpus holds no text that the vocabulary can spell", fix="check corpus and vocabulary"
        )
    if config.objective == "mlm+nsp":
        fix = (
            "use `--objective mlm`, or separate documents (in .txt by blank lines) and give each two sentences or more"
        )
        if total.documents < 2:
            raise BertwrightError("next sentence prediction needs two documents, the corpus is a single one", fix=fix)
        if total.single_sentence_documents == total.documents:
            raise BertwrightError("next sentence prediction needs documents of two sentences, here is none", fix=fix)
    if not counts["train"].examples:
        raise BertwrightError("the corpus is too small for a single training example", fix="add text")
    if total.empty_documents:
        _logger.warning("left out %s documents without a token", f"{total.empty_documents:,}")
    if config.next_sentence_rule == "paper" and config.objective == "mlm+nsp" and total.single_sentence_documents:
        alone = f"{total.single_sentence_documents:,}"
        _logger.warning("%s documents of one sentence serve only as random B (next_sentence_rule paper)", alone)
    if (share := total.unknown_tokens / total.tokens) > _UNKNOWN_WARNING:
        _logger.warning("%.1f %% of the tokens are [UNK]: the vocabulary does not fit the corpus", 100 * share)
    if config.held_out_prob and not counts["held_out"].examples:
        _logger.warning("no held-out examples: the corpus has only %s documents", f"{total.documents:,}")
