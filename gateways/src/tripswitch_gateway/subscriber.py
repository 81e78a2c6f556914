"""The kill-switch topic, followed in a thread of its own and kept as a `RevocationTable`."""

import json
import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tripswitch_gateway import acks
from tripswitch_gateway.commands import Command, CommandVerifier
from tripswitch_gateway.fields import Refused
from tripswitch_gateway.limits import Bucket
from tripswitch_gateway.revocations import Decision, Outcome, RevocationTable

_log = logging.getLogger(__name__)

TOPIC = "llm.killswitch"
ACKS_TOPIC = "llm.killswitch.acks"

_POLL_S = 0.1
_METADATA_TIMEOUT_S = 1.0
_HOUSEKEEPING_S = 1.0
_MAX_PARKED = 256
_REFUSALS_TOLD_PER_MINUTE = 60.0


class RevocationList:
    """All commands in force, at hand for every call; follows the kill-switch topic until `close`.

    No consumer group shares the topic out: every gateway reads every partition from its beginning, and commits nothing.
    ``ready`` is set once each partition has been read to its end; serve no call before. While the broker is away the
    last known blocks stay in force, and ``staleness_seconds`` grows.

    ``kafka`` are librdkafka properties. ``gateway`` names this process in acknowledgements. ``on_change`` is called in
    the subscriber's thread after each command that changed the table, to cut the streams that it stops; it must not
    block. ``acks_topic`` None sends no acknowledgements.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        verifier: CommandVerifier,
        *,
        gateway: str,
        topic: str = TOPIC,
        acks_topic: str | None = ACKS_TOPIC,
        on_change: Callable[[Command], None] | None = None,
    ) -> None:
        self.table = RevocationTable()
        self.ready = Event()
        self.callback_errors = 0
        self.acks_dropped = 0
        self._kafka = dict(kafka)
        self._verifier = verifier
        self._gateway = gateway
        self._topic = topic
        self._acks_topic = acks_topic
        self._on_change = on_change
        self._refusals: Counter[str] = Counter()
        self._applied = 0
        self._partitions: set[int] = set()
        self._cold: set[int] = set()
        self._partitions_known: set[int] = set()
        self._started_at = time.monotonic()
        self._fresh_at: float | None = None
        self._last_error: KafkaError | None = None
        # Signed with a key that is not in the file yet: tried again when the file changes.
        self._parked: deque[Message] = deque(maxlen=_MAX_PARKED)
        self._keys_seen = verifier.keys.generation
        self._refusals_told = Bucket(_REFUSALS_TOLD_PER_MINUTE, 0)
        self._acks: Producer | None = None
        self._closing = Event()
        self._thread = Thread(target=self._run, name="tripswitch-revocations", daemon=True)

    def start(self) -> Self:
        """Start to follow the topic; returns at once."""
        self._started_at = time.monotonic()
        self._thread.start()
        return self

    def close(self, timeout: float = 5.0) -> None:
        """Stop following, within ``timeout`` seconds. The table stays as it was."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(
        self,
        identity: str,
        credential: str | None = None,
        session: str | None = None,
        tenant: str | None = None,
        end_user: str | None = None,
    ) -> Decision:
        """`RevocationTable.check` at the wall clock's time."""
        return self.table.check(identity, credential, session, tenant, end_user)

    @property
    def alive(self) -> bool:
        """False when the thread has not been started, was closed, or has crashed."""
        return self._thread.is_alive()

    @property
    def refusals(self) -> dict[str, int]:
        """How many records were refused, by reason."""
        return dict(self._refusals)

    @property
    def staleness_seconds(self) -> float:
        """Seconds since every partition was last known to be read to its end; since the start when never."""
        return time.monotonic() - (self._started_at if self._fresh_at is None else self._fresh_at)

    def _run(self) -> None:
        consumer = Consumer(
            {
                # How often an idle broker answers, which is how we know that it is there.
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 100,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 1000,
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
        if self._acks_topic is not None:
            self._acks = Producer(
                {
                    **self._kafka,
                    "enable.idempotence": True,
                    "partitioner": "murmur2_random",
                    "linger.ms": 5,
                    "delivery.report.only.error": True,
                    "error_cb": self._on_error,
                }
            )
        try:
            count = self._await_topic(consumer)
            if count is not None:
                self._read_from_the_beginning(consumer, set(range(count)))
                self._follow(consumer)
        finally:
            consumer.close()
            if self._acks is not None:
                self._acks.flush(2.0)

    def _await_topic(self, consumer: Consumer) -> int | None:
        """The topic's number of partitions as soon as it exists; None when closed before."""
        told = False
        while not self._closing.is_set():
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
            self._closing.wait(_POLL_S)
        return None

    def _read_from_the_beginning(self, consumer: Consumer, partitions: set[int]) -> None:
        self._partitions = partitions
        self._cold = set(partitions)
        consumer.assign([TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in sorted(partitions)])

    def _follow(self, consumer: Consumer) -> None:
        due = time.monotonic()
        while not self._closing.is_set():
            # One at a time: `consume` of several would wait for the last of them, and a block must not wait.
            message = consumer.poll(_POLL_S)
            if message is not None:
                self._receive(message)
            if time.monotonic() >= due:
                due = time.monotonic() + _HOUSEKEEPING_S
                self._try_parked_again()
                if self._acks is not None:
                    self._acks.poll(0)
                known = self._partitions_known
                if not known <= self._partitions:
                    _log.warning("%s has %d partitions now: reading it again", self._topic, len(known))
                    self._read_from_the_beginning(consumer, known)

    def _receive(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self._obey(message)
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's only name for it
            self._reach_end(message.partition())
        else:
            self._on_error(error)

    def _obey(self, message: Message) -> None:
        try:
            command = self._verifier.verify(message.key(), message.value())
        except Refused as refusal:
            self._refuse(message, refusal)
            return
        # Streams are cut before the acknowledgement, so that it never says more than is true.
        # 1. The table: new calls are refused from here on.
        now_ms = time.time_ns() // 1_000_000
        outcome = self.table.apply(command, now_ms)
        if outcome not in (Outcome.APPLIED, Outcome.EXPIRED):
            return
        self._applied += 1
        # 2. Calls already under way.
        if outcome is Outcome.APPLIED and self._on_change is not None:
            self._tell(self._on_change, command)
        # 3. The acknowledgement; those of a cold start are summed up in one.
        if message.partition() not in self._cold:
            expired = outcome is Outcome.EXPIRED
            self._acknowledge(acks.applied(command, self._gateway, now_ms, _place(message), expired=expired))

    def _tell(self, on_change: Callable[[Command], None], command: Command) -> None:
        try:
            on_change(command)
        except Exception:  # noqa: BLE001
            # The listener is the gateway's own code: its fault must not keep the next block from taking force.
            self.callback_errors += 1
            _log.exception("on_change failed for command %s", command.command_id)

    def _refuse(self, message: Message, refusal: Refused) -> None:
        self._refusals[refusal.reason] += 1
        if refusal.reason == "unknown-kid":
            self._parked.append(message)
        now_ms = time.time_ns() // 1_000_000
        # Whoever floods the topic must not flood the log and the acknowledgements through us.
        if self._refusals_told.wait_ms(now_ms) > 0:
            return
        self._refusals_told.take(1)
        place = _place(message)
        _log.warning("refused a record of %s: %s at %s", self._topic, refusal.reason, place)
        if message.partition() not in self._cold:
            uid = refusal.command_id or f"{self._topic}/{message.partition()}/{message.offset()}"
            self._acknowledge(acks.refused(uid, refusal.reason, self._gateway, now_ms, place))

    def _try_parked_again(self) -> None:
        self._verifier.keys.refresh()
        if self._verifier.keys.generation == self._keys_seen:
            return
        self._keys_seen = self._verifier.keys.generation
        parked, self._parked = self._parked, deque(maxlen=_MAX_PARKED)
        for message in parked:
            self._obey(message)

    def _reach_end(self, partition: int | None) -> None:
        if partition not in self._cold:
            return
        self._cold.discard(partition)
        if self._cold or self.ready.is_set():
            return
        self._fresh_at = time.monotonic()
        self.ready.set()
        counts: dict[str, object] = {
            "partitions": len(self._partitions),
            "commands": self._applied,
            "live": len(self.table.live()),
            "refused": self.refusals,
            "took_ms": round((self._fresh_at - self._started_at) * 1000),
        }
        _log.info("the kill switch is read: %s", counts)
        now_ms = time.time_ns() // 1_000_000
        self._acknowledge(acks.cold_start(f"cold-start/{uuid.uuid4()}", self._gateway, now_ms, counts))

    def _acknowledge(self, record: dict[str, object]) -> None:
        if self._acks is None or self._acks_topic is None:
            return
        try:
            self._acks.produce(
                self._acks_topic, json.dumps(record).encode(), str(record["command_uid"]), on_delivery=self._on_ack_lost
            )
        except (BufferError, KafkaException):
            self.acks_dropped += 1
        self._acks.poll(0)

    def _on_ack_lost(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self.acks_dropped += 1

    def _on_statistics(self, text: str) -> None:
        """Learn from librdkafka's statistics whether we hear the broker, and have read all that it has."""
        statistics: dict[str, Any] = json.loads(text)
        topic = statistics["topics"].get(self._topic, {"partitions": {}})
        # librdkafka counts what it cannot place under partition -1.
        partitions = {int(number): state for number, state in topic["partitions"].items() if int(number) >= 0}
        self._partitions_known = {number for number, state in partitions.items() if not state["unknown"]}
        brokers = {broker["nodeid"]: broker for broker in statistics["brokers"].values()}
        silent_us = 0
        for number in self._partitions:
            state = partitions.get(number)
            broker = brokers.get(state["leader"]) if state else None
            if state is None or broker is None or broker["state"] != "UP" or state["fetch_state"] != "active":
                return
            if state["ls_offset"] < 0 or state["next_offset"] < state["ls_offset"] or state["fetchq_cnt"] > 0:
                return
            silent_us = max(silent_us, broker["rxidle"])
        if self.ready.is_set():
            self._fresh_at = max(self._fresh_at or 0.0, time.monotonic() - silent_us / 1e6)

    def _on_error(self, error: KafkaError) -> None:
        """Tell of a fault of the connection once, not at each attempt; librdkafka tries again by itself."""
        if self._last_error is None or self._last_error.code() != error.code():
            _log.warning("kill switch: %s", error.str())
        self._last_error = error


def _place(message: Message) -> dict[str, int]:
    return {"kafka_partition": message.partition() or 0, "kafka_offset": message.offset() or 0}
