"""The demo's broker: librdkafka's mock cluster, inside this process; and how far behind the consumer groups are.

It is real TCP and real consumer groups for whoever connects. It keeps 5 MiB per partition and trims the rest without a
word, so whoever publishes has to look at the groups' lag first. It knows no transactions, compaction or restarts.
"""

from typing import Self

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from schemas.topics import INCIDENTS, KILLSWITCH, REQUESTS, SIGNALS, TOPICS, USAGE
from sinks.clickhouse import TOPICS as ARCHIVED

PARTITIONS = 4
"""What the mock cluster gives every topic."""
GROUPS = {
    "detect": (USAGE,),
    "decide": (SIGNALS, REQUESTS),
    "archive": tuple(topic for topic in ARCHIVED if topic != KILLSWITCH),
    "notify": (INCIDENTS,),
}
_SECONDS = 5.0


class Broker:
    """A broker with our topics, for as long as it is open."""

    def __init__(self) -> None:
        self._cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        first = next(iter(self._cluster.list_topics(timeout=_SECONDS).brokers.values()))
        self.address = f"{first.host}:{first.port}"
        for topic in TOPICS:
            # The mock cluster answers no CreateTopics; it makes a topic that somebody asks for.
            self._cluster.list_topics(topic.name, timeout=_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cluster.close()


class Lags:
    """Asks the broker how far the groups of the apps have committed."""

    def __init__(self, address: str) -> None:
        options = {"bootstrap.servers": address, "enable.auto.commit": False, "log_level": 0}
        self._groups = {app: Consumer({**options, "group.id": f"tripswitch-{app}"}) for app in GROUPS}

    def read(self) -> dict[str, int]:
        """Per app, the records that it has not committed in the partition where it is furthest behind."""
        ends: dict[tuple[str, int], int] = {}
        return {app: self._behind(app, ends) for app in GROUPS}

    def close(self) -> None:
        """Lets go of the broker."""
        for group in self._groups.values():
            group.close()

    def _behind(self, app: str, ends: dict[tuple[str, int], int]) -> int:
        group, worst = self._groups[app], 0
        places = [TopicPartition(topic, number) for topic in GROUPS[app] for number in range(PARTITIONS)]
        try:
            for at in group.committed(places, timeout=_SECONDS):
                place = (at.topic, at.partition)
                if place not in ends:
                    ends[place] = group.get_watermark_offsets(TopicPartition(*place), timeout=_SECONDS)[1]
                worst = max(worst, ends[place] - max(at.offset, 0))
        except KafkaException as error:
            raise RuntimeError(f"the demo's broker does not answer: {error.args[0].str()}") from error
        return worst
