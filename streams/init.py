"""`tripswitch init`: topics, ClickHouse tables and signing keys. May be run again; changes nothing that is there."""

from collections.abc import Container, Iterator
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from msgspec import Struct

from schemas.directory import Directory
from schemas.topics import TOPICS
from sinks.errors import Unreachable
from sinks.keys import new_keys
from streams.archive import make_sink
from streams.rights import RIGHTS, grant, principal
from streams.settings import Kafka, Settings, Signing

_SECONDS = 15.0
_ANSWER_SECONDS = 6.0


class PartitionsDiffer(ValueError):
    """Topics exist with other partition counts than asked for; says how to migrate."""


def reach(kafka: Kafka) -> dict[str, int]:
    """The topics that a broker has, with their partition counts.

    Raises:
        Unreachable: no broker answers at the address.
    """
    quiet = {"log_level": "0", "socket.connection.setup.timeout.ms": "5000"}
    try:
        client = AdminClient({**kafka.confluent(), **quiet}, logger=None)
        found = client.list_topics(timeout=_ANSWER_SECONDS)
    except KafkaException as error:
        raise Unreachable(
            f"no Kafka broker answers at {kafka.bootstrap}: {error.args[0].str()}; start it, or correct KAFKA_BOOTSTRAP"
        ) from error
    return {name: len(topic.partitions) for name, topic in found.topics.items()}


def make_topics(kafka: Kafka) -> Iterator[str]:
    """Makes the topics that are missing, and yields their names.

    Raises:
        PartitionsDiffer: one exists with another number of partitions: identities would change their partition.
        Unreachable: the broker does not answer, or refuses.
    """
    have = reach(kafka)
    differ = {
        topic.name: have[topic.name] for topic in TOPICS if have.get(topic.name, kafka.partitions) != kafka.partitions
    }
    if differ:
        found = ", ".join(f"{name} has {count}" for name, count in differ.items())
        raise PartitionsDiffer(
            f"{kafka.partitions} partitions are asked for, but {found}. The number can't change in place: every "
            "identity would move. Set KAFKA_PARTITIONS to what there is, or migrate: stop the workers once they have "
            "read everything, delete the topics, run init again, and let the gateways publish anew"
        )
    missing = [topic for topic in TOPICS if topic.name not in have]
    if not missing:
        return
    client = AdminClient(kafka.confluent())
    asked = [
        NewTopic(topic.name, num_partitions=kafka.partitions, replication_factor=kafka.replication, config=topic.config)
        for topic in missing
    ]
    for name, future in client.create_topics(asked, request_timeout=_SECONDS).items():
        try:
            future.result()
        except KafkaException as error:
            raise Unreachable(f"the broker at {kafka.bootstrap} did not make {name}: {error.args[0].str()}") from error
        yield name


class Differs(Struct, frozen=True):
    """A setting that a topic has other than it must: what is seen, and how to mend it."""

    topic: str
    seen: str
    mend: str


def differing(kafka: Kafka, names: Container[str]) -> Iterator[Differs]:
    """What the topics in `names` have other than they must.

    Raises:
        Unreachable: the broker does not answer.
    """
    fixed = {topic.name: topic for topic in TOPICS if topic.fixed and topic.name in names}
    if not fixed:
        return
    client = AdminClient(kafka.confluent())
    asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in fixed]
    for resource, future in client.describe_configs(asked, request_timeout=_SECONDS).items():
        topic = fixed[resource.name]
        try:
            found = {name: entry.value for name, entry in future.result().items()}
        except KafkaException as error:
            raise Unreachable(
                f"the broker at {kafka.bootstrap} does not tell the settings of {topic.name}: {error.args[0].str()}"
            ) from error
        for name in topic.fixed:
            if found.get(name) != topic.config[name]:
                yield Differs(
                    topic.name,
                    f"{name} is {found.get(name)}, and should be {topic.config[name]}",
                    f"kafka-configs.sh --alter --topic {topic.name} --add-config {name}={topic.config[name]}",
                )


def make_keys(signing: Signing) -> str | None:
    """Makes the signing keys where there are none; returns their `kid`, None where they exist."""
    private, public = Path(signing.key), Path(signing.jwks)
    if private.exists() and public.exists():
        return None
    return new_keys(private, public)


def initialise(settings: Settings) -> Iterator[str]:
    """Does all of it; yields a line for each thing done."""
    kid = make_keys(settings.signing)
    if kid:
        yield f"signing key {settings.signing.key}, public keys {settings.signing.jwks} (kid {kid})"
    there = reach(settings.kafka)
    for name in make_topics(settings.kafka):
        yield f"topic {name}, {settings.kafka.partitions} partitions"
    for differs in differing(settings.kafka, there):
        yield f"topic {differs.topic}: {differs.seen}; change it with `{differs.mend}`"
    if settings.kafka.grant_rights:
        grant(settings.kafka)
        yield f"rights of {', '.join(map(principal, RIGHTS))}"
    with make_sink(settings.clickhouse.url, Directory()) as sink:
        for migration in sink.setup():
            yield f"ClickHouse {migration}"
