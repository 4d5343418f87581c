"""A stream of documents to units of work: which document goes into which shard.

The answer depends on the corpus and the seed alone. A shard is about 16 million characters of whole documents. It is
also the pool from which its random segments come, so with next-sentence labels no shard has fewer than two documents.

    for work in partition(texts, DataConfig()):
        print(work.split, work.number, len(work.texts))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from bertwright.config import DataConfig
from bertwright.data.counter import hashed

SHARD_CHARACTERS = 16_000_000
"""Raw text of one shard, about."""

_HELD_OUT = 2  # the stream of held-out choices, apart from all other uses of the seed


class Work(NamedTuple):
    """The raw documents of one shard."""

    split: str
    """`train` or `held_out`."""
    number: int
    """Counted from 0 within the split."""
    texts: list[str]
    """In reading order."""

    def packed(self) -> PackedWork:
        """Return the same as bytes, which take less memory and reach another process sooner."""
        parts = [text.encode("utf-8", "surrogatepass") for text in self.texts]
        return PackedWork(self.split, self.number, b"".join(parts), list(map(len, parts)))


class PackedWork(NamedTuple):
    """The documents of one shard as bytes."""

    split: str
    """`train` or `held_out`."""
    number: int
    """Counted from 0 within the split."""
    text: bytes
    """All of them end to end, UTF-8."""
    lengths: list[int]
    """Of each, bytes."""

    def unpacked(self) -> Work:
        """Return the documents as text."""
        ends = list(accumulate(self.lengths))
        parts = (self.text[start:end] for start, end in zip([0, *ends], ends, strict=False))
        return Work(self.split, self.number, [part.decode("utf-8", "surrogatepass") for part in parts])

    @property
    def sha256(self) -> str:
        """Of the documents and where each ends."""
        digest = hashlib.sha256(json.dumps(self.lengths).encode())
        digest.update(self.text)
        return digest.hexdigest()


class _Document(NamedTuple):
    draw: int
    """64 random bits, keyed by (seed, number of the document)."""
    text: str


class _Bucket:
    """Documents of one split on their way into shards.

    The newest full shard waits, in case what comes after it is too little to stand alone.
    """

    def __init__(self, split: str, fewest: int, shard_characters: int) -> None:
        self.split = split
        self.documents = 0
        self.waiting: list[_Document] = []
        self.filling: list[_Document] = []
        self._fewest = fewest
        self._limit = shard_characters
        self._size = 0
        self._number = 0

    def add(self, document: _Document) -> Iterator[Work]:
        """Put a document in; a shard may come out."""
        self.documents += 1
        self.filling.append(document)
        self._size += len(document.text)
        if self._size >= self._limit and len(self.filling) >= self._fewest:
            yield from self._emit(self.waiting)
            self.waiting, self.filling, self._size = self.filling, [], 0

    def give(self, documents: list[_Document], other: _Bucket) -> None:
        """Move documents that have not left yet into another bucket; what remains leaves as one shard."""
        moved = {document.draw for document in documents}
        remaining = [document for document in self.waiting + self.filling if document.draw not in moved]
        self.waiting, self.filling, self._size = [], remaining, 0
        self.documents -= len(documents)
        other.filling += documents
        other.documents += len(documents)

    def finish(self) -> Iterator[Work]:
        """Let the last shards out."""
        if self._size < self._limit // 2 or len(self.filling) < self._fewest:
            self.waiting, self.filling = self.waiting + self.filling, []
        yield from self._emit(self.waiting)
        yield from self._emit(self.filling)

    def _emit(self, documents: list[_Document]) -> Iterator[Work]:
        if documents:
            yield Work(self.split, self._number, [document.text for document in documents])
            self._number += 1


def partition(texts: Iterable[str], config: DataConfig, *, shard_characters: int = SHARD_CHARACTERS) -> Iterator[Work]:
    """Yield the shards of a corpus; no more than four of them are held at any time.

    Each document is held out with probability `held_out_prob`, by a hash of its number. Either split needs two
    documents with next-sentence labels, else one: if it has fewer, those of the other's last shard with the smallest
    hash join it. A corpus that has not enough for both has nothing held out.

    Args:
        texts: raw documents, none blank, in a fixed order.
        config: seed, share and objective.
        shard_characters: raw text of one shard, about.
    """
    fewest = 2 if config.objective == "mlm+nsp" else 1
    train, held_out = (_Bucket(split, fewest, shard_characters) for split in ("train", "held_out"))
    threshold = int(config.held_out_prob * 2**64)
    for number, text in enumerate(texts):
        document = _Document(int(hashed(config.seed, _HELD_OUT, number)[0]), text)
        yield from (held_out if document.draw < threshold else train).add(document)
    if config.held_out_prob:
        _even_out(train, held_out, fewest)
    yield from train.finish()
    yield from held_out.finish()


def _even_out(train: _Bucket, held_out: _Bucket, fewest: int) -> None:
    for poor, rich in ((held_out, train), (train, held_out)):
        missing = fewest - poor.documents
        if missing <= 0:
            continue
        spare = sorted(rich.waiting + rich.filling, key=lambda document: document.draw)
        if len(spare) - missing >= fewest:
            rich.give(spare[:missing], poor)
        else:
            held_out.give(held_out.waiting + held_out.filling, train)
