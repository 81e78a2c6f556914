"""Publishing in batches: every record, in order within its partition, where Kafka's partitioner puts it."""

from collections.abc import Callable

from confluent_kafka import Consumer, TopicPartition

from streams.partitioner import partition_of
from streams.publish import Publisher
from streams.record import Record
from streams.settings import Kafka


def read(bootstrap: str, topic: str, partitions: int, count: int) -> dict[int, list[tuple[bytes | None, bytes]]]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests-publish", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: dict[int, list[tuple[bytes | None, bytes]]] = {number: [] for number in range(partitions)}
    while sum(map(len, found.values())) < count:
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        found[message.partition()].append((message.key(), message.value()))
    consumer.close()
    return found


async def test_records_are_where_their_keys_put_them_and_in_order(kafka: str, new_topic: Callable[..., str]) -> None:
    topic, partitions = new_topic(4), 4
    records = [Record(topic, b"tenant-%d" % (n % 11), b"%d" % n) for n in range(500)]
    records.append(Record(topic, None, b"a tick", 3))
    publisher = Publisher(Kafka(bootstrap=kafka))
    await publisher.publish([])
    await publisher.publish(records)
    await publisher.stop()
    found = read(kafka, topic, partitions, len(records))
    for number in range(partitions):
        assert found[number] == [
            (r.key, r.value)
            for r in records
            if (r.partition if r.partition is not None else partition_of(r.key or b"", partitions)) == number
        ]


async def test_more_than_a_batch_holds_is_published_too(kafka: str, new_topic: Callable[..., str]) -> None:
    topic = new_topic(1)
    records = [Record(topic, b"k", bytes([n]) * 300_000, 0) for n in range(10)]
    publisher = Publisher(Kafka(bootstrap=kafka))
    await publisher.publish(records)
    await publisher.stop()
    assert [value for _, value in read(kafka, topic, 1, 10)[0]] == [r.value for r in records]
