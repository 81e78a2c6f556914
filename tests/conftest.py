"""The Kafka that tests run against.

- `KAFKA_BOOTSTRAP=host:port` names a broker of yours ("external"); `KAFKA_BOOTSTRAP=mock` asks for the mock cluster.
- Otherwise Apache Kafka is started from its jars where Java 17 and Maven are on PATH ("apache").
- Otherwise librdkafka's mock cluster serves ("mock"): no transactions, compaction or restarts worth the name.
"""

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

sys.path.insert(0, str(Path(__file__).parent / "kafka"))

import kafka_jars
from kafka_node import QUICK_RETURN, KafkaNode

JARS_CACHE = Path(__file__).parent.parent / "build" / "kafka"
SUMMARY = pytest.StashKey[str]()
MOCK_PARTITIONS = 4


@pytest.fixture(scope="session")
def kafka_kind() -> str:
    """Which Kafka the `kafka` fixture gives: "external", "apache" or "mock"."""
    named = os.environ.get("KAFKA_BOOTSTRAP", "")
    if named:
        return "mock" if named == "mock" else "external"
    return "apache" if kafka_jars.missing() is None else "mock"


@pytest.fixture(scope="session")
def kafka(kafka_kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the broker that the whole run shares; give each test topics and groups of its own."""
    stash = request.config.stash
    if kafka_kind == "external":
        stash[SUMMARY] = f"the broker at {os.environ['KAFKA_BOOTSTRAP']}, as KAFKA_BOOTSTRAP says"
        yield os.environ["KAFKA_BOOTSTRAP"]
    elif kafka_kind == "mock":
        why = kafka_jars.missing() or "KAFKA_BOOTSTRAP=mock"
        stash[SUMMARY] = (
            f"librdkafka's mock cluster ({why}): transactions, compaction and restarts were NOT tested; "
            "with Java 17 and Maven on PATH the tests start Apache Kafka"
        )
        cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        broker = next(iter(cluster.list_topics(timeout=10).brokers.values()))
        yield f"{broker.host}:{broker.port}"
        cluster.close()
    else:
        with _started(request.getfixturevalue("kafka_classpath"), tmp_path_factory.mktemp("kafka")) as node:
            stash[SUMMARY] = f"Apache Kafka {kafka_jars.version()}, up in {node.started_in_s:.1f} s"
            yield node.bootstrap


@pytest.fixture(scope="session")
def kafka_classpath() -> Path:
    """The folder with Apache Kafka's jars; skips where Java or Maven is missing."""
    why = kafka_jars.missing()
    if why is not None:
        pytest.skip(f"needs Apache Kafka's jars: {why}")
    return kafka_jars.resolve(JARS_CACHE)


@pytest.fixture
def kafka_node(kafka_classpath: Path, tmp_path: Path) -> Iterator[KafkaNode]:
    """A running Apache Kafka of the test's own, to stop, kill and start again; skips where there is no Java."""
    with _started(kafka_classpath, tmp_path / "kafka", QUICK_RETURN) as node:
        yield node


@pytest.fixture
def new_topic(kafka: str, kafka_kind: str) -> Callable[..., str]:
    """`new_topic(partitions=1, **{"cleanup.policy": "compact"})` makes a topic with a fresh name and returns the name.

    The mock cluster makes topics by itself, always of 4 partitions and without settings: there, a test that asks for
    settings is skipped.
    """

    def make(partitions: int = 1, **settings: str) -> str:
        name = f"test-{uuid.uuid4().hex[:12]}"
        if kafka_kind != "mock":
            admin = AdminClient({"bootstrap.servers": kafka})
            admin.create_topics([NewTopic(name, num_partitions=partitions, config=settings)])[name].result(30)
        elif settings or partitions > MOCK_PARTITIONS:
            pytest.skip("the mock cluster has four partitions a topic and no topic settings")
        return name

    return make


@contextmanager
def _started(jars: Path, directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[KafkaNode]:
    """A running node; afterwards its server.log stays and its records, which may be large, do not."""
    with KafkaNode(jars, directory, settings) as node:
        yield node
    shutil.rmtree(directory / "records", ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says which Kafka the run has proved its claims against, above all when it was none."""
    if SUMMARY in config.stash:
        terminalreporter.write_line(f"Kafka: {config.stash[SUMMARY]}")
