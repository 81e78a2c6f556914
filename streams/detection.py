"""The partitions that a detect worker owns: records in; signals, tenants' sums and dead letters out."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from faust.types import TP

from detectors import Partition, Told
from schemas.batch import Ints, to_batch
from schemas.directory import Directory
from schemas.events import Events, read_packed
from schemas.finding import Tick, decode_signal, encode
from schemas.piece import Checkpoint
from schemas.times import format_millis, parse_millis
from schemas.topics import DEAD_LETTERS, SIGNALS, USAGE
from sinks.dead_letters import dead_letter
from streams.fetched import Chunk
from streams.intake import AHEAD
from streams.policy import Loaded
from streams.record import Record

_IDLE_SECONDS = 3.0
"""A partition without an event for so long gets a tick, once a bucket is due."""


_TICK_AHEAD = 1_000
"""Milliseconds that a worker's clock may run ahead of the broker's while a partition is idle."""


class Detection:
    """The partitions that this worker owns, each with its state and the offset it has reached."""

    def __init__(self, policy: Loaded, directory: Directory) -> None:
        self._policy = policy
        self._directory = directory
        self._partitions: dict[int, Partition] = {}
        self._reached: dict[int, int] = {}
        self._heard: dict[int, tuple[float, int]] = {}
        """When a partition's last events came, and what its clock said then (ms)."""

    def take(self, at: TP, chunk: Chunk) -> list[Record]:
        """What a chunk of the partition `at` has to tell, in order. Records taken before, as after a rebalance that
        left the partition here, are passed over."""
        number = at.partition
        partition = self._partitions.get(number)
        if partition is None:
            partition = self._partitions[number] = self._fresh(number)
        reached = self._reached.get(number, -1)
        # Records before what was reached are passed over.
        chunk = chunk[int(np.searchsorted(chunk.offsets, reached, "right")) :]
        events, wrong = read_packed(chunk.packed)
        out: list[Record] = []
        good = np.ones(len(chunk), np.bool_)
        begin = 0
        for place, reason in wrong.items():
            good[place] = False
            record = chunk[place]
            tick = _tick_of(record)
            if tick is None:
                out.append(_dead(record, reason))
            else:
                out += self._advance(partition, events, chunk, np.flatnonzero(good[begin:place]) + begin)
                begin = place
                out += [_signal(told) for told in partition.idle_until(tick)]
        rest = np.flatnonzero(good[begin:]) + begin
        out += self._advance(partition, events, chunk, rest)
        if len(chunk):
            self._reached[number] = int(chunk.offsets[-1])
        if len(rest):
            # The broker's clock bounds it: one event from the future must not carry the partition there.
            stamp = int(chunk.timestamps[rest[-1]])
            clock = min(partition.newest, stamp) if stamp > 0 else partition.newest
            self._heard[number] = (time.monotonic(), clock)
        return out

    def ticks(self) -> list[Record]:
        """A tick for each idle partition in which a bucket waits to be closed."""
        now, out = time.monotonic(), []
        for number, (heard, clock) in self._heard.items():
            idle = now - heard
            moment = clock + int(idle * 1000)
            if idle >= _IDLE_SECONDS and moment >= self._partitions[number].due:
                out.append(Record(USAGE, None, encode(Tick(format_millis(moment))), number))
        return out

    def keep(self, numbers: set[int]) -> None:
        """Forgets every partition but `numbers`."""
        for number in self._partitions.keys() - numbers:
            del self._partitions[number], self._reached[number]
            self._heard.pop(number, None)

    def restored(self, number: int, pieces: Iterable[bytes]) -> Partition:
        """The partition `number` as it was saved.

        Raises:
            StateError: the pieces can't be read.
        """
        partition = self._fresh(number)
        partition.restore(pieces)
        return partition

    def go_on(self, number: int, partition: Partition | None, offsets: dict[str, int]) -> None:
        """Owns a partition from the next record on that its state does not account for."""
        self._partitions[number] = partition or self._fresh(number)
        self._reached[number] = offsets.get(USAGE, 0) - 1
        if partition is not None:
            self._heard[number] = (time.monotonic(), min(partition.newest, int(time.time() * 1000)))

    def checkpoint(self, number: int) -> Checkpoint:
        """What is to be saved of the partition."""
        return self._partitions[number].checkpoint()

    def offsets(self, number: int) -> dict[str, int]:
        """The next record of the partition to read, by topic; none before the first."""
        reached = self._reached.get(number, -1)
        return {USAGE: reached + 1} if reached >= 0 else {}

    @property
    def size(self) -> int:
        """How many identities are known."""
        return sum(partition.identities for partition in self._partitions.values())

    def _fresh(self, number: int) -> Partition:
        return Partition(number, self._policy.for_detectors, self._directory)

    @staticmethod
    def _advance(partition: Partition, events: Events, chunk: Chunk, places: Ints) -> list[Record]:
        """What the events at `places` have to tell, and the dead letters of those whose time is ahead of the broker's
        clock."""
        if not len(places):
            return []
        if len(places) < len(events):
            events = events.select(places)
        batch = to_batch(events, chunk.offsets[places], chunk.timestamps[places].clip(0))
        ahead = batch.time - batch.arrived
        wrong = (batch.arrived > 0) & (ahead > AHEAD)
        out = [
            _dead(chunk[int(places[k])], f"time is {ahead[k] / 1000:.0f} s ahead of the broker's clock")
            for k in wrong.nonzero()[0].tolist()
        ]
        if out:
            batch = batch.without(wrong)
        return out + [_signal(told) for told in partition.take(batch)]


def _dead(record: Any, reason: str) -> Record:
    return Record(DEAD_LETTERS, record.key, dead_letter(record, reason))


def _signal(told: Told) -> Record:
    return Record(SIGNALS, told.signal.tenant.encode(), encode(told.signal))


def _tick_of(record: Any) -> int | None:
    """The time of a tick in ms; None for any other record, and for a tick that is ahead of the broker's clock: a
    tick says that time has passed, not that it will."""
    try:
        tick = decode_signal(record.value or b"")
        moment = parse_millis(tick.time) if isinstance(tick, Tick) else None
    except ValueError:
        return None
    ahead = moment is not None and record.timestamp > 0 and moment - record.timestamp > _TICK_AHEAD
    return None if ahead else moment
