"""How far a build has come: what was read, what was built, how fast, and how long the rest takes.

meter = Meter(Reader(files))
for built in results:
    meter.add(built)
    print(meter.state.share, meter.state.seconds_left)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertwright.data.journal import Built
from bertwright.data.partition import SHARD_CHARACTERS
from bertwright.data.shards import SPLITS, Counts
from bertwright.text.corpus import TEXT_COLUMN, Reading, read_texts

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuildState:
    """What there is to tell of a build after a shard."""

    share: float
    """Of the corpus, in the shards that are finished; while files are being read, as far as can be told."""
    text_bytes: int
    """Of the finished shards' documents, as UTF-8."""
    documents: int
    """With at least one token."""
    examples: int
    """Cut from them."""
    bytes_per_second: float | None = None
    """Speed of building since this call began; shards of an interrupted build do not count. None: not known yet."""
    seconds_left: float | None = None
    """Likewise."""


Progress = Callable[[BuildState], None]
"""Told of every shard that is finished."""


class Reader:
    """Reads the corpus and keeps an eye on how far it has come.

    Args:
        files: of the corpus, in order.
        text_column: what the text is called in rows.
        warn_of_large: say it if a document is larger than a shard.
    """

    def __init__(self, files: Sequence[Path], text_column: str = TEXT_COLUMN, *, warn_of_large: bool = False) -> None:
        self.files = files
        self._text_column = text_column
        self._warn_of_large = warn_of_large
        self._bytes = max(1, sum(path.stat().st_size for path in files))
        self._bytes_done = 0
        self._characters = 0
        self._reading, self._size = Reading(), 0

    def texts(self) -> Iterator[str]:
        """Yield every document."""
        for path in self.files:
            self._reading, self._size = Reading(), path.stat().st_size
            for text in read_texts(path, text_column=self._text_column, reading=self._reading):
                self._characters += len(text)
                if self._warn_of_large and len(text) > SHARD_CHARACTERS:
                    size = f"a document of {len(text):,} characters is larger than a shard"
                    _logger.warning("%s: %s: --ram does not cover it", path, size)
                yield text
            self._bytes_done += self._size
            self._size = 0

    def share_of(self, characters: int) -> float:
        """Return which share of the corpus so many characters are, taking what is unread to be like what was read."""
        read = (self._bytes_done + self._size * self._reading.share) / self._bytes
        return min(1.0, read * characters / max(1, self._characters))


class Meter:
    """Sums up what was built.

    Args:
        reader: of the corpus.
    """

    def __init__(self, reader: Reader) -> None:
        self.counts = dict.fromkeys(SPLITS, Counts())
        """By split."""
        self.files: dict[str, dict[str, Any]] = {}
        """`bytes` and `sha256` by name."""
        self._reader = reader
        self._characters = self._text_bytes = 0
        self._start()

    def _start(self) -> None:
        self._started, self._bytes_before, self._characters_before = (
            time.monotonic(),
            self._text_bytes,
            self._characters,
        )

    def add(self, built: Built, *, reused: bool) -> None:
        """Count a shard; one that was there already says nothing about the speed."""
        self.counts[built.split] += built.counts
        self.files |= built.files
        self._characters += built.characters
        self._text_bytes += built.text_bytes
        if reused:
            self._start()

    @property
    def state(self) -> BuildState:
        """What there is to tell."""
        total = self.counts["train"] + self.counts["held_out"]
        share = self._reader.share_of(self._characters)
        seconds, done = time.monotonic() - self._started, self._text_bytes - self._bytes_before
        speed = left = None
        if done and seconds:
            speed = done / seconds
            gained = share * (self._characters - self._characters_before) / self._characters
            left = seconds * (1 - share) / gained if gained else None
        return BuildState(
            share=share,
            text_bytes=self._text_bytes,
            documents=total.documents,
            examples=total.examples,
            bytes_per_second=speed,
            seconds_left=left,
        )
