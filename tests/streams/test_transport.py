"""The batch transport: what it leans on inside Faust is there; a chunk is counted, acknowledged and committed once."""

import asyncio
import dataclasses
import inspect
from collections.abc import AsyncIterator
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams import transport
from streams.fetched import Chunk, Fetched
from streams.transport import BatchConsumer, deliver_in_chunks

PARTITION = TP("usage", 0)

METHODS = {
    "_new_consumer_thread": ["self"],
    "_drain_messages": ["self", "fetcher"],
    "_wait_next_records": ["self", "timeout"],
    "_new_offset": ["self", "tp"],
    "_commit": ["self", "offsets"],
    "_add_gap": ["self", "tp", "offset_from", "offset_to"],
    "_to_message": ["self", "tp", "record"],
    "ack": ["self", "message"],
    "on_partitions_revoked": ["self", "revoked"],
    "perform_seek": ["self"],
}
ATTRIBUTES = (
    "_acked", "_acked_index", "_read_offset", "_buffered_partitions", "flow_active", "suspend_flow", "can_resume_flow",
    "consumer_stopped_errors", "callback", "transport",
)  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), METHODS.items())
def test_fausts_consumer_still_has(name: str, arguments: list[str]) -> None:
    method = getattr(driver.Consumer, name)
    assert list(inspect.signature(method).parameters) == arguments


def test_fausts_drain_is_what_the_fetcher_calls() -> None:
    assert "_drain_messages" in inspect.getsource(inspect.getmodule(Consumer).Fetcher)


def test_aiokafka_still_keeps_the_fetch_wait_and_the_isolation_where_they_are_set() -> None:
    source = inspect.getsource(AIOKafkaConsumer)
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in source
    assert "isolation_level=self._isolation_level" in source
    assert list(inspect.signature(driver.AIOKafkaConsumerThread._create_worker_consumer).parameters) == [
        "self",
        "transport",
    ]


def test_a_record_has_the_fields_of_aiokafkas() -> None:
    theirs = {field.name for field in dataclasses.fields(ConsumerRecord)}
    assert theirs == set(Fetched.__struct_fields__)


def test_the_drivers_transport_takes_its_consumer_from_a_class_attribute() -> None:
    assert driver.Transport.Consumer is driver.Consumer


def chunk(*offsets: int) -> Chunk:
    return Chunk.of("usage", 0, [Fetched("usage", 0, offset, 1_000, 1, b"k", b"v", ()) for offset in offsets])


class Delivered:
    """A consumer of an app that is never started, and what it handed out."""

    def __init__(self) -> None:
        app = faust.App("tests-transport", broker="kafka://127.0.0.1:1")
        deliver_in_chunks(app, ["usage"])
        app.topics.acks_enabled_for = lambda topic: True
        self.messages: list[ConsumerMessage] = []
        self.app = app
        self.consumer: BatchConsumer = app.transport.create_consumer(
            self._take, on_partitions_revoked=_nothing, on_partitions_assigned=_nothing
        )
        self.consumer.flow_active = True

    async def _take(self, message: ConsumerMessage) -> None:
        self.messages.append(message)

    async def deliver(self, *offsets: int) -> None:
        await self.consumer._deliver_chunks(PARTITION, chunk(*offsets), self.app.consumer_generation_id)


@pytest.fixture
async def delivered() -> AsyncIterator[Delivered]:
    made = Delivered()
    yield made
    # The driver's thread was never started; its loop was made all the same.
    made.consumer._thread.thread_loop.close()


async def test_the_consumer_has_what_the_transport_reads(delivered: Delivered) -> None:
    assert [name for name in ATTRIBUTES if not hasattr(delivered.consumer, name)] == []


async def test_a_chunk_is_one_message_with_the_last_offset(
    delivered: Delivered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CHUNK", 3)
    await delivered.deliver(*range(7))
    assert [[r.offset for r in m.value] for m in delivered.messages] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [m.offset for m in delivered.messages] == [2, 5, 6]


async def test_records_read_before_are_not_delivered_again(delivered: Delivered) -> None:
    await delivered.deliver(0, 1)
    await delivered.deliver(1, 2)
    assert [[r.offset for r in m.value] for m in delivered.messages] == [[0, 1], [2]]


async def test_the_committed_offset_is_the_first_that_is_delivered(delivered: Delivered) -> None:
    # Where Faust's seek leaves it after a restart or a rebalance.
    delivered.consumer._read_offset[PARTITION] = 5
    await delivered.deliver(5, 6, 7)
    await delivered.deliver(7, 8)
    assert [[r.offset for r in m.value] for m in delivered.messages] == [[5, 6, 7], [8]]


async def test_other_topics_are_delivered_one_by_one(delivered: Delivered) -> None:
    other = TP("other", 0)
    delivered.consumer._read_offset[other] = 3
    delivered.consumer._to_message = lambda tp, r: r.offset
    await delivered.consumer._deliver_each(other, list(chunk(*range(2, 6))), delivered.app.consumer_generation_id)
    assert delivered.messages == [3, 4, 5]


async def test_only_acknowledged_chunks_without_a_gap_are_committed(delivered: Delivered) -> None:
    for offsets in ((0, 1), (2, 3), (4, 9)):
        await delivered.deliver(*offsets)
    consumer, (first, second, third) = delivered.consumer, delivered.messages
    consumer.ack(second)
    assert consumer._new_offset(PARTITION) is None
    consumer.ack(first)
    assert consumer._new_offset(PARTITION) == 4
    consumer.ack(third)
    # Offsets that the broker skipped, as compaction and transactions do, are behind the commit too.
    assert consumer._new_offset(PARTITION) == 10


@pytest.mark.parametrize("commits", [True, False])
async def test_faust_commits_unless_somebody_else_does(
    delivered: Delivered, monkeypatch: pytest.MonkeyPatch, commits: bool
) -> None:
    asked: list[Any] = []

    async def commit(self: Any, offsets: Any) -> bool:
        asked.append(offsets)
        return True

    monkeypatch.setattr(driver.Consumer, "_commit", commit)
    monkeypatch.setattr(type(delivered.consumer), "commits", commits)
    assert await delivered.consumer._commit({PARTITION: 5})
    assert asked == ([{PARTITION: 5}] if commits else [])


async def test_a_full_flight_waits_for_an_acknowledgement(
    delivered: Delivered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "IN_FLIGHT", 2)
    await delivered.deliver(0, 1)
    waiting = asyncio.ensure_future(delivered.deliver(2, 3))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(delivered.messages) == 1
    delivered.consumer.ack(delivered.messages[0])
    await asyncio.wait_for(waiting, 10)
    assert len(delivered.messages) == 2


async def test_a_revoked_chunk_is_taken_off_the_count_once(delivered: Delivered) -> None:
    await delivered.deliver(0, 1, 2)
    await delivered.deliver(3, 4)
    consumer, (first, second) = delivered.consumer, delivered.messages
    consumer.ack(first)
    assert consumer._in_flight == 2
    await consumer.on_partitions_revoked({PARTITION})
    assert consumer._in_flight == 0
    consumer.ack(second)
    assert consumer._in_flight == 0


async def test_what_was_fetched_before_a_rebalance_is_not_delivered(delivered: Delivered) -> None:
    stale = delivered.app.consumer_generation_id - 1
    await delivered.consumer._deliver_chunks(PARTITION, chunk(0), stale)
    assert delivered.messages == []


async def _nothing(partitions: set[TP], generation: int = 0) -> None:
    """The app's own callbacks, which need a running app."""
