"""Where in fetched bytes each record lies: its varints are read by a compiled loop, and no object is made of it.

What is read are batches of Kafka's message format 2, uncompressed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import compiled

Raw = NDArray[np.uint8]
Numbers = NDArray[np.int64]

OFFSET, TIMESTAMP, TIMESTAMP_TYPE, VALUE, VALUE_END, KEY, KEY_END, HEADERS = range(8)
"""The rows of spans. A value or a key is absent where its end is below its begin; `HEADERS` is where their count is."""
ROWS = 8
_SHORTEST = 7
"""Bytes of a record without any content."""
_LONGEST = 63
_MORE = 0x80


class Broken(ValueError):
    """Bytes that are no records."""


class Batch(NamedTuple):
    """Where the records of a batch begin and end, and what its header says of them."""

    begin: int
    end: int
    records: int
    base_offset: int
    timestamp: int
    """The first record's, or with `appended` that of every one."""
    appended: bool


def read_spans(raw: bytes, batches: Sequence[Batch], wanted: int) -> Numbers:
    """The spans (8 rows, a column per record) of the records in `batches` from offset `wanted` on.

    Raises:
        Broken: there are no such records there.
    """
    most = sum(min(max(0, batch.records), (batch.end - batch.begin) // _SHORTEST) for batch in batches)
    out = np.empty((ROWS, most), np.int64)
    count = _read(np.frombuffer(raw, np.uint8), np.array(batches, np.int64).reshape(-1, 6), wanted, out)
    if count < 0:
        raise Broken
    return out[:, :count]


@compiled
def _varint(raw: Raw, at: int, end: int) -> tuple[int, int]:
    """The number that is written at `at` and where the next one is; -1 for that where it does not end before `end`."""
    shift, bits = 0, np.int64(0)
    while at < end and shift <= _LONGEST:
        byte = np.int64(raw[at])
        at += 1
        bits |= (byte & 0x7F) << shift
        if byte < _MORE:
            # Zigzag: the last bit is the sign.
            return int(((bits >> 1) & 0x7FFF_FFFF_FFFF_FFFF) ^ -(bits & 1)), at
        shift += 7
    return 0, -1


@compiled
def _bytes(raw: Raw, at: int, end: int) -> tuple[int, int, int]:
    """Begin and end of what is written with its length before it, and where the next is, or -1."""
    length, at = _varint(raw, at, end)
    if at < 0 or length > end - at:
        return 0, 0, -1
    return at, at + length if length >= 0 else at - 1, at + max(length, 0)


@compiled
def _headers_end(raw: Raw, at: int, end: int) -> int:
    """Where a record's headers end; -1 where they are none."""
    count, at = _varint(raw, at, end)
    if count < 0:
        return -1
    for _ in range(count):
        if at < 0:
            return -1
        key, key_end, at = _bytes(raw, at, end)
        if at < 0 or key_end < key:
            return -1
        _, _, at = _bytes(raw, at, end)
    return at


@compiled
def _read(raw: Raw, batches: Numbers, wanted: int, out: Numbers) -> int:
    """Fills `out`; how many records there are from `wanted` on, or -1 where there are no such records."""
    n = 0
    for b in range(len(batches)):
        at, end, count, base, stamp, appended = batches[b]
        if end > len(raw):
            return -1
        for _ in range(count):
            length, at = _varint(raw, at, end)
            stop = at + length
            if at < 0 or length < 0 or length > end - at:
                return -1
            # Attributes, which are unused.
            _, at = _varint(raw, at, stop)
            if at < 0:
                return -1
            later, at = _varint(raw, at, stop)
            if at < 0:
                return -1
            further, at = _varint(raw, at, stop)
            if at < 0:
                return -1
            key, key_end, at = _bytes(raw, at, stop)
            if at < 0:
                return -1
            value, value_end, at = _bytes(raw, at, stop)
            if at < 0 or _headers_end(raw, at, stop) != stop:
                return -1
            offset = base + further
            if offset >= wanted:
                out[OFFSET, n], out[TIMESTAMP_TYPE, n], out[HEADERS, n] = offset, appended, at
                out[TIMESTAMP, n] = stamp if appended else stamp + later
                out[VALUE, n], out[VALUE_END, n], out[KEY, n], out[KEY_END, n] = value, value_end, key, key_end
                wanted = offset + 1
                n += 1
            at = stop
        if at != end:
            return -1
    return n
