"""A cap for the memory of a build: how it is written, and how many workers fit below it."""

import logging

import pytest

from bertwright.data.memory import ALONE_BYTES, PARQUET_BYTES, READER_BYTES, WORKER_BYTES, bytes_of, workers_within
from bertwright.errors import BertwrightError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GB", 10**9),
        ("512MB", 512 * 10**6),
        ("1.5 gb", 1_500_000_000),
        ("2g", 2 * 10**9),
        ("2GiB", 2**31),
        (" 700 M ", 700 * 10**6),
        ("0.5TB", 500 * 10**9),
        ("123456789", 123456789),
        (10**9, 10**9),
    ],
)
def test_sizes(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "much", "GB", "-1GB", "1 2GB", "1EB", "0", "0GB", "1,5GB", "1e9", 0, -5])
def test_what_is_no_size_is_said(text):
    with pytest.raises(BertwrightError, match="not a size of memory") as caught:
        bytes_of(text)
    assert "--ram 2GB" in caught.value.fix


def test_as_many_workers_as_fit(caplog):
    for ram in range(ALONE_BYTES, 20 * 10**9, 37_000_000):
        for wanted in (1, 2, 8, 64):
            fitting = workers_within(ram, wanted)
            assert 1 <= fitting <= wanted
            assert fitting == 1 or READER_BYTES + fitting * WORKER_BYTES <= ram
            assert fitting == wanted or READER_BYTES + (fitting + 1) * WORKER_BYTES > ram
    ram = READER_BYTES + 3 * WORKER_BYTES
    assert workers_within(ram, 8, parquet=True) == 2
    assert workers_within(ram + PARQUET_BYTES, 8, parquet=True) == 3
    with caplog.at_level(logging.INFO):
        assert workers_within(READER_BYTES + 3 * WORKER_BYTES, 8) == 3
    assert "3 of 8 workers" in caplog.text


def test_too_little_is_refused_with_what_is_enough():
    with pytest.raises(BertwrightError, match=r"--ram is 100\.0 MB") as caught:
        workers_within(100 * 10**6, 1)
    assert workers_within(bytes_of(caught.value.fix.split()[2]), 4) == 1
    with pytest.raises(BertwrightError, match="at least") as caught:
        workers_within(ALONE_BYTES, 1, parquet=True)
    assert workers_within(bytes_of(caught.value.fix.split()[2]), 4, parquet=True) == 1
