"""Which gateways were heard of lately, and which keys they say that they have."""

import time
from contextlib import closing

import msgspec
from confluent_kafka import Consumer, TopicPartition
from msgspec import Struct

from schemas.topics import ACKS
from streams.committed import committed_records
from streams.settings import Kafka

_LATELY_MS = 5 * 60_000
"""A gateway that lives says so every minute."""
_SECONDS = 15.0
_GROUP = "tripswitch-operator-keys"


class Gateway(Struct, frozen=True):
    """A gateway by the name that it gives itself. `jwks_sha256` names the keys it said last that it has; None: it never
    said. `at` is when (ms)."""

    name: str
    at: int
    jwks_sha256: str | None = None


class _Product(Struct):
    vendor_name: str = ""


class _Metadata(Struct):
    product: _Product


class _Unmapped(Struct):
    jwks_sha256: str | None = None


class _Ack(Struct):
    time: int
    metadata: _Metadata
    unmapped: _Unmapped = msgspec.field(default_factory=_Unmapped)


_decode = msgspec.json.Decoder(_Ack).decode


class Acknowledged:
    """Follows the acknowledgements of the last minutes."""

    def __init__(self, kafka: Kafka) -> None:
        """Asks where the last minutes begin.

        Raises:
            KafkaException: the broker does not answer.
        """
        self._kafka = kafka
        self._gateways: dict[str, Gateway] = {}
        self._next: dict[int, int] = {}
        since = int(time.time() * 1000) - _LATELY_MS
        with closing(Consumer({**kafka.confluent(), "group.id": _GROUP, "log_level": "0"})) as consumer:
            numbers = consumer.list_topics(ACKS, timeout=_SECONDS).topics[ACKS].partitions
            asked = [TopicPartition(ACKS, number, since) for number in numbers]
            for at in consumer.offsets_for_times(asked, timeout=_SECONDS):
                # Behind the last record where none is so young.
                _, high = consumer.get_watermark_offsets(at, timeout=_SECONDS)
                self._next[at.partition] = at.offset if at.offset >= 0 else high

    def gateways(self) -> list[Gateway]:
        """Who was heard of in the last minutes, by name.

        Raises:
            KafkaException, TimeoutError: the acknowledgements can't be read.
        """
        for number, since in self._next.items():
            for message in committed_records(self._kafka, ACKS, number, _GROUP, since=since, quiet=True):
                self._next[number] = message.offset() + 1
                self._take(message.value() or b"")
        return [gateway for _, gateway in sorted(self._gateways.items())]

    def _take(self, raw: bytes) -> None:
        try:
            ack = _decode(raw)
        except msgspec.MsgspecError:
            # Whoever may write there may write anything.
            return
        name, told = ack.metadata.product.vendor_name, ack.unmapped.jwks_sha256
        held = self._gateways.get(name)
        if held is not None and (held.at > ack.time or told is None):
            told = held.jwks_sha256
        self._gateways[name] = Gateway(name, max(ack.time, held.at if held else 0), told)
