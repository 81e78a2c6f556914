"""Records as they were fetched, in columns: detect asks a record for its value and no more.

To make an object of each record and to drop it again costs more than most detectors do.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, overload

import numpy as np
from aiokafka.record.util import decode_varint
from msgspec import Struct
from numpy.typing import NDArray

from schemas.scan import Packed
from streams import spans as rows


class Fetched(Struct, gc=False):
    """A record as it was fetched: the fields of aiokafka's `ConsumerRecord`, without a dictionary for each."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    checksum: int | None = None
    serialized_key_size: int = -1
    serialized_value_size: int = -1


class Chunk(Sequence[Fetched]):
    """Records of one partition in offset order. A `Fetched` is made when one is asked for.

    `offsets` and `timestamps` (ms) have an entry per record.
    """

    __slots__ = ("_raw", "_spans", "_values", "offsets", "partition", "timestamps", "topic")

    def __init__(self, topic: str, partition: int, raw: bytes, spans: NDArray[np.int64]) -> None:
        self.topic = topic
        self.partition = partition
        self.offsets: NDArray[np.int64] = spans[rows.OFFSET]
        self.timestamps: NDArray[np.int64] = spans[rows.TIMESTAMP]
        self._raw = raw
        self._spans = spans
        self._values: list[bytes | None] | None = None

    @classmethod
    def of(cls, topic: str, partition: int, records: Iterable[Any]) -> "Chunk":
        """A chunk of what are objects already. Headers are left out; a timestamp that is absent is -1."""
        # Begins with a count of headers, which is none.
        raw, spans = bytearray(1), []
        for record in records:
            row = [0] * rows.ROWS
            row[rows.OFFSET], row[rows.TIMESTAMP_TYPE] = record.offset, record.timestamp_type or 0
            row[rows.TIMESTAMP] = -1 if record.timestamp is None else record.timestamp
            for begin, end, part in ((rows.KEY, rows.KEY_END, record.key), (rows.VALUE, rows.VALUE_END, record.value)):
                row[begin] = len(raw)
                raw += part or b""
                row[end] = -1 if part is None else len(raw)
            spans.append(row)
        return cls(topic, partition, bytes(raw), np.array(spans, np.int64).reshape(-1, rows.ROWS).T.copy())

    @property
    def values(self) -> list[bytes | None]:
        """Each record's value."""
        if self._values is None:
            raw, begins, ends = self._raw, self._spans[rows.VALUE].tolist(), self._spans[rows.VALUE_END].tolist()
            self._values = [raw[b:e] if e >= b else None for b, e in zip(begins, ends, strict=True)]
        return self._values

    @property
    def packed(self) -> Packed:
        """Each record's value, an empty one where it has none."""
        begins = self._spans[rows.VALUE]
        ends = np.maximum(self._spans[rows.VALUE_END], begins)
        first, past = int(begins.min(initial=len(self._raw))), int(ends.max(initial=0))
        return Packed(memoryview(self._raw)[first:past], begins - first, ends - first)

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[Fetched]:
        raw, spans = self._raw, self._spans
        keys = [raw[b:e] if e >= b else None for b, e in spans[[rows.KEY, rows.KEY_END]].T.tolist()]
        headers: list[Sequence[tuple[str, bytes | None]]] = [()] * len(self)
        for n in np.flatnonzero(np.frombuffer(raw, np.uint8)[spans[rows.HEADERS]]).tolist():
            headers[n] = _headers(raw, int(spans[rows.HEADERS, n]))
        numbers = (spans[row].tolist() for row in (rows.OFFSET, rows.TIMESTAMP, rows.TIMESTAMP_TYPE))
        return map(Fetched, repeat(self.topic), repeat(self.partition), *numbers, keys, self.values, headers)

    @overload
    def __getitem__(self, at: int) -> Fetched: ...
    @overload
    def __getitem__(self, at: slice) -> "Chunk": ...
    def __getitem__(self, at: int | slice) -> "Fetched | Chunk":
        if isinstance(at, slice):
            return Chunk(self.topic, self.partition, self._raw, self._spans[:, at])
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return next(iter(self[at : at + 1 or None]))


def _headers(raw: bytes, at: int) -> tuple[tuple[str, bytes | None], ...]:
    """The headers whose count is written at `at`."""
    count, at = decode_varint(raw, at)
    headers = []
    for _ in range(count):
        size, at = decode_varint(raw, at)
        name, at = raw[at : at + size].decode(), at + size
        size, at = decode_varint(raw, at)
        headers.append((name, raw[at : at + size] if size >= 0 else None))
        at += max(size, 0)
    return tuple(headers)
