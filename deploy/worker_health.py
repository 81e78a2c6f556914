"""Exits 0 when Kafka counts this machine among the members of a consumer group, else 1 with the reason.

A worker that hangs misses its heartbeats and is put out of its group, so this tells more than that a process exists.
The broker is reached as the worker itself reaches it: by the same settings.
"""

import socket
import sys

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from streams.settings import Kafka, read_settings

TIMEOUT_S = 5.0


def own_address(bootstrap: str) -> str:
    """The address by which the broker knows this machine."""
    host, _, port = bootstrap.split(",", 1)[0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
        return str(connection.getsockname()[0])


def groups_of(address: str, kafka: Kafka) -> list[str]:
    """The stable consumer groups with a member at `address`."""
    admin = AdminClient({**kafka.confluent(), "log_level": "0"})
    stable = {ConsumerGroupState.STABLE}
    listed = admin.list_consumer_groups(states=stable, request_timeout=TIMEOUT_S).result()
    names = [group.group_id for group in listed.valid]
    if not names:
        return []
    described = admin.describe_consumer_groups(names, request_timeout=TIMEOUT_S).values()
    groups = [future.result() for future in described]
    return [group.group_id for group in groups if any(member.host.strip("/") == address for member in group.members)]


def main() -> int:
    """Returns the exit code of a health check."""
    kafka = read_settings().kafka
    try:
        address = own_address(kafka.bootstrap)
        groups = groups_of(address, kafka)
    except (OSError, KafkaException) as error:
        print(f"cannot ask {kafka.bootstrap}: {error}")
        return 1
    print(f"{address} is a member of {', '.join(groups)}" if groups else f"{address} is a member of no consumer group")
    return 0 if groups else 1


if __name__ == "__main__":
    sys.exit(main())
