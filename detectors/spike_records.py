"""An identity's records of velocity: what its sums are measured against, and how they are learnt.

Three spans: the ten-second slot of a call with the one before it, the last minute, and ten minutes. A *record* is the
greatest sum that a span ever had. What is under way is not learnt: a short sum becomes a record after a minute in
which no spike followed; a spike is let in by a factor e within the policy's `adapt_hours`, whether it lasts or is over.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from detectors.buckets import BUCKET
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
_SPAN = np.array([span for span, _ in CHANNELS])
_METRIC = np.array([metric for _, metric in CHANNELS])
_FLOOR_MINUTES = np.array([0.5, 1.0, 10.0])
"""Minutes of a minute's floor that a span's floor has: short spans are burstier."""
_COLD_MINUTES = np.array([1.0, 1.0, 10.0])
"""Likewise of a minute's cold figure: of somebody new even a minute's worth at once is let pass."""
MINUTE_CHANNELS = 4
TENMIN_CHANNELS = 7

# What every call touches comes first.
ROW = np.dtype([
    ("since_offset", "i8"),
    ("slot", "u4"), ("hours", "u2"), ("closings", "u2"), ("last", "u4"), ("beyond", "u4"), ("pending_since", "u4"),
    ("over", "u2"), ("workload", "u1"), ("level", "u1"),
    ("now", "f4", (4,)), ("before", "f4", (4,)), ("record", "f4", (len(CHANNELS),)), ("pending", "f4", (4,)),
    ("since", "u4"), ("shown", "u4"), ("learnt", "u4"), ("hour", "u4"),
    ("usd", "f4"), ("usd_before", "f4"), ("interval", "u4"), ("held", "f4"),
    ("jump", "f4"), ("peak_at", "u4"), ("peak", "u1", (4,)), ("streak", "u1"),
], align=True)  # fmt: skip
"""Moments are seconds since 1970. `since` and `last` are of the excursion at hand, `over` its calls beyond what is
usual, `beyond` when it last was a spike, `level` the gravest that was shown of it. `jump` is the greatest factor by
which a record was broken without a spike, `peak` (in `_PEAK_UNITS` above 1) and `peak_at` are of a spike that is still
to be let in."""

QUIET = 90
"""Seconds without an excess after which an excursion is over."""
_STEEPEST = 0.4
"""Of the record, by which it may rise in a minute, closed bucket by closed bucket: about half in all."""
_PEAK_UNITS = 64
_LET_IN = math.e
"""By this factor at most a record rises, `adapt_hours` after an excursion."""
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
    usual_jump: float
    calls: float
    large_calls: float
    extreme: Floats
    sustained: float
    excursion: float
    fading: float
    adapt: float
    again: float


def least_of(ratio: Floats, floor: Floats, cold: Floats, warm_hours: int) -> Floats:
    """The `least` of limits. `floor` and `cold` are a minute's, class by metric: on a log scale it goes from the cold
    figure, which stands in for a record at first, to the floor, as hours of history come: twenty times nothing is
    still nothing."""
    last = floor[:, _METRIC] * _FLOOR_MINUTES[_SPAN] / ratio[:, None]
    first = np.maximum(cold[:, _METRIC] * _COLD_MINUTES[_SPAN] / ratio[:, None], last)
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
        record = max(record, row.record[_METRIC[channel]])
    if channel >= TENMIN_CHANNELS:
        record = max(record, row.record[MINUTE_CHANNELS + _METRIC[channel]])
    return float(record)


@compiled
def compare(row: Row, sums: Floats, first: int, last: int, limits: Limits) -> tuple[float, int, bool]:
    """The greatest ratio of a sum to its standard over some channels, its channel, and whether there is more to it
    than large prompts: calls or output that are unusual as well."""
    best, channel, broad = 0.0, first, False
    least = least_for(row, limits)
    # Whose records are broken by much now and then must break them by more.
    wide = max(1.0, row.jump / limits.usual_jump)
    for c in range(first, last):
        if sums[c] < limits.unusual * least[c]:
            continue
        ratio = sums[c] / (standard_of(row, c, least) * wide)
        if ratio > best:
            best, channel = ratio, c
        if ratio >= limits.unusual and (_METRIC[c] == REQUESTS or _METRIC[c] == OUTPUT):
            broad = True
    return best, channel, broad


@compiled
def _learn_spike(row: Row, moment: int, least: Floats, limits: Limits) -> None:
    """Learns a slot of a spike: a little at once, its peak later."""
    steepest = math.exp(min(moment - signed(row.slot) * (BUCKET // 1000), QUIET) / limits.adapt)
    for c in range(MINUTE_CHANNELS):
        standard, total = standard_of(row, c, least), row.now[c] + row.before[c]
        above = int((min(total / standard, _LET_IN) - 1.0) * _PEAK_UNITS)
        row.peak[c] = max(int(row.peak[c]), above)
        row.record[c] = max(row.record[c], min(total, standard * steepest))
        row.pending[c] = 0.0
    if row.peak_at == 0:
        row.peak_at = moment
    row.pending_since = moment


@compiled
def _learn_short(row: Row, moment: int, limits: Limits) -> None:
    """Learns the slot at hand with the one before it; another begins at `moment`."""
    least = least_for(row, limits)
    if moment - signed(row.beyond) <= QUIET:
        _learn_spike(row, moment, least, limits)
        return
    since = moment - signed(row.pending_since)
    if since < 60:
        for c in range(MINUTE_CHANNELS):
            row.pending[c] = max(row.pending[c], row.now[c] + row.before[c])
        return
    fade = 1.0 - limits.fading * min(since, DAY)
    let_in = row.peak_at > 0 and moment - signed(row.peak_at) >= limits.adapt
    known = is_known(row, limits)
    row.jump *= fade
    for c in range(MINUTE_CHANNELS):
        if known and row.pending[c] > row.record[c]:
            row.jump = max(row.jump, row.pending[c] / standard_of(row, c, least))
        if let_in and row.peak[c] > 0:
            row.record[c] = standard_of(row, c, least) * (1.0 + row.peak[c] / _PEAK_UNITS)
            row.peak[c] = 0
        row.record[c] = max(row.record[c] * fade, row.pending[c])
        row.pending[c] = row.now[c] + row.before[c]
    row.pending_since = moment
    if let_in:
        row.peak_at = 0


@compiled
def add(row: Row, moment: int, amounts: Floats, limits: Limits) -> None:
    """Adds a call to its ten-second slot."""
    slot = moment // (BUCKET // 1000)
    ahead = slot - signed(row.slot)
    if ahead > 0:
        if row.slot > 0:
            _learn_short(row, moment, limits)
        for m in range(4):
            row.before[m] = row.now[m] if ahead == 1 else 0.0
            row.now[m] = 0.0
        row.slot = slot
    for m in range(4):
        if ahead >= 0:
            row.now[m] += amounts[m]
        elif ahead == -1:
            row.before[m] += amounts[m]


@compiled
def excursion(row: Row, moment: int, offset: int) -> None:
    """Notes an excess at `moment`: it starts an excursion, or goes on with one."""
    if moment - signed(row.last) > QUIET:
        row.since = moment
        row.since_offset = offset
        row.streak = 0
        row.over = 0
        row.level = 0
        row.usd_before = row.usd
    row.last = max(signed(row.last), moment)


@compiled
def learn_closed(row: Row, sums: Floats, inside: bool, since: int, limits: Limits) -> None:
    """Raises the records to what closed. An excess is let in slowly, so that what lasts becomes the new usual; and
    the foot of a steep rise must not raise the record that its summit is held against."""
    least = least_for(row, limits)
    fade = 1.0 if inside else 1.0 - limits.fading * since
    steepest = math.exp(min(since, QUIET) / limits.adapt) if inside else 1.0 + _STEEPEST * min(since, 60) / 60
    for c in range(MINUTE_CHANNELS, len(_SPAN)):
        row.record[c] *= fade
        if sums[c] > row.record[c]:
            row.record[c] = max(row.record[c], min(sums[c], standard_of(row, c, least) * steepest))
