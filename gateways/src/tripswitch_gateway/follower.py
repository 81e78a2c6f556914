"""The Kafka client that reads every partition of the kill-switch topic, for one process alone."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tripswitch_gateway.reader import Reader

_log = logging.getLogger(__name__)

_POLL_S = 0.1
_WORK_POLL_S = 0.001
_METADATA_TIMEOUT_S = 1.0
_OFFSETS_TIMEOUT_S = 10.0
_HOUSEKEEPING_S = 0.25
_BATCH = 1000


class Follower:
    """Feeds a `Reader` with the records of ``topic``, until ``closing`` is set. ``kafka`` are librdkafka properties."""

    def __init__(self, kafka: Mapping[str, str], topic: str) -> None:
        self.closing = Event()
        self._kafka = kafka
        self._topic = topic
        self._consumer: Consumer | None = None
        self._partitions_known: set[int] = set()
        self._last_error: KafkaError | None = None

    def read_again(self, partition: int) -> None:
        """Go back to the beginning of a partition. For the thread that follows."""
        if self._consumer is None:
            return
        try:
            self._consumer.seek(TopicPartition(self._topic, partition, OFFSET_BEGINNING))
        except KafkaException as error:
            # What was to be proven stays unproven: the next heartbeat says so.
            _log.warning("partition %d of %s cannot be read again now: %s", partition, self._topic, error)

    def follow(self, reader: Reader, housekeep: Callable[[], None]) -> None:
        """Read until ``closing`` is set; ``housekeep`` is called a few times a second."""
        consumer = self._consumer = Consumer(
            {
                # How often an idle broker answers, so that what comes after silence comes at once.
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 100,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 1000,
                # A topic of gigabytes is read at once: with the client's own full queue, and a second of waiting each
                # time that it is full, most of the reading were waiting.
                "queued.max.messages.kbytes": 131_072,
                "fetch.queue.backoff.ms": 10,
                "topic.metadata.refresh.interval.ms": 30_000,
                # The operator may tune what is above, and not what is below.
                **self._kafka,
                # The client wants a name. Partitions are assigned by hand, so no group of that name ever forms.
                "group.id": "tripswitch-gateway",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "allow.auto.create.topics": False,
                "statistics.interval.ms": 1000,
                "stats_cb": self._on_statistics,
                "error_cb": self._on_error,
            }
        )
        try:
            count = self._await_topic(consumer, reader)
            if count is not None:
                self._assign(consumer, reader, set(range(count)))
                self._read(consumer, reader, housekeep)
        finally:
            self._consumer = None
            consumer.close()

    def _await_topic(self, consumer: Consumer, reader: Reader) -> int | None:
        """The topic's number of partitions as soon as it exists; None when closed before."""
        told = False
        while not self.closing.is_set():
            try:
                topic = consumer.list_topics(self._topic, timeout=_METADATA_TIMEOUT_S).topics[self._topic]
            except KafkaException as error:
                self._on_error(error.args[0])
            else:
                if topic.error is None and topic.partitions:
                    return len(topic.partitions)
                if not told:
                    _log.warning("waiting for the topic %s: %s", self._topic, topic.error)
                    told = True
            consumer.poll(0)
            reader.work()
            reader.tick()
            self.closing.wait(_POLL_S)
        return None

    def _assign(self, consumer: Consumer, reader: Reader, partitions: set[int]) -> None:
        """Read these partitions: those that are new from their beginning, the others on from where they are."""
        reader.begin(sorted(partitions))
        starts = {number: self._start_of(consumer, number, one.resume_at) for number, one in reader.partitions.items()}
        consumer.assign([TopicPartition(self._topic, number, start) for number, start in starts.items()])

    def _start_of(self, consumer: Consumer, number: int, offset: int | None) -> int:
        if offset is None:
            return int(OFFSET_BEGINNING)
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=_OFFSETS_TIMEOUT_S)
        except KafkaException as error:
            # An offset that is gone leads to the beginning all the same, as auto.offset.reset says.
            self._on_error(error.args[0])
            return offset
        if low <= offset <= high:
            return offset
        _log.warning(
            "partition %d of %s has no offset %d (%d to %d): reading it from the beginning",
            number,
            self._topic,
            offset,
            low,
            high,
        )
        return int(OFFSET_BEGINNING)

    def _read(self, consumer: Consumer, reader: Reader, housekeep: Callable[[], None]) -> None:
        due = time.monotonic()
        busy = False
        while not self.closing.is_set():
            if reader.cold:
                for message in consumer.consume(_BATCH, _POLL_S):
                    self._receive(reader, message)
            else:
                # One at a time: `consume` of several would wait for the last of them, and a block must not wait.
                message = consumer.poll(_WORK_POLL_S if busy else _POLL_S)
                if message is not None:
                    self._receive(reader, message)
                busy = reader.work()
            if time.monotonic() >= due:
                due = time.monotonic() + _HOUSEKEEPING_S
                reader.tick()
                housekeep()
                if not self._partitions_known <= reader.partitions.keys():
                    _log.warning("%s has %d partitions now", self._topic, len(self._partitions_known))
                    self._assign(consumer, reader, self._partitions_known)

    def _receive(self, reader: Reader, message: Message) -> None:
        error = message.error()
        partition, offset = message.partition() or 0, message.offset() or 0
        if error is None:
            reader.receive(partition, offset, message.key(), message.value())
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's only name for it
            reader.reach_end(partition, offset)
        else:
            self._on_error(error)

    def _on_statistics(self, text: str) -> None:
        """Learn which partitions there are."""
        topic: dict[str, Any] = json.loads(text)["topics"].get(self._topic, {"partitions": {}})
        # librdkafka counts what it cannot place under partition -1.
        known = {int(number): state for number, state in topic["partitions"].items() if int(number) >= 0}
        self._partitions_known = {number for number, state in known.items() if not state["unknown"]}

    def _on_error(self, error: KafkaError) -> None:
        """Tell of a fault of the connection once, not at each attempt; librdkafka tries again by itself."""
        if self._last_error is None or self._last_error.code() != error.code():
            _log.warning("kill switch: %s", error.str())
        self._last_error = error
