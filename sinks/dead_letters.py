"""Records that could not be read, as records of the dead-letter topic: with the reason, and their bytes kept."""

from typing import Protocol

from schemas.dead_letter import DeadLetter
from schemas.finding import encode
from schemas.times import format_millis


class Source(Protocol):
    """A Kafka record; `timestamp` in ms, below 0 where the broker has none."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None


def dead_letter(record: Source, reason: str) -> bytes:
    """The value of the dead letter of `record`."""
    time = format_millis(max(0, record.timestamp))
    return encode(DeadLetter(time, record.topic, record.partition, record.offset, reason, record.value or b""))
