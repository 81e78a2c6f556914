"""The mock cluster with our topics, and the groups' lag on it."""

import contextlib
import time

from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.topics import SIGNALS, TOPICS, USAGE
from streams.demo.broker import GROUPS, PARTITIONS, Broker, Lags
from streams.init import reach
from streams.settings import Kafka


def test_the_broker_has_our_topics_and_tells_the_groups_lag() -> None:
    with Broker() as broker:
        have = reach(Kafka(bootstrap=broker.address))
        assert {topic.name: PARTITIONS for topic in TOPICS}.items() <= have.items()
        options = {"bootstrap.servers": broker.address, "log_level": 0}
        producer = Producer(options)
        for _ in range(7):
            producer.produce(USAGE, b"{}", partition=2)
        producer.produce(SIGNALS, b"{}", partition=0)
        assert producer.flush(10) == 0
        with contextlib.closing(Lags(broker.address)) as lags:
            assert lags.read() == {"detect": 7, "decide": 1, "archive": 7, "notify": 0}
            with contextlib.closing(Consumer({**options, "group.id": "tripswitch-detect"})) as detect:
                detect.commit(offsets=[TopicPartition(USAGE, 2, 5)], asynchronous=False)
            end = time.monotonic() + 10
            while lags.read()["detect"] != 2:
                assert time.monotonic() < end
        producer.close()


def test_archive_is_behind_on_everything_that_it_keeps() -> None:
    assert {topic for topics in GROUPS.values() for topic in topics} == {
        topic.name for topic in TOPICS if topic.name != "llm.killswitch" and not topic.name.startswith("llm.state.")
    }
