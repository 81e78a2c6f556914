"""The heartbeat of a partition of the kill switch: how many commands are in force there, and which.

A gateway that has read up to a heartbeat must hold exactly the commands that it speaks of; one that hears none for some
intervals knows that it is cut off from its writer.
"""

import hashlib
import heapq
import math
from typing import Any

import msgspec
from msgspec import Struct

from schemas.command import AUDIENCE, Command, record_key
from schemas.decoding import Malformed, decode
from schemas.times import parse_millis

INTERVAL_MS = 3_000
_EVENT = "https://schemas.openid.net/secevent/ssf/event-type/verification"
_PREFIX = "heartbeat/"
_MODULUS = 1 << 256


class Heartbeat(Struct, frozen=True):
    """What is in force in `partition` at `at` (ms): `count` commands, and `digest` of their keys and epochs.

    `sequence` grows with every heartbeat of a partition; the next is due in `interval_ms`. `jwks_sha256` names the keys
    that may sign.
    """

    partition: int
    sequence: int
    at: int
    interval_ms: int
    count: int
    digest: str
    jwks_sha256: str


class _Event(Struct):
    ext: Heartbeat


class _Claims(Struct):
    events: dict[str, _Event]


_claims = msgspec.json.Decoder(_Claims)


def heartbeat_key(partition: int) -> str:
    """The Kafka key: no command has one like it, and compaction keeps the last of each partition."""
    return f"{_PREFIX}{partition}"


def is_heartbeat(key: bytes | None) -> bool:
    """Whether a record's key is a heartbeat's."""
    return key is not None and key.startswith(_PREFIX.encode())


def heartbeat_claims(beat: Heartbeat, *, issuer: str) -> dict[str, Any]:
    """The claims of its token: an SSF verification event."""
    return {
        "iss": issuer,
        "jti": f"{heartbeat_key(beat.partition)}/{beat.sequence}",
        "iat": beat.at // 1000,
        "aud": [AUDIENCE],
        "sub_id": {"format": "opaque", "id": f"killswitch/{beat.partition}"},
        "events": {_EVENT: {"ext": msgspec.to_builtins(beat)}},
    }


def from_heartbeat_claims(payload: bytes) -> Heartbeat:
    """The heartbeat that a token's payload states.

    Raises:
        Malformed: it states none.
    """
    token = decode(_claims, payload)
    if token.events.keys() != {_EVENT}:
        raise Malformed("no heartbeat: it has another event")
    return token.events[_EVENT].ext


class _Block(Struct):
    epoch: int
    ends: float
    weight: int
    counted: bool = False


class Tally:
    """How many commands of a partition are in force, and the digest of their keys and epochs, kept up to date with
    every command.

    The digest is a sum modulo 2^256, so that a command is added or taken away without looking at the others.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, _Block] = {}
        """By record key, what is not restored; it may have ended."""
        self._ending: list[tuple[float, str]] = []
        """When what is counted ends, or what was under the same key before it."""
        self._count = 0
        self._digest = 0
        self._at = 0

    def note(self, command: Command, issued: int) -> None:
        """Takes note of a command, the newest of its subject, that was published at `issued` (ms)."""
        if command.mode == "shadow":
            return
        key = record_key(command.tenant, command.scope, command.subject)
        self._take_away(self._blocks.pop(key, None))
        if command.action != "restore":
            term = hashlib.sha256(f"{key}/{command.epoch}".encode()).digest()
            self._blocks[key] = block = _Block(command.epoch, ends(command, issued), int.from_bytes(term))
            self._add(key, block)

    def epoch(self, key: str) -> int | None:
        """The epoch of the last command under a record key; None where that was a restore, or there is none."""
        block = self._blocks.get(key)
        return None if block is None else block.epoch

    def at(self, moment: int) -> tuple[int, str]:
        """How many commands are in force at `moment` (ms), and their digest in hex."""
        back, self._at = moment < self._at, moment
        while self._ending and self._ending[0][0] <= moment:
            _, key = heapq.heappop(self._ending)
            block = self._blocks.get(key)
            if block is not None and block.ends <= moment:
                self._take_away(block)
        if back:
            # A clock was set back: what has ended is in force again.
            for key, block in self._blocks.items():
                self._add(key, block)
        return self._count, f"{self._digest:064x}"

    def _add(self, key: str, block: _Block) -> None:
        if block.counted or block.ends <= self._at:
            return
        block.counted = True
        self._count += 1
        self._digest = (self._digest + block.weight) % _MODULUS
        if block.ends != math.inf:
            heapq.heappush(self._ending, (block.ends, key))

    def _take_away(self, block: _Block | None) -> None:
        if block is not None and block.counted:
            block.counted = False
            self._count -= 1
            self._digest = (self._digest - block.weight) % _MODULUS


def ends(command: Command, issued: int) -> float:
    """When (ms) a command that was published at `issued` ends by itself; infinity: it does not."""
    if command.expires_at is None or command.action == "revoke":
        return math.inf
    return issued + parse_millis(command.expires_at) - parse_millis(command.time)
