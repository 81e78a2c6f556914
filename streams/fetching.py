"""aiokafka's fetcher, with a `Chunk` for each partition's fetch in place of an object for each record.

What aiokafka does about aborted transactions, control batches, checksums and compression is done here as it does it.
What is leaned on inside aiokafka is in docs/decisions/0001-batch-transport.md.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import google_crc32c
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from streams.fetched import Chunk, Fetched
from streams.spans import Batch, Broken, read_spans

_HEADER = DefaultRecordBase.HEADER_STRUCT
_OVERHEAD = DefaultRecordBase.AFTER_LEN_OFFSET
"""Bytes of a batch that the length in its header does not count."""
_LENGTH, _MAGIC = 8, 16
_CURRENT = 2
"""Brokers may have kept what was written in formats from before Kafka 0.11."""
_TRANSACTIONAL, _CONTROL = DefaultRecordBase.TRANSACTIONAL_MASK, DefaultRecordBase.CONTROL_MASK
_DECOMPRESS = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
# The processor's own instruction where there is one: aiokafka's loop takes ten times as long.
_crc = google_crc32c.value if google_crc32c.implementation == "c" else calc_crc32c


class _Header(NamedTuple):
    """A batch's header."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    def batch(self, begin: int, end: int) -> Batch:
        """The batch, whose records lie from `begin` to `end`."""
        appended = bool(self.attributes & DefaultRecordBase.TIMESTAMP_TYPE_MASK)
        stamp = self.max_timestamp if appended else self.first_timestamp
        return Batch(begin, end, self.records, self.base_offset, stamp, appended)


class Bytes(MemoryRecords):  # type: ignore[misc]
    """What was fetched of a partition, at hand as it came."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self.raw = raw


class Records(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records that were fetched of a partition."""

    next_fetch_offset: int

    def chunk(self) -> Chunk:
        """All of them from the wanted offset on, without those that were aborted.

        Raises:
            aiokafka.errors.CorruptRecordException: the bytes are not what a producer wrote.
        """
        raw: bytes = self._records.raw
        wanted: int = self.next_fetch_offset
        aborted, to_come = set[int](), list(self._aborted_transactions)
        batches, unpacked, size = list[Batch](), list[bytes](), len(raw)
        for at, end in _places(raw):
            if raw[at + _MAGIC] < _CURRENT:
                self.next_fetch_offset = wanted
                return Chunk.of(self._tp.topic, self._tp.partition, list(self))
            head = self._header(raw, at, end)
            self.next_fetch_offset = head.base_offset + head.last_offset_delta + 1
            if head.attributes & (_TRANSACTIONAL | _CONTROL) and self._isolation_level == fetcher.READ_COMMITTED:
                while to_come and to_come[0][1] <= head.base_offset:
                    aborted.add(to_come.pop(0)[0])
                if head.attributes & _CONTROL and self._contains_abort_marker(DefaultRecordBatch(raw[at:end])):
                    aborted.discard(head.producer_id)
                if head.attributes & _TRANSACTIONAL and head.producer_id in aborted:
                    continue
            if head.attributes & _CONTROL:
                continue
            begin = at + _HEADER.size
            if packed := head.attributes & DefaultRecordBase.CODEC_MASK:
                unpacked.append(_unpack(packed, raw[begin:end]))
                begin, size = size, size + len(unpacked[-1])
            batches.append(head.batch(begin, size if packed else end))
        try:
            raw = b"".join((raw, *unpacked))
            return Chunk(self._tp.topic, self._tp.partition, raw, read_spans(raw, batches, wanted))
        except Broken as error:
            raise CorruptRecordException(f"Found invalid record structure - {self._tp}") from error

    def _header(self, raw: bytes, at: int, end: int) -> _Header:
        """The header of the batch from `at` to `end`, whose checksum is right."""
        if end - at < _HEADER.size:
            raise CorruptRecordException(f"Found a batch without a header - {self._tp}")
        head = _Header(*_HEADER.unpack_from(raw, at))
        if self._check_crcs and _crc(raw[at + DefaultRecordBase.ATTRIBUTES_OFFSET : end]) != head.crc:
            raise CorruptRecordException(f"Invalid CRC - {self._tp}")
        return head


class Result(fetcher.FetchResult):  # type: ignore[misc]
    """What a fetch brought of a partition."""

    _partition_records: Records | None

    def getall(self, max_records: int | None = None) -> Sequence[Fetched]:  # noqa: ARG002 - nobody asks for fewer
        """All of it, once."""
        if not self.check_assignment(self._topic_partition) or self._partition_records is None:
            return []
        records = self._partition_records
        chunk = records.chunk()
        self._update_position()
        self._partition_records = None
        # It refers to the records, and they to it: the bytes would stay until the garbage collector comes by.
        records._records_iterator = None  # noqa: SLF001
        return chunk


def _places(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where batches begin and end. A broker cuts the last one off anywhere."""
    at = 0
    while at + _OVERHEAD <= len(raw):
        end = at + _OVERHEAD + int.from_bytes(raw[at + _LENGTH : at + _OVERHEAD], "big", signed=True)
        if end > len(raw):
            return
        if end <= at + _MAGIC:
            raise CorruptRecordException("Found a batch without a header")
        yield at, end
        at = end


def _unpack(packed: int, raw: bytes) -> bytes:
    if packed not in _DECOMPRESS:
        raise UnsupportedCodecError(f"Unknown compression codec {packed:#04x}")
    return _DECOMPRESS[packed](raw)  # type: ignore[no-any-return]


def fetch_in_chunks() -> None:
    """Makes aiokafka's fetchers in this process fetch chunks."""
    fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult = Bytes, Records, Result
    # Compiled now, and not while the group waits for a heartbeat.
    read_spans(bytes(1), [], 0)
