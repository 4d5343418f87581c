"""A corpus to a shard folder, on any number of processes, with the same bytes for every number.

The corpus is cut into shards of about 16 million characters, whole documents each, in reading order; every shard draws
from its own generator, keyed by (seed, split, number). So it does not matter who builds a shard, or when: a build that
was killed goes on with the shards that are there (`data.journal`).

Memory is bounded, whatever the size of the corpus (`data.memory`). A single document is never divided: one larger than
a shard makes its shard as large as itself.

    build_shards(["corpus/"], wordpiece, Path("shards"), DataConfig(max_length=128))
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np

from bertwright import cluster
from bertwright.config import DataConfig
from bertwright.data.counter import generator
from bertwright.data.journal import Built, Journal
from bertwright.data.memory import bytes_of, workers_within
from bertwright.data.pairs import build_examples, num_specials
from bertwright.data.partition import SHARD_CHARACTERS, PackedWork, Work, partition
from bertwright.data.progress import Meter, Progress, Reader
from bertwright.data.shards import SPLITS, Counts, Manifest, token_dtype, write_shard
from bertwright.errors import BertwrightError
from bertwright.files import explain_os_errors, sha256_of
from bertwright.json_values import to_dict
from bertwright.processes import map_in_order
from bertwright.text.corpus import TEXT_COLUMN, find_files, is_parquet
from bertwright.text.lookup import CHINESE
from bertwright.text.segmentation import Segmenter, find_segmenter, tokens_and_words
from bertwright.text.sentences import split_sentences
from bertwright.text.wordpiece import WordPiece

_UNKNOWN_WARNING = 0.05
_CHINESE_WARNING = 0.2
_MOST_TOKENS_PER_WORD = 3.0
"""Cut into words, Chinese text has about 1.5 and English 1.2; sentences that nobody cut have many more."""
_CHINESE_TOKEN = re.compile(f"[{CHINESE}]")
_logger = logging.getLogger(__name__)

_Results = Generator[Built, None, None]


def build_shards(
    paths: Sequence[str | Path],
    wordpiece: WordPiece,
    out: str | Path,
    config: DataConfig | None = None,
    *,
    text_column: str = TEXT_COLUMN,
    workers: int | None = None,
    ram: int | str | None = None,
    overwrite: bool = False,
    engine: Literal["local", "ray"] = "local",
    progress: Progress | None = None,
) -> Manifest:
    """Build a shard folder from a corpus.

    The folder appears complete or not at all. What is built before lies beside it in `OUT.partial`; after an
    interruption of any kind, the same call goes on with the shards that are whole there and whose text is the same.

    Args:
        paths: files, folders and globs.
        wordpiece: the vocabulary; it is copied into the folder.
        out: the folder to make; it may exist if it is empty.
        config: how documents become examples.
        text_column: what the text is called in the rows of JSON and Parquet.
        workers: processes; None or 0 uses every processor, 1 none but this one.
        ram: memory that all processes together may take, in bytes or like "2GB"; as many workers are used as fit.
        overwrite: replace a shard folder that is there already, and what is left of a build with other settings.
        engine: `local` works on this machine, `ray` on those of a cluster (see `cluster`): this process reads the
            corpus, the others write the shards, and all must see the place of `out` under the same path.
        progress: called after every shard.

    Raises:
        BertwrightError: the folder holds something, the corpus cannot be read, no examples or words are found in it, or
            `ram` is too small for a single process.
    """
    config = config or DataConfig()
    if workers is not None and workers < 0:
        raise BertwrightError(f"workers must not be negative, not {workers}")
    files = find_files(paths)
    reader = Reader(files, text_column, warn_of_large=ram is not None)
    out = Path(out).resolve()
    _check_place(out, overwrite)
    job = _Job.of(wordpiece, config)
    with _started(engine, workers) as (workers, run):
        if ram is not None:
            workers = workers_within(bytes_of(ram), workers, parquet=any(map(is_parquet, files)))
        with explain_os_errors(out), Journal.open(out, _settings(job), overwrite=overwrite) as journal:
            manifest = _build_into(journal, reader, job, partial(run, workers=workers), progress)
            journal.finish({*manifest.files, "manifest.json"})
    return manifest


@contextmanager
def _started(engine: Literal["local", "ray"], workers: int | None) -> Iterator[tuple[int, Callable[..., _Results]]]:
    """Yield how many workers there are, and what builds shards on them: given the job, a folder and the works."""
    if engine == "local":
        yield workers or os.cpu_count() or 1, _run_here
    else:
        with cluster.cluster() as found:
            yield found.workers(workers, cpus=1), _run_elsewhere


def _run_here(job: _Job, folder: Path, works: Iterator[PackedWork | Built], *, workers: int) -> _Results:
    return map_in_order(partial(_build, job=job, folder=folder), works, workers=workers, caller="build_shards")


def _run_elsewhere(job: _Job, folder: Path, works: Iterator[PackedWork | Built], *, workers: int) -> _Results:
    segmenter = [name for name in (job.segmenter.facts if job.segmenter else ()) if name == "rjieba"]
    build = partial(_build_elsewhere, job=job, folder=folder, made_by=_made_by(*segmenter))
    return cluster.map_in_order(build, works, workers=workers)


def _build_into(
    journal: Journal,
    reader: Reader,
    job: _Job,
    run: Callable[[_Job, Path, Iterator[PackedWork | Built]], _Results],
    progress: Progress | None,
) -> Manifest:
    wordpiece, config, segmenter = job
    records = _save_vocabulary(wordpiece, journal)
    packed = (work.packed() for work in partition(reader.texts(), config))
    known: deque[bool] = deque()
    works = _works(packed, journal, known)
    meter = Meter(reader)
    with closing(run(job, journal.staging, works)) as results:
        for built in results:
            reused = known.popleft()
            journal.add(built, reused=reused)
            meter.add(built, reused=reused)
            if progress:
                progress(meter.state)
    with journal.useless_if_refused():
        _check(meter.counts, config)
    manifest = Manifest(
        config=config,
        vocabulary={"sha256": wordpiece.sha256, "size": wordpiece.vocab_size},
        corpus=[{"name": path.name, "bytes": path.stat().st_size} for path in reader.files],
        counts=meter.counts,
        files=dict(sorted((records | meter.files).items())),
        segmenter=segmenter.facts if segmenter else None,
    )
    manifest.save(journal.shards)
    return manifest


def _works(packed: Iterable[PackedWork], journal: Journal, known: deque[bool]) -> Iterator[PackedWork | Built]:
    """Yield what the journal has of each shard, or the work to do; note which of both it is."""
    for work in packed:
        built = journal.find(work)
        known.append(built is not None)
        yield built or work


class _Job(NamedTuple):
    """What all shards have in common."""

    wordpiece: WordPiece
    config: DataConfig
    segmenter: Segmenter | None

    @classmethod
    def of(cls, wordpiece: WordPiece, config: DataConfig) -> _Job:
        """Find the segmenter; of a lexicon's path, which differs between machines, the name remains."""
        segmenter = find_segmenter(config.whole_word) if config.whole_word else None
        return cls(wordpiece, replace(config, whole_word=segmenter.name if segmenter else ""), segmenter)


def _settings(job: _Job) -> dict[str, Any]:
    """Return what decides the bytes of a shard beside its text."""
    facts = {"segmenter": job.segmenter.facts} if job.segmenter else {}
    made_of = {"vocabulary": job.wordpiece.sha256, "shard_characters": SHARD_CHARACTERS}
    return to_dict(job.config) | made_of | facts | _made_by()


def _made_by(*packages: str) -> dict[str, str]:
    """Return the versions that decide the bytes of a shard."""
    versions = {name: importlib.metadata.version(name) for name in ("bertwright", "numpy", *packages)}
    return versions | {"Unicode": unicodedata.unidata_version}


def _save_vocabulary(wordpiece: WordPiece, journal: Journal) -> dict[str, dict[str, Any]]:
    before = {*journal.shards.iterdir()}
    wordpiece.save(journal.shards)
    made = sorted({*journal.shards.iterdir()} - before)
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in made}


def _build_shard(work: Work, job: _Job, folder: Path) -> tuple[Counts, dict[str, dict[str, Any]]]:
    wordpiece, config, segmenter = job
    dtype = token_dtype(wordpiece.vocab_size)
    documents: list[list[int]] = []
    arrays, words = [np.zeros(0, dtype=dtype)], [np.zeros(0, dtype=bool)]
    for text in work.texts:
        sentences = split_sentences(text)
        if segmenter:
            ids, lengths, joined = tokens_and_words(wordpiece, sentences, segmenter)
            words.append(joined)
        else:
            ids, lengths = wordpiece.flat_ids_of_many(sentences)
        if len(ids):
            documents.append(lengths[lengths > 0].tolist())
            arrays.append(ids.astype(dtype))
    tokens = np.concatenate(arrays)
    goes_on = np.concatenate(words) if segmenter else None
    key = config.seed, SPLITS.index(work.split), work.number
    copies = [generator(*key)] + [generator(*key, copy) for copy in range(1, config.dupe_factor)]
    rngs = copies if work.split == "train" else copies[:1]
    examples = np.concatenate([build_examples(documents, config, rng) for rng in rngs])
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
        words=0 if goes_on is None else int(np.count_nonzero(~goes_on)),
        chinese_tokens=0 if goes_on is None else int(np.count_nonzero(_are_chinese(wordpiece)[tokens])),
    )
    files = write_shard(folder, f"{work.split}-{work.number:05d}", tokens, examples, goes_on) if len(examples) else {}
    return counts, files


def _are_chinese(wordpiece: WordPiece) -> np.ndarray:
    return np.array([_CHINESE_TOKEN.fullmatch(token) is not None for token in wordpiece.tokens])


def _build(packed: PackedWork | Built, job: _Job, folder: Path) -> Built:
    """Build a shard; one that the journal has is passed through."""
    if isinstance(packed, Built):
        return packed
    work = packed.unpacked()
    counts, files = _build_shard(work, job, folder)
    characters = sum(map(len, work.texts))
    return Built(work.split, work.number, packed.sha256, len(packed.text), characters, counts, files)


def _build_elsewhere(packed: PackedWork | Built, job: _Job, folder: Path, made_by: dict[str, str]) -> Built:
    """Build a shard on a machine of a cluster; it may be done twice, also at the same time, if one seems to be lost."""
    if isinstance(packed, Built):
        return packed
    if not folder.is_dir():
        fix = "put --out on a file system that all machines share, under the same path"
        raise BertwrightError(f"{cluster.this_node()} does not see this folder", where=folder, fix=fix)
    found = _made_by(*(made_by.keys() - {"bertwright", "numpy", "Unicode"}))
    if other := [f"{name} {found[name]}, not {made_by[name]}" for name in made_by if found[name] != made_by[name]]:
        what = f"{cluster.this_node()} would make other bytes: it has {', '.join(other)}"
        raise BertwrightError(what, fix="install the same versions on all machines")
    with TemporaryDirectory(dir=folder) as own:
        built = _build(packed, job, Path(own))
        for name in built.files:
            Path(own, name).replace(folder / name)
    return built


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
    if total.words:
        _check_words(total, config.whole_word)


def _check_words(total: Counts, whole_word: str) -> None:
    """Log what a person should know of the words that were found."""
    if whole_word == "whitespace" and total.chinese_tokens > _CHINESE_WARNING * total.tokens:
        share = 100 * total.chinese_tokens / total.tokens
        advice = "for words, build with --whole-word jieba, pre-segmented or a lexicon"
        _logger.warning("%.0f %% of the tokens are Chinese characters, each a word by itself; %s", share, advice)
    if (size := total.tokens / total.words) > _MOST_TOKENS_PER_WORD:
        _logger.warning("a word has %.1f tokens on average: is the text cut into words (%s)?", size, whole_word)
