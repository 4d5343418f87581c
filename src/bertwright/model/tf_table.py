"""What TensorFlow's checkpoints are made of: LevelDB's sorted table, messages of protocol buffers, and CRC-32C.

    for key, value in read_table(Path("bert_model.ckpt.index").read_bytes()):
        Message(value).number(5)

Whatever the bytes are, `DamageError` is the one exception, and memory stays in proportion to them.

Reference: leveldb/doc/table_format.md, protobuf.dev/programming-guides/encoding, RFC 3720 appendix B.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile

import numpy as np
from jaxtyping import UInt8

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5
"""Behind each block: one byte for how it is compressed, and the checksum of both."""
_RESTART_INTERVAL = 16
"""Every so many entries, a key is written in full."""
_BLOCK_SIZE = 2**18


class DamageError(Exception):
    """What is wrong with a table or a message; who knows the file's name adds it."""


class UnsupportedError(DamageError):
    """The file may be sound, but nothing here reads its like; another copy would not help."""


# --- Numbers and messages ---------------------------------------------------------------------------------------------


class _Cursor:
    """Reads from front to back, and never beyond the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def varint(self) -> int:
        """Read a number below 2^64, written in groups of 7 bits, the lowest first."""
        value = 0
        for position, byte in enumerate(self.data[self.place : self.place + 10]):
            value |= (byte & 127) << (7 * position)
            if byte < 128 and value < 2**64:
                self.place += position + 1
                return value
        raise DamageError("a number in it has no end")

    def take(self, count: int) -> bytes:
        """Read so many bytes."""
        if count > len(self.data) - self.place:
            raise DamageError("a part of it is cut off")
        self.place += count
        return self.data[self.place - count : self.place]


class Message:
    """A message of protocol buffers, with every field in it, known or not.

    Args:
        data: its bytes: a row of keys (field number << 3 | wire type), each with a value behind it.

    Raises:
        DamageError: this is no message.
    """

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        cursor = _Cursor(data)
        while cursor.place < len(data):
            number, wire_type = divmod(cursor.varint(), 8)
            value: int | bytes
            match wire_type:
                case 0:
                    value = cursor.varint()
                case 1:
                    value = int.from_bytes(cursor.take(8), "little")
                case 2:
                    value = cursor.take(cursor.varint())
                case 5:
                    value = int.from_bytes(cursor.take(4), "little")
                case _:
                    raise DamageError(f"a field in it is of the unknown type {wire_type}")
            self._fields.setdefault(number, []).append(value)

    def number(self, field: int) -> int:
        """Return a field that is a number, signed; 0 where it is left out.

        Raises:
            DamageError: it is something else.
        """
        value = self._fields.get(field, [0])[-1]
        if isinstance(value, bytes):
            raise DamageError(f"field {field} in it is not a number")
        return value - 2**64 if value >= 2**63 else value

    def parts(self, field: int) -> list[bytes]:
        """Return the bytes of a field that is a text or message, repeated or not.

        Raises:
            DamageError: it is something else.
        """
        values = self._fields.get(field, [])
        parts = [value for value in values if isinstance(value, bytes)]
        if len(parts) < len(values):
            raise DamageError(f"field {field} in it is a number")
        return parts


def write_field(number: int, value: int | bytes) -> bytes:
    """Return one field of a message: a number, which is left out where it is 0, or the bytes of a text or message."""
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value) if value else b""


def write_fixed32(number: int, value: int) -> bytes:
    """Return one field of a message that always has four bytes."""
    return _varint(number << 3 | 5) + value.to_bytes(4, "little")


def _varint(value: int) -> bytes:
    groups = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


# --- Tables: blocks of sorted keys, and a block that says where they are ----------------------------------------------


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield every key and value of a table, in order, each key once.

    Args:
        data: the whole file.

    Raises:
        DamageError: it is cut off, damaged or compressed, or no table.
    """
    if len(data) < _FOOTER_SIZE or not data.endswith(_MAGIC):
        raise DamageError("its last bytes are not those of a table; is it whole?")
    footer = _Cursor(data[-_FOOTER_SIZE:])
    _place(footer)  # of a block about the table itself, which is empty
    end, last = 0, None
    for bound, handle in _read_block(data, *_place(footer)):
        offset, size = _place(_Cursor(handle))
        if offset < end:
            raise DamageError("its blocks overlap")
        end = offset + size + _TRAILER_SIZE
        for key, value in _read_block(data, offset, size):
            if (last is not None and key <= last) or key > bound:
                raise DamageError(f"the name {key[:99]!r} is there twice or out of order")
            last = key
            yield key, value


def _place(cursor: _Cursor) -> tuple[int, int]:
    return cursor.varint(), cursor.varint()


def _read_block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of one block. A key is written without what it shares with the one before it."""
    end = offset + size
    if end + _TRAILER_SIZE > len(data) - _FOOTER_SIZE:
        raise DamageError("a block lies outside it")
    stored = unmask(int.from_bytes(data[end + 1 : end + _TRAILER_SIZE], "little"))
    found = crc32c(data[offset : end + 1])
    if found != stored:
        raise DamageError(f"the crc32c of the block at byte {offset:,} is {found:08x} instead of {stored:08x}")
    if data[end] != 0:
        raise UnsupportedError("it is compressed, which no checkpoint of TensorFlow is")
    num_restarts = int.from_bytes(data[end - 4 : end], "little") if size >= 4 else 0
    limit = size - 4 * (num_restarts + 1)
    if num_restarts < 1 or limit < 0:
        raise DamageError("a block is cut off")
    restarts = set(np.frombuffer(data, "<u4", num_restarts, offset + limit).tolist())
    cursor, key, keys_size = _Cursor(data[offset : offset + limit]), b"", 0
    while cursor.place < limit:
        starts_anew = cursor.place in restarts
        restarts.discard(cursor.place)
        shared, unshared, value_size = cursor.varint(), cursor.varint(), cursor.varint()
        if shared > (0 if starts_anew else len(key)):
            raise DamageError("a name should begin like the one before it, which is shorter")
        key = key[:shared] + cursor.take(unshared)
        keys_size += len(key)
        if keys_size > 4 * _RESTART_INTERVAL * size:  # a small file cannot fill the memory
            raise DamageError("its names are longer than it is")
        yield key, cursor.take(value_size)
    if restarts - {0}:
        raise DamageError("a block has no entry where it says so")


def make_table(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the file of a table.

    Args:
        pairs: keys and values; the keys ascend.
    """
    table, bounds, waiting, size = bytearray(), list[tuple[bytes, bytes]](), list[tuple[bytes, bytes]](), 0
    for key, value in pairs:
        waiting.append((key, value))
        size += len(key) + len(value)
        if size >= _BLOCK_SIZE:
            bounds.append((key, _add_block(table, waiting)))
            waiting, size = [], 0
    if waiting:
        last = waiting[-1][0]  # TensorFlow bounds the last block by something shorter, and so its files are ours
        bounds.append((bytes([min(last[0] + 1, 255)]) if last else last, _add_block(table, waiting)))
    places = _add_block(table, []) + _add_block(table, bounds)
    return bytes(table) + places.ljust(_FOOTER_SIZE - len(_MAGIC), b"\0") + _MAGIC


def _add_block(table: bytearray, pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Append a block to a table; return where it lies."""
    block, restarts, before = bytearray(), [0], b""
    for number, (key, value) in enumerate(pairs):
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, key, strict=False)))
        if number % _RESTART_INTERVAL == 0:
            shared = 0
            restarts[number // _RESTART_INTERVAL :] = [len(block)]
        block += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        before = key
    block += b"".join(number.to_bytes(4, "little") for number in (*restarts, len(restarts)))
    place = _varint(len(table)) + _varint(len(block))
    block += b"\0"  # not compressed
    table += block + mask(crc32c(bytes(block))).to_bytes(4, "little")
    return place


# --- Checksums --------------------------------------------------------------------------------------------------------

_TERMS = (299, 142, 134, 62, 21, 0)
"""x^299 + x^142 + x^134 + x^62 + x^21 + 1 is a multiple of the Castagnoli polynomial 0x11EDC6F41."""
_FOLD_SIZES = (256, 32, 4, 1)
_CHUNK_SIZE = 2**20


def crc32c(content: bytes | UInt8[np.ndarray, "N"]) -> int:
    """Return the CRC-32C of some bytes, at about 2 GB a second.

    The bytes are one polynomial over the field of two elements, and the checksum is its remainder by the Castagnoli
    polynomial: adding a multiple of that changes nothing. One multiple p(x) has six terms only, and p(x^8), p(x^16),
    p(x^32) ... are multiples too, because squaring is linear here. So a run of bytes at the front is wiped out by
    adding it at the places of the five other terms, further back, until few bytes are left for the usual table.
    """
    data = np.frombuffer(content, np.uint8)
    window = np.empty(min(len(data), _CHUNK_SIZE) + _TERMS[0], np.uint8)
    rest = window[:0]
    for start in range(0, len(data), _CHUNK_SIZE):
        part = data[start : start + _CHUNK_SIZE]
        filled = window[: len(rest) + len(part)]
        filled[: len(rest)] = rest
        filled[len(rest) :] = part
        if start == 0:
            filled[:4] ^= 0xFF  # the same as a checksum that starts as 0xFFFFFFFF
        rest = _fold(filled)
    crc = 0xFFFFFFFF << 8 * min(len(data), 4) & 0xFFFFFFFF  # what fewer than four bytes leave of that
    for byte in rest.tolist():
        crc = _CRC_OF_BYTE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _fold(data: UInt8[np.ndarray, "N"]) -> UInt8[np.ndarray, "M"]:
    """Return 299 bytes or fewer with the same remainder; the bytes given are overwritten."""
    for size in _FOLD_SIZES:
        shifts = [size * (_TERMS[0] - term) for term in _TERMS[1:]]
        end = max(0, len(data) - size * _TERMS[0])
        for start in range(0, end, shifts[0]):
            front = data[start : min(start + shifts[0], end)]
            for shift in shifts:
                data[start + shift : start + shift + len(front)] ^= front
        data = data[end:]
    return data


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_OF_BYTE = [_crc_of_byte(byte) for byte in range(256)]


def mask(crc: int) -> int:
    """Return how a checksum is stored: turned and moved, so that a checksum over checksums is still a good one."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def unmask(stored: int) -> int:
    """Return the checksum that was stored."""
    turned = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return (turned >> 17 | turned << 15) & 0xFFFFFFFF
