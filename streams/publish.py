"""Publishing what follows from a chunk."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.clients import aiokafka_options
from streams.partitioner import partition_of
from streams.record import Record
from streams.settings import Kafka

_LARGEST = 4 << 20
_BATCH = 1 << 20
_PATIENCE_MS = 120_000
"""A broker that is started again is back before that."""


class Publisher:
    """Publishes records in batches that it fills itself: to hand them over one by one costs five times as much."""

    def __init__(self, kafka: Kafka) -> None:
        self._options = aiokafka_options(kafka)
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._partitions: dict[str, int] = {}

    async def stop(self) -> None:
        """Gives the producer up."""
        if self._producer is not None:
            await self._producer.stop()

    async def publish(self, records: Iterable[Record]) -> None:
        """Publishes, in order within a partition, and returns when the broker has acknowledged all of it.

        Raises:
            aiokafka.errors.KafkaError: the broker refused.
        """
        places: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for record in records:
            places[record.topic, await self._partition(record)].append(record)
        if places:
            producer = await self._ready()
            await asyncio.gather(*(_send(producer, *place, some) for place, some in places.items()))

    async def _partition(self, record: Record) -> int:
        if record.partition is not None:
            return record.partition
        if record.topic not in self._partitions:
            producer = await self._ready()
            self._partitions[record.topic] = len(await producer.partitions_for(record.topic))
        return partition_of(record.key or b"", self._partitions[record.topic])

    async def _ready(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                # An idempotent one: what is sent again after a lost answer is written once, and in order.
                producer = AIOKafkaProducer(
                    **self._options,
                    enable_idempotence=True,
                    max_request_size=_LARGEST,
                    max_batch_size=_BATCH,
                    request_timeout_ms=_PATIENCE_MS,
                )
                await producer.start()
                self._producer = producer
        return self._producer


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, records: list[Record]) -> None:
    sent: list[Any] = []
    batch = producer.create_batch()
    for record in records:
        of = {"key": record.key, "value": record.value, "timestamp": None, "headers": list(record.headers)}
        if batch.append(**of) is None:
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(**of)
    sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)
