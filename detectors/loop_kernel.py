"""The compiled half of the loop detector: it follows an identity's sessions and counts what repeats in them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import Row, State, compiled
from detectors.ticks import TICK, WRAP, ticks_since
from schemas.batch import Codes, Flags, Floats, Hashes, Ints

_SLOTS, _RING, _SIGHTED = 2, 8, 16
ROW = np.dtype([
    # What each of the followed sessions does.
    ("session", "u4", (_SLOTS,)), ("last", "u4", (_SLOTS,)), ("ring", "u4", (_SLOTS, _RING)),
    ("gap", "u2", (_SLOTS,)), ("spread", "u2", (_SLOTS,)), ("repeats", "u2", (_SLOTS,)), ("alike", "u2", (_SLOTS,)),
    ("context", "f4", (_SLOTS,)), ("step", "f4", (_SLOTS,)), ("wobble", "u2", (_SLOTS,)), ("grown", "u2", (_SLOTS,)),
    ("at", "u1", (_SLOTS,)), ("told_by", "u1", (_SLOTS,)), ("since", "u4", (_SLOTS,)), ("told", "u4", (_SLOTS,)),
    # By how much the time of its last call was corrected.
    ("shift", "u2", (_SLOTS,)),
    # Sessions seen once, and how many new ones there are in an hour.
    ("sighted", "u2", (_SIGHTED,)), ("hour", "u2"), ("hours", "u2"), ("sessions", "u2"), ("usual", "u2"),
], align=True)  # fmt: skip
"""Moments are ticks of 16 ms that wrap after two years, offsets wrap at 32 bits, repeats are counted in halves.
`told_by` is the level that was told, above it a mark of its gateway; `wobble` counts hundred-thousandths."""

_LEVELS = 4
_WOBBLES = 100_000.0
REPEATS, ALIKE, GROWTH, SPAWN = 1, 2, 3, 4
LOW, MEDIUM, HIGH = 0, 1, 2
_MOST = 60_000
"""No counter goes on beyond this."""
_NAMELESS = np.uint64(1)
"""Stands for the session of calls that name none."""
_PER_OCTAVE = 150
"""Sizes are compared on a logarithmic scale with so many steps for each doubling."""
_LONG_RUN = 1.8
"""Times the steps that block: a run so long may be half as uneven again."""
_HEAVY = 0.4
"""Of the slow ones' factor is left to those that burn most."""
_BATCH, _AGENT = 1, 2


class Calls(NamedTuple):
    """Columns of a batch. `stamp` is the time by the clock of the call's `source`; `tool` is 1 to 15 for a call with a
    tool and no fingerprint, else 0."""

    row: Ints
    time: Ints
    stamp: Ints
    source: Hashes
    returned: Flags
    skipped: Flags
    offset: Ints
    fingerprint: Hashes
    session: Hashes
    input: Floats
    workload: Codes
    tool: NDArray[np.uint8]


class Told(NamedTuple):
    """What the kernel tells: where, by which pattern, whether it blocks, how grave it is (LOW to HIGH), (how many,
    since which offset, the mean step or gap in s, the gap's variation), and the identity's state then."""

    at: Ints
    how: Codes
    blocks: Flags
    gravity: Codes
    value: Floats
    state: State


class Limits(NamedTuple):
    """The policy's thresholds, in ms, in steps of size and in halves of repeats."""

    repeats: float
    block_repeats: float
    alike: float
    block_alike: float
    steps: float
    block_steps: float
    least: float
    tolerance: float
    wobble: float
    sizes: float
    pause: float
    pace: float
    parallel: float
    irregular: float
    timer: float
    idle: float
    light: float
    unnamed_factor: float
    batch_factor: float
    irregular_factor: float
    slow_factor: float
    slow_growth_factor: float
    parallel_factor: float
    differing_factor: float
    spawned: float
    spawn_ratio: float
    spawn_hours: float
    again: float


@compiled
def _size(tokens: float) -> int:
    """Where a size stands on the logarithmic scale: 0 where unknown."""
    if np.isnan(tokens):
        return 0
    size = int(np.log2(tokens + 2.0) * _PER_OCTAVE)
    return min(size, 4095)


@compiled
def _strength(row: Row, k: int, tick: int, pause: float) -> int:
    """How much a slot has to say; nothing once its session has paused."""
    if ticks_since(row.last[k], tick) * TICK > pause:
        return 0
    return int(max(row.repeats[k] // 2, row.alike[k], row.grown[k]))


@compiled
def _slot_of(row: Row, session: np.uint64, tick: int, pause: float) -> tuple[int, bool]:
    """The slot that follows a session, -1 for none; whether the session is a new one.

    A session that was seen once waits, so that a crowd of short ones pushes nobody out; the second time it gets the
    slot with the least to say.
    """
    tag = session & np.uint64(0xFFFFFFFF)
    tag = tag if tag != 0 else _NAMELESS
    free = -1
    for k in range(_SLOTS):
        if row.session[k] == tag:
            return k, False
        if row.session[k] == 0 or ticks_since(row.last[k], tick) * TICK > pause:
            free = k
    place = (session >> np.uint64(32)) % np.uint64(_SIGHTED)
    mark = max(session >> np.uint64(48), np.uint64(1))
    new = row.sighted[place] != mark
    if new:
        row.sighted[place] = mark
        if free < 0:
            return -1, True
    if free < 0:
        free = 0
        for k in range(1, _SLOTS):
            mine, least = _strength(row, k, tick, pause), _strength(row, free, tick, pause)
            if mine < least or (mine == least and ticks_since(row.last[k], row.last[free]) > 0):
                free = k
    row.session[free] = tag
    row.last[free] = tick
    row.told_by[free] = 0
    _begin(row, free)
    return free, new


@compiled
def _begin(row: Row, k: int) -> None:
    """A slot's session begins anew: nothing has repeated yet."""
    row.ring[k, :] = 0
    row.at[k] = 0
    row.gap[k] = 0
    row.spread[k] = 0
    row.repeats[k] = 0
    row.alike[k] = 0
    row.grown[k] = 0
    row.context[k] = 0.0


@compiled
def _pace(row: Row, k: int, gap: int) -> None:
    """Follows the mean gap between calls and its mean deviation, in ticks."""
    gap = min(gap, _MOST)
    if row.gap[k] == 0:
        row.gap[k] = max(gap, 1)
        row.spread[k] = 0
        return
    mean = row.gap[k] + (gap - row.gap[k]) / 4
    row.spread[k] = round(row.spread[k] + (abs(gap - mean) - row.spread[k]) / 4)
    row.gap[k] = max(round(mean), 1)


@compiled
def _gap(row: Row, k: int, tick: int, shift: int, source: np.uint64) -> int:
    """Ticks since the session's last call, whose place this one takes. Between calls of one gateway its own clock tells
    them: what a clock is corrected by (`shift`, in ticks) may change from one call to the next."""
    mark = 1 + int(source % np.uint64(63))
    gap = ticks_since(row.last[k], tick)
    if row.told_by[k] // _LEVELS == mark:
        changed = int((shift - np.int64(row.shift[k])) % 65_536)
        gap -= changed - 65_536 if changed >= 32_768 else changed
    if gap > 0 or row.told_by[k] < _LEVELS:
        row.last[k] = tick
        row.shift[k] = shift % 65_536
        row.told_by[k] = row.told_by[k] % _LEVELS + _LEVELS * mark
    return max(gap, 0)


@compiled
def _repeat(row: Row, k: int, fingerprint: np.uint64, size: int, tool: int, sizes: float, named: bool) -> None:
    """Compares a call with the last eight of its session, and counts what comes again.

    The same prompt at the same size and distance is a repeat, at another size half of one. Something new takes back
    seven eighths of what was counted; without a session a little, as does another distance. Prompts that are unknown,
    or new each time, are compared by tool and size.
    """
    mark = max(fingerprint >> np.uint64(48), np.uint64(1)) if fingerprint != 0 else np.uint64(0)
    at, before = row.at[k] & 15, row.at[k] >> 4
    same, alike, steady, grows = 0, 0, False, True
    for lag in range(1, _RING + 1):
        entry = row.ring[k, (at - lag) % _RING]
        if entry == 0:
            break
        before_size = (entry >> 4) & 4095
        close = abs(before_size - size) <= sizes
        grows = grows and before_size < size
        if mark != 0 and entry >> 16 == mark and same == 0:
            same, steady = lag, close
        if close and entry & 15 == tool and alike == 0:
            alike = lag
    if same > 0 and before in (same, 0):
        # Honest re-runs follow each other: whole rounds of a longer cycle in the same order weigh more.
        round_again = before == same and same > 2
        row.repeats[k] = min(row.repeats[k] + (1 if not steady else 3 if round_again else 2), _MOST)
    elif same > 0 and named:
        # Popular prompts come again at any distance; so do a cycle's calls, whose answers overtake each other.
        row.repeats[k] = min(row.repeats[k] + (1 if abs(before - same) <= 2 and steady else 0), _MOST)
    elif named and mark != 0:
        row.repeats[k] = row.repeats[k] // 8
    elif mark != 0:
        # Where no session is named, it may be another's; but popular prompts come at any distance.
        row.repeats[k] = max(np.int64(row.repeats[k]) - (1 if same > 0 else 4), 0)
    if alike > 0 and same == 0 and (named or before in (alike, 0)):
        # A great context that grows a little with each call is alike, and gets on.
        row.alike[k] = min(row.alike[k] + (0 if grows else 1), _MOST)
    elif same == 0:
        row.alike[k] = row.alike[k] // 2
    row.ring[k, at] = (mark << np.uint64(16)) | np.uint64((size << 4) | tool)
    row.at[k] = ((at + 1) % _RING) | ((same if same > 0 else alike) << 4)


@compiled
def _grow(row: Row, k: int, context: float, least: float, tolerance: float) -> bool:
    """Counts steps by which a session's context grows steadily; returns whether this was one. Calls that end in another
    order than they began, or one that is missing, do not end the run; uneven steps and others' calls take it back."""
    step = context - row.context[k]
    mean = row.step[k]
    even = row.grown[k] > 0 and abs(step - mean) <= tolerance * mean
    if row.context[k] > 0 and row.grown[k] > 1 and not even:
        if -2.5 * mean < step <= 0:
            return False
        if abs(step - 2 * mean) <= tolerance * mean:
            row.context[k] = context
            return False
        if row.grown[k] > 3:
            uneven = least <= step <= 2 * mean
            row.grown[k] -= 2 if uneven else 1
            row.context[k] = context if uneven else row.context[k]
            return False
    if row.context[k] == 0 or step < least:
        row.grown[k] = 0
    elif even:
        row.grown[k] = min(row.grown[k] + 1, _MOST)
        pace = min(row.grown[k], 8)
        row.step[k] += (step - mean) / pace
        row.wobble[k] = round(row.wobble[k] + (_WOBBLES * min(abs(step - mean) / mean, 0.5) - row.wobble[k]) / pace)
    else:
        row.grown[k] = 1
        row.step[k] = step
        row.wobble[k] = 0
    row.context[k] = context
    return bool(even)


@compiled
def _spawn(row: Row, hour: int) -> None:
    """Counts a new session of the hour; the greatest count of an hour that is over fades slowly."""
    if row.hour != hour % 65_536:
        row.usual = max(row.sessions, row.usual - row.usual // 64)
        row.hour = hour % 65_536
        row.hours = min(row.hours + 1, _MOST)
        row.sessions = 0
    row.sessions = min(row.sessions + 1, _MOST)


@compiled
def _loop_of(row: Row, k: int, repeated: bool, named: bool) -> tuple[float, float]:
    """The mean input of the calls that make the loop, 0 where it is unknown, and their share of the session's last
    ones: those whose prompts came again (`repeated`), or all. Whatever else comes in between is no part of it."""
    # A session's long cycle does not come twice in so few.
    total, calls, part, whole = 0.0, 0, 0, not repeated or (named and row.at[k] >> 4 > _RING // 2)
    for at in range(_RING):
        entry = row.ring[k, at]
        if entry == 0:
            continue
        calls += 1
        counts = whole
        for other in range(_RING):
            counts = counts or (other != at and row.ring[k, other] >> 16 == entry >> 16)
        if counts:
            total += np.exp2(((entry >> 4) & 4095) / _PER_OCTAVE) - 2.0
            part += 1
    return max(total / max(part, 1), 0.0), max(part, 1) / max(calls, 1)


@compiled
def _factor(row: Row, k: int, repeated: bool, named: bool, workload: int, limits: Limits) -> float:
    """How many times the policy's repeats it takes, given how the calls come; 0 where they tell nothing. What a slow
    loop costs is what it burns in a minute, not what a call takes: a great call now and then is as cheap as small
    ones often."""
    tokens, share = _loop_of(row, k, repeated, named)
    gap = float(row.gap[k]) * TICK / share
    variation = 1.25 * row.spread[k] / row.gap[k] if row.gap[k] > 0 else 0.0
    burns = tokens * 60_000.0 / max(gap, 1.0)
    slow = gap > limits.pace
    if variation < limits.timer and (slow or (burns < limits.light and (gap > limits.pace / 5 or not named))):
        # Whatever is so regular is a clock's: it polls, or it says that it is alive.
        return 0.0
    factor = 1.0
    if slow:
        if burns < limits.idle:
            return 0.0
        factor *= limits.slow_factor * min(max(limits.light / burns, _HEAVY), 1.0)
    if gap < limits.parallel:
        factor *= limits.parallel_factor
    if variation > limits.irregular:
        factor *= limits.irregular_factor
    if not named:
        # Those that are slow need plenty already.
        factor = max(factor, limits.unnamed_factor) if slow else factor * limits.unnamed_factor
    if workload == _BATCH:
        factor *= limits.batch_factor
    return factor


@compiled
def judge(rows: State, calls: Calls, limits: Limits, told: Told) -> int:
    """Follows each call in order; returns how many findings there are."""
    count = 0
    blank = np.zeros(1, ROW)
    for i in range(len(calls.row)):
        if calls.returned[i]:
            rows[calls.row[i]] = blank[0]
        if calls.skipped[i]:
            continue
        row = rows[calls.row[i]]
        t = calls.time[i]
        tick = (t // TICK) % WRAP
        session, workload = calls.session[i], calls.workload[i]
        named = session != 0
        k, new = _slot_of(row, session if named else _NAMELESS, tick, limits.pause)
        how, value, extra, since, blocks, gravity, variation = 0, 0.0, 0.0, calls.offset[i], False, MEDIUM, 0.0
        if named and new:
            _spawn(row, t // 3_600_000)
            least = max(limits.spawned, limits.spawn_ratio * row.usual)
            if row.sessions == int(least) and row.hours > limits.spawn_hours and workload == _AGENT:
                how, value, extra = SPAWN, float(row.sessions), float(row.usual)
        if k >= 0:
            gap = _gap(row, k, tick, (t - calls.stamp[i]) // TICK, calls.source[i])
            if gap * TICK > limits.pause:
                _begin(row, k)
            elif row.ring[k, 0] != 0:
                _pace(row, k, gap)
            size = _size(calls.input[i])
            _repeat(row, k, calls.fingerprint[i], size, calls.tool[i], limits.sizes, named)
            grew = not np.isnan(calls.input[i]) and _grow(row, k, calls.input[i], limits.least, limits.tolerance)
            if row.repeats[k] == 0 and row.alike[k] == 0 and row.grown[k] <= 1:
                row.since[k] = calls.offset[i] % WRAP
            level = 0
            first = calls.offset[i] - (calls.offset[i] - row.since[k]) % WRAP
            variation = 1.25 * row.spread[k] / row.gap[k] if row.gap[k] > 0 else 0.0
            seconds = row.gap[k] * TICK / 1000.0
            if row.repeats[k] >= limits.repeats and row.at[k] >> 4 > 0:
                factor = _factor(row, k, True, named, workload, limits)
                if factor > 0 and row.repeats[k] >= limits.repeats * factor:
                    how, value, extra, since = REPEATS, row.repeats[k] / 2, seconds, first
                    # A load test sends one prompt side by side, or from a job that has no sessions.
                    agent = row.gap[k] * TICK >= limits.parallel and (named or workload != _BATCH)
                    blocks = agent and row.repeats[k] >= limits.block_repeats * factor
                    level = 2 if blocks else 1
            elif row.alike[k] >= limits.alike and (workload == _AGENT or calls.tool[i] > 0):
                factor = _factor(row, k, False, named, workload, limits)
                unknown = calls.fingerprint[i] == 0
                factor *= 1.0 if unknown else limits.differing_factor
                hurried = row.gap[k] * TICK <= limits.pace
                if factor > 0 and hurried and row.alike[k] >= limits.alike * factor:
                    how, value, extra, since = ALIKE, float(row.alike[k]), seconds, first
                    plenty = row.alike[k] >= limits.block_alike * factor
                    blocks = plenty and unknown and named
                    # Prompts that differ may be the items of a job, whose sizes are alike by nature.
                    gravity = LOW + int(unknown) + int(plenty and (unknown or named))
                    level = 2 if plenty and unknown else 1
            # The longer the run, the less even it need be: a few steps are by chance alike, but not that much alike.
            run = row.grown[k] / limits.block_steps
            wobble = limits.wobble * (1.5 if run >= _LONG_RUN else min(run * run, 1.0))
            if level < 2 and grew and row.grown[k] >= limits.steps and row.wobble[k] <= _WOBBLES * wobble:
                factor = limits.slow_growth_factor if row.gap[k] * TICK > limits.pace or not named else 1.0
                if row.grown[k] >= limits.steps * factor:
                    how, value, extra, since, gravity = GROWTH, float(row.grown[k]), row.step[k], first, MEDIUM
                    blocks = row.grown[k] >= limits.block_steps * factor
                    level = 2 if blocks else 1
            if level > 0:
                before = row.told_by[k] % _LEVELS
                if level <= before and ticks_since(row.told[k], tick) * TICK < limits.again:
                    continue
                row.told[k] = tick
                row.told_by[k] += max(level - before, 0)
        if how == 0:
            continue
        told.at[count] = i
        told.how[count] = how
        told.blocks[count] = blocks
        told.gravity[count] = HIGH if blocks else gravity
        told.value[count, 0] = value
        told.value[count, 1] = since
        told.value[count, 2] = extra
        told.value[count, 3] = variation
        told.state[count] = row
        count += 1
    return count
