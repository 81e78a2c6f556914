"""Commands for when decide is down: signed by a key kept off line, written straight to the kill switch.

They are written under the transactional id of the partition's owner. So the broker shuts out whoever still thinks that
he owns it, and an owner that comes back reads them, takes them over as a person's orders, and goes on from there.
"""

from contextlib import closing
from typing import Literal

from confluent_kafka import Consumer, Producer

from schemas.command import Command, Scope, command_id, record_key
from schemas.heartbeat import INTERVAL_MS
from schemas.times import format_millis
from schemas.topics import KILLSWITCH
from sinks.errors import Unreachable
from sinks.killswitch import Signer, Verifier
from streams.clock import wall_ms
from streams.in_force import Found, read_partition
from streams.orders import DECIDE_GROUP
from streams.partitioner import partition_of
from streams.settings import Kafka

POLICY = "break-glass"
_SECONDS = 15.0
_BEATS = 4
"""Heartbeats without which decide is taken for dead."""


class Alive(ValueError):
    """decide runs: it takes orders."""


class BreakGlass:
    """One use of the key, on the tenant's partition."""

    def __init__(self, kafka: Kafka, signer: Signer, verifier: Verifier, tenant: str) -> None:
        """Finds the tenant's partition.

        Raises:
            KafkaException, TimeoutError, Unreachable: the broker does not answer.
        """
        self._kafka = kafka
        self._signer = signer
        self._tenant = tenant
        self._number = self._partition()
        self._verifier = verifier

    def check_decide_is_down(self) -> None:
        """Looks for a young heartbeat.

        Raises:
            Alive: there is one.
            KafkaException, TimeoutError: the partition can't be read.
        """
        beat = self._read().heartbeat
        ago = wall_ms() - beat.at if beat else None
        if ago is not None and ago < _BEATS * INTERVAL_MS:
            raise Alive(
                f"decide was heard of {ago / 1000:.1f} s ago: order it with `tripswitch revoke|suspend|restore`; "
                "--force goes past it, and it has to start again"
            )

    def order(
        self, action: Literal["revoke", "suspend", "restore"], scope: Scope, subject: str, identity: str | None,
        reason: str, by: str,
    ) -> Command:  # fmt: skip
        """Writes a command to the gateways and to the audit, in one transaction.

        Raises:
            KafkaException, TimeoutError: it was not written.
        """
        producer = Producer(
            {
                **self._kafka.confluent(), "transactional.id": f"{DECIDE_GROUP}-{self._number}", "acks": "all",
                "transaction.timeout.ms": 20_000, "log_level": "0",
            },
            logger=None,
        )  # fmt: skip
        producer.init_transactions(_SECONDS)
        # Only now can nobody else write: what is read is the last word.
        held = self._read().commands.get(record_key(self._tenant, scope, subject))
        issued = wall_ms()
        epoch = max(issued, held.command.epoch + 1) if held else issued
        cause = f"{POLICY}:{epoch}"
        command = Command(
            command_id=command_id(self._tenant, scope, subject, action, cause), time=format_millis(issued),
            tenant=self._tenant, identity=identity, scope=scope, subject=subject, action=action, epoch=epoch,
            expires_at=None, mode="enforce", reason=f"{reason} ({by}, break-glass)", incident_id=f"inc-{cause}",
            finding_ids=[], policy=POLICY, manual=True,
        )  # fmt: skip
        producer.begin_transaction()
        for record in self._signer.records(command, issued, break_glass=True):
            producer.produce(
                record.topic, record.value, record.key.encode(), self._number, headers=list(record.headers)
            )
        producer.commit_transaction(_SECONDS)
        return command

    def _read(self) -> Found:
        return read_partition(self._kafka, self._number, self._verifier, group="tripswitch-break-glass", quiet=True)

    def _partition(self) -> int:
        options = {**self._kafka.confluent(), "group.id": "tripswitch-break-glass", "log_level": "0"}
        with closing(Consumer(options, logger=None)) as consumer:
            topic = consumer.list_topics(KILLSWITCH, timeout=_SECONDS).topics[KILLSWITCH]
        if not topic.partitions:
            raise Unreachable(f"Kafka at {self._kafka.bootstrap} lacks {KILLSWITCH}; run `tripswitch init` first")
        return partition_of(self._tenant.encode(), len(topic.partitions))
