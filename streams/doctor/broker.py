"""The broker: are its topics there, set as they should be, and has each part its rights and no others?"""

from collections.abc import Iterable, Iterator

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from schemas.topics import KILLSWITCH, TOPICS
from streams.doctor.check import Check
from streams.init import differing
from streams.rights import RIGHTS, bindings, principal
from streams.settings import Kafka

_SECONDS = 15.0


def check_topics(kafka: Kafka, partitions: dict[str, int]) -> Iterator[Check]:
    """Topics that are missing, and settings that are no matter of taste and differ. `partitions` is by topic what the
    broker has."""
    missing = [topic.name for topic in TOPICS if topic.name not in partitions]
    if missing:
        yield Check("topics", "failure", f"{', '.join(missing)} missing", "run `tripswitch init`")
    counts = {partitions[topic.name] for topic in TOPICS if topic.name in partitions}
    if len(counts) > 1:
        yield Check(
            "topics", "failure", f"partition counts differ: {sorted(counts)}", "`tripswitch init` says how to migrate"
        )
    wrong = list(differing(kafka, partitions))
    for one in wrong:
        yield Check(f"topic {one.topic}", "failure", one.seen, one.mend)
    if not missing and not wrong and len(counts) == 1:
        yield Check("topics", "ok", f"{len(TOPICS)} topics of {counts.pop()} partitions")


def check_rights(kafka: Kafka) -> Iterator[Check]:
    """Rights that a part lacks, and others than decide that may write the kill switch."""
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    client = AdminClient(kafka.confluent())
    try:
        if not _has_authorizer(client):
            yield Check(
                "rights",
                "warning",
                "the broker has no authorizer: whoever reaches it may write anything; commands are signed all the same",
                "give the broker an authorizer and each part a principal, as docs/security.md shows",
            )
            return
        held = client.describe_acls(everything, request_timeout=_SECONDS).result()
    except KafkaException as error:
        yield _not_told("rights", error)
        return
    yield from judge_rights(held)


def _has_authorizer(client: AdminClient) -> bool:
    """Raises KafkaException where the broker does not tell."""
    some = str(next(iter(client.list_topics(timeout=_SECONDS).brokers)))
    resource = ConfigResource(ConfigResource.Type.BROKER, some)
    settings = client.describe_configs([resource], request_timeout=_SECONDS)[resource].result()
    return bool(settings["authorizer.class.name"].value)


def judge_rights(held: Iterable[AclBinding]) -> Iterator[Check]:
    """What is wrong with the rights that the broker has."""
    have = list(held)
    named = {_named(one) for one in have}
    short = {role: [b for b in bindings(role) if _named(b) not in named] for role in RIGHTS}
    for role, lacking in short.items():
        if lacking:
            said = ", ".join(f"{b.operation.name} {b.restype.name} {b.name}" for b in lacking)
            yield Check(
                "rights",
                "failure",
                f"{principal(role)} lacks {said}",
                "set KAFKA_GRANT_RIGHTS=true and run `tripswitch init` as a super user",
            )
    meant = {principal(role) for role, rights in RIGHTS.items() if KILLSWITCH in rights.writes}
    writers = sorted({one.principal for one in have if _may_write(one, KILLSWITCH)} - meant)
    for name in writers:
        yield Check(
            "rights",
            "warning",
            f"{name} can write to {KILLSWITCH}: not forge a command, but flood the topic",
            f"take WRITE on {KILLSWITCH} from {name}",
        )
    if not writers and not any(short.values()):
        yield Check("rights", "ok", f"{len(RIGHTS)} principals have what they need; no others write {KILLSWITCH}")


def _may_write(one: AclBinding, topic: str) -> bool:
    of_topic = one.name in (topic, "*") or (
        one.resource_pattern_type == ResourcePatternType.PREFIXED and topic.startswith(one.name)
    )
    return (
        one.restype == ResourceType.TOPIC
        and of_topic
        and one.permission_type == AclPermissionType.ALLOW
        and one.operation in (AclOperation.WRITE, AclOperation.ALL)
    )


def _named(one: AclBinding) -> tuple[object, ...]:
    pattern = one.resource_pattern_type
    return one.restype, one.name, pattern, one.principal, one.operation, one.permission_type


def _not_told(what: str, error: KafkaException) -> Check:
    return Check(what, "unknown", f"the broker does not tell us: {error.args[0].str()}", "ask it as a super user")
