"""Sends acknowledgements to their topic."""

import json
import logging
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tripswitch_gateway.counts import Counts

_log = logging.getLogger(__name__)

_FLUSH_S = 2.0


class AckSender:
    """A producer of the acknowledgements' topic; what cannot be sent is counted and lost."""

    def __init__(self, kafka: Mapping[str, str], topic: str, counts: Counts) -> None:
        self._topic = topic
        self._counts = counts
        self._producer = Producer(
            {
                **kafka,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "delivery.report.only.error": True,
                # The consumer tells of a fault of the connection.
                "error_cb": lambda error: _log.debug("acknowledgements: %s", error.str()),
            }
        )

    def send(self, record: dict[str, object]) -> None:
        """Queue one record. Never blocks."""
        try:
            self._producer.produce(
                self._topic, json.dumps(record).encode(), str(record["command_uid"]), on_delivery=self._on_lost
            )
        except (BufferError, KafkaException):
            self._counts.acks_dropped += 1
        self._producer.poll(0)

    def poll(self) -> None:
        """Learn what was lost."""
        self._producer.poll(0)

    def close(self) -> None:
        """Send what waits, for two seconds at most."""
        self._counts.acks_dropped += self._producer.flush(_FLUSH_S)

    def _on_lost(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._counts.acks_dropped += 1
