"""Whether the kill switch's topic holds what it should: every record of it, and what they say of each other."""

from collections.abc import Container
from typing import Any

from confluent_kafka import Message
from msgspec import Struct

from schemas.command import AUDIENCE
from schemas.heartbeat import Heartbeat, Tally, is_heartbeat
from schemas.times import parse_millis
from sinks.killswitch import Verifier, kid_of
from streams.in_force import Written, read_command, read_heartbeat
from streams.partitioner import partition_of

_AHEAD_MS = 5 * 60_000
_SILENT = 4
"""Heartbeats that may be missing."""


class Wrong(Struct, frozen=True):
    """Something that should not be there; `offset` None: something that should be."""

    partition: int
    offset: int | None
    key: str
    reason: str


class Verification:
    """Takes one partition's records in their order.

    Compaction keeps each key's last record. So an order among those that are left is checked, and of the heartbeats the
    last one against what precedes it: before an older one, something may have been taken away since.
    """

    def __init__(
        self, number: int, partitions: int, verifier: Verifier, issuer: str, retired: Container[str] = ()
    ) -> None:
        self._number = number
        self._partitions = partitions
        self._verifier = verifier
        self._issuer = issuer
        self._retired = retired
        self._tally = Tally()
        self._last: dict[str, Written] = {}
        self._beat: tuple[int, Heartbeat, tuple[int, str]] | None = None
        self.records = 0
        self.over = 0
        """Records that a retired key signed, which no gateway obeys any more."""
        self.wrong: list[Wrong] = []

    def take(self, message: Message, now: int) -> None:
        """Checks the next record; `now` in ms."""
        self.records += 1
        key, value, offset = message.key(), message.value(), message.offset()
        name = (key or b"").decode(errors="replace")
        try:
            if is_heartbeat(key):
                self._take_beat(offset, name, value, now)
            else:
                self._take_command(name, read_command(key, value, self._verifier), now)
        except ValueError as error:
            if (kid_of(value or b"") or "") in self._retired:
                self.over += 1
                return
            self.wrong.append(Wrong(self._number, offset, name, str(error)))

    def end(self, now: int) -> list[Wrong]:
        """What is wrong, once everything was taken."""
        if self._beat is None:
            return [*self.wrong, Wrong(self._number, None, "", "no heartbeat: has decide ever run?")]
        offset, beat, (count, digest) = self._beat
        said: list[str] = []
        if (beat.count, beat.digest) != (count, digest):
            said.append(f"it says {beat.count} in force ({beat.digest[:12]}), the topic {count} ({digest[:12]})")
        if beat.jwks_sha256 != self._verifier.keys.sha256:
            said.append(f"decide has the keys {beat.jwks_sha256[:12]}, here are {self._verifier.keys.sha256[:12]}")
        silent = now - beat.at
        if silent > _SILENT * beat.interval_ms:
            said.append(f"no heartbeat for {silent / 1000:.0f} s: does decide run?")
        return [*self.wrong, *(Wrong(self._number, offset, f"heartbeat/{beat.partition}", text) for text in said)]

    def _take_beat(self, offset: int, name: str, value: bytes | None, now: int) -> None:
        beat, _ = read_heartbeat(name, value, self._verifier)
        if beat.partition != self._number:
            raise ValueError(f"a heartbeat of partition {beat.partition}")
        if beat.at > now + _AHEAD_MS:
            raise ValueError(f"a heartbeat from {(beat.at - now) / 1000:.0f} s ahead of this clock")
        if self._beat is not None and beat.sequence <= self._beat[1].sequence:
            raise ValueError(f"heartbeat {beat.sequence} after {self._beat[1].sequence}: it was written again")
        self._beat = offset, beat, self._tally.at(beat.at)

    def _take_command(self, name: str, written: Written, now: int) -> None:
        command = written.command
        self._check_addressing(written.claims)
        if partition_of(command.tenant.encode(), self._partitions) != self._number:
            raise ValueError(f"{command.command_id} is of a tenant of another partition")
        if command.mode == "shadow":
            raise ValueError(f"{command.command_id} is a shadow command, which belongs to the audit alone")
        if parse_millis(command.time) > now + _AHEAD_MS:
            raise ValueError(f"{command.command_id} is from ahead of this clock")
        held = self._last.get(name)
        if held is not None and command.epoch < held.command.epoch:
            raise ValueError(
                f"{command.command_id}, epoch {command.epoch}, after {held.command.command_id}, epoch "
                f"{held.command.epoch}: an old command was written again"
            )
        if held is not None and command.epoch == held.command.epoch and command.command_id != held.command.command_id:
            raise ValueError(f"{command.command_id} and {held.command.command_id} have the epoch {command.epoch}")
        self._last[name] = written
        self._tally.note(command, written.issued)

    def _check_addressing(self, claims: dict[str, Any]) -> None:
        if claims.get("iss") != self._issuer:
            raise ValueError(f"issued by {claims.get('iss')!r}, not by {self._issuer!r}")
        audience = claims.get("aud")
        if AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
            raise ValueError(f"for {audience!r}, not for {AUDIENCE!r}")
