"""Rows of Parquet files, a few at a time, whatever the size of the file.

    for where, record in parquet_rows(Path("wiki.parquet"), lambda columns: ["text"]):
        print(where, record["text"])      # 'wiki.parquet, row 1' ...

Needs the extra `data`, which is imported when the first file is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bertwright.errors import BertwrightError, nearest

_ROWS = 1024
_TEXT_ROWS = 64
"""Rows of documents that are in memory together; they may be long."""
_READ_BYTES = 1 << 20
"""Of a column of a row group, and not all of it beforehand: some writers make one group of a whole file."""


def parquet_rows(
    path: Path, choose: Callable[[list[str]], Sequence[str]], told: Callable[[float], None] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield file and row, for messages, and the columns that `choose` takes of all that there are; it may raise, too.

    Args:
        path: the file.
        choose: from the names of all columns to those wanted.
        told: called with the share of the rows that were read; documents are then read in smaller portions.

    Raises:
        BertwrightError: the package for it is missing, or the file is, or it is damaged.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        fix = "pip install 'bertwright[data]'"
        raise BertwrightError("Parquet files need the package pyarrow", where=path, fix=fix) from None
    number = 0
    try:
        with parquet.ParquetFile(str(path), buffer_size=_READ_BYTES, pre_buffer=False) as file:
            columns = list(choose(file.schema_arrow.names))
            size = _TEXT_ROWS if told else _ROWS
            for batch in file.iter_batches(batch_size=size, columns=columns, use_threads=False):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number:,}", record
                if told:
                    told(number / file.metadata.num_rows)
    except BertwrightError:
        raise
    except FileNotFoundError:
        raise BertwrightError("no such file", where=path, fix="check the spelling") from None
    # Of what pyarrow raises, only some is its own: a time out of Python's range is an OverflowError, for one.
    except (pyarrow.ArrowException, ArithmeticError, NotImplementedError, OSError, ValueError) as error:
        what = f"not readable as Parquet ({error!s:.120})"
        where = f"{path}, after row {number:,}" if number else path
        raise BertwrightError(what, where=where, fix="make or download the file again") from None


def parquet_texts(path: Path, column: str, told: Callable[[float], None]) -> Iterator[tuple[str, str]]:
    """Yield file and row, and the text of a column; one without a value is an empty text.

    Raises:
        BertwrightError: as `parquet_rows` does; the column is missing, or holds something else than text.
    """

    def choose(names: list[str]) -> list[str]:
        if column in names:
            return [column]
        what = f"no column {column!r}{nearest(column, names)}, but {', '.join(map(repr, names))}"
        raise BertwrightError(what, where=path, fix="name the one with the text: --text-column NAME")

    for where, record in parquet_rows(path, choose, told):
        text = record[column]
        if text is not None and not isinstance(text, str):
            what = f"expected a string under {column!r}, but it is {type(text).__name__}"
            raise BertwrightError(what, where=where, fix="name the column with the text: --text-column NAME")
        yield where, text or ""
