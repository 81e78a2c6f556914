"""Heartbeats: what the writer says is in force in a partition, and the same reckoned from what a gateway holds."""

import hashlib
import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

from tripswitch_gateway import fields
from tripswitch_gateway.claims import Command
from tripswitch_gateway.fields import Refused
from tripswitch_gateway.tokens import Token

_EVENT = "https://schemas.openid.net/secevent/ssf/event-type/verification"
_PREFIX = b"heartbeat/"
_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What is in force in ``partition`` at ``at`` (Unix milliseconds): ``count`` commands, with this ``digest``.

    ``sequence`` grows from one heartbeat of a partition to the next, which is due after ``interval_ms``.
    """

    partition: int
    sequence: int
    at: int
    interval_ms: int
    count: int
    digest: str
    jwks_sha256: str


def is_heartbeat(key: bytes | None) -> bool:
    """Whether a record's key is a heartbeat's: no command can have one like it."""
    return key is not None and key.startswith(_PREFIX)


def read_heartbeat(token: Token, key: bytes | None, partition: int) -> Heartbeat:
    """The heartbeat that ``token`` carries, found under ``key`` in ``partition``. Raises `Refused`."""
    claims = token.claims
    if "exp" in claims or "sub" in claims:
        raise Refused("malformed")
    uri, event = fields.only_event(claims)
    if uri != _EVENT:
        raise Refused("event-mismatch")
    ext = fields.mapping(event, "ext")
    beat = Heartbeat(
        partition=fields.integer(ext, "partition"),
        sequence=fields.integer(ext, "sequence"),
        at=fields.integer(ext, "at"),
        interval_ms=fields.integer(ext, "interval_ms"),
        count=fields.integer(ext, "count"),
        digest=fields.text(ext, "digest"),
        jwks_sha256=fields.text(ext, "jwks_sha256"),
    )
    if fields.mapping(claims, "sub_id") != {"format": "opaque", "id": f"killswitch/{beat.partition}"}:
        raise Refused("subject-mismatch")
    if key != _PREFIX + str(beat.partition).encode():
        raise Refused("key-mismatch")
    # A heartbeat that was copied into another partition would vouch for commands that it does not know.
    if beat.partition != partition:
        raise Refused("partition-mismatch")
    return beat


class Tally:
    """How many commands of one partition are in force, and the digest of their keys and epochs.

    Both are kept up to date with each command: a sum modulo 2^256 loses a term as easily as it gains one.
    """

    def __init__(self) -> None:
        self._count = 0
        self._sum = 0
        self._at = 0
        # When what is counted ends, or what was held under the same key before.
        self._ending: list[tuple[float, str]] = []

    def replace(self, old: Command | None, new: Command | None) -> None:
        """Count ``new`` instead of ``old``, the command held under the same key until now."""
        if old is not None and self._counts(old):
            self._take_away(old)
        if new is not None and self._counts(new):
            self._count += 1
            self._sum = (self._sum + _weight(new)) % _MODULUS
            if new.ends_at != math.inf:
                heapq.heappush(self._ending, (new.ends_at, new.key))

    def at(self, moment: int, held: Mapping[str, Command], partition: int) -> tuple[int, str]:
        """Number and digest at ``moment`` (Unix milliseconds); ``held`` are the last commands by key."""
        if moment < self._at:
            self._begin_again(moment, held, partition)
        last = None
        while self._ending and self._ending[0][0] <= moment:
            ending = heapq.heappop(self._ending)
            ends_at, key = ending
            # What was replaced since has been taken away already, and what is there twice is counted once.
            if ending != last and _ends(held.get(key), ends_at, partition):
                self._take_away(held[key])
            last = ending
        self._at = moment
        return self._count, f"{self._sum:064x}"

    def _begin_again(self, moment: int, held: Mapping[str, Command], partition: int) -> None:
        # The writer's clock was set back, or another writer's is behind: what has ended is in force again.
        self._count = self._sum = 0
        self._ending = []
        self._at = moment
        for command in held.values():
            if command.partition == partition:
                self.replace(None, command)

    def _counts(self, command: Command) -> bool:
        return command.is_block and command.ends_at > self._at

    def _take_away(self, command: Command) -> None:
        self._count -= 1
        self._sum = (self._sum - _weight(command)) % _MODULUS


def _ends(command: Command | None, ends_at: float, partition: int) -> bool:
    if command is None or not command.is_block:
        return False
    return command.ends_at == ends_at and command.partition == partition


def _weight(command: Command) -> int:
    return int.from_bytes(hashlib.sha256(f"{command.key}/{command.epoch}".encode()).digest(), "big")
