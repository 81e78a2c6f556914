"""Usage events, sent to llm.usage without ever holding up the call that they tell of."""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from threading import Event, Thread
from types import MappingProxyType

from confluent_kafka import KafkaError, KafkaException, Message, Producer

_log = logging.getLogger(__name__)

TOPIC = "llm.usage"

_POLL_S = 0.1
_PURGE_S = 1.0


class UsagePublisher:
    """Sends usage events, CloudEvents 1.0 in structured JSON with the record key ``subject``, through a bounded buffer.

    ``kafka`` are librdkafka properties. While the broker is away at most ``buffer_events`` are kept; what comes then is
    dropped and counted in ``dropped``: the loss of an event must not become the loss of a call. Safe to use from
    several threads.
    """

    def __init__(self, kafka: Mapping[str, str], *, topic: str = TOPIC, buffer_events: int = 100_000) -> None:
        self._topic = topic
        self._dropped: Counter[str] = Counter()
        self._told = False
        self._producer = Producer(
            {
                "linger.ms": 5,
                "compression.type": "lz4",
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 1000,
                **kafka,
                "enable.idempotence": True,
                # All writers of the topic must put a subject in the same partition; librdkafka's default differs.
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": buffer_events,
                "delivery.report.only.error": True,
                "error_cb": self._on_error,
            }
        )
        self._closing = Event()
        self._thread = Thread(target=self._serve, name="tripswitch-usage", daemon=True)
        self._thread.start()

    def publish(self, event: Mapping[str, object]) -> None:
        """Queue one event. Never blocks and never raises: what cannot be queued is counted in ``dropped``."""
        if self._closing.is_set():
            self._drop("closed")
            return
        subject = event.get("subject")
        if not isinstance(subject, str) or not subject:
            self._drop("no-subject")
            return
        try:
            value = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            self._drop("not-json")
            return
        try:
            # A lone surrogate in a caller's text must not make the call vanish.
            self._producer.produce(
                self._topic,
                value.encode(errors="replace"),
                subject.encode(errors="replace"),
                on_delivery=self._on_undelivered,
            )
        except BufferError:
            self._drop("buffer-full")
        except KafkaException:
            self._drop("refused-by-client")

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many events were lost, by reason: buffer-full, undelivered, not-json, no-subject, closed, …."""
        return MappingProxyType(dict(self._dropped))

    def close(self, timeout: float = 5.0) -> int:
        """Send what waits, for ``timeout`` seconds at most. Returns how many events were still there, and are lost."""
        if self._closing.is_set():
            return 0
        self._closing.set()
        self._thread.join()
        before = self._dropped["undelivered"]
        if self._producer.flush(timeout):
            # What is purged is reported as undelivered, one by one; the queue's length counts other things too.
            self._producer.purge()
            self._producer.flush(_PURGE_S)
        lost = self._dropped["undelivered"] - before
        if lost:
            _log.warning("%d usage events were not sent before the end", lost)
        return lost

    def _serve(self) -> None:
        # Delivery reports wait in a queue that somebody has to empty.
        while not self._closing.is_set():
            self._producer.poll(_POLL_S)

    def _on_undelivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._drop("undelivered")

    def _on_error(self, error: KafkaError) -> None:
        if not self._told or error.fatal():
            _log.warning("usage events: %s", error.str())
            self._told = True

    def _drop(self, reason: str) -> None:
        self._dropped[reason] += 1
