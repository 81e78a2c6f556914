"""What a tenant is used to at each hour of the day."""

import math
from typing import NamedTuple

from msgspec import Struct

HOUR, DAY = 3_600_000, 86_400_000
_FADING = 0.1
_FAR = 2.0
"""Standard deviations that the variance learns from at the most."""
_RAISED_MOST = 1.25
"""Times what was expected: as much of an excess is learnt in an hour, so that what lasts becomes the new usual."""
_PLUS = 10.0
"""Added to both sides of a ratio: twice of next to nothing is nothing."""
_LEAST_SPREAD = 0.2
"""Of the log of an hour: a relative error of a fifth is never called surprising."""
_DAYS = 2
"""On so many days an hour must have been seen; what is predicted of fewer is less certain."""
_AROUND = ((-1, 0.25), (0, 0.5), (1, 0.25))
"""What an hour and its neighbours count for what is usual in it."""
_WEEKEND = 24
"""The first hour of a day at a weekend."""
_OF_WEEKEND = 0.5
"""Of a day: so much a day at a weekend tells of a workday, which is the busier one. The first Monday is no rise."""
_BEFORE = 3
"""Hours of a sort of day that is new, which tell how it differs from the other sort."""

Work = tuple[float, float]
"""Identities at work (each once in 5 minutes), and operations."""
BREADTH, CALLS = range(2)


class Habit(Struct):
    """Hours of the day (workdays, then weekends) as means of log1p of identities at work and of operations, how often
    each was learnt, the variance of what came less what was expected, for how many slots in a row now it has been far
    beyond that, and the number of the first slot that is known."""

    first: int = 0
    level: list[Work] = []
    times: list[int] = []
    variance: float = 0.25
    streak: int = 0


class Usual(NamedTuple):
    """What is usual in an hour: identities at work, operations, and on how many days that was learnt."""

    breadth: float
    calls: float
    days: float


def ratio(observed: float, usual: float) -> float:
    """How many times the usual, where little of it says little."""
    return (observed + _PLUS) / (usual + _PLUS)


def deviations(habit: Habit, breadth: float, usual: Usual) -> float:
    """How surprising so many identities at work in an hour are, in standard deviations of what is predicted."""
    variance = max(habit.variance, _LEAST_SPREAD**2) * max(1.0, _DAYS / max(1.0, usual.days))
    return math.log(ratio(breadth, usual.breadth)) / math.sqrt(variance)


def expected(habit: Habit, end: int) -> Usual | None:
    """What is usual in the hour that ends at `end` (ms); None where nothing is known."""
    if not habit.times:
        return None
    passed = end % HOUR / HOUR
    now = _usual_at(habit, _hour_of(end))
    before = _usual_at(habit, _hour_of(end - end % HOUR)) if passed else now
    if before is None or now is None:
        return None
    breadth, calls, _ = (a * (1 - passed) + b * passed for a, b in zip(before, now, strict=True))
    return Usual(breadth, calls, min(before.days, now.days))


def learn(habit: Habit, end: int, hour: Work, usual: Usual | None, *, excess: bool) -> None:
    """Takes a complete hour in, after it was judged. Of an `excess` a part is learnt: more of it where this sort of day
    is new, and what was expected no more than borrowed."""
    if not habit.times:
        habit.times, habit.level = [0] * 48, [(0.0, 0.0)] * 48
    at, (breadth, calls) = _hour_of(end), hour
    if usual is not None:
        if excess:
            most = _RAISED_MOST if habit.times[at] else max(_RAISED_MOST, math.sqrt(ratio(breadth, usual.breadth)))
            breadth, calls = min(breadth, usual.breadth * most), min(calls, usual.calls * most)
        # What is far out must not widen what is called usual.
        most = _FAR * math.sqrt(habit.variance)
        apart = min(max(math.log(ratio(breadth, usual.breadth)), -most), most)
        habit.variance += _FADING * (apart * apart - habit.variance)
    habit.times[at] += 1
    weight = max(1.0 / habit.times[at], 3 * _FADING)
    held = habit.level[at]
    habit.level[at] = (
        held[0] + weight * (math.log1p(breadth) - held[0]),
        held[1] + weight * (math.log1p(calls) - held[1]),
    )


def _hour_of(moment: int) -> int:
    """Of the hour that ends at `moment` (ms): 0 to 23, and 24 to 47 at weekends (1970-01-01 was a Thursday)."""
    days, within = divmod(moment - 1, DAY)
    return within // HOUR + (_WEEKEND if (days + 3) % 7 >= 5 else 0)


def _usual_at(habit: Habit, hour: int) -> Usual | None:
    """The usual of an hour, smoothed over its neighbours."""
    weight = breadth = calls = 0.0
    days = 0.0
    for apart, share in _AROUND:
        at, other = _beside(hour, apart)
        level = _level(habit, at)
        if level is not None:
            weight += share
            breadth += share * level[BREADTH]
            calls += share * level[CALLS]
            days += share * (habit.times[at] + (_OF_WEEKEND if at < _WEEKEND else 1.0) * habit.times[other])
    return Usual(math.expm1(breadth / weight), math.expm1(calls / weight), days / weight) if weight else None


def _beside(hour: int, apart: int) -> tuple[int, int]:
    """The hour of the same sort of day that lies so many hours apart, and that hour of the other sort."""
    at = hour // _WEEKEND * _WEEKEND + (hour + apart) % _WEEKEND
    return at, (at + _WEEKEND) % (2 * _WEEKEND)


def _level(habit: Habit, hour: int) -> Work | None:
    """What is known of an hour; where this sort of day is new, what the other sort has, as far as the hours before
    say that they differ."""
    if habit.times[hour]:
        return habit.level[hour]
    _, other = _beside(hour, 0)
    if not habit.times[other]:
        return None
    breadth, calls = habit.level[other]
    apart = []
    for back in range(1, _BEFORE + 1):
        at, other = _beside(hour, -back)
        if habit.times[at] and habit.times[other]:
            ours, theirs = habit.level[at], habit.level[other]
            apart.append((ours[BREADTH] - theirs[BREADTH], ours[CALLS] - theirs[CALLS]))
    if not apart:
        return breadth, calls
    more = [sum(of) / len(apart) for of in zip(*apart, strict=True)]
    return max(0.0, breadth + more[BREADTH]), max(0.0, calls + more[CALLS])
