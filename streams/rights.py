"""Who may do what on the broker: the least with which each part works, as access control lists of Kafka.

A principal is `User:tripswitch-ROLE`; `tripswitch init` grants what is here where the settings ask for it.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from msgspec import Struct

from schemas.topics import (
    ACKS,
    AUDIT,
    DEAD_LETTERS,
    INCIDENTS,
    KILLSWITCH,
    REQUESTS,
    SIGNALS,
    STATE_DECIDE,
    STATE_DETECT,
    TOPICS,
    USAGE,
)
from sinks.errors import Unreachable
from streams.settings import Kafka

_SECONDS = 15.0
Role = Literal["detect", "decide", "archive", "notify", "operator", "gateway", "break-glass"]


class Rights(Struct, frozen=True):
    """What a role reads and writes, topics of which it deletes records, and what the names of its consumer groups and,
    where it writes in any, of its transactions begin with. `watches` are groups of others whose offsets it may see."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    groups: str
    deletes: tuple[str, ...] = ()
    transactions: str | None = None
    watches: tuple[str, ...] = ()


RIGHTS: dict[Role, Rights] = {
    "detect": Rights(
        (USAGE, STATE_DETECT),
        # An owner of a partition writes ticks into it.
        (USAGE, SIGNALS, DEAD_LETTERS, STATE_DETECT),
        "tripswitch-detect",
        (STATE_DETECT,),
        "tripswitch-detect",
    ),
    "decide": Rights(
        (SIGNALS, REQUESTS, KILLSWITCH, STATE_DECIDE),
        (SIGNALS, INCIDENTS, KILLSWITCH, AUDIT, DEAD_LETTERS, STATE_DECIDE),
        "tripswitch-decide",
        (STATE_DECIDE,),
        "tripswitch-decide",
    ),
    "archive": Rights(
        (USAGE, SIGNALS, INCIDENTS, REQUESTS, KILLSWITCH, AUDIT, ACKS, DEAD_LETTERS),
        (DEAD_LETTERS,),
        "tripswitch-archive",
    ),
    "notify": Rights((INCIDENTS,), (DEAD_LETTERS,), "tripswitch-notify"),
    "operator": Rights(
        (USAGE, SIGNALS, INCIDENTS, KILLSWITCH, AUDIT, ACKS, DEAD_LETTERS),
        (REQUESTS,),
        "tripswitch-operator",
        # Whether an order was read.
        watches=("tripswitch-decide",),
    ),
    # Never the kill switch: whoever takes a gateway over can still block or restore nobody.
    "gateway": Rights((KILLSWITCH,), (USAGE, ACKS), "tripswitch-gateway"),
    # In the name of decide's transactions, so that decide can write no more before it starts again.
    "break-glass": Rights((KILLSWITCH,), (KILLSWITCH, AUDIT), "tripswitch-break-glass", (), "tripswitch-decide"),
}


def principal(role: Role) -> str:
    """The role's principal."""
    return f"User:tripswitch-{role}"


def bindings(role: Role) -> Iterator[AclBinding]:
    """The role's rights as Kafka has them: nothing is allowed that is not named."""
    rights, literal, prefixed = RIGHTS[role], ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED

    def may(resource: ResourceType, name: str, pattern: ResourcePatternType, operation: AclOperation) -> AclBinding:
        return AclBinding(resource, name, pattern, principal(role), "*", operation, AclPermissionType.ALLOW)

    for operation, topics in (
        (AclOperation.READ, rights.reads),
        (AclOperation.WRITE, rights.writes),
        (AclOperation.DELETE, rights.deletes),
    ):
        yield from (may(ResourceType.TOPIC, topic, literal, operation) for topic in topics)
    yield may(ResourceType.GROUP, rights.groups, prefixed, AclOperation.READ)
    yield from (may(ResourceType.GROUP, name, literal, AclOperation.DESCRIBE) for name in rights.watches)
    if rights.transactions is not None:
        for operation in (AclOperation.DESCRIBE, AclOperation.WRITE):
            yield may(ResourceType.TRANSACTIONAL_ID, rights.transactions, prefixed, operation)
    if role != "gateway":
        # To tell a topic that is missing from one that is not its own.
        yield from (may(ResourceType.TOPIC, topic.name, literal, AclOperation.DESCRIBE) for topic in TOPICS)


def grant(kafka: Kafka, roles: Iterable[Role] = tuple(RIGHTS)) -> None:
    """Gives every role its rights; those that it has stay. The broker needs an authorizer, and us as its super user.

    Raises:
        Unreachable: the broker does not answer, or refuses.
    """
    client = AdminClient(kafka.confluent())
    for role in roles:
        for future in client.create_acls(list(bindings(role)), request_timeout=_SECONDS).values():
            try:
                future.result()
            except KafkaException as error:
                raise Unreachable(
                    f"the broker at {kafka.bootstrap} did not give {principal(role)} its rights: {error.args[0].str()}"
                ) from error
