"""What an identity's hours usually hold, for `detectors.drift`: a profile, and how far the counts scatter around it.

What is counted are *starts*: a session, or a call that names none. The profile has starts per hour in eight bins of a
day. From it follow the active ten-minute slots to be expected: starts come in groups of `at_once`, and the groups at
random. What a start or a slot says is divided by how much more the identity's own counts scatter than those of a
Poisson process.
"""

from typing import NamedTuple

import numpy as np

from detectors.compiled import Row, compiled
from schemas.batch import Floats, Ints

BINS = 8
RECENT = 3
"""Sessions that are known again."""
ROW = np.dtype([
    ("since", "i8"),
    ("hour", "i4"), ("starts", "f4"), ("bin_starts", "f4"), ("at_once", "f4"), ("spread", "f4", (2,)),
    ("seen", "f4"), ("expected", "f4"), ("today", "f4"), ("ceiling", "f4"),
    ("sums", "u2", (2,)), ("slots_expected", "u2"), ("hourly", "u2", (BINS,)), ("busy", "u2"),
    ("base", "u2"), ("level", "u2"), ("days", "u2"), ("rise", "u2"), ("noise", "u2"), ("lift", "u2"),
    ("recent", "u1", (RECENT,)), ("continued", "u1", (2,)), ("learnt", "u1"),
    ("weekend", "u1"), ("slots", "u1"), ("bin_slots", "u1"), ("seen_slots", "u1"), ("run", "u1"), ("flags", "u1"),
])  # fmt: skip
"""`hour` counts from 1970; `starts` and `slots` (a bit each) are this hour's, `bin_*` the bin's, `today` the day's
tokens; `recent` has the marks of the last sessions, `continued` their further calls in open buckets, even and odd ones.
`spread` (how far counts scatter) and `sums` (of evidence) are of starts and of slots; `seen` and
`expected` starts are of the `run` of hours that exceed the usual. `hourly` is the profile, `busy` the starts per hour
of bins that have any; `learnt` bins and `days` there were. `base` (of the first days), `level`, `noise` and `rise` are
of the logarithm of a day's tokens. `lift` is what is let pass beyond the profile, `weekend` its share of it. Those of
two bytes, but for `days`, and `weekend` are numbers of fixed point."""
COHORT = np.dtype([("spread", "f8", (2,)), ("at_once", "f8")])
"""What is usual for a workload class, with sessions or without: the prior of an identity that has little history."""
WORKLOAD, TOLD, PARTIAL_BIN, PARTIAL_DAY, WEEKDAY, NAMED = 3, 4, 8, 16, 32, 64
"""Of `flags`: the workload class; a rise was told as weak evidence; the bin, the day began before it was watched; the
identity has been seen on a weekday; its last call named a session."""
SLOTS = 6
"""In an hour."""
LONGEST_RISE = 12
"""Hours, after which what was not told is no rise."""
ONE = 1000.0
_ONE_OF_SUMS, _ONE_SLOT = 100.0, 500.0
"""Of a number of fixed point."""
MOST_LEARNT = 255
_PERCENT = 100.0
_WORKWEEK = 5
_FAR = 9.0
"""Variances that the scatter learns from at the most: what is far out must not widen what is called usual."""
_PRIOR_HOURS = 2.0
_PRIOR_SESSIONS = 6.0
_PRIOR_SLOTS = 3.0
_PRIOR_SPREAD = 30.0
"""How much weight the priors have: hours, in units of the scatter of starts, active slots, and slots' variances."""
_LONGEST_MEMORY = 30
"""Days: what is older has faded."""
_LEAST_SHARE = 0.25
"""Of an hour in which it works, what is let pass in those in which an identity never did."""
_BUSY_MEMORY = 12
"""Bins."""
_LEAST_SLOTS = 0.03
_LEAST_EXPECTED = 0.02
"""What is expected at the least: slots an hour, and starts in units of their scatter."""
_COHORT_RATE = 0.002
_LEAST_AT_ONCE = 0.25
"""Starts in a group: one session may be active in several slots."""
_UNEVEN = 1.5
"""Groups are not all of one size: by so much more than their mean size do counts scatter at the least."""


class Limits(NamedTuple):
    """The policy's; `threshold`, `least_usd`, `warm_up` and `ceiling` per workload class."""

    growth: float
    ratio: float
    threshold: Floats
    nameless: float
    settled: float
    least_usd: Floats
    weak_share: float
    hour_most: float
    least_hours: int
    least_calls: float
    warm_up: Ints
    after_weekend: float
    day_slack: float
    day_threshold: float
    day_warm_up: int
    least_noise: float
    base_days: int
    ceiling: Floats


@compiled
def _rate(code: int) -> float:
    """Starts per hour of a profile's code."""
    return float(np.expm1(code / 2500.0) / 8.0)


@compiled
def _code(rate: float) -> int:
    return int(min(np.log1p(max(rate, 0.0) * 8.0) * 2500.0 + 0.5, 65535.0))


@compiled
def fixed(value: float) -> int:
    """A small number as the fixed-point number that a row keeps."""
    return int(min(max(value, 0.0) * ONE + 0.5, 65535.0))


@compiled
def _weekend(hour: int) -> int:
    """2 where it is the weekend anywhere on earth, 1 where it is somewhere, 0 nowhere. `hour` counts from 1970."""
    here = (((hour - 12) // 24) + 3) % 7 >= 5
    there = (((hour + 12) // 24) + 3) % 7 >= 5
    return int(here) + int(there)


@compiled
def _mean(row: Row) -> float:
    """Starts per hour over the day, of the bins known so far."""
    total = 0.0
    for k in range(BINS):
        total += _rate(row.hourly[k])
    return float(total / max(min(row.learnt, BINS), 1))


@compiled
def _known(row: Row) -> float:
    """Hours that each bin has learnt from."""
    return float(3.0 * min(row.learnt / BINS, _LONGEST_MEMORY))


@compiled
def _usual(row: Row, hour: int, mean: float) -> float:
    """Starts to be expected in an hour: those of its bin, or what lies between that and the next one where it is more;
    drawn to the mean while little is known."""
    place = (hour % 24 + 0.5) / 3.0 - 0.5
    left = int(np.floor(place))
    share = place - left
    early, late = _rate(row.hourly[left % BINS]), _rate(row.hourly[(left + 1) % BINS])
    known = _known(row)
    usual = max((1.0 - share) * early + share * late, early if share < 0.5 else late)
    least = max(mean, _rate(row.busy)) * _LEAST_SHARE
    usual = max((usual * known + mean * _PRIOR_HOURS) / (known + _PRIOR_HOURS), least)
    if _weekend(hour) == 2 and row.weekend > 0:
        usual *= row.weekend / _PERCENT
    return float(usual)


@compiled
def scatter_of(row: Row) -> float:
    """How much more than those of a Poisson process the counts of starts scatter."""
    return float(max(row.spread[0], _UNEVEN * row.at_once))


@compiled
def evidence(row: Row, hour: int, starts: float, slots: int, limits: Limits) -> tuple[float, float, float, float]:
    """What an hour adds to the two sums, and the starts and slots that were to be expected, with what is uncertain."""
    mean = _mean(row)
    usual, scatter = _usual(row, hour, mean), scatter_of(row)
    apart = np.sqrt(usual * scatter / (_known(row) / 3.0 + _PRIOR_HOURS))
    lift = 1.0 + row.lift / ONE
    if row.days >= _WORKWEEK:
        # A busy day of somebody whose days differ is busy in all its hours.
        lift *= np.exp(min(row.noise / ONE, 1.0))
    expected = max((usual + apart) * lift, _LEAST_EXPECTED * scatter)
    more = limits.growth - 1.0
    by_starts = (starts * np.log(limits.growth) - expected * more) / scatter
    active = max((usual + 0.5 * apart) * lift / row.at_once, _LEAST_SLOTS) / SLOTS
    idle, idle_grown = np.exp(-active), np.exp(-active * limits.growth)
    weight = np.log((1.0 - idle_grown) / (1.0 - idle))
    by_slots = (slots * weight - (SLOTS - slots) * more * active) / row.spread[1]
    return min(by_starts, limits.hour_most), min(by_slots, limits.hour_most), expected, SLOTS * (1.0 - idle)


@compiled
def counted(row: Row, starts: float, expected: float, limits: Limits) -> float:
    """What of an hour's starts counts: one burst is no rise, however great."""
    return float(min(starts, limits.growth * expected + limits.hour_most * scatter_of(row)))


@compiled
def active_slots(bits: int) -> int:
    """How many bits are set."""
    active = 0
    for k in range(SLOTS):
        active += (bits >> k) & 1
    return active


@compiled
def threshold_of(row: Row, limits: Limits) -> float:
    """The excess from which on a rise is told: more, while little is known of how the identity's days differ."""
    threshold = limits.threshold[row.flags & WORKLOAD] * max(1.0, limits.settled / max(1, row.learnt))
    return float(threshold if row.flags & NAMED else threshold * limits.nameless)


@compiled
def barely(excess: float, row: Row, limits: Limits) -> bool:
    """Whether so much excess says nothing yet."""
    return bool(excess < limits.threshold[row.flags & WORKLOAD] / 3.0)


@compiled
def sum_of(row: Row, k: int) -> float:
    """The evidence of starts (0), of slots (1)."""
    return float(row.sums[k] / _ONE_OF_SUMS)


@compiled
def add_to_sum(row: Row, k: int, evidence: float, most: float) -> None:
    """What an hour says is added; a sum is never below zero."""
    total = min(max(row.sums[k] / _ONE_OF_SUMS + evidence, 0.0), most)
    row.sums[k] = int(min(total * _ONE_OF_SUMS + 0.5, 65535.0))


@compiled
def slots_expected(row: Row) -> float:
    """In the run of hours."""
    return float(row.slots_expected / _ONE_SLOT)


@compiled
def expect_slots(row: Row, slots: float) -> None:
    """Adds those of one hour."""
    row.slots_expected = int(min(row.slots_expected + slots * _ONE_SLOT + 0.5, 65535.0))


@compiled
def begin(row: Row) -> None:
    """No hour has exceeded the usual yet."""
    row.seen = 0.0
    row.expected = 0.0
    row.slots_expected = 0
    row.seen_slots = 0
    row.run = 0


@compiled
def calm(row: Row) -> None:
    """Nothing exceeds the usual."""
    row.sums[0] = 0
    row.sums[1] = 0
    begin(row)
    row.flags &= ~TOLD & 255


@compiled
def learn_bin(row: Row, hour: int, cohort: Row, limits: Limits) -> None:
    """Takes the bin that ends with `hour` into the profile, and how far it lay from it into the scatter."""
    at = (hour % 24) // 3
    starts, slots = float(row.bin_starts), float(row.bin_slots)
    weekend = _weekend(hour)
    before = _rate(row.hourly[at])
    if weekend > 0 and row.flags & WEEKDAY and row.learnt >= BINS:
        if weekend == 2 and before >= 1.0:
            held = row.weekend / _PERCENT if row.weekend > 0 else 1.0
            # What was told and is let pass has not come with the weekend.
            usual = 3.0 * before * (1.0 + row.lift / ONE)
            held += (min(starts / usual, 2.5) - held) / 4.0
            row.weekend = int(max(held, 0.1) * _PERCENT)
        return
    # What exceeds the usual is learnt later, and what has gone on for long without being told is no rise.
    usual_bin = barely(max(sum_of(row, 0), sum_of(row, 1)), row, limits) or row.run > LONGEST_RISE
    total = 3.0 * _mean(row) * min(row.learnt, BINS * _LONGEST_MEMORY)
    if slots > 0.0:
        if usual_bin:
            busy = _rate(row.busy)
            memory = min(row.learnt // 2 + 1, _BUSY_MEMORY) if busy > 0.0 else 1
            row.busy = _code(busy + (starts / 3.0 - busy) / memory)
        # So many starts come at once that, of all slots, so many are active.
        at_once = -starts / (3.0 * SLOTS * np.log(1.0 - min(slots, 3.0 * SLOTS - 0.5) / (3.0 * SLOTS)))
        apart = max(at_once, _LEAST_AT_ONCE) - row.at_once
        row.at_once += apart * slots / (_PRIOR_SLOTS + slots + total / row.at_once)
    if row.learnt >= BINS and usual_bin:
        usual = 3.0 * before
        apart = (starts - usual) ** 2
        apart = min(apart, _FAR * row.spread[0] * max(usual, row.spread[0]))
        row.spread[0] = max(
            row.spread[0] + (apart - row.spread[0] * usual) / (_PRIOR_SESSIONS * cohort.spread[0] + usual + total),
            0.5,
        )
        active = 1.0 - np.exp(-max(before / row.at_once, _LEAST_SLOTS) / SLOTS)
        usual_slots = 3.0 * SLOTS * active
        spread = usual_slots * (1.0 - active)
        apart_slots = min((slots - usual_slots) ** 2, _FAR * row.spread[1] * max(spread, 1.0))
        row.spread[1] += (apart_slots - row.spread[1] * spread) / (_PRIOR_SPREAD + total / row.at_once)
        row.spread[1] = max(row.spread[1], 1.0)
        if usual > 0.0:
            cohort.spread[0] += _COHORT_RATE * (row.spread[0] - cohort.spread[0])
            cohort.spread[1] += _COHORT_RATE * (row.spread[1] - cohort.spread[1])
            cohort.at_once += _COHORT_RATE * (row.at_once - cohort.at_once)
    step = 1.0 / (min(row.learnt // BINS, _LONGEST_MEMORY) + 1.0)
    row.hourly[at] = _code(before + (starts / 3.0 - before) * (step if usual_bin else 0.1 * step))
    row.learnt = min(row.learnt + 1, MOST_LEARNT)
