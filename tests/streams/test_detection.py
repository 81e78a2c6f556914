"""What `detect` makes of records: signals in order, dead letters with their bytes, nothing twice, ticks."""

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from schemas.directory import Directory
from schemas.finding import Tick, encode
from schemas.times import format_millis
from streams.detection import Detection
from streams.fetched import Chunk
from streams.policy import read_policy

AT = TP("llm.usage", 2)
START = 1_772_409_600_000


def record(offset: int, value: bytes | None, timestamp: int = START) -> Any:
    return SimpleNamespace(offset=offset, timestamp=timestamp, timestamp_type=1, key=b"k", value=value)


def chunk(*records: Any) -> Chunk:
    return Chunk.of("llm.usage", 2, records)


def event(second: float, n: int = 0) -> bytes:
    return json.dumps({
        "id": f"e{second}-{n}", "source": "gw", "subject": "key_1", "time": format_millis(START + round(second * 1000)),
        "data": {"tenant": "acme", "model": "m", "status": 200, "input_tokens": 10, "output_tokens": 5},
    }).encode()  # fmt: skip


@pytest.fixture
def detection() -> Detection:
    return Detection(read_policy(Path(__file__).parents[2] / "policy.toml"), Directory())


def test_closed_buckets_come_out_as_the_tenants_sums(detection: Detection) -> None:
    out = detection.take(AT, chunk(*[record(n, event(n)) for n in range(30)]))
    buckets = [json.loads(r.value) for r in out]
    assert [(r.topic, r.key) for r in out] == [("llm.signals", b"acme")] * len(out)
    assert [(b["end"], b["requests"], b["tokens"]) for b in buckets] == [
        (format_millis(START + 10_000), 10, 150.0), (format_millis(START + 20_000), 10, 150.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "Input data was truncated"),
        (b"", "Input data was truncated"),
        (b"\xff", "malformed"),
        (b'{"id":1}', "Expected `str`"),
        (event(301), "301 s ahead of the broker's clock"),
        (b'{"type":"llm.tick.v1","time":"when"}', "Invalid enum value"),
        # Neither a tick without its type nor one from the future moves a clock.
        (b'{"time":"2026-03-02T00:01:00.000Z"}', "missing required field"),
        (encode(Tick(format_millis(START + 400_000))), "Invalid enum value"),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter(detection: Detection, value: bytes | None, reason: str) -> None:
    out = detection.take(AT, chunk(record(0, event(0)), record(1, value), record(2, event(1))))
    [letter] = [r for r in out if r.topic == "llm.dead-letters"]
    told = json.loads(letter.value)
    assert base64.b64decode(told["raw"]) == (value or b"")
    assert (told["partition"], told["offset"], letter.key) == (2, 1, b"k")
    assert reason in told["reason"]


def test_records_taken_before_are_passed_over(detection: Detection) -> None:
    records = [record(n, event(n)) for n in range(30)]
    first = detection.take(AT, chunk(*records))
    assert detection.take(AT, chunk(*records)) == []
    assert len(first) == 2


def test_a_partition_that_went_and_came_back_starts_anew(detection: Detection) -> None:
    records = [record(n, event(n)) for n in range(30)]
    first = detection.take(AT, chunk(*records))
    detection.keep(set())
    assert detection.take(AT, chunk(*records)) == first


def test_a_restored_partition_goes_on_with_the_next_record(detection: Detection) -> None:
    records = [record(n, event(n)) for n in range(30)]
    detection.take(AT, chunk(*records[:15]))
    checkpoint, offsets = detection.checkpoint(2), detection.offsets(2)
    assert offsets == {"llm.usage": 15}
    undisturbed = detection.take(AT, chunk(*records[15:]))
    again = Detection(read_policy(Path(__file__).parents[2] / "policy.toml"), Directory())
    again.go_on(2, again.restored(2, checkpoint.pieces), offsets)
    assert (again.offsets(2), again.size) == (offsets, 1)
    assert again.take(AT, chunk(*records)) == undisturbed


def test_a_restored_partition_that_stays_idle_gets_its_tick(
    detection: Detection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("streams.detection.time.monotonic", lambda: now[0])
    detection.take(AT, chunk(*[record(n, event(n)) for n in range(5)]))
    again = Detection(read_policy(Path(__file__).parents[2] / "policy.toml"), Directory())
    again.go_on(2, again.restored(2, detection.checkpoint(2).pieces), detection.offsets(2))
    now[0] += 10.0
    assert [(tick.topic, tick.partition) for tick in again.ticks()] == [("llm.usage", 2)]


def test_a_partition_of_which_nothing_was_saved_starts_where_the_group_is(detection: Detection) -> None:
    detection.go_on(2, None, {})
    assert detection.offsets(2) == {}
    assert detection.take(AT, chunk(*[record(n, event(n)) for n in range(40, 70)]))


def test_a_tick_closes_what_waits(detection: Detection) -> None:
    detection.take(AT, chunk(*[record(n, event(n)) for n in range(5)]))
    tick = encode(Tick(format_millis(START + 12_000)))
    [bucket] = detection.take(AT, chunk(record(5, tick, START + 12_000)))
    assert json.loads(bucket.value)["requests"] == 5


def test_an_idle_partition_gets_one_tick_when_its_bucket_is_due(
    detection: Detection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("streams.detection.time.monotonic", lambda: now[0])
    detection.take(AT, chunk(*[record(n, event(n), START + 4_000) for n in range(5)]))
    ticks, closed = [], []
    for second in range(1, 60):
        now[0] += 1.0
        for tick in detection.ticks():
            ticks.append((second, tick.topic, tick.partition))
            closed += detection.take(AT, chunk(record(4 + len(ticks), tick.value, START + 4_000 + second * 1000)))
    # The bucket ends 10 s after the start and closes 2 s later; the last event was at 4 s.
    assert ticks == [(8, "llm.usage", 2)]
    assert [json.loads(r.value)["requests"] for r in closed] == [5]


def test_a_tick_does_not_follow_one_clock_that_is_ahead(detection: Detection, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("streams.detection.time.monotonic", lambda: now[0])
    ahead = [record(n, event(n), START + 4_000) for n in range(4)] + [record(4, event(240), START + 4_000)]
    detection.take(AT, chunk(*ahead))
    now[0] += 10.0
    [tick] = detection.ticks()
    assert json.loads(tick.value)["time"] == format_millis(START + 14_000)


def test_a_record_nested_too_deeply_is_a_dead_letter(detection: Detection) -> None:
    [letter] = detection.take(AT, chunk(record(0, b'{"x":' + b"[" * 200_000)))
    assert json.loads(letter.value)["reason"] == "nested too deeply"
