"""Fetches as chunks: what they hold is what aiokafka's own classes make of the same bytes, and no more is leaned on in
aiokafka than is there."""

import gc
import inspect
import struct
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from streams.fetched import Chunk, Fetched
from streams.fetching import Bytes, Records, Result, fetch_in_chunks

PLACE = TopicPartition("usage", 3)
THEIRS = Records.__bases__[0]
ABORT, COMMIT = (struct.pack(">hh", 0, kind) for kind in (0, 1))
FIELDS = ("topic", "partition", "offset", "timestamp", "timestamp_type", "key", "value", "headers")
Row = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def sealed(raw: bytearray) -> bytes:
    """With the checksum of what it holds."""
    struct.pack_into(">I", raw, DefaultRecordBase.CRC_OFFSET, calc_crc32c(bytes(raw[21:])))
    return bytes(raw)


def batch(
    base: int, rows: list[Row], *, codec: int = 0, producer: int = -1, transactional: bool = False,
    control: bool = False, appended: int | None = None,
) -> bytes:  # fmt: skip
    """A batch as a broker keeps it. `rows`: offset in the batch, timestamp, key, value, headers."""
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional), producer, 0, 0, 1 << 20)
    for row in rows:
        builder.append(*row)
    raw = bytearray(builder.build())
    struct.pack_into(">q", raw, 0, base)
    attributes = struct.unpack_from(">h", raw, 21)[0] | (DefaultRecordBase.CONTROL_MASK if control else 0)
    if appended is not None:
        attributes |= DefaultRecordBase.TIMESTAMP_TYPE_MASK
        struct.pack_into(">q", raw, 35, appended)
    struct.pack_into(">h", raw, 21, attributes)
    return sealed(raw)


def marker(base: int, producer: int, kind: bytes) -> bytes:
    """What ends a transaction."""
    rows: list[Row] = [(0, 1, kind, b"\0" * 6, [])]
    return batch(base, rows, producer=producer, transactional=True, control=True)


def theirs(raw: bytes, start: int = 0, aborted: Any = (), isolation: int = 1) -> tuple[list[Any], int]:
    records = THEIRS(PLACE, MemoryRecords(raw), aborted, start, None, None, True, isolation)
    made = [tuple(getattr(record, field) for field in FIELDS) for record in records]
    return made, records.next_fetch_offset


def ours(raw: bytes, start: int = 0, aborted: Any = (), isolation: int = 1) -> tuple[list[Any], int]:
    records = Records(PLACE, Bytes(raw), aborted, start, None, None, True, isolation)
    chunk = records.chunk()
    made = [tuple(getattr(record, field) for field in FIELDS) for record in chunk]
    assert chunk.values == [row[6] for row in made]
    assert chunk.offsets.tolist() == [row[2] for row in made]
    assert chunk.timestamps.tolist() == [row[3] for row in made]
    return made, records.next_fetch_offset


ROWS: list[Row] = [
    (0, 5_000, b"k", b"v" * 200, []),
    (1, 4_000, None, None, [("h", b"x"), ("é", None)]),
    (4, 1 << 42, b"", b"", []),
]


def test_what_is_replaced_is_still_what_a_fetch_is_made_of() -> None:
    fetch_in_chunks()
    source = inspect.getsource(fetcher.Fetcher)
    for used in ("MemoryRecords(part_data[-1])", "PartitionRecords(", "FetchResult(", ".getall(max_records)"):
        assert used in source
    assert (fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult) == (Bytes, Records, Result)
    assert list(inspect.signature(THEIRS).parameters) == [
        "tp", "records", "aborted_transactions", "fetch_offset", "key_deserializer", "value_deserializer",
        "check_crcs", "isolation_level",
    ]  # fmt: skip
    assert "_contains_abort_marker" in vars(THEIRS)
    assert list(inspect.signature(Result.__bases__[0].getall).parameters) == ["self", "max_records"]
    assert DefaultRecordBase.HEADER_STRUCT.format == ">qiibIhiqqqhii"
    assert fetcher.READ_COMMITTED == 1


def test_a_record_has_the_fields_of_aiokafkas() -> None:
    raw = batch(7, ROWS)
    [first, *_], _ = ours(raw)
    assert first == ("usage", 3, 7, 5_000, 0, b"k", b"v" * 200, ())
    made = Records(PLACE, Bytes(raw), [], 0, None, None, True, 1).chunk()
    assert made[1] == Fetched("usage", 3, 8, 4_000, 0, None, None, (("h", b"x"), ("é", None)))
    assert made[-1] == made[2] == list(made)[2]
    assert [record.offset for record in made[1:]] == [8, 11]
    with pytest.raises(IndexError):
        made[3]


@pytest.mark.parametrize("codec", range(5))
@pytest.mark.parametrize("appended", [None, 9_000])
def test_compressed_and_plain_batches_are_read_alike(codec: int, appended: int | None) -> None:
    raw = batch(0, ROWS) + batch(10, ROWS, codec=codec, appended=appended) + batch(20, ROWS)
    assert ours(raw) == theirs(raw)
    assert len(ours(raw)[0]) == 9


@pytest.mark.parametrize("start", range(6))
def test_records_before_the_wanted_offset_are_left_out(start: int) -> None:
    """A fetch begins with the batch in which the offset lies, or with the one after it."""
    raw = batch(0, ROWS) + batch(6, ROWS)
    assert ours(raw, start) == theirs(raw, start)


def test_a_batch_that_compaction_emptied_is_passed_over() -> None:
    raw = bytearray(batch(0, ROWS))
    del raw[61:]
    struct.pack_into(">i", raw, 8, len(raw) - 12)
    struct.pack_into(">i", raw, 57, 0)
    assert ours(sealed(raw)) == theirs(sealed(raw)) == ([], 5)


def test_a_batch_that_the_broker_cut_off_is_left_for_the_next_fetch() -> None:
    first, second = batch(0, ROWS), batch(5, ROWS)
    for kept in (1, 11, 12, 60, 61, len(second) - 1):
        raw = first + second[:kept]
        assert ours(raw) == theirs(raw)
        assert ours(raw)[1] == 5


@pytest.mark.parametrize("isolation", [0, 1])
def test_what_was_aborted_is_left_out_for_who_reads_what_is_committed(isolation: int) -> None:
    def part(base: int, producer: int, *, transactional: bool = True) -> bytes:
        return batch(base, ROWS[:1], producer=producer, transactional=transactional)

    raw = b"".join(
        (
            part(0, 1), part(1, 2), part(2, 1, transactional=False), marker(3, 1, ABORT), part(4, 1),
            marker(5, 2, COMMIT), marker(6, 1, COMMIT), part(7, 1), marker(8, 1, ABORT), part(9, 3),
        )
    )  # fmt: skip
    aborted = [(1, 7), (1, 0)]
    assert ours(raw, 0, aborted, isolation) == theirs(raw, 0, aborted, isolation)
    assert [row[2] for row in ours(raw, 0, aborted, 1)[0]] == [1, 2, 4, 9]


row = st.tuples(
    st.integers(0, 1 << 45), st.none() | st.binary(max_size=200), st.none() | st.binary(max_size=300),
    st.lists(st.tuples(st.text(max_size=3), st.none() | st.binary(max_size=5)), max_size=2),
)  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.lists(row, min_size=1, max_size=5), st.integers(1, 1 << 20), st.sampled_from([0, 0, 3]),
            st.sampled_from([-1, 1, 2]), st.sampled_from([None, 77]), st.sampled_from([None, ABORT, COMMIT]),
        ),
        max_size=6,
    ),
    st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(0, 40)), max_size=3),
    st.integers(0, 5),
)  # fmt: skip
def test_any_log_is_read_as_aiokafka_reads_it(parts: Any, aborted: Any, start: int) -> None:
    raw, base = b"", 0
    # A fetch begins with the batch in which the wanted offset lies.
    start = min(start, (len(parts[0][0]) - 1) * parts[0][1]) if parts else start
    for rows, step, codec, producer, appended, end in parts:
        wide = [(at * step, *one) for at, one in enumerate(rows)]
        raw += batch(base, wide, codec=codec, producer=producer, transactional=producer > 0, appended=appended)
        base += wide[-1][0] + 1
        if producer > 0 and end is not None:
            raw += marker(base, producer, end)
            base += 1
    assert ours(raw, start, aborted) == theirs(raw, start, aborted)


@pytest.mark.parametrize("magic", [0, 1])
def test_records_of_older_formats_are_read(magic: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, 0, 10_000)
    builder.append(0, 1_000, b"k", b"v")
    builder.append(1, 2_000, None, None)
    raw = bytes(builder.build())
    times = [1_000, 2_000] if magic else [-1, -1]
    assert [row[2:7] for row in ours(raw)[0]] == [
        (0, times[0], 0, b"k", b"v"), (1, times[1], 0, None, None),
    ]  # fmt: skip
    assert ours(raw)[1] == theirs(raw)[1] == 2


def test_a_wrong_checksum_is_told() -> None:
    raw = bytearray(batch(0, ROWS) + batch(5, ROWS))
    raw[-1] ^= 1
    with pytest.raises(CorruptRecordException, match="CRC"):
        ours(bytes(raw))


def test_an_unknown_compression_is_told() -> None:
    raw = bytearray(batch(0, ROWS))
    raw[22] |= 7
    with pytest.raises(UnsupportedCodecError):
        ours(sealed(raw))


@given(st.integers(57, 300), st.integers(0, 255))
def test_bytes_that_are_no_records_are_refused_or_read_as_aiokafka_reads_them(at: int, byte: int) -> None:
    """With a checksum that is right: a producer may write anything, and nothing beyond its batch is read."""
    raw = bytearray(batch(0, ROWS))
    raw[min(at, len(raw) - 1)] = byte
    damaged = sealed(raw)
    try:
        expected = theirs(damaged)
    except (CorruptRecordException, UnicodeDecodeError):
        with pytest.raises((CorruptRecordException, UnicodeDecodeError)):
            ours(damaged)
    else:
        assert ours(damaged) == expected


@pytest.mark.parametrize("length", [-(1 << 31), -12, 0, 4, 20, 48])
def test_a_batch_shorter_than_its_header_is_refused(length: int) -> None:
    raw = bytearray(batch(0, ROWS))
    struct.pack_into(">i", raw, 8, length)
    with pytest.raises(CorruptRecordException):
        ours(bytes(raw))


def test_a_chunk_of_objects_is_what_they_are() -> None:
    made = [Fetched("usage", 3, 4, 1_000, 0, b"k", b"v", ()), Fetched("usage", 3, 9, 2_000, 1, None, None, ())]
    assert list(Chunk.of("usage", 3, made)) == made
    assert list(Chunk.of("usage", 3, [])) == []


class Assignment:
    """What a fetch asks of the group's assignment, in which the partition stands at 7."""

    active = True

    def __init__(self) -> None:
        self.state = SimpleNamespace(paused=False, position=7, consumed_to=self._consumed)

    def state_value(self, _: TopicPartition) -> SimpleNamespace:
        return self.state

    def _consumed(self, offset: int) -> None:
        self.state.position = offset


def result(assignment: Assignment) -> Result:
    records = Records(PLACE, Bytes(batch(7, ROWS)), [], 7, None, None, True, 1)
    return Result(PLACE, assignment=assignment, partition_records=records, backoff=0)


def test_a_fetch_is_handed_out_once_and_the_position_moves_behind_it() -> None:
    assignment = Assignment()
    fetched = result(assignment)
    assert [record.offset for record in fetched.getall()] == [7, 8, 11]
    assert assignment.state.position == 12
    assert not fetched.has_more()


def test_a_fetch_is_dropped_when_the_partition_went_elsewhere() -> None:
    for change in ({"paused": True}, {"position": 3}):
        assignment = Assignment()
        vars(assignment.state).update(change)
        fetched = result(assignment)
        assert fetched.getall() == []
        assert not fetched.has_more()


def test_nothing_of_a_fetch_waits_for_the_garbage_collector() -> None:
    fetched = result(Assignment())
    records = weakref.ref(fetched._partition_records)
    gc.disable()
    try:
        fetched.getall()
        assert records() is None
    finally:
        gc.enable()
