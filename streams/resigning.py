"""Signing what has to be said again of a partition of the kill switch, beside everything else that decide does.

OpenSSL lets go of Python's lock while it signs, so a thread that signs takes a core, and no time of the event loop's.
"""

import os
from collections.abc import Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from schemas.command import Command, record_key
from sinks.killswitch import SignedRecord, Signer
from streams.clock import wall_ms
from streams.in_force import Written

_SLICE = 200
"""Commands signed in one go, some 0.2 s with a 3,072-bit key: whatever is signed may be published then."""
_AT_ONCE = 2
"""Slices of a partition that wait for the threads, so that these need not wait for whoever publishes."""

Said = Command | Written
"""A command that is ordered anew, or one that was published before and stays the same but for its signature."""


class Resigned(NamedTuple):
    """What was said again at `issued` (ms) of the record key `key`, as the records to publish."""

    key: str
    said: Said
    issued: int
    records: list[SignedRecord]


def signing_threads() -> Executor:
    """Threads for all partitions of a worker: half of the cores, the rest is for findings."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2), thread_name_prefix="signing")


class Resigning:
    """What of one partition is to be signed yet, and what was signed and not taken. The last that was asked for of a
    record key is what is said of it. Used by one thread; signs in those of `pool`."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._wanted: dict[str, Said] = {}
        self._waiting: dict[str, None] = {}
        """Record keys that no slice has taken yet, the first ones first."""
        self._anew: set[str] = set()
        self._slices: list[tuple[str, Future[list[Resigned]]]] = []
        """With the `kid` that each is signed with."""

    def add(self, said: Iterable[Said], signer: Signer) -> None:
        """Has commands signed."""
        for one in said:
            command = one if isinstance(one, Command) else one.command
            key = record_key(command.tenant, command.scope, command.subject)
            self.drop(key)
            self._wanted[key] = one
            self._waiting[key] = None
            if one is command:
                self._anew.add(key)
        self._begin(signer)

    def drop(self, key: str) -> None:
        """Something newer is said of a record key."""
        self._wanted.pop(key, None)
        self._waiting.pop(key, None)
        self._anew.discard(key)

    @property
    def anew(self) -> bool:
        """Whether a command that is ordered anew has not been taken yet."""
        return bool(self._anew)

    @property
    def ready(self) -> bool:
        """Whether a slice is signed."""
        return any(signed.done() for _, signed in self._slices)

    def take(self, signer: Signer) -> list[Resigned]:
        """What was signed since the last call. What another key than the `signer`'s has signed is signed again."""
        out: list[Resigned] = []
        done = [one for one in self._slices if one[1].done()]
        self._slices = [one for one in self._slices if one not in done]
        for kid, signed in done:
            for one in signed.result():
                if self._wanted.get(one.key) is not one.said:
                    continue
                if kid != signer.kid:
                    self._waiting[one.key] = None
                    continue
                self.drop(one.key)
                out.append(one)
        self._begin(signer)
        return out

    def _begin(self, signer: Signer) -> None:
        while self._waiting and len(self._slices) < _AT_ONCE:
            keys = list(islice(self._waiting, _SLICE))
            for key in keys:
                del self._waiting[key]
            said = [(key, self._wanted[key]) for key in keys]
            self._slices.append((signer.kid, self._pool.submit(_sign, said, signer)))


def _sign(said: list[tuple[str, Said]], signer: Signer) -> list[Resigned]:
    issued = wall_ms()
    return [
        Resigned(
            key, one, issued,
            signer.records(one, issued) if isinstance(one, Command)
            else [signer.again(one.command, one.claims, issued)],
        )
        for key, one in said
    ]  # fmt: skip
