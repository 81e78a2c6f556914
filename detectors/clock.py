"""A partition's clock: drops duplicates, subtracts each source's clock skew, and keeps the watermark.

Everything here is a function of the records in their order; nothing reads the machine's clock.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from detectors.compiled import State, compiled
from detectors.duplicates import Duplicates, Ids, Table, seen_before, turn
from detectors.skew import (
    CLOCKS,
    REACHED_BY,
    RECENT,
    SAMPLES,
    SKEW_NOISE,
    SOURCE,
    SOURCES,
    correct,
    lateness_of,
    reached_by,
    sample,
    slot_of,
    steady,
    witness,
)
from schemas.batch import Batch, Flags, Hashes, Ints

_STATE = np.dtype([
    ("watermark", "i8"), ("newest", "i8"), ("now", "i8"), ("records", "i8"), ("recent", "i8", (RECENT,)), *CLOCKS,
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
def _advance(state: State, seen: Table, sources: State, records: _Records, out: Ticked) -> None:
    me = state[0]
    for i in range(len(records.time)):
        t = records.time[i]
        late = 0
        if seen_before(seen, records.unique[i]):
            out.duplicate[i] = True
        else:
            slot = slot_of(sources, records.source[i])
            if slot >= 0:
                source = sources[slot]
                if records.arrived[i] > 0:
                    new = sample(source, records.source[i], t, records.arrived[i])
                    if new and source.count >= SAMPLES and steady(source):
                        correct(source, source.median, SKEW_NOISE)
                else:
                    witness(me, sources, int(slot), records.source[i], t)
                t -= source.skew
                late = lateness_of(source, t, me.watermark)
            me.recent[me.records % RECENT] = t
            me.records += 1
            if me.records >= REACHED_BY:
                me.watermark = max(me.watermark, reached_by(me.recent, min(me.records, RECENT)))
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
        self._sources = np.zeros(SOURCES, SOURCE)

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
        self._sources[np.frombuffer(saved.used, np.int64)] = np.frombuffer(saved.sources, SOURCE)
        self._duplicates.restore(saved.duplicates, ids)


class SavedClock(Struct, frozen=True, array_like=True):
    """A clock's state as bytes; `used` are the positions of the sources whose clocks are known."""

    state: bytes
    used: bytes
    sources: bytes
    duplicates: bytes
