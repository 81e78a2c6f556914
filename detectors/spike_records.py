"""An identity's records of velocity: what its sums are measured against.

Three spans: the ten-second slot of a call with the one before it, the last minute, and ten minutes. A *record* is the
greatest sum that a span ever had, as far as it is learnt (`detectors.spike_learning`).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from detectors.compiled import Row, compiled
from schemas.batch import Floats

METRICS = ("tokens", "requests", "USD", "output tokens")
TOKENS, REQUESTS, USD, OUTPUT = range(4)
SPANS = ("20s", "1m", "10m", "5m")
SPAN_MINUTES = (1 / 3, 1.0, 10.0, 5.0)
CHANNELS = tuple((0, metric) for metric in range(4)) + tuple((span, metric) for span in (1, 2) for metric in range(3))
"""Span and metric of each record."""
BANKED = len(CHANNELS)
"""The channel of what the bank of excursions tells: tokens over five minutes."""
SPAN_OF = np.array([span for span, _ in CHANNELS])
METRIC_OF = np.array([metric for _, metric in CHANNELS])
_FLOOR_MINUTES = np.array([0.5, 1.0, 10.0])
"""Minutes of a minute's floor that a span's floor has: short spans are burstier."""
_FEWER = 0.3
"""Of the floor of requests over ten minutes: a minute's is about bursts, and what goes on needs fewer a minute."""
_COLD_MINUTES = np.array([1.0, 1.0, 10.0])
"""Likewise of a minute's cold figure: of somebody new even a minute's worth at once is let pass."""
MINUTE_CHANNELS = 4
TENMIN_CHANNELS = 7

# What every call touches comes first.
ROW = np.dtype([
    ("since_offset", "i8"),
    ("slot", "u4"), ("hours", "u2"), ("closings", "u2"), ("last", "u4"), ("beyond", "u4"), ("held_since", "u4"),
    ("over", "u2"), ("workload", "u1"), ("level", "u1"),
    ("now", "f4", (4,)), ("before", "f4", (4,)), ("record", "f4", (len(CHANNELS),)),
    ("fresh", "u1", (len(CHANNELS),)), ("waiting", "u1", (len(CHANNELS),)),
    ("since", "u4"), ("shown", "u4"), ("learnt", "u4"), ("hour", "u4"),
    ("usd", "f4"), ("usd_before", "f4"), ("interval", "u4"), ("held", "f4"), ("spent", "f4"),
    ("jump", "f4"), ("peak_at", "u4"), ("peak", "u1", (4,)), ("streak", "u1"),
], align=True)  # fmt: skip
"""Moments are seconds since 1970. `since` and `last` are of the excursion at hand, `over` its calls beyond what is
usual, `spent` what it cost (USD), `beyond` when it last was a spike, `level` the gravest that was shown of it.
`fresh` and `waiting` are codes of the greatest sums that are not learnt yet: those since `held_since`, and those of
the time before. `jump` is the greatest factor by which a record was broken without a spike, `peak` (in `PEAK_UNITS`
above 1) and `peak_at` are of a spike that is still to be let in."""

QUIET = 90
"""Seconds without an excess after which an excursion is over."""
MOST = 60_000
"""That is counted."""
DAY = 86_400


class Limits(NamedTuple):
    """What a spike is. `ratio` is per workload class. `least` is what a record is taken for at least, as a sum over the
    span: by hours of history (the last entry holds from there on), class and channel. Times in seconds, `fading` per
    second."""

    ratio: Floats
    least: Floats
    unusual: float
    settled: float
    usual_jump: float
    calls: float
    large_calls: float
    extreme: Floats
    sustained: float
    least_usd: float
    throttled_usd: float
    per_token: float
    cheap: float
    cheap_throttled: float
    excursion: float
    fading: float
    adapt: float
    learn_after: float
    again: float


def least_of(ratio: Floats, floor: Floats, cold: Floats, warm_hours: int) -> Floats:
    """The `least` of limits. `floor` and `cold` are a minute's, class by metric: on a log scale it goes from the cold
    figure, which stands in for a record at first, to the floor, as hours of history come: twenty times nothing is
    still nothing."""
    last = floor[:, METRIC_OF] * _FLOOR_MINUTES[SPAN_OF] / ratio[:, None]
    last[:, TENMIN_CHANNELS + REQUESTS] *= _FEWER
    first = np.maximum(cold[:, METRIC_OF] * _COLD_MINUTES[SPAN_OF] / ratio[:, None], last)
    share = np.linspace(1.0, 0.0, warm_hours + 1)[:, None, None] if warm_hours else np.zeros((1, 1, 1))
    least: Floats = last * (first / last) ** share
    return least


@compiled
def signed(moment: Any) -> Any:
    """A row's moment as a number that a later one can be taken from."""
    return np.int64(moment)


@compiled
def is_known(row: Row, limits: Limits) -> bool:
    """Whether its own history alone speaks for an identity."""
    return bool(row.hours >= len(limits.least) - 1)


@compiled
def youth(row: Row, limits: Limits) -> float:
    """By what factor the greatest of an identity's few hours falls short of what it will be once it is settled: the
    greatest of n times as many is about sqrt(n) times as much, where bursts have a heavy tail."""
    return math.sqrt(max(1.0, limits.settled / max(1.0, float(row.hours))))


@compiled
def least_for(row: Row, limits: Limits) -> Floats:
    """By channel, what its record is taken for at least."""
    least: Floats = limits.least[min(int(row.hours), len(limits.least) - 1), row.workload]
    return least


@compiled
def standard_of(row: Row, channel: int, least: Floats) -> float:
    """What a sum is measured against: the record, and never less than `least`."""
    record = max(row.record[channel], least[channel])
    # What was used in a short time was used in a longer one as well.
    if channel >= MINUTE_CHANNELS:
        record = max(record, row.record[METRIC_OF[channel]])
    if channel >= TENMIN_CHANNELS:
        record = max(record, row.record[MINUTE_CHANNELS + METRIC_OF[channel]])
    return float(record)


@compiled
def compare(row: Row, sums: Floats, first: int, last: int, limits: Limits) -> tuple[float, int, bool]:
    """The greatest ratio of a sum to its standard over some channels, its channel, and whether there is more to it
    than large prompts: calls or output that are unusual as well. Of large prompts alone only the money counts, where
    it is known: long contexts that are mostly cached are cheap."""
    best, channel, broad = 0.0, first, False
    dollars, paid, priced = 0.0, first, False
    least = least_for(row, limits)
    # Whose records are broken by much now and then must break them by more.
    wide = max(1.0, row.jump / limits.usual_jump)
    for c in range(first, last):
        metric = METRIC_OF[c]
        priced = priced or (metric == USD and sums[c] > 0.0)
        if sums[c] < limits.unusual * least[c]:
            continue
        ratio = sums[c] / (standard_of(row, c, least) * wide)
        if ratio > best:
            best, channel = ratio, c
        if metric == USD and ratio > dollars:
            dollars, paid = ratio, c
        if ratio >= limits.unusual and metric in (REQUESTS, OUTPUT):
            broad = True
    return (best, channel, True) if broad or not priced else (dollars, paid, False)


_LONGER = 2.0
"""Times as far beyond as the calls must be the output tokens, where answers are longer than ever."""


@compiled
def are_longer(row: Row, sums: Floats, limits: Limits) -> bool:
    """Whether the output of the first span is farther beyond its record than the calls are."""
    least = least_for(row, limits)
    calls = sums[REQUESTS] / standard_of(row, REQUESTS, least)
    return bool(sums[OUTPUT] >= _LONGER * max(calls, 1.0) * standard_of(row, OUTPUT, least))


@compiled
def excursion(row: Row, moment: int, offset: int) -> None:
    """Notes an excess at `moment`: it starts an excursion, or goes on with one."""
    if moment - signed(row.last) > QUIET:
        row.since = moment
        row.since_offset = offset
        row.streak = 0
        row.over = 0
        row.spent = 0.0
        row.level = 0
        row.usd_before = row.usd
    row.last = max(signed(row.last), moment)
