"""The broker under the other tests: clients reach it, transactions hold, and records outlive restarts."""

from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from kafka_node import KafkaNode, NodeFailed

DEADLINE_S = 30.0
RECORDS = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]

Topics = Callable[..., str]


def produce(bootstrap: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for key, value in RECORDS:
        producer.produce(topic, key=key, value=value, partition=0)
    assert producer.flush(DEADLINE_S) == 0
    producer.close()


def consume(bootstrap: str, topic: str) -> list[tuple[bytes | None, bytes | None]]:
    """What the first partition holds, read with a new group."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": topic, "auto.offset.reset": "earliest", "log_level": 0}
    )
    consumer.subscribe([topic])
    read = consumer.consume(len(RECORDS), timeout=DEADLINE_S)
    consumer.close()
    return [(message.key(), message.value()) for message in read]


def test_confluent_kafka_round_trips(kafka: str, new_topic: Topics) -> None:
    topic = new_topic()
    produce(kafka, topic)
    assert consume(kafka, topic) == RECORDS


async def test_aiokafka_round_trips(kafka: str, new_topic: Topics) -> None:
    topic = new_topic()
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for key, value in RECORDS:
            await producer.send_and_wait(topic, value, key=key, partition=0)
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=kafka, group_id=topic, auto_offset_reset="earliest"
    ) as consumer:
        read = [await consumer.getone() for _ in RECORDS]
    assert [(record.key, record.value) for record in read] == RECORDS


async def test_readers_of_committed_records_see_no_aborted_transaction(
    kafka: str, kafka_kind: str, new_topic: Topics
) -> None:
    if kafka_kind == "mock":
        pytest.skip("the mock cluster's transactions are not real")
    topic = new_topic()
    async with AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=topic) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"committed")
            await producer.send_offsets_to_transaction({TopicPartition(topic, 0): 7}, group_id=topic)
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=kafka, group_id=topic, isolation_level="read_committed", enable_auto_commit=False
    ) as consumer:
        assert await consumer.committed(TopicPartition(topic, 0)) == 7
        await consumer.seek_to_beginning()
        assert (await consumer.getone()).value == b"committed"


def test_a_topic_that_nobody_created_is_refused(kafka: str, kafka_kind: str) -> None:
    if kafka_kind != "apache":
        pytest.skip("a matter of the broker's settings")
    producer = Producer({"bootstrap.servers": kafka, "log_level": 0})
    asked = producer.list_topics("nobody-created-this", timeout=DEADLINE_S).topics["nobody-created-this"]
    assert asked.error is not None
    assert asked.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert "nobody-created-this" not in producer.list_topics(timeout=DEADLINE_S).topics
    producer.close()


@pytest.mark.parametrize("end", [KafkaNode.stop, KafkaNode.kill9], ids=["stop", "kill9"])
def test_records_and_address_outlive_a_restart(kafka_node: KafkaNode, end: Callable[[KafkaNode], None]) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_node.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic("kept", num_partitions=1)])["kept"].result(DEADLINE_S)
    before = kafka_node.bootstrap
    produce(before, "kept")
    end(kafka_node)
    assert not kafka_node.running
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": before, "log_level": 0}).list_topics(timeout=1.0)
    kafka_node.start()
    assert kafka_node.bootstrap == before
    assert consume(before, "kept") == RECORDS


def test_a_node_that_cannot_start_shows_the_end_of_its_log(kafka_classpath: Path, tmp_path: Path) -> None:
    node = KafkaNode(kafka_classpath, tmp_path, {"node.id": "2"})
    with pytest.raises(NodeFailed, match=r"(?s)the end of .*server\.log.*controller\.quorum\.voters"):
        node.start()
    assert not node.running
