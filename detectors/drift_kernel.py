"""The compiled part of `detectors.drift`: sums of what exceeds the usual, hour by hour and day by day.

Hours: CUSUMs of log-likelihood ratios for "grown by the factor `growth`" against "as usual", of calls and of active
slots (Page, "Continuous inspection schemes", 1954; for counts Lucas, "Counted data CUSUM's", 1985); over a run of
hours, the slots' ratio for the factor that explains them best. One hour adds `hour_most` or less: it takes several.
Days: a CUSUM of the logarithm of a workday's tokens against its own mean and scatter.
"""

from typing import NamedTuple

import numpy as np

from detectors.compiled import Row, State, compiled
from detectors.drift_usual import (
    BINS,
    LONGEST_RISE,
    NAMED,
    ONE,
    PARTIAL_BIN,
    PARTIAL_DAY,
    ROW,
    SLOTS,
    TOLD,
    WEEKDAY,
    WORKLOAD,
    Limits,
    active_slots,
    calm,
    counted,
    evidence,
    fixed,
    learn_bin,
)
from schemas.batch import Codes, Flags, Floats, Ints

SOME_HOURS, HOURS, DAYS, CEILING = 1, 2, 3, 4
"""How a rise shows; some hours are weak evidence."""
_HOUR = 3_600_000
_SLOT = 600_000
_LONGEST_NIGHT = 26
"""Hours of silence that belong to a daily rhythm. What is longer is a holiday, and teaches nothing."""
_SHORT_HISTORY = 12
"""Bins: a day and a half."""
_GROUPS = 3
GOING = 0.5
BEGIN = 3.0
_REMEMBERED = 2
"""Days that are left of the memory when a rise was told, so that one that lasts is soon the usual."""


class Closed(NamedTuple):
    """The closed buckets of a batch."""

    at: Ints
    row: Ints
    end: Ints
    calls: Ints
    sums: Floats


class Events(NamedTuple):
    """What of the batch's events is needed."""

    row: Ints
    skip: Flags
    returned: Flags
    offset: Ints
    workload: Codes
    session: Ints
    retry: Flags


class Told(NamedTuple):
    """What is told: by which closed bucket, how, (observed, usual, hours or days, excess), and the state then."""

    closing: Ints
    how: Codes
    value: Floats
    state: State


@compiled
def _close_hour(row: Row, hour: int, cohort: Row, limits: Limits) -> None:
    if row.scatter[0] == 0.0:
        row.scatter[0] = cohort.scatter[0]
        row.scatter[1] = cohort.scatter[1]
        row.at_once = cohort.at_once
    if (hour // 24 + 3) % 7 < 5:
        row.flags |= WEEKDAY
    slots = active_slots(row.slots)
    if row.bins >= limits.warm_up[row.flags & WORKLOAD]:
        by_calls, by_slots, expected, active = evidence(row, hour, row.calls, slots, limits)
        most = 2.0 * limits.nameless * limits.threshold[row.flags & WORKLOAD]
        if by_calls > 0.0 and row.excess[0] == 0.0 and row.excess[1] < limits.threshold[row.flags & WORKLOAD] / BEGIN:
            row.seen = 0.0
            row.expected = 0.0
            row.expected_slots = 0.0
            row.seen_slots = 0
            row.run = 0
        row.excess[0] = min(max(row.excess[0] + by_calls, 0.0), most)
        row.excess[1] = min(max(row.excess[1] + by_slots, 0.0), most)
        if (row.excess[0] <= 0.0 and row.excess[1] <= 0.0) or row.run > LONGEST_RISE + BINS:
            calm(row)
        else:
            row.seen += counted(row, row.calls, expected, limits)
            row.expected += expected
            row.expected_slots += active
            row.seen_slots = min(row.seen_slots + slots, 255)
            row.run = min(row.run + 1, 255)
    row.bin_calls += row.calls
    row.bin_slots += slots
    row.calls = 0.0
    row.slots = 0
    if hour % 3 == 2:
        if not row.flags & PARTIAL_BIN:
            learn_bin(row, hour, cohort, limits)
        row.flags &= ~PARTIAL_BIN & 255
        row.bin_calls = 0.0
        row.bin_slots = 0


@compiled
def _close_day(row: Row, day: int, limits: Limits) -> float:
    """Takes a workday's tokens in; returns how far the days lie above the usual, in the units of `day_threshold`."""
    rise = 0.0
    if row.today > 0.0 and (day + 3) % 7 < 5 and not row.flags & PARTIAL_DAY:
        x = np.log(row.today)
        days = row.days + 1
        noise = max(row.noise / ONE, limits.least_noise)
        if row.days == 0:
            row.level = fixed(x)
            row.base = fixed(x)
        else:
            apart = x - row.level / ONE
            if days > limits.day_warm_up:
                rise = max(row.rise / ONE + min(max(apart / noise, -3.0), 3.0) - limits.day_slack, 0.0)
                row.rise = fixed(rise)
            # By the days below the level: those above it may be what is looked for.
            below = 2.5 * min(max(-apart, 0.0), 3.0)
            row.noise = fixed(row.noise / ONE + (below - row.noise / ONE) / min(days - 1, 14))
            row.level = fixed(row.level / ONE + apart / min(days, 14))
        if days <= limits.base_days:
            row.base = fixed(row.base / ONE + (x - row.base / ONE) / days)
            if 2 * days >= limits.base_days:
                noise = max(row.noise / ONE, limits.least_noise)
                row.ceiling = np.exp(row.base / ONE + 2.0 * noise) * limits.ceiling[row.flags & WORKLOAD]
        row.days = min(days, 65535)
    row.today = 0.0
    row.flags &= ~PARTIAL_DAY & 255
    row.lift = row.lift // 2
    return rise


@compiled
def _tell(told: Told, count: int, k: int, how: int, values: tuple[float, float, float, float], row: Row) -> int:
    told.closing[count] = k
    told.how[count] = how
    for m in range(4):
        told.value[count, m] = values[m]
    told.state[count] = row
    return count + 1


@compiled
def _reach(row: Row, hour: int, offset: int, cohort: Row, limits: Limits) -> float:
    """Closes the hours and days before `hour`; returns the greatest rise of the days that closed."""
    rise = 0.0
    weeks = (hour // 24 + 3) // 7 - (row.hour // 24 + 3) // 7 if row.hour > 0 else 0
    if row.hour == 0 or hour - row.hour > _LONGEST_NIGHT:
        if row.hour > 0:
            _close_hour(row, row.hour, cohort, limits)
            if hour // 24 != row.hour // 24:
                rise = _close_day(row, row.hour // 24, limits)
        else:
            row.flags |= PARTIAL_DAY
        calm(row)
        row.bin_calls = 0.0
        row.bin_slots = 0
        row.hour = hour
        row.flags |= PARTIAL_BIN
    while row.hour < hour:
        _close_hour(row, row.hour, cohort, limits)
        if row.hour % 24 == 23:
            rise = max(rise, _close_day(row, row.hour // 24, limits))
        row.hour += 1
    if weeks > 0 and row.bins > 0 and (row.bins < _SHORT_HISTORY or not row.flags & WEEKDAY):
        # What was learnt on a weekend, or on a Friday's evening, says little of a Monday.
        row.lift = fixed(limits.after_weekend - 1.0)
        row.bins = min(row.bins, BINS)
        calm(row)
    if row.run == 0 and offset >= 0:
        row.since = offset
    return rise


@compiled
def _grown(slots: int, expected: float, hours: int) -> float:
    """The log-likelihood ratio of so many active slots in so many hours, for the factor that explains them best."""
    total = float(hours * SLOTS)
    if slots <= expected:
        return 0.0
    idle = total - slots
    grown = slots * np.log(slots / expected)
    return float(grown + idle * np.log(idle / (total - expected)) if idle > 0.0 else grown)


@compiled
def _rising(row: Row, limits: Limits) -> tuple[int, float, float, float]:
    """Whether this hour, as far as it is known, makes a rise of hours that is to be told; the calls seen, those
    expected, and the excess."""
    if row.bins < limits.warm_up[row.flags & WORKLOAD] or row.run + 1 < limits.least_hours:
        return 0, 0.0, 0.0, 0.0
    slots = active_slots(row.slots)
    by_calls, by_slots, expected, active = evidence(row, row.hour, row.calls, slots, limits)
    if by_calls <= 0.0 and by_slots <= 0.0:
        # Not any longer, or not yet again.
        return 0, 0.0, 0.0, 0.0
    excess = row.excess[0] + by_calls
    if row.run <= LONGEST_RISE + BINS:
        excess = max(excess, _grown(row.seen_slots + slots, row.expected_slots + active, row.run + 1) / row.scatter[1])
    seen = row.seen + counted(row, row.calls, expected, limits)
    expected += row.expected
    threshold = limits.threshold[row.flags & WORKLOAD]
    # Two groups of calls more than usual are no rise, however great they are.
    least = max(limits.least_calls, _GROUPS * row.at_once)
    if not row.flags & NAMED:
        threshold *= limits.nameless
    if row.calls * (row.run + 1) < GOING * seen:
        return 0, 0.0, 0.0, 0.0
    if excess < limits.weak_share * threshold or seen < limits.ratio * expected + least:
        return 0, 0.0, 0.0, 0.0
    if excess >= threshold:
        return HOURS, seen, expected, excess
    return 0 if row.flags & TOLD else SOME_HOURS, seen, expected, excess


@compiled
def _is_new(row: Row, session: int) -> bool:
    """Whether the call begins a session that is none of the last four."""
    if session == 0:
        row.flags &= ~NAMED & 255
        return True
    row.flags |= NAMED
    tag = (session & 0xFFFF) | 1
    for m in range(4):
        if row.recent[m] == tag:
            return False
    for m in range(3, 0, -1):
        row.recent[m] = row.recent[m - 1]
    row.recent[0] = tag
    return True


@compiled
def judge(rows: State, cohorts: State, events: Events, closed: Closed, limits: Limits, told: Told) -> int:
    """Goes over the batch; returns how many findings there are."""
    count, k, n = 0, 0, len(events.row)
    blank = np.zeros(1, ROW)
    for i in range(n + 1):
        while k < len(closed.row) and closed.at[k] == i:
            if closed.calls[k] > 0:
                row = rows[closed.row[k]]
                hour = (closed.end[k] - 1) // _HOUR
                cohort = cohorts[(row.flags & WORKLOAD) + (3 if row.flags & NAMED else 0)]
                rise = _reach(row, hour, events.offset[i] if i < n else -1, cohort, limits)
                row.calls += row.fresh
                row.fresh = 0.0
                row.today += closed.sums[k, 0]
                row.slots |= 1 << (((closed.end[k] - 1) % _HOUR) // _SLOT)
                how, values = 0, (0.0, 0.0, 0.0, 0.0)
                gravity, seen, expected, excess = _rising(row, limits)
                if gravity > 0:
                    how, values = gravity, (seen, expected, float(row.run + 1), excess)
                    row.flags |= TOLD
                if rise >= limits.day_threshold:
                    row.rise = 0
                    if how != HOURS:
                        how, values = DAYS, (np.exp(row.level / ONE), np.exp(row.base / ONE), float(row.days), rise)
                if row.today > row.ceiling > 0.0:
                    how, values = (
                        CEILING,
                        (float(row.today), np.exp(row.base / ONE), float(row.days), float(row.ceiling)),
                    )
                    row.ceiling = 2.0 * row.today
                if how > 0:
                    count = _tell(told, count, k, how, values, row)
                if gravity == HOURS:
                    # What lasts is the new usual: it is told again once it has doubled.
                    row.lift = fixed((1.0 + row.lift / ONE) * seen / expected - 1.0)
                    row.bins = min(row.bins, BINS * _REMEMBERED)
                    calm(row)
            k += 1
        if i < n and events.returned[i]:
            rows[events.row[i]] = blank[0]
        if i < n and not events.skip[i]:
            row = rows[events.row[i]]
            row.flags = (row.flags & ~WORKLOAD & 255) | events.workload[i]
            if not events.retry[i] and _is_new(row, events.session[i]):
                row.fresh += 1.0
    return count
