"""The saved state of one partition, as a log of checkpoints in a topic of ours.

A checkpoint is one Kafka transaction: pieces of the partition's state, the offsets up to which its source topics are in
them, and, where they belong together, what followed from those records. The transactional id names the app and the
partition, so the broker refuses whoever owned the partition before.

The log is read from its beginning. Once a round of checkpoints has written the whole state anew, what lies before the
round is deleted; so the log stays a small multiple of the state and nothing waits for a broker's compaction.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as Place
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from schemas.piece import Checkpoint, StateError, seal, unseal
from streams.clients import aiokafka_options
from streams.committed import committed_records
from streams.publish import Publisher
from streams.record import Record
from streams.settings import Kafka

_FORMAT = 1
_KIND = "checkpoint"
_TRANSACTION_MS = 20_000
"""The broker ends a transaction that its owner left open for so long; readers of what is committed wait for that."""
_CUT_S = 30.0
_CUT_EVERY_S = 60.0
"""A small state is written anew with every checkpoint; so often nothing needs to be deleted."""
_LARGEST = 4 << 20
_log = logging.getLogger(__name__)

Restored = TypeVar("Restored")


class _Covered(Struct, array_like=True):
    """Begins a checkpoint in the log: whether a round begins with it, and by topic the next offset to read."""

    begins: bool
    offsets: dict[str, int]


class StateLog:
    """The log of one partition of an app. Only who has opened it last can write."""

    def __init__(self, kafka: Kafka, group: str, topic: str, number: int) -> None:
        self._kafka = kafka
        self._group = group
        self._topic = topic
        self._number = number
        self._producer = AIOKafkaProducer(
            **aiokafka_options(kafka),
            transactional_id=f"{group}-{number}",
            transaction_timeout_ms=_TRANSACTION_MS,
            max_request_size=_LARGEST,
            max_batch_size=1 << 20,
        )
        self._begun: int | None = None
        """Where in the log the round that is being written begins."""
        self._cutting: asyncio.Future[None] | None = None
        self._cut_at = -_CUT_EVERY_S

    async def open(self) -> None:
        """Takes the partition over: whatever another owner had not committed is void from now on."""
        await self._producer.start()

    async def close(self) -> None:
        """Gives the producer up."""
        await self._producer.stop()

    def read(self, restore: Callable[[Iterator[bytes]], Restored]) -> tuple[Restored | None, dict[str, int]]:
        """What `restore` makes of the committed pieces in their order, None for an empty log; and by topic the next
        offset to read.

        Blocks; to be called in a thread.

        Raises:
            StateError: a record is not ours, or of a version that this one can't read.
            KafkaException: the broker refused, or what is being read was deleted meanwhile.
            TimeoutError: nothing came for a minute.
        """
        covered: dict[str, int] = {}
        records = committed_records(self._kafka, self._topic, self._number, f"{self._group}-state")
        first = next(records, None)
        if first is None:
            return None, covered

        def pieces() -> Iterator[bytes]:
            for message in chain([first], records):
                offset, raw = message.offset(), message.value() or b""
                piece = unseal(raw)
                if piece.kind != _KIND:
                    yield raw
                    continue
                if piece.format != _FORMAT:
                    raise StateError(
                        f"{self._topic}/{self._number} offset {offset} is a checkpoint of version {piece.format}, this "
                        f"version reads {_FORMAT}: run the version that wrote it, or delete the topic's records"
                    )
                head = msgspec.msgpack.decode(piece.body, type=_Covered)
                covered.update(head.offsets)
                if head.begins:
                    self._begun = offset

        # What it covers is known once all of it was read.
        restored = restore(pieces())
        return restored, covered

    def is_at(self, offsets: Mapping[str, int]) -> bool:
        """Whether `offsets` (by topic) are what the group has committed: nobody else has written since they were.

        Blocks; to be called in a thread.
        """
        consumer = Consumer({**self._kafka.confluent(), "group.id": self._group})
        try:
            places = [TopicPartition(topic, self._number) for topic in offsets]
            return all(at.offset == offsets[at.topic] for at in consumer.committed(places, timeout=30))
        finally:
            consumer.close()

    async def write(self, checkpoint: Checkpoint, offsets: Mapping[str, int], effects: Sequence[Record] = ()) -> None:
        """Writes a checkpoint, in one transaction with the group's `offsets` (by topic) and with `effects`.

        Raises:
            aiokafka.errors.KafkaError: it is not known to be written. The log must not be written by this owner again.
        """
        producer, number = self._producer, self._number
        head = seal(_KIND, _FORMAT, msgspec.msgpack.encode(_Covered(checkpoint.begins, dict(offsets))))
        pieces = [Record(self._topic, None, piece, number) for piece in (head, *checkpoint.pieces)]
        sent: list[asyncio.Future[Any]] = []
        try:
            async with producer.transaction():
                for record in (*pieces, *effects):
                    of = {"key": record.key, "partition": record.partition, "headers": list(record.headers)}
                    sent.append(await producer.send(record.topic, record.value, **of))
                at, *_ = await asyncio.gather(*sent)
                places = {Place(topic, number): offset for topic, offset in offsets.items()}
                if places:
                    await producer.send_offsets_to_transaction(places, self._group)
        finally:
            # What has failed with the transaction is told once, by it.
            for one in sent:
                one.add_done_callback(lambda done: done.cancelled() or done.exception())
        if checkpoint.begins:
            complete, self._begun = self._begun, at.offset
            if complete is not None and time.monotonic() - self._cut_at >= _CUT_EVERY_S:
                self._cut_at = time.monotonic()
                self._cutting = asyncio.ensure_future(asyncio.to_thread(self._delete_before, complete))

    def _delete_before(self, offset: int) -> None:
        place, client = (
            TopicPartition(self._topic, self._number, offset),
            AdminClient({**self._kafka.confluent(), "log_level": "3"}),
        )
        try:
            client.delete_records([place], request_timeout=_CUT_S)[place].result()
        except KafkaException as error:
            # The log grows until the next round ends; nothing is lost.
            _log.warning("%s/%d was not cut at %d: %s", self._topic, self._number, offset, error.args[0].str())


class NoLog:
    """Stands in for a log where the broker has no transactions: nothing is saved, and effects are published."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def open(self) -> None:
        """There is nothing to take over."""

    async def close(self) -> None:
        """There is nothing to give up."""

    def read(self, restore: Callable[[Iterator[bytes]], Restored]) -> tuple[Restored | None, dict[str, int]]:  # noqa: ARG002
        """Nothing was saved."""
        return None, {}

    def is_at(self, offsets: Mapping[str, int]) -> bool:  # noqa: ARG002
        """There is nobody to have written."""
        return True

    async def write(self, checkpoint: Checkpoint, offsets: Mapping[str, int], effects: Sequence[Record] = ()) -> None:  # noqa: ARG002
        """Publishes the effects. The checkpoint is dropped; that it was made keeps what is unsaved from piling up."""
        await self._publisher.publish(effects)


def log_of(kafka: Kafka, group: str, topic: str, number: int, publisher: Publisher) -> StateLog | NoLog:
    """The log of the state of the partition `number` of an app."""
    return StateLog(kafka, group, topic, number) if kafka.transactions else NoLog(publisher)
