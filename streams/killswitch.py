"""One partition of the kill switch, as its owner writes it: what is in force, and its heartbeat."""

import time
from collections.abc import Collection, Iterable
from concurrent.futures import Executor

from schemas.command import Command, record_key
from schemas.heartbeat import INTERVAL_MS, Heartbeat, Tally
from sinks.killswitch import SignedRecord, Signer
from streams.clock import wall_ms
from streams.in_force import Found
from streams.record import Record
from streams.resigning import Resigning, Said

_EARLY_S = 0.25
"""A heartbeat may come so much before it is due: whoever asks comes by as often."""
_SPREAD = 16
"""Partitions taken over together beat at as many moments of the interval."""


class Switch:
    """Keeps count of what the owner of the partition `number` has put in force, and says so every three seconds."""

    def __init__(self, number: int, found: Found, pool: Executor) -> None:
        self._number = number
        self._tally = Tally()
        self._sequence = found.heartbeat.sequence if found.heartbeat else 0
        self._beats_at: float | None = None
        """By the monotonic clock; None: at once."""
        self._new: list[Record] = []
        self._resigning = Resigning(pool)
        self._since: set[str] | None = None
        for written in found.commands.values():
            self._tally.note(written.command, written.issued)

    def records(self, commands: Iterable[Command], signer: Signer) -> list[Record]:
        """The records of commands that are published now."""
        out, issued = [], wall_ms()
        for command in commands:
            self._tally.note(command, issued)
            key = record_key(command.tenant, command.scope, command.subject)
            self._resigning.drop(key)
            self._note_written(key)
            out += [self._record(record) for record in signer.records(command, issued)]
        return out

    # -- what is said of its own accord ---------------------------------------------------------------------------

    def say(self, new: Iterable[Record], said: Iterable[Said], signer: Signer) -> None:
        """Has records published with the next transaction, and commands as they are signed."""
        self._new += new
        self._resigning.add(said, signer)

    def has_word(self) -> bool:
        """Whether there is something to say."""
        return bool(self._new) or self._resigning.ready or self._beats

    def word(self, signer: Signer, jwks_sha256: str) -> list[Record]:
        """What is to be published now: what was said, what is signed of it, and the heartbeat, if it is due."""
        out, self._new = self._new, []
        for one in self._resigning.take(signer):
            if isinstance(one.said, Command):
                self._tally.note(one.said, one.issued)
                self._note_written(one.key)
            elif self._tally.epoch(one.key) != _epoch(one.said.command):
                # What has gone out since it was read, even if that was not committed yet, must stay the last word.
                continue
            out += [self._record(record) for record in one.records]
        if self._beats:
            out.append(self._record(signer.heartbeat(self._beat(jwks_sha256))))
        return out

    @property
    def _beats(self) -> bool:
        # What is ordered anew is not all on the topic yet: whoever reads it again now must not take that for the whole.
        if self._resigning.anew:
            return False
        return self._beats_at is None or time.monotonic() >= self._beats_at - _EARLY_S

    def _beat(self, jwks_sha256: str) -> Heartbeat:
        """The next heartbeat, of everything that was published until now."""
        at = wall_ms()
        share = 1.0 if self._beats_at is not None else 1 - self._number % _SPREAD / _SPREAD
        self._beats_at = time.monotonic() + share * INTERVAL_MS / 1000
        self._sequence = max(self._sequence + 1, at)
        return Heartbeat(self._number, self._sequence, at, INTERVAL_MS, *self._tally.at(at), jwks_sha256)

    def _record(self, signed: SignedRecord) -> Record:
        # The kill switch has the signals' partitions: a tenant's commands are written by its one owner.
        return Record(signed.topic, signed.key.encode(), signed.value, self._number, signed.headers)

    # -- while the partition is read ------------------------------------------------------------------------------

    def read_begins(self) -> None:
        """From here on the partition is read while it is written."""
        self._since = set()

    def read_ends(self) -> Collection[str]:
        """The keys that were written since: what was read of them may be older."""
        since, self._since = self._since or set(), None
        return since

    def _note_written(self, key: str) -> None:
        if self._since is not None:
            self._since.add(key)


def _epoch(command: Command) -> int | None:
    """As a tally counts it."""
    return None if command.action == "restore" else command.epoch
