"""Whose clock is wrong, and who is only late.

A source's offset is its record's time less a reference: the broker's time, or, where there is none, the time that the
records of all sources reached.
"""

import numpy as np

from detectors.compiled import Row, State, compiled
from schemas.batch import Ints

RECENT = 8
REACHED_BY = 3
"""The watermark is the greatest time that 3 of the last 8 records reached: one wrong clock moves nobody."""
SOURCES = 1024
SAMPLES = 31
_SAMPLE_EVERY = 1_000
"""Milliseconds of the reference between samples: what arrives at once tells of a backlog, not of a clock."""
SKEW_NOISE = 2_000
_SKEW_MOST = 900_000
_SKEW_SPREAD = 5_000
"""Milliseconds. A source further off, or whose offsets have wider quartiles, is late or replayed, not skewed."""
_LATE_NOISE, _LATE_MOST = 1_000, 60_000
"""Milliseconds behind the watermark: less needs no allowance, more gets none."""
_LATE_RANK = 27
"""Of the ranked samples of a source's lateness: about nine of ten records come no later."""
_COMPARED = 16
"""Sources whose clocks are compared, at the most, where no broker tells the time."""
_COMPARE_EVERY = 210_000
"""Milliseconds between comparisons. A source's clock is set after two that agree."""
_LEAST_SAMPLES = 9
"""Of a source between two comparisons: fewer say nothing."""
_REMEMBERED = 1 << 16
"""Records after which what each source has of them counts half."""
_PACE_OF = 64
"""Records over which the mean time between them is taken."""
_PAUSES = 5
"""Times the mean time between records: what the sources' clocks may seem apart where they are not."""

CLOCKS = [
    ("told", "i8", (RECENT,)), ("reached", "i8"), ("pace", "f8"), ("compared", "i8"), ("name", "u8", (_COMPARED,)),
    ("place", "i8", (_COMPARED,)), ("weight", "i8", (_COMPARED,)),
]  # fmt: skip
"""How the sources' clocks compare: the last times that were told, uncorrected, and what they reached (ms)."""
SOURCE = np.dtype([
    ("name", "u8"), ("count", "i8"), ("at", "i8"), ("skew", "i8"), ("median", "i8"), ("before", "i8"),
    ("samples", "i8", (SAMPLES,)),
    ("late_count", "i8"), ("late_at", "i8"), ("late", "i8"), ("late_samples", "i8", (SAMPLES,)),
])  # fmt: skip


@compiled
def slot_of(sources: State, name: np.uint64) -> np.int64:
    """Where what is known of a source stands, or may stand; -1 where there is no room."""
    mask = np.uint64(sources.shape[0] - 1)
    at = name & mask
    for _ in range(sources.shape[0]):
        if sources[at].name == name or sources[at].count == 0:
            return np.int64(at)
        at = (at + np.uint64(1)) & mask
    return np.int64(-1)


@compiled
def sample(row: Row, name: np.uint64, time: int, reference: int) -> bool:
    """Notes time less the reference among the source's last samples; whether it is a new one. Of what comes at once the
    newest tells: the others waited to be handed over."""
    if reference - row.at < _SAMPLE_EVERY and row.count > 0:
        last = (row.count - 1) % SAMPLES
        row.samples[last] = max(row.samples[last], time - reference)
        return False
    row.name = name
    row.at = reference
    row.samples[row.count % SAMPLES] = time - reference
    row.count += 1
    return True


@compiled
def steady(row: Row) -> bool:
    """Takes the median of a source's samples; whether they agree."""
    count = min(row.count, SAMPLES)
    ranked = np.sort(row.samples[:count])
    row.median = ranked[count // 2]
    return bool(ranked[3 * count // 4] - ranked[count // 4] <= _SKEW_SPREAD)


@compiled
def correct(row: Row, ahead: int, noise: int) -> None:
    """A source's skew becomes what it is `ahead` (ms), where that tells more than noise."""
    if abs(ahead - row.skew) > noise:
        row.skew = ahead if noise < abs(ahead) <= _SKEW_MOST else 0


@compiled
def lateness_of(row: Row, time: int, watermark: int) -> int:
    """How far (ms) behind the watermark nine of ten of the source's records come: a gateway that hands over every so
    many seconds must not lose its velocity for that."""
    if watermark - row.late_at >= _SAMPLE_EVERY:
        row.late_at = watermark
        row.late_samples[row.late_count % SAMPLES] = max(watermark - time, 0)
        row.late_count += 1
        if row.late_count >= SAMPLES:
            late = np.sort(row.late_samples)[_LATE_RANK]
            row.late = late if _LATE_NOISE < late <= _LATE_MOST else 0
    return int(row.late)


@compiled
def reached_by(recent: Ints, count: int) -> int:
    """The time that `REACHED_BY` of the last `count` records reached."""
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
def _compare(me: Row, source: np.uint64, at: int) -> None:
    """Counts a record of a source, which stands `at` in the table, among those whose clocks are compared. What was long
    ago counts half: who is busy by day tells the time by night, too."""
    slot, room, total = -1, -1, 0
    for k in range(_COMPARED):
        total += me.weight[k]
        if me.weight[k] > 0 and me.name[k] == source:
            slot = k
        elif me.weight[k] == 0:
            room = k
    if slot < 0 and room >= 0:
        slot = room
        me.name[slot] = source
        me.place[slot] = at
    if slot >= 0:
        me.weight[slot] += 1
    if total >= _REMEMBERED:
        for k in range(_COMPARED):
            me.weight[k] //= 2


@compiled
def _set_clocks(me: Row, sources: State, noise: int) -> None:
    """Holds the sources' clocks against each other. By how much the reference has moved, most of the traffic tells; a
    source that is as far from that as it was at the last comparison, too, is set right by it. Who came too rarely or
    too unsteadily says nothing: what is known of its clock stays."""
    moved, heard, total = np.zeros(_COMPARED, np.int64), np.zeros(_COMPARED, np.bool_), 0
    for k in range(_COMPARED):
        if me.weight[k] > 0:
            row = sources[me.place[k]]
            heard[k] = row.count >= _LEAST_SAMPLES and steady(row)
            moved[k] = row.median - row.skew
            total += me.weight[k] if heard[k] else 0
            row.count = min(row.count, 1)
    if 2 * total <= me.weight.sum():
        # A few that happen to be up tell no time for the others.
        return
    common = 0
    for k in range(_COMPARED):
        below, equal = 0, 0
        for j in range(_COMPARED):
            if heard[j]:
                below += me.weight[j] if moved[j] < moved[k] else 0
                equal += me.weight[j] if moved[j] == moved[k] else 0
        if heard[k] and 2 * below < total <= 2 * (below + equal):
            common = moved[k]
    for k in range(_COMPARED):
        if heard[k]:
            row = sources[me.place[k]]
            ahead = row.median - common
            if abs(ahead - row.before) <= noise:
                correct(row, ahead, noise)
            row.before = ahead


@compiled
def witness(me: Row, sources: State, at: int, source: np.uint64, time: int) -> None:
    """Follows the sources' clocks where no broker tells the time. The reference is the time that their records reached,
    uncorrected: what is concluded from it must not move it."""
    me.told[me.records % RECENT] = time
    if me.records + 1 < REACHED_BY:
        return
    if me.compared == 0:
        me.reached = me.compared = time
    reached = max(me.reached, reached_by(me.told, min(me.records + 1, RECENT)))
    # What passes between records nobody can tell from a clock that is wrong.
    me.pace += (min(reached - me.reached, _LATE_MOST) - me.pace) / _PACE_OF
    me.reached = reached
    _compare(me, source, at)
    sample(sources[at], source, time, reached)
    if reached - me.compared >= _COMPARE_EVERY:
        me.compared = reached
        _set_clocks(me, sources, max(SKEW_NOISE, int(_PAUSES * me.pace)))
