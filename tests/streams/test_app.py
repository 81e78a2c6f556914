"""A worker that can't go on ends, and leaves what it could not do to the next one: on librdkafka's mock cluster."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

SCRIPT = """
import asyncio
import sys
from streams.app import make_app, run
from streams.ownership import Ownership, own
from streams.publish import Publisher
from streams.settings import Kafka
from streams.state import NoLog

class Stumbles:
    size = 0
    def take(self, at, chunk):
        if any(record.value == b"stumble" for record in chunk):
            raise ZeroDivisionError("a bug")
        loop = type(asyncio.get_running_loop()).__module__
        print("took", [record.value for record in chunk], chunk.values, "in", loop, flush=True)
        return []
    def ticks(self):
        return []
    def keep(self, numbers):
        pass
    def go_on(self, number, partition, offsets):
        pass
    def offsets(self, number):
        return {}
    def checkpoint(self, number):
        return None

kafka = Kafka(bootstrap=sys.argv[1], transactions=False)
app, source = make_app("tests-crash", kafka, ["things"])
publisher = Publisher(kafka)
own(app, source, "things", Ownership(app, "things", Stumbles(), publisher, lambda n: NoLog(publisher), atomic=False))
run(app)
"""


@pytest.fixture
def mock() -> Iterator[str]:
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(cluster.list_topics("things", timeout=10).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    cluster.close()


def produce(bootstrap: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    producer.produce("things", value, partition=0)
    assert producer.flush(10) == 0
    producer.close()


def test_an_error_ends_the_worker_and_its_chunk_is_not_acknowledged(mock: str) -> None:
    produce(mock, b"fine")
    worker = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, mock], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )
    try:
        assert worker.stdout is not None
        took = worker.stdout.readline()
        assert took.count(b"fine") == 2
        assert (b"uvloop" in took) == (sys.platform != "win32")
        produce(mock, b"stumble")
        produce(mock, b"never reached")
        _, said = worker.communicate(timeout=60)
    finally:
        worker.kill()
    assert worker.returncode != 0
    assert b"ZeroDivisionError" in said
    consumer = Consumer({"bootstrap.servers": mock, "group.id": "tripswitch-tests-crash", "log_level": 0})
    [at] = consumer.committed([TopicPartition("things", 0)], timeout=20)
    consumer.close()
    assert at.offset <= 1
