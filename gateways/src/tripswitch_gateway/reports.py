"""What a gateway says of what it reads: counts, log lines and acknowledgements, however much is thrown at it."""

import logging
import uuid
from collections.abc import Callable, Mapping

from tripswitch_gateway import acks
from tripswitch_gateway.claims import Command
from tripswitch_gateway.commands import wall_clock_ms
from tripswitch_gateway.counts import Counts
from tripswitch_gateway.fields import Refused
from tripswitch_gateway.limits import Bucket

_log = logging.getLogger(__name__)

# Whoever floods the topic must not flood the log and the acknowledgements through us.
_TOLD_PER_MINUTE = 60.0


class Reporter:
    """Counts, logs and acknowledges, never with the content of a record that was refused.

    ``send`` takes an acknowledgement, and does not block.
    """

    def __init__(self, gateway: str, topic: str, counts: Counts, send: Callable[[dict[str, object]], None]) -> None:
        self._gateway = gateway
        self._topic = topic
        self._counts = counts
        self._send = send
        self._to_tell = Bucket(_TOLD_PER_MINUTE, 0)

    def refused(self, refusal: Refused, partition: int, offset: int, *, live: bool) -> None:
        """A record was not obeyed; one that was there before the start is not acknowledged."""
        self._counts.refused[refusal.reason] += 1
        now_ms = wall_clock_ms()
        if self._to_tell.wait_ms(now_ms) > 0:
            return
        self._to_tell.take(1)
        place = _place(partition, offset)
        _log.warning("refused a record of %s: %s at %s", self._topic, refusal.reason, place)
        if live:
            uid = refusal.command_id or f"{self._topic}/{partition}/{offset}"
            self._send(acks.refused(uid, refusal.reason, self._gateway, now_ms, place))

    def two_writers(self, command: Command, offset: int) -> None:
        """Two commands of one epoch: somebody else has a key."""
        _log.error(
            "ALARM: another command with epoch %d for %s of tenant %s, in partition %d at %d; the stricter holds",
            command.epoch,
            command.scope,
            command.tenant,
            command.partition,
            offset,
        )

    def applied(self, command: Command, offset: int, now_ms: int, *, expired: bool, live: bool) -> None:
        """A command took force; one that was there before the start is only counted."""
        self._counts.applied[command.action] += 1
        if command.break_glass:
            self._counts.break_glass += 1
            _log.warning(
                "BREAK GLASS: %s of %s in tenant %s, command %s: %s",
                command.action,
                command.scope,
                command.tenant,
                command.command_id,
                command.reason_admin,
            )
        if live:
            if not expired:
                self._counts.propagation.observe(max(0, now_ms - command.not_before) / 1000)
            place = _place(command.partition, offset)
            self._send(acks.applied(command, self._gateway, now_ms, place, expired=expired))

    def keys_taken(self, jwks_sha256: str) -> None:
        """Other signing keys are believed from now on."""
        _log.info("signing keys: %s", jwks_sha256)
        self._send(acks.keys_taken(jwks_sha256, self._gateway, wall_clock_ms()))

    def cold_start(self, counts: Mapping[str, object]) -> None:
        """Everything that was there before the start is read."""
        _log.info("the kill switch is read: %s", counts)
        self._send(acks.cold_start(f"cold-start/{uuid.uuid4()}", self._gateway, wall_clock_ms(), counts))

    def disagrees(self, partition: int, counts: Mapping[str, object]) -> None:
        """The table is not what a heartbeat says."""
        self._counts.disagreements += 1
        _log.error("partition %d of %s disagrees with its heartbeat: %s", partition, self._topic, counts)
        self._send(acks.disagrees(partition, self._gateway, wall_clock_ms(), counts))

    def agrees_again(self, partition: int) -> None:
        """The table is right again."""
        _log.warning("partition %d of %s agrees with its heartbeat again", partition, self._topic)

    def alive(self, state: Mapping[str, object]) -> None:
        """The gateway is there, and this is its state."""
        self._send(acks.alive(self._gateway, wall_clock_ms(), state))


def _place(partition: int, offset: int) -> dict[str, int]:
    return {"kafka_partition": partition, "kafka_offset": offset}
