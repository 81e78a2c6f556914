"""Reading what is committed in a partition, from its beginning to its end."""

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.settings import Kafka

_STALLED_S = 60.0


def committed_records(
    kafka: Kafka, topic: str, number: int, group: str, *, since: int = 0, quiet: bool = False
) -> Iterator[Message]:
    """Every record of the partition `number` from the offset `since` on whose transaction, if any, was committed.
    `group` is only a name: nothing is committed. The last offset says nothing of the end, which may be a transaction's
    mark: the client tells it. `quiet` keeps the client from writing into a command's output.

    Raises:
        KafkaException: the broker refused, or what is being read was deleted meanwhile.
        TimeoutError: nothing came for a minute.
    """
    consumer = Consumer(
        {
            **kafka.confluent(),
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "fetch.max.bytes": 64 << 20,
            "max.partition.fetch.bytes": 16 << 20,
            "queued.max.messages.kbytes": 256 << 10,
            "fetch.wait.max.ms": 20,
            **({"log_level": "0"} if quiet else {}),
        }
    )
    try:
        place = TopicPartition(topic, number)
        low, high = consumer.get_watermark_offsets(place, timeout=30)
        if max(low, since) >= high:
            return
        place.offset = max(low, since)
        consumer.assign([place])
        heard = time.monotonic()
        while True:
            for message in consumer.consume(64, timeout=0.5):
                heard, error = time.monotonic(), message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    return
                else:
                    raise KafkaException(error)
            if time.monotonic() - heard > _STALLED_S:
                raise TimeoutError(f"{topic}/{number} could not be read for {_STALLED_S:g} s")
    finally:
        consumer.close()
