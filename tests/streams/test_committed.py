"""Reading what is committed, beside a transaction that is still open at the partition's end."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiokafka import AIOKafkaProducer

from streams.clients import aiokafka_options
from streams.committed import committed_records
from streams.settings import Kafka


@pytest.fixture
async def producer(transactional: Kafka, topic: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(**aiokafka_options(transactional), transactional_id=topic)
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture
def topic(new_topic: Callable[..., str]) -> str:
    return new_topic(1)


def values(settings: Kafka, topic: str) -> list[bytes]:
    return [message.value() or b"" for message in committed_records(settings, topic, 0, "tests-committed")]


async def test_an_empty_partition_has_none(transactional: Kafka, topic: str) -> None:
    assert await asyncio.to_thread(values, transactional, topic) == []


@pytest.mark.parametrize("before", [[], [b"before"]], ids=["nothing before it", "one before it"])
@pytest.mark.parametrize("committed", [True, False], ids=["committed", "aborted"])
async def test_an_open_transaction_at_the_end_is_waited_for(
    transactional: Kafka, topic: str, producer: AIOKafkaProducer, before: list[bytes], committed: bool
) -> None:
    for value in before:
        async with producer.transaction():
            await producer.send(topic, value, partition=0)
    await producer.begin_transaction()
    await producer.send_and_wait(topic, b"open", partition=0)
    reading = asyncio.create_task(asyncio.to_thread(values, transactional, topic))
    done, _ = await asyncio.wait([reading], timeout=1.0)
    assert not done
    await (producer.commit_transaction() if committed else producer.abort_transaction())
    assert await reading == before + [b"open"] * committed
