from collections.abc import Callable
from typing import Any

import pytest

from schemas import topics
from schemas.times import parse_millis
from sinks.clickhouse.rows import AHEAD_MS, LATEST_MS, Record, batch, usage_batch


def nobody(_: str) -> str:
    return "-"


def test_unreadable_usage_is_counted_and_left_to_detect(usage: Callable[..., Record]) -> None:
    bad = [usage(1)._replace(value=value) for value in (b"{", None, b"\xff", b"[" * 100_000)]
    made = usage_batch([usage(0), *bad, usage(5)], nobody)
    assert (made.unreadable, [block.rows for block in made.blocks]) == (4, [2])


def test_nothing_readable_is_no_insert(usage: Callable[..., Record]) -> None:
    assert usage_batch([usage(0)._replace(value=b"")], nobody).blocks == ()


@pytest.mark.parametrize(
    ("time", "stamp", "rows"),
    [
        (AHEAD_MS + 10_000, 10_000, 1),
        (AHEAD_MS + 10_001, 10_000, 0),
        (LATEST_MS, -1, 1),
        (LATEST_MS + 1, -1, 0),
        (0, 10_000, 1),
        (-1, 10_000, 0),
    ],
)
def test_times_that_the_wire_format_or_the_column_refuses(
    usage: Callable[..., Record], time: int, stamp: int, rows: int
) -> None:
    made = usage_batch([usage(0, time=time)._replace(timestamp_ms=stamp)], nobody)
    assert sum(block.rows for block in made.blocks) == rows
    assert made.unreadable == 1 - rows


def test_a_time_is_as_late_as_a_column_can_hold() -> None:
    assert parse_millis("2299-12-31T23:59:59.999Z") == LATEST_MS


@pytest.mark.parametrize("size", [1, 400, 3000])
def test_a_body_is_the_values_alone_however_many(usage: Callable[..., Record], size: int) -> None:
    (block,) = usage_batch([usage(0)] * size, nobody).blocks
    (one,) = usage_batch([usage(0)], nobody).blocks
    assert block.body == one.body * size


def test_ticks_and_tombstones_have_no_row(samples: Any) -> None:
    made = batch(topics.SIGNALS, [samples.tick(), samples.raw(None, 1)])
    assert (made.blocks, made.unreadable) == ((), 0)


@pytest.mark.parametrize("topic", [topics.SIGNALS, topics.INCIDENTS, topics.AUDIT, topics.REQUESTS, topics.ACKS])
@pytest.mark.parametrize("value", [b"", b"{}", b"\xff\xfe", b"a.b.c", b"a.b", b"[" * 100_000, b"e30.e30.e30"])
def test_what_only_we_would_keep_becomes_a_dead_letter(samples: Any, topic: str, value: bytes) -> None:
    made = batch(topic, [samples.raw(value)])
    assert [block.table for block in made.blocks] == ["dead_letters"]
    assert made.unreadable == 1


def test_a_number_or_time_that_no_column_holds_becomes_a_dead_letter(samples: Any) -> None:
    late = samples.incident(opened="9999-01-01T00:00:00Z")
    huge = samples.acknowledgement()
    huge = huge._replace(value=huge.value.replace(b'"epoch": 17', b'"epoch": 1' + b"0" * 30))
    assert [block.table for block in batch(topics.INCIDENTS, [late]).blocks] == ["dead_letters"]
    assert [block.table for block in batch(topics.ACKS, [huge]).blocks] == ["dead_letters"]


def test_a_token_has_one_event(samples: Any, jws: Callable[[bytes], bytes]) -> None:
    made = batch(topics.AUDIT, [samples.raw(jws(b'{"iss":"i","jti":"j","events":{}}'))])
    assert b"0 events in a token" in made.blocks[0].body
