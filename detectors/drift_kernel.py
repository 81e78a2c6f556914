"""The compiled part of `detectors.drift`: sums of what exceeds the usual, hour by hour and day by day.

Hours: CUSUMs of log-likelihood ratios for "grown by the factor `growth`" against "as usual", of starts and of active
slots (Page, "Continuous inspection schemes", 1954; for counts Lucas, "Counted data CUSUM's", 1985); over a run of
hours, the slots' ratio for the factor that explains them best. One hour adds `hour_most` or less: it takes several.
Days: a CUSUM of the logarithm of a workday's tokens against its own mean and scatter.
"""

from typing import NamedTuple

import numpy as np

from detectors.compiled import Row, State, compiled
from detectors.drift_starts import note_session, starts_of
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
    add_to_sum,
    barely,
    begin,
    calm,
    counted,
    evidence,
    expect_slots,
    fixed,
    learn_bin,
    slots_expected,
    sum_of,
    threshold_of,
)
from schemas.batch import WORKLOADS, Codes, Flags, Floats, Hashes, Ints

SOME_HOURS, HOURS, DAYS, CEILING = 1, 2, 3, 4
"""How a rise shows; some hours are weak evidence."""
_HOUR = 3_600_000
_SLOT = 600_000
_LONGEST_NIGHT = 26
"""Hours of silence that belong to a daily rhythm. What is longer is a holiday, and teaches nothing."""
_SHORT_HISTORY = 12
"""Bins: a day and a half."""
_GROUPS = 3
_THIS_HOUR, _LAST_MINUTES = 0.5, 0.75
"""Of the mean hour of a rise, what this hour must have, and ten minutes per hour: with less it is over already, and
who is told of it then blames what has come since."""
_CLASSES = len(WORKLOADS)
_REMEMBERED = 2
"""Days that are left of the memory when a rise was told, so that one that lasts is soon the usual."""


class Closed(NamedTuple):
    """The closed buckets of a batch."""

    at: Ints
    row: Ints
    end: Ints
    calls: Ints
    sums: Floats
    tenmin: Floats


class Events(NamedTuple):
    """What of the batch's events is needed."""

    row: Ints
    skip: Flags
    returned: Flags
    offset: Ints
    workload: Codes
    session: Hashes
    retry: Flags
    time: Ints
    late: Flags


class Told(NamedTuple):
    """What is told: by which closed bucket, how, (observed, usual, hours or days, excess), and the state then."""

    closing: Ints
    how: Codes
    value: Floats
    state: State


@compiled
def _close_hour(row: Row, hour: int, cohort: Row, limits: Limits) -> None:
    if row.spread[0] == 0.0:
        row.spread[0] = cohort.spread[0]
        row.spread[1] = cohort.spread[1]
        row.at_once = cohort.at_once
    if (hour // 24 + 3) % 7 < 5:
        row.flags |= WEEKDAY
    slots = active_slots(row.slots)
    if row.learnt >= limits.warm_up[row.flags & WORKLOAD]:
        by_starts, by_slots, expected, active = evidence(row, hour, row.starts, slots, limits)
        most = 2.0 * threshold_of(row, limits)
        if by_starts > 0.0 and row.sums[0] == 0 and barely(sum_of(row, 1), row, limits):
            # The rise begins here: some slots more than usual in the hours before were none.
            begin(row)
        add_to_sum(row, 0, by_starts, most)
        add_to_sum(row, 1, by_slots, most)
        if (row.sums[0] == 0 and row.sums[1] == 0) or row.run > LONGEST_RISE + BINS:
            calm(row)
        else:
            row.seen += counted(row, row.starts, expected, limits)
            row.expected += expected
            expect_slots(row, active)
            row.seen_slots = min(row.seen_slots + slots, 255)
            row.run = min(row.run + 1, 255)
    else:
        calm(row)
    row.bin_starts += row.starts
    row.bin_slots += slots
    row.starts = 0.0
    row.slots = 0
    if hour % 3 == 2:
        if not row.flags & PARTIAL_BIN:
            learn_bin(row, hour, cohort, limits)
        row.flags &= ~PARTIAL_BIN & 255
        row.bin_starts = 0.0
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
        row.bin_starts = 0.0
        row.bin_slots = 0
        row.hour = hour
        row.flags |= PARTIAL_BIN
    while row.hour < hour:
        _close_hour(row, row.hour, cohort, limits)
        if row.hour % 24 == 23:
            rise = max(rise, _close_day(row, row.hour // 24, limits))
        row.hour += 1
    if weeks > 0 and row.learnt > 0 and (row.learnt < _SHORT_HISTORY or not row.flags & WEEKDAY):
        # What was learnt on a weekend, or on a Friday's evening, says little of a Monday.
        row.lift = fixed(limits.after_weekend - 1.0)
        row.learnt = min(row.learnt, BINS)
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
def _rising(row: Row, calls: float, usd: float, limits: Limits) -> tuple[int, float, float, float]:
    """Whether this hour, as far as it is known, makes a rise of hours that is to be told, where the last minutes had
    `calls` and `usd` an hour; the starts seen, those expected, and the excess."""
    if row.learnt < limits.warm_up[row.flags & WORKLOAD] or row.run + 1 < limits.least_hours:
        return 0, 0.0, 0.0, 0.0
    slots = active_slots(row.slots)
    by_starts, by_slots, expected, active = evidence(row, row.hour, row.starts, slots, limits)
    if by_starts <= 0.0 and by_slots <= 0.0:
        # Not any longer, or not yet again.
        return 0, 0.0, 0.0, 0.0
    excess = sum_of(row, 0) + by_starts
    if row.run <= LONGEST_RISE + BINS:
        excess = max(excess, _grown(row.seen_slots + slots, slots_expected(row) + active, row.run + 1) / row.spread[1])
    seen = row.seen + counted(row, row.starts, expected, limits)
    expected += row.expected
    threshold = threshold_of(row, limits)
    # Two groups more than usual are no rise, however great they are.
    least = max(limits.least_calls, _GROUPS * row.at_once)
    if min(row.starts / _THIS_HOUR, calls / _LAST_MINUTES) * (row.run + 1) < seen:
        return 0, 0.0, 0.0, 0.0
    if excess < limits.weak_share * threshold or seen < limits.ratio * expected + least:
        return 0, 0.0, 0.0, 0.0
    # Nobody gets up for a rise that costs next to nothing, as long as it does.
    if excess >= threshold and not 0.0 < usd < limits.least_usd[row.flags & WORKLOAD]:
        return HOURS, seen, expected, excess
    return 0 if row.flags & TOLD else SOME_HOURS, seen, expected, excess


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
                cohort = cohorts[(row.flags & WORKLOAD) + (_CLASSES if row.flags & NAMED else 0)]
                rise = _reach(row, hour, events.offset[i] if i < n else -1, cohort, limits)
                row.starts += starts_of(row, closed.sums[k, 1], closed.end[k])
                row.today += closed.sums[k, 0]
                row.slots |= 1 << (((closed.end[k] - 1) % _HOUR) // _SLOT)
                how, values = 0, (0.0, 0.0, 0.0, 0.0)
                gravity, seen, expected, excess = _rising(
                    row, SLOTS * closed.tenmin[k, 1], SLOTS * closed.tenmin[k, 2], limits
                )
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
                    # Of the hour that has just begun only a part is seen.
                    times = max(seen / expected, row.seen / row.expected if row.run > 0 else 0.0)
                    row.lift = fixed((1.0 + row.lift / ONE) * times - 1.0)
                    row.learnt = min(row.learnt, BINS * _REMEMBERED)
                    calm(row)
            k += 1
        if i < n and events.returned[i]:
            rows[events.row[i]] = blank[0]
        if i < n and not events.skip[i]:
            row = rows[events.row[i]]
            row.flags = (row.flags & ~WORKLOAD & 255) | events.workload[i]
            if not events.retry[i]:
                note_session(row, events.session[i], events.time[i], events.late[i])
    return count
