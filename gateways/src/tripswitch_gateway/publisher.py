"""Usage events, sent to llm.usage without ever holding up the call that they tell of."""

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from threading import Event, Lock, Thread
from types import MappingProxyType

from confluent_kafka import KafkaError, KafkaException, Message, Producer

_log = logging.getLogger(__name__)

TOPIC = "llm.usage"

_POLL_S = 0.1
_PURGE_S = 1.0
_TELL_EVERY_S = 60.0
_BUFFER_KBYTES = 64 * 1024
# Why the client or the broker gave an event back; all else is "undelivered".
_REASONS = {
    KafkaError._UNKNOWN_TOPIC: "no-topic",  # noqa: SLF001 - the client's only names for its own errors
    KafkaError._UNKNOWN_PARTITION: "no-topic",  # noqa: SLF001
    KafkaError.UNKNOWN_TOPIC_OR_PART: "no-topic",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "not-allowed",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "not-allowed",
    KafkaError.MSG_SIZE_TOO_LARGE: "too-large",
}


class UsagePublisher:
    """Sends usage events, CloudEvents 1.0 in structured JSON with the record key ``subject``, through a bounded buffer.

    ``kafka`` are librdkafka properties. While the broker is away at most ``buffer_events`` events, or 64 MiB, are kept,
    for five minutes at most (librdkafka's ``message.timeout.ms``); what comes then is dropped and counted in
    ``dropped``: the loss of an event must not become the loss of a call. Losses are logged once a minute at most, by
    number and reason and never with an event's content. Safe to use from several threads.
    """

    def __init__(self, kafka: Mapping[str, str], *, topic: str = TOPIC, buffer_events: int = 100_000) -> None:
        self._topic = topic
        self._lock = Lock()
        self._queued = self._sent = 0
        self._dropped: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._tell_at = 0.0
        self._errors_told: dict[int, float] = {}
        self._broken = Event()
        self._settings = {
            "linger.ms": 5,
            "compression.type": "lz4",
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "queue.buffering.max.kbytes": _BUFFER_KBYTES,
            **kafka,
            "enable.idempotence": True,
            # All writers of the topic must put a subject in the same partition; librdkafka's default differs.
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": buffer_events,
            "error_cb": self._on_error,
        }
        self._producer = Producer(self._settings)
        self._closing = Event()
        self._thread = Thread(target=self._serve, name="tripswitch-usage", daemon=True)
        self._thread.start()

    def publish(self, event: Mapping[str, object]) -> None:
        """Queue one event. Never blocks and never raises: what cannot be queued is counted in ``dropped``."""
        if self._closing.is_set():
            self._drop("closed")
            return
        subject = event.get("subject") if isinstance(event, Mapping) else None
        if not isinstance(subject, str) or not subject:
            self._drop("no-subject")
            return
        try:
            value = json.dumps(event, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            self._drop("not-json")
            return
        with self._lock:
            self._queued += 1
        try:
            # A lone surrogate in a caller's text must not make the call vanish.
            self._producer.produce(
                self._topic,
                value.encode(errors="replace"),
                subject.encode(errors="replace"),
                on_delivery=self._on_delivery,
            )
        except BufferError:
            self._lose("buffer-full")
        except KafkaException as error:
            self._lose(_reason(error.args[0], "refused-by-client"))

    @property
    def sent(self) -> int:
        """How many events the broker has acknowledged."""
        return self._sent

    @property
    def queued(self) -> int:
        """How many events wait in the buffer, or for the broker's acknowledgement."""
        return self._queued

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many events were lost, by reason: buffer-full, undelivered, no-topic, not-allowed, too-large, not-json,
        no-subject, refused-by-client, closed.
        """
        with self._lock:
            return MappingProxyType(dict(self._dropped))

    def close(self, timeout: float = 5.0) -> int:
        """Send what waits, for ``timeout`` seconds at most (and one more to give up what is left).

        Returns how many events were still there, and are lost.
        """
        if self._closing.is_set():
            return 0
        self._closing.set()
        self._thread.join()
        before = self.dropped.get("undelivered", 0)
        if self._producer.flush(timeout):
            # What is purged is reported as undelivered, one by one; the queue's length counts other things too.
            self._producer.purge()
            self._producer.flush(_PURGE_S)
        lost = self.dropped.get("undelivered", 0) - before
        if lost:
            _log.warning("%d usage events were not sent before the end", lost)
        return lost

    def _serve(self) -> None:
        while not self._closing.is_set():
            # Delivery reports wait in a queue that somebody has to empty.
            self._producer.poll(_POLL_S)
            self._tell_losses()
            if self._broken.is_set():
                self._start_again()

    def _start_again(self) -> None:
        """Replace the producer: after a fatal error, librdkafka refuses everything for good."""
        self._broken.clear()
        broken, self._producer = self._producer, Producer(self._settings)
        broken.purge()
        broken.flush(_PURGE_S)

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._lose(_reason(error, "undelivered"))
            return
        with self._lock:
            self._queued -= 1
            self._sent += 1

    def _on_error(self, error: KafkaError) -> None:
        """Tell of a fault of the connection once a minute, not at each attempt; librdkafka tries again by itself."""
        if error.fatal():
            self._broken.set()
        now = time.monotonic()
        if now >= self._errors_told.get(error.code(), 0.0):
            self._errors_told[error.code()] = now + _TELL_EVERY_S
            _log.warning("usage events: %s", error.str())

    def _lose(self, reason: str) -> None:
        with self._lock:
            self._queued -= 1
            self._dropped[reason] += 1

    def _drop(self, reason: str) -> None:
        with self._lock:
            self._dropped[reason] += 1

    def _tell_losses(self) -> None:
        now = time.monotonic()
        if now < self._tell_at:
            return
        with self._lock:
            new, self._told = self._dropped - self._told, self._dropped.copy()
        if new:
            self._tell_at = now + _TELL_EVERY_S
            _log.warning("%d usage events were lost: %s", new.total(), dict(new))


def _reason(error: KafkaError, otherwise: str) -> str:
    return _REASONS.get(error.code(), otherwise)
