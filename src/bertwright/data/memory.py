"""How much memory a build takes, and how many processes fit into what a person wants to give.

The figures are peaks measured with `benchmarks/bench_build_size.py`, each process with its interpreter, shared pages
counted once, and some room to spare. They do not grow with the corpus.

    workers_within(bytes_of("2GB"), workers=8)
"""

from __future__ import annotations

import logging
import re

from bertwright.errors import BertwrightError

ALONE_BYTES = 450_000_000
"""Of a build in one process."""
READER_BYTES = 250_000_000
"""Of the process that reads, beside its workers, and of the one that watches over them."""
WORKER_BYTES = 320_000_000
"""Of a worker, and of the raw text that waits for it."""
PARQUET_BYTES = 150_000_000
"""More of the process that reads, where a file is in Parquet: the package for it, and what that holds."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)
_logger = logging.getLogger(__name__)


def bytes_of(size: int | str) -> int:
    """Return a size in bytes: a number, or text such as `512MB`, `1.5 GB` or `2GiB`.

    Raises:
        BertwrightError: it is no size.
    """
    if isinstance(size, int) and size > 0:
        return size
    match = _SIZE.fullmatch(str(size))
    if match is None or match[2].lower() not in _UNITS or not float(match[1]):
        raise BertwrightError(
            f"not a size of memory: {str(size)!r}", fix="write --ram 512MB or --ram 2GB, for instance"
        )
    return round(float(match[1]) * _UNITS[match[2].lower()])


def workers_within(ram: int, workers: int, *, parquet: bool = False) -> int:
    """Return how many of the workers fit, with the process that feeds them; 1: a single process does it all.

    Args:
        ram: bytes that all processes together may take.
        workers: wanted.
        parquet: whether a file of the corpus is in that format.

    Raises:
        BertwrightError: not even a single process fits.
    """
    more = PARQUET_BYTES if parquet else 0
    if ram < (least := ALONE_BYTES + more):
        what = f"a build takes {least / 1e6:.0f} MB at least, and --ram is {ram / 1e6:,.1f} MB"
        raise BertwrightError(what, fix=f"give --ram {least / 1e6:.0f}MB or more")
    fitting = max(1, min(workers, (ram - READER_BYTES - more) // WORKER_BYTES))
    if fitting < workers:
        _logger.info("%d of %d workers, to stay below %s MB", fitting, workers, f"{ram / 1e6:,.0f}")
    return fitting
