"""What an identity's hours usually hold, for `detectors.drift`: a profile, and how far the counts scatter around it.

The profile has calls per hour in eight bins of a day. From it follow the active ten-minute slots to be expected: calls
come in groups of `at_once`, and the groups at random. What a call or a slot says is divided by how much more the
identity's own counts scatter than a Poisson process.
"""

from typing import NamedTuple

import numpy as np

from detectors.compiled import Row, compiled
from schemas.batch import Floats, Ints

BINS = 8
ROW = np.dtype([
    ("since", "i8"), ("recent", "u2", (4,)), ("active", "i8"), ("fresh", "f4"), ("busy", "f4"),
    ("hour", "i4"), ("calls", "f4"), ("bin_calls", "f4"), ("at_once", "f4"), ("scatter", "f4", (2,)),
    ("excess", "f4", (2,)), ("seen", "f4"), ("expected", "f4"), ("expected_slots", "f4"),
    ("today", "f4"), ("ceiling", "f4"), ("base", "u2"), ("level", "u2"),
    ("profile", "u2", (BINS,)), ("bins", "u2"), ("days", "u2"), ("rise", "u2"), ("noise", "u2"), ("lift", "u2"),
    ("weekend", "u1"), ("slots", "u1"), ("bin_slots", "u1"), ("seen_slots", "u1"), ("run", "u1"), ("flags", "u1"),
])  # fmt: skip
"""`hour` counts from 1970; `calls` and `slots` (a bit each) are this hour's, `bin_*` the bin's, `today` the day's
tokens. `scatter` and `excess` (the sums of evidence) are of calls and of slots; `seen` and `expected` are of the `run`
of hours that exceed the usual. `bins` and `days` were learnt. `base` (of the first days), `level`, `noise` and `rise`
are of the logarithm of a day's tokens. `lift` is what is let pass beyond the profile, `weekend` its share of it. All
from `base` on are numbers of fixed point."""
COHORT = np.dtype([("scatter", "f8", (2,)), ("at_once", "f8")])
"""What is usual for a workload class: the prior of an identity that has little history."""
WORKLOAD, TOLD, PARTIAL_BIN, PARTIAL_DAY, WEEKDAY, NAMED = 3, 4, 8, 16, 32, 64
"""Of `flags`: the workload class; a rise was told as weak evidence; the bin, the day began before it was watched; the
identity has been seen on a weekday."""
SLOTS = 6
"""In an hour."""
LONGEST_RISE = 12
"""Hours, after which what was not told is no rise."""
ONE = 1000.0
"""Of a number of fixed point."""
_PERCENT = 100.0
_WORKWEEK = 5
_FAR = 9.0
"""Variances that the scatter learns from at the most: what is far out must not widen what is called usual."""
_PRIOR_HOURS = 2.0
_PRIOR_SESSIONS = 6.0
_PRIOR_SLOTS = 3.0
_PRIOR_SPREAD = 30.0
"""How much weight the priors have: hours, in units of the scatter of calls, active slots, and slots' variances."""
_LONGEST_MEMORY = 30
"""Days: what is older has faded."""
_LEAST_SHARE = 0.25
"""Of the mean hour, what is let pass in the hours in which an identity never worked."""
_LEAST_SLOTS = 0.03
_LEAST_EXPECTED = 0.02
"""What is expected at the least: slots an hour, and calls in units of their scatter."""
_COHORT_RATE = 0.002
LEAST_AT_ONCE = 0.25
_UNEVEN = 1.5
"""Groups of calls are not all of one size: by so much more than their mean size do counts scatter at the least."""


class Limits(NamedTuple):
    """The policy's; `threshold`, `warm_up` and `ceiling` per workload class."""

    growth: float
    ratio: float
    threshold: Floats
    nameless: float
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
    """Calls per hour of a profile's code."""
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
    """Calls per hour over the day, of the bins known so far."""
    total = 0.0
    for k in range(BINS):
        total += _rate(row.profile[k])
    return float(total / max(min(row.bins, BINS), 1))


@compiled
def _known(row: Row) -> float:
    """Hours that each bin has learnt from."""
    return float(3.0 * min(row.bins / BINS, _LONGEST_MEMORY))


@compiled
def _usual(row: Row, hour: int, mean: float) -> float:
    """Calls to be expected in an hour: those of its bin, or what lies between that and the next one where it is more;
    drawn to the mean while little is known."""
    place = (hour % 24 + 0.5) / 3.0 - 0.5
    left = int(np.floor(place))
    share = place - left
    early, late = _rate(row.profile[left % BINS]), _rate(row.profile[(left + 1) % BINS])
    known = _known(row)
    usual = max((1.0 - share) * early + share * late, early if share < 0.5 else late)
    usual = max((usual * known + mean * _PRIOR_HOURS) / (known + _PRIOR_HOURS), max(mean, row.busy) * _LEAST_SHARE)
    if _weekend(hour) == 2 and row.weekend > 0:
        usual *= row.weekend / _PERCENT
    return float(usual)


@compiled
def scatter_of(row: Row) -> float:
    """How much more than those of a Poisson process the counts of calls scatter."""
    return float(max(row.scatter[0], _UNEVEN * row.at_once))


@compiled
def evidence(row: Row, hour: int, calls: float, slots: int, limits: Limits) -> tuple[float, float, float, float]:
    """What an hour adds to the two sums, and the calls and slots that were to be expected, with what is uncertain."""
    mean = _mean(row)
    usual, scatter = _usual(row, hour, mean), scatter_of(row)
    apart = np.sqrt(usual * scatter / (_known(row) / 3.0 + _PRIOR_HOURS))
    lift = 1.0 + row.lift / ONE
    if row.days >= _WORKWEEK:
        # A busy day of somebody whose days differ is busy in all its hours.
        lift *= np.exp(min(row.noise / ONE, 1.0))
    expected = max((usual + apart) * lift, _LEAST_EXPECTED * scatter)
    more = limits.growth - 1.0
    by_calls = (calls * np.log(limits.growth) - expected * more) / scatter
    active = max((usual + 0.5 * apart) * lift / row.at_once, _LEAST_SLOTS) / SLOTS
    idle, idle_grown = np.exp(-active), np.exp(-active * limits.growth)
    weight = np.log((1.0 - idle_grown) / (1.0 - idle))
    by_slots = (slots * weight - (SLOTS - slots) * more * active) / row.scatter[1]
    return min(by_calls, limits.hour_most), min(by_slots, limits.hour_most), expected, SLOTS * (1.0 - idle)


@compiled
def counted(row: Row, calls: float, expected: float, limits: Limits) -> float:
    """What of an hour's calls counts: one burst is no rise, however great."""
    return float(min(calls, limits.growth * expected + limits.hour_most * scatter_of(row)))


@compiled
def active_slots(bits: int) -> int:
    """How many bits are set."""
    active = 0
    for k in range(SLOTS):
        active += (bits >> k) & 1
    return active


@compiled
def calm(row: Row) -> None:
    """Nothing exceeds the usual."""
    row.excess[0] = 0.0
    row.excess[1] = 0.0
    row.seen = 0.0
    row.expected = 0.0
    row.expected_slots = 0.0
    row.seen_slots = 0
    row.run = 0
    row.flags &= ~TOLD & 255


@compiled
def learn_bin(row: Row, hour: int, cohort: Row, limits: Limits) -> None:
    """Takes the bin that ends with `hour` into the profile, and how far it lay from it into the scatter."""
    at = (hour % 24) // 3
    calls, slots = float(row.bin_calls), float(row.bin_slots)
    weekend = _weekend(hour)
    before = _rate(row.profile[at])
    if weekend > 0 and row.flags & WEEKDAY and row.bins >= BINS:
        if weekend == 2 and before >= 1.0:
            held = row.weekend / _PERCENT if row.weekend > 0 else 1.0
            held += (min(calls / (3.0 * before), 2.5) - held) / 4.0
            row.weekend = int(max(held, 0.1) * _PERCENT)
        return
    # What exceeds the usual is learnt later, and what has gone on for long without being told is no rise.
    usual_bin = (
        max(row.excess[0], row.excess[1]) < limits.threshold[row.flags & WORKLOAD] / 3.0 or row.run > LONGEST_RISE
    )
    total = 3.0 * _mean(row) * min(row.bins, BINS * _LONGEST_MEMORY)
    if slots > 0.0 and usual_bin:
        row.busy += (calls / 3.0 - row.busy) / min(row.active + 1, 12)
        row.active = min(row.active + 1, 255)
    if slots > 0.0:
        # So many calls come at once that, of all slots, so many are active.
        at_once = -calls / (3.0 * SLOTS * np.log(1.0 - min(slots, 3.0 * SLOTS - 0.5) / (3.0 * SLOTS)))
        row.at_once += (max(at_once, LEAST_AT_ONCE) - row.at_once) * slots / (_PRIOR_SLOTS + slots + total / row.at_once)
    if row.bins >= BINS and usual_bin:
        usual = 3.0 * before
        apart = (calls - usual) ** 2
        apart = min(apart, _FAR * row.scatter[0] * max(usual, row.scatter[0]))
        row.scatter[0] = max(
            row.scatter[0] + (apart - row.scatter[0] * usual) / (_PRIOR_SESSIONS * cohort.scatter[0] + usual + total),
            0.5,
        )
        active = 1.0 - np.exp(-max(before / row.at_once, _LEAST_SLOTS) / SLOTS)
        usual_slots = 3.0 * SLOTS * active
        spread = usual_slots * (1.0 - active)
        apart_slots = min((slots - usual_slots) ** 2, _FAR * row.scatter[1] * max(spread, 1.0))
        row.scatter[1] += (apart_slots - row.scatter[1] * spread) / (_PRIOR_SPREAD + total / row.at_once)
        row.scatter[1] = max(row.scatter[1], 1.0)
        if usual > 0.0:
            cohort.scatter[0] += _COHORT_RATE * (row.scatter[0] - cohort.scatter[0])
            cohort.scatter[1] += _COHORT_RATE * (row.scatter[1] - cohort.scatter[1])
            cohort.at_once += _COHORT_RATE * (row.at_once - cohort.at_once)
    step = 1.0 / (min(row.bins // BINS, _LONGEST_MEMORY) + 1.0)
    row.profile[at] = _code(before + (calls / 3.0 - before) * (step if usual_bin else 0.1 * step))
    row.bins = min(row.bins + 1, 65535)
