"""The `detect` app: llm.usage in; findings and tenants' sums out to llm.signals, the unreadable to llm.dead-letters.

    tripswitch run detect       (also: faust -A streams.detect:app worker)

Per chunk: 1. decode; 2. detect; 3. publish dead letters and signals; 4. acknowledge the chunk, so that its offset is
committed. A crash between 3 and 4 publishes again what has the same id.
"""

import time
from collections.abc import Sequence
from typing import Any

import faust
from faust.types import TP

from detectors import Partition, Told, compile_kernels
from schemas.batch import to_batch
from schemas.decoding import Malformed
from schemas.directory import Directory
from schemas.finding import Tick, decode_signal, encode
from schemas.times import format_millis, parse_millis, to_millis
from schemas.topics import DEAD_LETTERS, SIGNALS, USAGE
from schemas.usage import UsageEvent, decode_usage
from sinks.dead_letters import dead_letter
from streams.app import Record, make_app, own
from streams.intake import AHEAD
from streams.policy import Loaded, find_policy, read_policy
from streams.settings import read_settings

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

    def take(self, at: TP, chunk: Sequence[Any]) -> list[Record]:
        """What a chunk of the partition `at` has to tell, in order. Records taken before, as after a rebalance that
        left the partition here, are passed over."""
        number = at.partition
        partition = self._partitions.get(number)
        if partition is None:
            partition = self._partitions[number] = Partition(number, self._policy.for_detectors, self._directory)
        reached = self._reached.get(number, -1)
        out: list[Record] = []
        events: list[UsageEvent] = []
        places: list[tuple[int, int]] = []
        for record in chunk:
            if record.offset <= reached:
                continue
            try:
                events.append(_read(record))
                places.append((record.offset, record.timestamp))
            except Malformed as error:
                tick = _tick_of(record)
                if tick is None:
                    out.append(Record(DEAD_LETTERS, record.key, dead_letter(record, str(error))))
                else:
                    out += self._advance(partition, events, places)
                    events, places = [], []
                    out += [_signal(told) for told in partition.idle_until(tick)]
        out += self._advance(partition, events, places)
        self._reached[number] = max(reached, chunk[-1].offset)
        if events:
            # The broker's clock bounds it: one event from the future must not carry the partition there.
            stamp = places[-1][1]
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

    @staticmethod
    def _advance(partition: Partition, events: list[UsageEvent], places: list[tuple[int, int]]) -> list[Record]:
        if not events:
            return []
        offsets, arrived = zip(*places, strict=True)
        return [_signal(told) for told in partition.take(to_batch(events, offsets, [max(0, t) for t in arrived]))]


def _read(record: Any) -> UsageEvent:
    """The record's event. Raises Malformed, also where its time is ahead of the broker's clock."""
    event = decode_usage(record.value or b"")
    ahead = to_millis(event.time) - record.timestamp
    if record.timestamp > 0 and ahead > AHEAD:
        raise Malformed(f"time is {ahead / 1000:.0f} s ahead of the broker's clock")
    return event


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


def make(detection: Detection, kafka: Any) -> faust.App:
    """The app around `detection`."""
    app, usage = make_app("detect", kafka, [USAGE])

    own(app, usage, "detect", detection)
    return app


def __getattr__(name: str) -> faust.App:
    """`app`, made when it is asked for, so that importing this module needs no settings."""
    if name != "app":
        raise AttributeError(name)
    settings = read_settings()
    policy = read_policy(find_policy(settings.policy))
    # Before the group is joined: a worker that compiles while it should heartbeat is taken for dead.
    compile_kernels(policy.for_detectors)
    app = make(Detection(policy, settings.known()), settings.kafka)
    globals()["app"] = app
    return app
