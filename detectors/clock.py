"""A partition's clock: drops duplicates, subtracts each source's clock skew, and keeps the watermark.

Everything here is a function of the records in their order; nothing reads the machine's clock.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from detectors.compiled import Row, State, compiled
from detectors.duplicates import Duplicates, Ids, Table, seen_before, turn
from schemas.batch import Batch, Flags, Hashes, Ints

_RECENT = 8
_REACHED_BY = 3
"""The watermark is the greatest time that 3 of the last 8 records reached: one wrong clock moves nobody."""
_SOURCES = 1024
_SAMPLES = 31
_SAMPLE_EVERY = 1_000
"""Milliseconds of the broker's clock between samples: what arrives at once tells of a backlog, not of a clock."""
_SKEW_NOISE = 2_000
_SKEW_MOST = 900_000
_SKEW_SPREAD = 5_000
"""Milliseconds. A source further off, or whose offsets have wider quartiles, is late or replayed, not skewed."""
_LATE_NOISE, _LATE_MOST = 1_000, 60_000
"""Milliseconds behind the watermark: less needs no allowance, more gets none."""
_LATE_RANK = 27
"""Of the ranked samples of a source's lateness: about nine of ten records come no later."""
_WITNESSES = 256
"""Records whose sources' clocks are compared where no broker tells the time."""
_COMPARED = 16
"""Sources that are compared at the most."""

_STATE = np.dtype([
    ("watermark", "i8"), ("newest", "i8"), ("now", "i8"), ("records", "i8"), ("recent", "i8", (_RECENT,)),
    ("middle", "i8"), ("name", "u8", (_COMPARED,)), ("clock", "i8", (_COMPARED,)), ("weight", "i8", (_COMPARED,)),
    ("by", "i8", (_WITNESSES,)),
])  # fmt: skip
_SOURCE = np.dtype([
    ("name", "u8"), ("count", "i8"), ("at", "i8"), ("skew", "i8"), ("samples", "i8", (_SAMPLES,)),
    ("late_count", "i8"), ("late_at", "i8"), ("late", "i8"), ("late_samples", "i8", (_SAMPLES,)),
])  # fmt: skip


class Ticked(NamedTuple):
    """Per record of a batch: its corrected `time`, put off by as much as its source is usually late; whether it is a
    `duplicate`; and, once it is in, the partition's
    `watermark` and the moment `now` at which what it triggers is decided (all ms). `now` never goes back."""

    time: Ints
    duplicate: Flags
    watermark: Ints
    now: Ints


class _Records(NamedTuple):
    time: Ints
    arrived: Ints
    unique: Hashes
    source: Hashes


@compiled
def _slot_of(sources: State, name: np.uint64) -> np.int64:
    """Where what is known of a source stands, or may stand; -1 where there is no room."""
    mask = np.uint64(sources.shape[0] - 1)
    at = name & mask
    for _ in range(sources.shape[0]):
        if sources[at].name == name or sources[at].count == 0:
            return np.int64(at)
        at = (at + np.uint64(1)) & mask
    return np.int64(-1)


@compiled
def _skew_of(row: Row, name: np.uint64, time: int, reference: int) -> int:
    """The running median of time less the reference over the source's last records, in ms; 0 while it is no skew. Of
    what comes at once the newest tells: the others waited to be handed over."""
    if reference - row.at < _SAMPLE_EVERY and row.count > 0:
        last = (row.count - 1) % _SAMPLES
        row.samples[last] = max(row.samples[last], time - reference)
        return int(row.skew)
    row.name = name
    row.at = reference
    row.samples[row.count % _SAMPLES] = time - reference
    row.count += 1
    if row.count >= _SAMPLES:
        ranked = np.sort(row.samples)
        median = ranked[_SAMPLES // 2]
        steady = ranked[3 * _SAMPLES // 4] - ranked[_SAMPLES // 4] <= _SKEW_SPREAD
        row.skew = median if steady and _SKEW_NOISE < abs(median) <= _SKEW_MOST else 0
    return int(row.skew)


@compiled
def _lateness_of(row: Row, time: int, watermark: int) -> int:
    """How far (ms) behind the watermark nine of ten of the source's records come: a gateway that hands over every so
    many seconds must not lose its velocity for that."""
    if watermark - row.late_at >= _SAMPLE_EVERY:
        row.late_at = watermark
        row.late_samples[row.late_count % _SAMPLES] = max(watermark - time, 0)
        row.late_count += 1
        if row.late_count >= _SAMPLES:
            late = np.sort(row.late_samples)[_LATE_RANK]
            row.late = late if _LATE_NOISE < late <= _LATE_MOST else 0
    return int(row.late)


@compiled
def _middle_of(me: Row, source: np.uint64, time: int) -> int:
    """The weighted median of the sources' clocks (ms), the record at hand included: each source is as far as it has
    said, and weighs as much as it has of the last records. Where no broker tells the time, most of the traffic does."""
    at = me.records % _WITNESSES
    if me.records >= _WITNESSES and me.by[at] > 0:
        me.weight[me.by[at] - 1] -= 1
    slot, room = -1, -1
    for k in range(_COMPARED):
        if me.weight[k] > 0 and me.name[k] == source:
            slot = k
        elif me.weight[k] == 0:
            room = k
    if slot < 0 and room >= 0:
        slot = room
        me.name[slot] = source
        me.clock[slot] = time
    me.by[at] = slot + 1
    if slot >= 0:
        me.weight[slot] += 1
        me.clock[slot] = max(me.clock[slot], time)
    middle, total = time, min(me.records + 1, _WITNESSES)
    for k in range(_COMPARED):
        if me.weight[k] > 0:
            below, equal = 0, 0
            for j in range(_COMPARED):
                below += me.weight[j] if me.clock[j] < me.clock[k] else 0
                equal += me.weight[j] if me.clock[j] == me.clock[k] else 0
            if 2 * below < total <= 2 * (below + equal):
                middle = me.clock[k]
    return int(middle)


@compiled
def _reached(recent: Ints, count: int) -> int:
    """The time that `_REACHED_BY` of the last `count` records reached."""
    first = second = third = recent[0]
    second = third = np.iinfo(np.int64).min
    for k in range(1, count):
        t = recent[k]
        if t > first:
            first, second, third = t, first, second
        elif t > second:
            second, third = t, second
        elif t > third:
            third = t
    return int(third)


@compiled
def _advance(state: State, seen: Table, sources: State, records: _Records, out: Ticked) -> None:
    me = state[0]
    for i in range(len(records.time)):
        t = records.time[i]
        late = 0
        if seen_before(seen, records.unique[i]):
            out.duplicate[i] = True
        else:
            reference = records.arrived[i]
            if reference <= 0:
                me.middle = max(me.middle, _middle_of(me, records.source[i], t))
                reference = me.middle
            slot = _slot_of(sources, records.source[i])
            if slot >= 0:
                t -= _skew_of(sources[slot], records.source[i], t, reference)
                late = _lateness_of(sources[slot], t, me.watermark)
            me.recent[me.records % _RECENT] = t
            me.records += 1
            if me.records >= _REACHED_BY:
                me.watermark = max(me.watermark, _reached(me.recent, min(me.records, _RECENT)))
            # Later than anything seen before: a run over a prefix of the records decides the same up to its end.
            me.now = max(me.newest + 1, t, me.now)
            me.newest = max(me.newest, t)
            turn(seen, me.watermark)
        out.time[i] = t + late
        out.watermark[i] = me.watermark
        out.now[i] = me.now


class Clock:
    """The clock of one partition. `tick` takes a batch; every answer depends on the records before it alone."""

    def __init__(self) -> None:
        self._state = np.zeros(1, _STATE)
        self._state["watermark"] = self._state["newest"] = self._state["now"] = np.iinfo(np.int64).min // 2
        self._duplicates = Duplicates()
        self._sources = np.zeros(_SOURCES, _SOURCE)

    @property
    def watermark(self) -> int:
        """Milliseconds since 1970; far in the past before the first three records."""
        return int(self._state["watermark"][0])

    @property
    def now(self) -> int:
        """The latest moment at which anything was decided, in ms."""
        return int(self._state["now"][0])

    @property
    def newest(self) -> int:
        """The greatest time of any record, in ms."""
        return int(self._state["newest"][0])

    def tick(self, batch: Batch) -> Ticked:
        """Advances over `batch`."""
        n = len(batch)
        self._duplicates.make_room(n)
        out = Ticked(np.empty(n, np.int64), np.zeros(n, np.bool_), np.empty(n, np.int64), np.empty(n, np.int64))
        records = _Records(batch.time, batch.arrived, batch.unique, batch.source)
        _advance(self._state, self._duplicates.table, self._sources, records, out)
        return out

    def idle_until(self, moment: int) -> int:
        """Moves the watermark to `moment` (ms) though no record came; returns when what follows from it is decided."""
        self._state["watermark"] = max(self.watermark, moment)
        self._state["now"] = max(self.newest + 1, self.now, moment)
        return self.now

    # -- saved state ----------------------------------------------------------------------------------------------

    def save(self) -> "SavedClock":
        """Everything but the ids of the last records, which `news` has."""
        used = np.flatnonzero(self._sources["count"])
        return SavedClock(
            self._state.tobytes(),
            used.astype(np.int64).tobytes(),
            self._sources[used].tobytes(),
            self._duplicates.state,
        )

    def news(self, *, everything: bool = False) -> list[Ids]:
        """The ids of the records that came since this was last asked, or of all that are still remembered."""
        return self._duplicates.news(everything=everything)

    def restore(self, saved: "SavedClock", ids: Iterable[Ids]) -> None:
        """Takes up where a clock that was saved stood."""
        self._state = np.frombuffer(saved.state, _STATE).copy()
        self._sources[np.frombuffer(saved.used, np.int64)] = np.frombuffer(saved.sources, _SOURCE)
        self._duplicates.restore(saved.duplicates, ids)


class SavedClock(Struct, frozen=True, array_like=True):
    """A clock's state as bytes; `used` are the positions of the sources whose clocks are known."""

    state: bytes
    used: bytes
    sources: bytes
    duplicates: bytes
