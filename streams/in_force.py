"""What the kill switch orders now: the valid commands of a partition of its topic, and which of them are covered up."""

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct, field

from schemas.command import STRICTNESS, TOKEN_TYPE, Command, from_claims, record_key
from schemas.heartbeat import Heartbeat, from_heartbeat_claims, heartbeat_key, is_heartbeat
from schemas.times import parse_millis
from schemas.topics import KILLSWITCH
from sinks.killswitch import Verifier
from streams.committed import committed_records
from streams.settings import Kafka

_log = logging.getLogger(__name__)
_claims = msgspec.json.Decoder(dict[str, Any])


class Written(Struct, frozen=True):
    """A valid command as it stands in the topic: its claims, and the key that signed it."""

    command: Command
    claims: dict[str, Any]
    kid: str
    break_glass: bool

    @property
    def key(self) -> str:
        """The record key."""
        return record_key(self.command.tenant, self.command.scope, self.command.subject)

    @property
    def issued(self) -> int:
        """When (ms) it was published."""
        return parse_millis(self.command.time)


class Found(Struct):
    """What a partition of the kill switch holds.

    `commands` has, by record key, the valid command of the greatest epoch. `amiss` says of the record keys whose last
    record is another one what that is: whoever reads the topic once it was compacted sees nothing else. `heartbeat` is
    the last one, which the key `heartbeat_kid` signed.
    """

    commands: dict[str, Written] = field(default_factory=dict)
    amiss: dict[str, str] = field(default_factory=dict)
    heartbeat: Heartbeat | None = None
    heartbeat_kid: str = ""

    def take(self, key: bytes | None, value: bytes | None, verifier: Verifier) -> None:
        """Takes the next record in."""
        name = (key or b"").decode(errors="replace")
        if is_heartbeat(key):
            self._beat(name, value, verifier)
            return
        try:
            written = read_command(key, value, verifier)
        except ValueError as error:
            self.amiss[name] = str(error)
            return
        held = self.commands.get(name)
        if held is not None and _order(written.command) < _order(held.command):
            self.amiss[name] = f"an older command, {written.command.command_id}, was written again"
            return
        self.commands[name] = written
        self.amiss.pop(name, None)

    def _beat(self, name: str, value: bytes | None, verifier: Verifier) -> None:
        try:
            beat, kid = read_heartbeat(name, value, verifier)
        except ValueError as error:
            self.amiss[name] = str(error)
            return
        self.amiss.pop(name, None)
        if self.heartbeat is None or beat.sequence > self.heartbeat.sequence:
            self.heartbeat, self.heartbeat_kid = beat, kid


InForce = Callable[[int], Found]
"""Of a partition's number: what the kill switch has in it."""


def in_force(kafka: Kafka, verifier: Verifier) -> InForce:
    """Reads a partition to its end each time it is asked. Blocks; to be called in a thread."""

    def read(number: int) -> Found:
        found = read_partition(kafka, number, verifier, group="tripswitch-decide-in-force")
        if found.amiss:
            key, reason = next(iter(found.amiss.items()))
            _log.warning(
                "%s/%d: the last record of %d keys is no valid command, as of %s: %s",
                KILLSWITCH, number, len(found.amiss), key, reason,
            )  # fmt: skip
        return found

    return read


def read_partition(
    kafka: Kafka, number: int, verifier: Verifier, *, group: str = "tripswitch-operator-in-force", quiet: bool = False
) -> Found:
    """What is in a partition now. `group` is the name under which it is read.

    Raises:
        KafkaException, TimeoutError: it can't be read.
    """
    found = Found()
    for message in committed_records(kafka, KILLSWITCH, number, group, quiet=quiet):
        found.take(message.key(), message.value(), verifier)
    return found


def read_command(key: bytes | None, value: bytes | None, verifier: Verifier) -> Written:
    """The command in a record.

    Raises:
        ValueError: nobody who may has signed one for this record key; says why.
    """
    if value is None:
        raise ValueError("a tombstone")
    payload, signed = verifier.signed(value, TOKEN_TYPE)
    command = from_claims(payload)
    if key != record_key(command.tenant, command.scope, command.subject).encode():
        raise ValueError(f"the command {command.command_id} under another's key")
    return Written(command, _claims.decode(payload), signed.kid, signed.role == "break-glass")


def read_heartbeat(key: str, value: bytes | None, verifier: Verifier) -> tuple[Heartbeat, str]:
    """The heartbeat in a record, and the `kid` that signed it.

    Raises:
        ValueError: nobody who may has signed one for this record key; says why.
    """
    payload, signed = verifier.signed(value or b"", TOKEN_TYPE)
    beat = from_heartbeat_claims(payload)
    if signed.role != "commands":
        raise ValueError(f"a heartbeat signed by the {signed.role} key {signed.kid}")
    if key != heartbeat_key(beat.partition):
        raise ValueError("a heartbeat under another's key")
    return beat, signed.kid


def _order(command: Command) -> tuple[int, int]:
    """Of two commands with the same epoch the stricter holds."""
    return command.epoch, STRICTNESS[command.action]
