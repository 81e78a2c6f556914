"""The last records of a topic."""

import time
import uuid
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams.settings import Kafka

_SECONDS = 20.0


def recent_records(kafka: Kafka, topic: str, partitions: int, most: int) -> Iterator[bytes]:
    """The values of the last records, at the most `most` of each partition. Nothing is committed.

    Raises:
        KafkaException: the broker refused.
        TimeoutError: it does not answer.
    """
    group = f"tripswitch-operator-status-{uuid.uuid4().hex[:8]}"
    consumer = Consumer({**kafka.confluent(), "group.id": group, "enable.auto.commit": False})
    try:
        ends: dict[int, int] = {}
        places = []
        for number in range(partitions):
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_SECONDS)
            if high > low:
                ends[number] = high
                places.append(TopicPartition(topic, number, max(low, high - most)))
        consumer.assign(places)
        heard = time.monotonic()
        while ends:
            for message in consumer.consume(500, timeout=0.5):
                if (error := message.error()) is not None:
                    raise KafkaException(error)
                heard = time.monotonic()
                number, offset = message.partition(), message.offset()
                if offset < ends.get(number, 0) and (value := message.value()) is not None:
                    yield value
                if offset + 1 >= ends.get(number, 0):
                    ends.pop(number, None)
            for place in consumer.position([TopicPartition(topic, number) for number in ends]):
                # A transaction's mark at the end is no record.
                if place.offset >= ends[place.partition]:
                    del ends[place.partition]
            if ends and time.monotonic() - heard > _SECONDS:
                raise TimeoutError(f"{topic} could not be read for {_SECONDS:g} s")
    finally:
        consumer.close()
