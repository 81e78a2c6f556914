"""The road that integration tests travel."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kafka_node import KafkaNode
from workers import Road


@pytest.fixture(scope="module")
def road(kafka_kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    """On an Apache Kafka of the module's own, where there is Java; else on the broker that KAFKA_BOOTSTRAP names."""
    if kafka_kind == "mock":
        pytest.skip("librdkafka's mock cluster makes no topics, and `tripswitch init` has to")
    folder = tmp_path_factory.mktemp("road")
    with ExitStack() as stack:
        if kafka_kind == "external":
            bootstrap = request.getfixturevalue("kafka")
        else:
            jars = request.getfixturevalue("kafka_classpath")
            bootstrap = stack.enter_context(KafkaNode(jars, folder / "kafka")).bootstrap
        yield stack.enter_context(closing(Road(bootstrap, folder)))
