"""What is to be published."""

from collections.abc import Sequence

from msgspec import Struct


class Record(Struct, frozen=True):
    """What is to be published. `partition` None lets the key decide, as Kafka's default partitioner does."""

    topic: str
    key: bytes | None
    value: bytes
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
