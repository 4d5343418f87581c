"""Files to raw texts to documents: a document is the list of its sentences, in reading order.

A corpus is any mix of files, folders and globs. `.jsonl` holds one document a line under `text`, `.parquet` one a row
in the column `text` (or another one); `.txt` separates documents by blank lines, as google-research/bert does.
Text may be compressed (`.gz`, `.xz`, `.zst`). UTF-8 is assumed, with or without a byte order mark; GB18030 is
recognised and said.

    for sentences in documents(["corpus/", "more/*.jsonl.xz"]):
        ...
"""

from __future__ import annotations

import glob
import gzip
import io
import json
import logging
import lzma
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from bertwright.errors import BertwrightError, nearest
from bertwright.text.parquet import parquet_texts
from bertwright.text.sentences import split_sentences

Document = list[str]
"""The sentences of one text, in reading order."""

_COMPRESSED = (".gz", ".xz", ".zst")
_SUFFIXES = (".parquet", *(kind + packed for kind in (".txt", ".jsonl") for packed in ("", *_COMPRESSED)))
_BUFFER_BYTES = 1 << 20
_PACKED_BYTES = 1 << 17
_logger = logging.getLogger(__name__)


TEXT_COLUMN = "text"
"""Where a row of JSON or Parquet has its text, unless another name is given."""


class Reading:
    """What is noticed while one file is read, and how far that has come.

    What cannot be read is raised; a subclass may keep it and read on.
    """

    def __init__(self) -> None:
        self.encoding = "UTF-8"
        """Or GB18030."""
        self.has_mark = False
        """Whether the file begins with a byte order mark."""
        self.refused = 0
        """How often something could not be read."""
        self._share = 0.0
        self._file: BinaryIO | None = None
        self._size = 1

    def refuse(self, error: BertwrightError) -> None:
        """Take note of what cannot be read: where this returns, reading goes on at the next row that can be."""
        self.refused += 1
        raise error from None

    @property
    def share(self) -> float:
        """Share of the file, from 0 to 1; of a compressed one it is measured before decompression."""
        if self._file and not self._file.closed:
            self._share = self._file.tell() / self._size
        return self._share

    def follow(self, file: BinaryIO) -> None:
        """Watch the position in an open file from now on."""
        self._file, self._size = file, max(1, os.fstat(file.fileno()).st_size)

    def tell(self, share: float) -> None:
        """Take a share from a reader that knows it by itself."""
        self._share = share


def documents(paths: Sequence[str | Path], *, text_column: str = TEXT_COLUMN) -> Iterator[Document]:
    """Yield every document of a corpus as its sentences, file by file in sorted order.

    Raises:
        BertwrightError: as `find_files` and `read_texts` do.
    """
    for path in find_files(paths):
        for text in read_texts(path, text_column=text_column):
            if sentences := split_sentences(text):
                yield sentences


def find_files(paths: Sequence[str | Path]) -> list[Path]:
    """Return the corpus files that files, folders (searched in depth) and globs stand for, sorted, each once.

    Raises:
        BertwrightError: nothing is found under a name, or a file is of another kind than text, JSON Lines or Parquet.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for file in _matches(Path(path)):
            found.setdefault(file.resolve(), file)
    return sorted(found.values(), key=lambda file: file.as_posix())


def _matches(path: Path) -> list[Path]:
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.name.lower().endswith(_SUFFIXES) and file.is_file()]
        if not files:
            raise BertwrightError("no corpus file in this folder", where=path, fix=f"expected {_kinds()}")
        return files
    if path.is_file():
        if not path.name.lower().endswith(_SUFFIXES):
            raise BertwrightError("not a kind of corpus file", where=path, fix=f"convert or rename it: {_kinds()}")
        return [path]
    matched = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207  (absolute patterns too)
    if not matched:
        raise BertwrightError("no such file, folder or pattern", where=path, fix="check the spelling")
    return [file for match in matched for file in _matches(match)]


def _kinds() -> str:
    return f".txt or .jsonl, plain or with {', '.join(_COMPRESSED)}; or .parquet"


def read_texts(path: Path, *, text_column: str = TEXT_COLUMN, reading: Reading | None = None) -> Iterator[str]:
    r"""Yield the raw documents of one file: the text of each row, or the blocks between blank lines of a `.txt`.

    Lines inside a document keep their `\n`. Empty documents are left out and counted in the log.

    Args:
        path: the file.
        text_column: what the text is called in the rows of JSON and Parquet.
        reading: is told how far it has come.

    Raises:
        BertwrightError: the file is missing, empty, binary, damaged, in another encoding, or a row is not what it
            should be; file and row are named.
    """
    empty = repaired = 0
    for _, text in read_rows(path, reading, text_column=text_column):
        if not text or text.isspace():
            empty += 1
        elif not text.isascii() and _LONE_SURROGATE.search(text):
            repaired += 1
            yield _LONE_SURROGATE.sub("\ufffd", text)
        else:
            yield text
    if empty:
        _logger.warning("%s: left out %d rows whose text is empty", path, empty)
    if repaired:
        _logger.warning("%s: half a surrogate pair became U+FFFD in %d rows", path, repaired)


def read_rows(
    path: Path, reading: Reading | None = None, *, text_column: str = TEXT_COLUMN
) -> Iterator[tuple[int, str]]:
    """Yield each document of one file as it is written there, empty ones too, after the row where it begins.

    Raises:
        BertwrightError: as `read_texts` does, unless `reading` keeps it.
    """
    reading = reading or Reading()
    found = False
    match _unpacked_suffix(path):
        case ".jsonl":
            rows = _json_texts(path, text_column, reading)
        case ".parquet":
            rows = _parquet_texts(path, text_column, reading)
        case _:
            rows = _blocks(path, reading)
    for row, text in rows:
        found = found or not (not text or text.isspace())
        yield row, text
    if not found and not reading.refused:
        reading.refuse(BertwrightError("no text in this file", where=path, fix="remove it from the corpus"))


def holds_rows(path: Path) -> bool:
    """Tell a file whose every row is a document from one whose documents are blocks of rows."""
    return _unpacked_suffix(path) in (".jsonl", ".parquet")


def is_parquet(path: Path) -> bool:
    """Tell whether a file is read as Parquet."""
    return _unpacked_suffix(path) == ".parquet"


def _unpacked_suffix(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() in _COMPRESSED else path.name).suffix.lower()


def _blocks(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    block: list[str] = []
    first = 1
    for row, line in enumerate(read_lines(path, reading), start=1):
        if not line.isspace():
            block.append(line)
            continue
        if block:
            yield first, "".join(block)
            block = []
        first = row + 1
    if block:
        yield first, "".join(block)


def _json_texts(path: Path, column: str, reading: Reading) -> Iterator[tuple[int, str]]:
    for row, line in enumerate(read_lines(path, reading), start=1):
        if line.isspace():
            continue
        try:
            text = _json_text(line, column, f"{path}, row {row:,}")
        except BertwrightError as error:
            reading.refuse(error)
        else:
            yield row, text


def _parquet_texts(path: Path, column: str, reading: Reading) -> Iterator[tuple[int, str]]:
    try:
        for row, (_, text) in enumerate(parquet_texts(path, column, reading.tell), start=1):
            yield row, text
    except BertwrightError as error:
        reading.refuse(error)


_PRIVATE = re.compile("[\ue000-\uf8ff]")
_KANA = re.compile("[\u3041-\u30ff]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _json_text(line: str, column: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BertwrightError(
            f"not valid JSON ({error})", where=where, fix="one JSON object a line is expected"
        ) from None
    if not isinstance(row, dict):
        raise BertwrightError(f"expected a JSON object, found {type(row).__name__}", where=where)
    if not isinstance(text := row.get(column), str):
        there = column in row
        found = f"it is {type(text).__name__}" if there else f"its keys are {', '.join(map(repr, row))}"
        what = f"expected a string under {column!r}, but {found}{'' if there else nearest(column, row)}"
        fix = f'write {{"{column}": "..."}}, or name the key with the text: --text-column NAME'
        raise BertwrightError(what, where=where, fix=fix)
    return text


def read_lines(path: Path, reading: Reading | None = None) -> Iterator[str]:
    r"""Yield the decoded lines of a file, each ending in `\n`.

    Raises:
        BertwrightError: the file is missing, binary, damaged or in another encoding; file and row are named. Unless
            `reading` keeps it: then a row that cannot be decoded is an empty one, and a file ends where it is damaged.
    """
    reading = reading or Reading()
    row = 0
    try:
        with path.open("rb") as file, _unpacked(file, path.suffix.lower()) as stream:
            reading.follow(file)
            for text in decode_lines(stream, path, reading):
                row += 1
                yield text
    except FileNotFoundError:
        broken = BertwrightError("no such file", where=path, fix="check the spelling")
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile) as error:
        what = f"damaged compressed data ({error})"
        broken = BertwrightError(what, where=f"{path}, after row {row:,}", fix="make or download the file again")
    except OSError as error:
        broken = BertwrightError(f"cannot be read ({error.strerror or error})", where=path)
    else:
        return
    reading.refuse(broken)


def decode_lines(lines: Iterable[bytes], name: object, reading: Reading | None = None) -> Iterator[str]:
    r"""Yield lines as text, each ending in `\n`: UTF-8, or GB18030 from the first row that is that and no UTF-8.

    Args:
        lines: as a binary file yields them.
        name: what they come from, for messages.
        reading: told what is noticed.

    Raises:
        BertwrightError: they are binary or in another encoding; the row is named.
    """
    reading = reading or Reading()
    encoding, only_ascii = "utf-8", True
    for row, line in enumerate(lines, start=1):
        if b"\0" in line:
            reading.refuse(BertwrightError(_binary(line), where=f"{name}, row {row:,}", fix="save it as UTF-8 text"))
            return
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            if encoding == "gb18030" or not (only_ascii and _is_gb18030(line)):
                what = f"byte 0x{line[error.start]:02x} is not {encoding.upper()}"
                where = f"{name}, row {row:,}"
                reading.refuse(BertwrightError(what, where=where, fix="save it as UTF-8, with iconv for instance"))
                only_ascii = False
                yield "\n"
                continue
            encoding, reading.encoding = "gb18030", "GB18030"
            _logger.warning("%s: read as GB18030, since row %d is not UTF-8", name, row)
            text = line.decode(encoding)
        only_ascii = only_ascii and text.isascii()
        if row == 1 and text.startswith("\ufeff"):
            text, reading.has_mark = text[1:], True
        if text[-2:] == "\r\n" or text[-1:] != "\n":
            text = text.removesuffix("\n").removesuffix("\r") + "\n"
        yield text


def _unpacked(file: io.BufferedReader, suffix: str) -> io.BufferedReader:
    # BufferedReader iterates over lines in C; the decompressors' own iterators are several times slower.
    if suffix == ".gz":
        return io.BufferedReader(gzip.open(file, "rb"), _BUFFER_BYTES)
    if suffix == ".xz":
        return io.BufferedReader(lzma.open(file, "rb"), _BUFFER_BYTES)
    if suffix == ".zst":
        return io.BufferedReader(_ZstdFile(file), _BUFFER_BYTES)
    return file


class _ZstdFile(io.RawIOBase):
    """Decompressed bytes of a `.zst` file; unlike zstandard's own reader it notices that the end is missing."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._inside = False
        self._ready = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next and return how much; 0 at the end of the last frame."""
        while not self._ready:
            packed = self._frame.unused_data or self._file.read(_PACKED_BYTES)
            if not packed:
                if self._inside:
                    raise EOFError("the end is missing")
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready = self._frame.decompress(packed)
            self._inside = not self._frame.eof
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


def _is_gb18030(line: bytes) -> bool:
    """Tell GB18030 from what may decode as it too.

    Western 8-bit text has accented letters that stand alone, Big5 turns into private characters, EUC-JP into kana.
    Korean EUC-KR cannot be told apart.
    """
    try:
        text = line.decode("gb18030")
    except UnicodeDecodeError:
        return False
    foreign = len(_PRIVATE.findall(text)) > 0 or 5 * len(_KANA.findall(text)) > len(text)
    if foreign:
        return False
    in_pairs = sum(len(run) for run in re.findall(rb"[\xa1-\xfe]{2,}", line))
    return in_pairs * 2 > sum(byte > 0x7F for byte in line)


def _binary(line: bytes) -> str:
    return "UTF-16 text" if line[:2] in (b"\xff\xfe", b"\xfe\xff") else "binary data, not text"
