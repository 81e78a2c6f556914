"""A record that could not be read: why, and its bytes."""

from msgspec import Struct


class DeadLetter(Struct, frozen=True):
    """`raw` holds the bytes (base64 in JSON), `offset` the place in `topic` and `partition`; `time` is RFC 3339."""

    time: str
    topic: str
    partition: int
    offset: int
    reason: str
    raw: bytes
