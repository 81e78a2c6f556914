"""A topic's committed records as they come, without a consumer group."""

from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from streams.settings import Kafka

_POLL_S = 0.5


def follow(kafka: Kafka, topic: str, partitions: int, *, everything: bool) -> Iterator[Message]:
    """Every record from now on, or from the beginning; never ends by itself.

    Raises:
        KafkaException: the broker refuses. One that is away is waited for.
    """
    consumer = Consumer(
        {
            **kafka.confluent(), "group.id": "tripswitch-operator-follow", "log_level": "0",
            "enable.auto.commit": False, "isolation.level": "read_committed", "fetch.wait.max.ms": 100,
        },
        logger=None,
    )  # fmt: skip
    try:
        start = OFFSET_BEGINNING if everything else OFFSET_END
        consumer.assign([TopicPartition(topic, number, start) for number in range(partitions)])
        while True:
            message = consumer.poll(_POLL_S)
            if message is None:
                continue
            error = message.error()
            if error is None:
                yield message
            elif not error.retriable():
                raise KafkaException(error)
    finally:
        consumer.close()
