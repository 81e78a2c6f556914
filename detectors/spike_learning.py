"""How an identity's records of velocity are learnt.

What is under way is not learnt: a sum becomes a record after the policy's `learn_after_minutes` in which no spike
followed, so that the foot of a rise does not raise the record that its summit is held against; a spike is let in by a
factor e within `adapt_hours`, whether it lasts or is over.
"""

import math

import numpy as np

from detectors.buckets import BUCKET
from detectors.compiled import Row, compiled
from detectors.spike_records import (
    CHANNELS,
    DAY,
    METRIC_OF,
    MINUTE_CHANNELS,
    QUIET,
    TOKENS,
    Limits,
    is_known,
    least_for,
    signed,
    standard_of,
)
from schemas.batch import Floats

_STEP = 1.1
"""Factor between the sums of two codes."""
_SUM = _STEP ** np.arange(256.0)
_SUM[0] = 0.0
_UNIT = np.array([1.0, 1.0, 1e-6, 1.0])[METRIC_OF]
"""The sum of each code, in a channel's unit."""
_NEXT = _SUM * math.sqrt(_STEP)
"""From which on the next code is the nearer one."""
_PEAK_UNITS = 64
_LET_IN = math.e
"""By this factor at most a record rises, `adapt_hours` after an excursion."""
_NEW = 60
"""Seconds after which somebody new learns: little is known to hold a sum against."""


@compiled
def _hold(row: Row, channel: int, total: float) -> None:
    """Notes a sum that is to be learnt later."""
    if total > _NEXT[row.fresh[channel]] * _UNIT[channel]:
        code = int(math.log(total / _UNIT[channel]) / math.log(_STEP) + 0.5)
        row.fresh[channel] = max(int(row.fresh[channel]), min(code, 255))


@compiled
def _let_go(row: Row) -> None:
    """What was to be learnt belongs to a spike."""
    for c in range(len(CHANNELS)):
        row.fresh[c] = 0
        row.waiting[c] = 0


@compiled
def _learn_spike(row: Row, moment: int, least: Floats, limits: Limits) -> None:
    """Learns a slot of a spike: a little at once, its peak later."""
    steepest = math.exp(min(moment - signed(row.slot) * (BUCKET // 1000), QUIET) / limits.adapt)
    for c in range(MINUTE_CHANNELS):
        standard, total = standard_of(row, c, least), row.now[c] + row.before[c]
        above = int((min(total / standard, _LET_IN) - 1.0) * _PEAK_UNITS)
        row.peak[c] = max(int(row.peak[c]), above)
        row.record[c] = max(row.record[c], min(total, standard * steepest))
    if row.peak_at == 0:
        row.peak_at = moment
    _let_go(row)
    row.held_since = moment


@compiled
def _promote(row: Row, moment: int, since: int, limits: Limits) -> None:
    """Makes records of what was held long enough; `since` seconds went by since it was done last."""
    least, known = least_for(row, limits), is_known(row, limits)
    fade = 1.0 - limits.fading * min(since, DAY)
    let_in = row.peak_at > 0 and moment - signed(row.peak_at) >= limits.adapt
    row.jump *= fade
    for c in range(len(CHANNELS)):
        total = _SUM[row.waiting[c]] * _UNIT[c]
        # Long prompts alone are no sign of bursts.
        if known and total > row.record[c] and METRIC_OF[c] != TOKENS:
            row.jump = max(row.jump, total / standard_of(row, c, least))
        if let_in and c < MINUTE_CHANNELS and row.peak[c] > 0:
            row.record[c] = standard_of(row, c, least) * (1.0 + row.peak[c] / _PEAK_UNITS)
            row.peak[c] = 0
        row.record[c] = max(row.record[c] * fade, total)
        row.waiting[c] = row.fresh[c]
        row.fresh[c] = 0
    row.held_since = moment
    if let_in:
        row.peak_at = 0


@compiled
def _learn_short(row: Row, moment: int, limits: Limits) -> None:
    """Learns the slot at hand with the one before it; another begins at `moment`."""
    if moment - signed(row.beyond) <= QUIET:
        _learn_spike(row, moment, least_for(row, limits), limits)
        return
    after = limits.learn_after if is_known(row, limits) else _NEW
    since = moment - signed(row.held_since)
    if since >= after:
        _promote(row, moment, since, limits)
        if since >= 2.0 * after:
            _promote(row, moment, 0, limits)
    for c in range(MINUTE_CHANNELS):
        _hold(row, c, row.now[c] + row.before[c])


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
def learn_closed(row: Row, sums: Floats, inside: bool, since: int, limits: Limits) -> None:
    """Holds what closed, to raise the records later. A spike is let in slowly, so that what lasts becomes the new
    usual."""
    if not inside:
        for c in range(MINUTE_CHANNELS, len(CHANNELS)):
            _hold(row, c, sums[c])
        return
    least = least_for(row, limits)
    steepest = math.exp(min(since, QUIET) / limits.adapt)
    for c in range(MINUTE_CHANNELS, len(CHANNELS)):
        if sums[c] > row.record[c]:
            row.record[c] = max(row.record[c], min(sums[c], standard_of(row, c, least) * steepest))
