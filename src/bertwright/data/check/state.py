"""What is kept while a corpus is looked at: how reading goes, and the sums of what was read. Neither grows with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertwright.data.check.duplicates import MOST_DOCUMENTS, Fingerprints
from bertwright.data.check.frequent import Frequent
from bertwright.data.check.part import Document, Part, Work
from bertwright.errors import BertwrightError
from bertwright.text.corpus import Reading, holds_rows, read_rows

PART_CHARACTERS = 1 << 20
"""Of a part: documents are taken together until they have so many."""
LONGEST_DOCUMENT = 1 << 22
"""Characters; what is longer is looked at in pieces of this size."""
MOST_PROBLEMS = 1_000
"""Places that cannot be read are named up to here, and counted beyond."""
MOST_IN_A_FILE = 20
"""Likewise of one file."""
REMEMBERED = 1 << 16
"""Lines, and words."""


class _Lenient(Reading):
    """Hands on what cannot be read, so that reading goes on behind it."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader

    def refuse(self, error: BertwrightError) -> None:
        """Keep the error, or count it where there are too many."""
        self.refused += 1
        self._reader.refuse(error, in_file=self.refused)


class Reader:
    """Reads a corpus into parts and keeps what there is to say of its files.

    Args:
        files: to read, in this order.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.bytes = sum(path.stat().st_size for path in files)
        self.problems: list[BertwrightError] = []
        self.num_problems = 0
        self.encodings: Counter[str] = Counter()
        self.marked = 0
        """Files with a byte order mark."""
        self.empty = 0
        """Documents of white space or nothing."""
        self.cut = 0
        """Documents that were too long to be looked at in one piece."""
        self._bytes_begun = 0

    @property
    def share(self) -> float:
        """The share of the corpus in the files that were begun, less half of the last."""
        return min(0.99, self._bytes_begun / max(self.bytes, 1))

    def refuse(self, error: BertwrightError, *, in_file: int) -> None:
        """Take note of what cannot be read, the so-many-th of its file."""
        self.num_problems += 1
        if in_file <= MOST_IN_A_FILE and len(self.problems) < MOST_PROBLEMS:
            self.problems.append(error)

    def works(self) -> Iterator[Work]:
        """Yield the corpus in parts of whole documents."""
        number = size = 0
        documents: list[Document] = []
        for document in self._documents():
            documents.append(document)
            size += len(document.text)
            if size >= PART_CHARACTERS:
                yield Work(number, documents)
                number, size, documents = number + 1, 0, []
        if documents:
            yield Work(number, documents)

    def _documents(self) -> Iterator[Document]:
        for number, path in enumerate(self.files):
            half = path.stat().st_size / 2
            self._bytes_begun += int(half)
            reading = _Lenient(self)
            per_line = 0 if holds_rows(path) else 1
            for row, text in read_rows(path, reading):
                if not text or text.isspace():
                    self.empty += 1
                    continue
                self.cut += len(text) > LONGEST_DOCUMENT
                for start in range(0, len(text), LONGEST_DOCUMENT):
                    piece = text[start : start + LONGEST_DOCUMENT]
                    if not piece.isspace():
                        yield Document(number, row + per_line * text.count("\n", 0, start), per_line, piece)
            self.encodings[reading.encoding] += 1
            self.marked += reading.has_mark
            self._bytes_begun += int(half)

    def place(self, file: int, row: int) -> str:
        """Return file and row as people read them."""
        return f"{self.files[file]}, row {row:,}"


class State:
    """Everything that is kept of the parts that were looked at.

    Args:
        most_documents: whose fingerprints are held.
        remembered: lines and words that are remembered as the most frequent, after the rest was forgotten.
    """

    def __init__(self, most_documents: int = MOST_DOCUMENTS, remembered: int = REMEMBERED) -> None:
        self.total = Part()
        self.fingerprints = Fingerprints(most_documents)
        self.lines = Frequent(remembered)
        self.split_words = Frequent(remembered)
        self.leaks: dict[int, tuple[int, int]] = {}
        """Where each text that was found is: file and row, the first of them."""

    def add(self, part: Part) -> None:
        """Take the part that comes next in reading order."""
        self.total.add(part)
        self.fingerprints.add(part.fingerprints)
        self.lines.add(part.lines)
        self.split_words.add(part.split_words)
        for text, file, row in part.leaks:
            self.leaks.setdefault(text, (file, row))
