"""The log of a partition's state, on a real broker: whole checkpoints or nothing, one writer, a tail that is cut."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from confluent_kafka import Consumer, TopicPartition

from schemas.piece import Checkpoint, StateError, seal
from streams import state
from streams.record import Record
from streams.settings import Kafka
from streams.state import StateLog

PIECES = [seal("rows", 1, b"a" * 100_000), seal("names", 1, b"b")]


@pytest.fixture
def topic(new_topic: Callable[..., str]) -> str:
    return new_topic(1, **{"retention.ms": "-1", "max.message.bytes": "4194304"})


def read(log: StateLog) -> tuple[list[bytes] | None, dict[str, int]]:
    return log.read(list)


def committed(settings: Kafka, group: str, topic: str) -> int:
    consumer = Consumer({**settings.confluent(), "group.id": group})
    [place] = consumer.committed([TopicPartition(topic, 0)], timeout=20)
    consumer.close()
    return int(place.offset)


def first_offset(settings: Kafka, topic: str) -> int:
    consumer = Consumer({**settings.confluent(), "group.id": "tests-first"})
    low, _ = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)
    consumer.close()
    return int(low)


async def written(log: StateLog, *checkpoints: tuple[bool, int], source: str) -> None:
    for begins, offset in checkpoints:
        await log.write(Checkpoint(begins, PIECES), {source: offset})


async def test_what_was_written_is_read_back_with_the_offsets(transactional: Kafka, topic: str) -> None:
    log = StateLog(transactional, topic, topic, 0)
    await log.open()
    assert await asyncio.to_thread(read, log) == (None, {})
    await written(log, (True, 10), (False, 25), source=topic)
    await log.close()
    again = StateLog(transactional, topic, topic, 0)
    await again.open()
    assert await asyncio.to_thread(read, again) == (PIECES * 2, {topic: 25})
    await again.close()
    assert committed(transactional, topic, topic) == 25


async def test_effects_and_state_are_one_transaction(
    transactional: Kafka, topic: str, new_topic: Callable[..., str]
) -> None:
    effects = new_topic(1)
    log = StateLog(transactional, topic, topic, 0)
    await log.open()
    await log.write(Checkpoint(True, PIECES), {topic: 1}, [Record(effects, b"k", b"v", 0, [("h", b"x")])])
    await log.close()
    consumer = Consumer({**transactional.confluent(), "group.id": "tests-effects", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(effects, 0, 0)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None
    assert (message.key(), message.value(), message.headers()) == (b"k", b"v", [("h", b"x")])


async def test_whoever_owned_the_partition_before_is_refused(transactional: Kafka, topic: str) -> None:
    """The zombie's checkpoint changes neither the log nor the group's offsets."""
    zombie, owner = StateLog(transactional, topic, topic, 0), StateLog(transactional, topic, topic, 0)
    await zombie.open()
    await written(zombie, (True, 10), source=topic)
    await owner.open()
    with pytest.raises(KafkaError):
        await written(zombie, (False, 99), source=topic)
    await written(owner, (False, 11), source=topic)
    assert await asyncio.to_thread(read, owner) == (PIECES * 2, {topic: 11})
    assert committed(transactional, topic, topic) == 11
    await zombie.close()
    await owner.close()
    # aiokafka leaves a failed future of its own behind, and asyncio complains when it is collected: here, not in the
    # middle of another test.
    del zombie
    gc.collect()


async def test_an_unfinished_checkpoint_is_void_for_the_next_owner(transactional: Kafka, topic: str) -> None:
    """As after a kill -9 in the middle of one."""
    dies, owner = StateLog(transactional, topic, topic, 0), StateLog(transactional, topic, topic, 0)
    await dies.open()
    await written(dies, (True, 10), source=topic)
    await dies._producer.begin_transaction()
    await dies._producer.send_and_wait(topic, PIECES[0], partition=0)
    await owner.open()
    assert await asyncio.to_thread(read, owner) == (PIECES, {topic: 10})
    await owner.close()
    await dies.close()


async def test_what_lies_before_the_last_whole_round_is_deleted(
    transactional: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_CUT_EVERY_S", 0.0)
    log = StateLog(transactional, topic, topic, 0)
    await log.open()
    await written(log, (True, 1), (False, 2), source=topic)
    assert first_offset(transactional, topic) == 0
    await written(log, (True, 3), (False, 4), (True, 5), source=topic)
    assert log._cutting is not None
    await log._cutting
    # Two whole checkpoints of a head and two pieces, and each one's commit marker.
    assert first_offset(transactional, topic) == 8
    assert await asyncio.to_thread(read, log) == (PIECES * 3, {topic: 5})
    await log.close()


async def test_the_next_owner_goes_on_cutting(transactional: Kafka, topic: str) -> None:
    log = StateLog(transactional, topic, topic, 0)
    await log.open()
    await written(log, (True, 1), (True, 2), source=topic)
    await log.close()
    again = StateLog(transactional, topic, topic, 0)
    await again.open()
    await asyncio.to_thread(read, again)
    await written(again, (True, 3), source=topic)
    assert again._cutting is not None
    await again._cutting
    assert first_offset(transactional, topic) == 4
    await again.close()


async def test_a_record_that_is_not_ours_is_refused_and_named(transactional: Kafka, topic: str) -> None:
    log = StateLog(transactional, topic, topic, 0)
    await log.open()
    async with log._producer.transaction():
        await log._producer.send(topic, b"hello", partition=0)
    with pytest.raises(StateError, match="no piece"):
        await asyncio.to_thread(read, log)
    await log.close()


async def test_a_checkpoint_of_another_version_is_refused(transactional: Kafka, topic: str) -> None:
    log = StateLog(transactional, topic, topic, 0)
    await log.open()
    async with log._producer.transaction():
        await log._producer.send(topic, seal("checkpoint", 2, b""), partition=0)
    with pytest.raises(StateError, match=r"offset 0 is a checkpoint of version 2, this version reads 1"):
        await asyncio.to_thread(read, log)
    await log.close()


async def test_an_error_of_whoever_restores_is_told(transactional: Kafka, topic: str) -> None:
    log = StateLog(transactional, topic, topic, 0)
    await log.open()
    await written(log, (True, 1), source=topic)

    def refuse(pieces: Iterator[bytes]) -> Any:
        next(pieces)
        raise StateError("another version")

    with pytest.raises(StateError, match="another version"):
        await asyncio.to_thread(log.read, refuse)
    await log.close()
