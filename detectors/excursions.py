"""A bank of record excursions: how far a series leaves the range of all that it did, in constant time and memory.

A point is looked at raw and as log1p. Nine channels follow each of the two: the value, its average, its distance from
the average, its spread, its distance from what the hour of the day and of the week lead to expect, the average of the
latter, its size, and the fast less the slow average. A channel keeps the least and the greatest that it was, which
slowly relax; the score is the greatest overshoot in units of that range. A gate lets a score through that beats those
of the last points. All is causal: a point is scored by what came before it.

Spike runs it on identities' tokens, `python -m benchmarks.nab` on any series.
"""

import math

import numpy as np

from detectors.compiled import Row, compiled
from schemas.batch import Floats

_SIDES, _CHANNELS = 2, 9
_HALF_HOURS, _HOURS = 48, 168

BANK = np.dtype([
    ("low", "f4", (_SIDES, _CHANNELS)), ("high", "f4", (_SIDES, _CHANNELS)),
    ("average", "f4", (_SIDES,)), ("slow", "f4", (_SIDES,)), ("spread", "f4", (_SIDES,)),
    ("mean", "f4", (_SIDES,)), ("squares", "f4", (_SIDES,)), ("weekly", "f4", (_SIDES,)),
    ("points", "i4"), ("days", "u2"), ("weeks", "u2"), ("age", "i4"), ("best", "f4"),
], align=True)  # fmt: skip
"""A series' state. `days` and `weeks` count the points whose hour of the day, and of the week, was known."""
SEASONS = np.dtype([
    ("day", "f4", (_SIDES, _HALF_HOURS)), ("week", "f4", (_SIDES, _HOURS)),
    ("days", "u1", (_HALF_HOURS,)), ("weeks", "u1", (_HOURS,)),
])  # fmt: skip
"""How far each half hour of the day and hour of the week usually lies from the slow average; of one series, or shared
by many, then the raw side in units of their slow averages."""

_FAST, _SLOW = 0.05, 0.003
"""Weights of a point in the averages."""
_RELAX = 5e-5
"""Of its distance from the last point, what a record gives back with each point."""
_ENOUGH = 10_000
"""Points from which on it makes no difference how many there were."""
_WARM = 100
"""Points that a channel sees before it may score."""
_GATE, _FADE = 100, 0.95
"""The best score holds the gate for so many points, and fades by this factor from then on."""
_DAY, _WEEK = 0.1, 0.2
"""Least weights of a point in its half hour of the day, and in its hour of the week."""
_KNOWN = 200
_LARGEST = 1e15
"""Beyond it squares would not fit."""
_NOTHING = 1e-12


@compiled
def _overshoot(bank: Row, side: int, channel: int, value: float, seen: int) -> float:
    """By how much of its range a channel leaves it; `seen` counts the channel's points up to this one."""
    low, high = bank.low[side, channel], bank.high[side, channel]
    if seen <= 1:
        bank.low[side, channel] = value
        bank.high[side, channel] = value
        return 0.0
    beyond = max(value - high, low - value, 0.0)
    score = 0.0
    if beyond > 0.0 and seen > _WARM:
        score = beyond / (high - low + _NOTHING + 1e-9 * abs(value)) if high > low else 1.0
    bank.high[side, channel] = max(value, high - _RELAX * (high - value))
    bank.low[side, channel] = min(value, low + _RELAX * (value - low))
    return score


@compiled
def _season(profile: Floats, side: int, at: int, apart: float, seen: int, least: float) -> None:
    """Teaches a slot of a profile that has seen so many points."""
    profile[side, at] += (apart - profile[side, at]) * max(least, 1.0 / (seen + 1))


@compiled
def _side(bank: Row, seasons: Row, side: int, x: float, day: int, week: int, shared: bool) -> float:
    """Scores, then learns, one of a point's two looks. The counts are those after this point."""
    apart = x - bank.average[side]
    fast = bank.average[side] + _FAST * apart
    spread = (1 - _FAST) * (bank.spread[side] + _FAST * apart * apart)
    slow = bank.slow[side] + max(_SLOW, 1.0 / bank.points) * (x - bank.slow[side])
    variance = bank.squares[side] / (bank.points - 1)
    deviation = math.sqrt(variance) + _NOTHING
    best = max(
        _overshoot(bank, side, 0, x, bank.points - 1),
        _overshoot(bank, side, 1, fast, bank.points - 1),
        _overshoot(bank, side, 2, apart, bank.points - 1),
        _overshoot(bank, side, 3, math.log(spread + 1e-4 * deviation * deviation), bank.points - 1),
        _overshoot(bank, side, 4, math.log(abs(x) + 1e-3 * deviation), bank.points - 1),
        _overshoot(bank, side, 5, fast - slow, bank.points - 1),
    )
    unit = abs(slow) + _NOTHING if shared and side == 0 else 1.0
    if seasons.days[day] > 0:
        best = max(best, _overshoot(bank, side, 6, x - slow - unit * seasons.day[side, day], bank.days))
    if seasons.weeks[week] > 0:
        unlike = x - slow - unit * seasons.week[side, week]
        bank.weekly[side] += _FAST * (unlike - bank.weekly[side])
        best = max(
            best,
            _overshoot(bank, side, 7, unlike, bank.weeks),
            _overshoot(bank, side, 8, bank.weekly[side], bank.weeks),
        )
    _season(seasons.day, side, day, (x - slow) / unit, seasons.days[day], _DAY)
    _season(seasons.week, side, week, (x - slow) / unit, seasons.weeks[week], _WEEK)
    bank.average[side] = fast
    bank.slow[side] = slow
    bank.spread[side] = spread
    from_mean = x - bank.mean[side]
    bank.mean[side] += from_mean / bank.points
    bank.squares[side] += from_mean * (x - bank.mean[side])
    return best


@compiled
def score_point(bank: Row, seasons: Row, value: float, seconds: float, shared: bool) -> float:
    """Scores a point at `seconds` since 1970, then learns it; 0 where the gate holds it back."""
    day, week = int(seconds % 86400 // 1800), int(seconds % 604800 // 3600)
    value = max(-_LARGEST, min(_LARGEST, value))
    level = math.copysign(math.log1p(abs(value)), value)
    bank.points += 1
    if bank.points == 1:
        for side in range(_SIDES):
            x = value if side == 0 else level
            bank.average[side] = x
            bank.slow[side] = x
            bank.mean[side] = x
        return 0.0
    bank.days += 1 if seasons.days[day] > 0 and bank.days < _ENOUGH else 0
    bank.weeks += 1 if seasons.weeks[week] > 0 and bank.weeks < _ENOUGH else 0
    score = 0.5 * (
        _side(bank, seasons, 0, value, day, week, shared) + _side(bank, seasons, 1, level, day, week, shared)
    )
    seasons.days[day] = min(seasons.days[day] + 1, _KNOWN)
    seasons.weeks[week] = min(seasons.weeks[week] + 1, _KNOWN)
    bank.age += 1
    if bank.age > _GATE:
        bank.best *= _FADE
    told = score if score > bank.best else 0.0
    if score >= bank.best:
        bank.best = score
        bank.age = 0
    return told


@compiled
def expected(bank: Row, seasons: Row, seconds: float) -> float:
    """What the hour of the week, else of the day, leads to expect of a series of counts; 0 of a new one."""
    if bank.points == 0:
        return 0.0
    day, week = int(seconds % 86400 // 1800), int(seconds % 604800 // 3600)
    level = bank.slow[1]
    if seasons.weeks[week] > 0:
        level += seasons.week[1, week]
    elif seasons.days[day] > 0:
        level += seasons.day[1, day]
    return math.expm1(max(level, 0.0))


@compiled
def _score_all(banks: Row, seasons: Row, values: Floats, seconds: Floats, out: Floats) -> None:
    for k in range(len(values)):
        out[k] = score_point(banks[0], seasons[0], values[k], seconds[k], False)


def score_series(values: Floats, seconds: Floats) -> Floats:
    """Scores each point of a series by those before it. `seconds` since 1970, one per value."""
    out = np.zeros(len(values))
    _score_all(np.zeros(1, BANK), np.zeros(1, SEASONS), values, seconds, out)
    return out
