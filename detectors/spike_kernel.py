"""The compiled pass of the spike detector: which sums exceed an identity's records, and how gravely."""

from typing import NamedTuple

import numpy as np

from detectors.buckets import BUCKET
from detectors.compiled import Row, State, compiled
from detectors.excursions import BANK, expected, score_point
from detectors.spike_learning import add, learn_closed
from detectors.spike_records import (
    BANKED,
    DAY,
    MINUTE_CHANNELS,
    MOST,
    OUTPUT,
    QUIET,
    REQUESTS,
    ROW,
    TENMIN_CHANNELS,
    TOKENS,
    USD,
    Limits,
    are_longer,
    compare,
    excursion,
    is_known,
    least_for,
    signed,
    standard_of,
    youth,
)
from schemas.batch import Codes, Flags, Floats, Ints

WEAK, TOLD, HIGH, EXTREME = 1, 2, 3, 4
MODELLED_FROM = 10
"""Closed buckets from which on an identity is busy enough for a model of its own."""
_SAMPLE = 32
"""Closed buckets of one end that cohorts learn from; every so many of more, in turn."""
_TOLD_EVERY = 5
"""Seconds between two looks of the models at a spike that is no extreme."""
_SLOWEST = 1.5
"""Times `ratio`, from which on what lasts is extreme, however long it takes."""
_TENTHS = 10
"""Minutes in ten."""
_MOMENT = 30
"""Seconds that a rate of spending is taken over at least."""
_INTERVAL = 300
"""Seconds of a point of the bank's."""


class Calls(NamedTuple):
    """Columns of the batch's events; `minute` sums (n by 3)."""

    row: Ints
    time: Ints
    skip: Flags
    returned: Flags
    retry: Flags
    offset: Ints
    workload: Codes
    tokens: Floats
    cost: Floats
    output: Floats
    minute: Floats


class Closed(NamedTuple):
    """Closed buckets, and what the kernel says of each: its workload class, and whether the identity's model, and
    the cohort's, are to learn from it."""

    at: Ints
    row: Ints
    end: Ints
    calls: Ints
    sums: Floats
    minute: Floats
    tenmin: Floats
    workload: Codes
    own: Flags
    sample: Flags


class Candidates(NamedTuple):
    """In order: where, which closed bucket (-1: the event itself), how grave, the channel with the greatest ratio,
    that ratio, the sum, what the hour leads to expect in its place (tokens a minute), whether it has a history
    of its own, and its state then."""

    at: Ints
    closing: Ints
    level: Ints
    channel: Ints
    ratio: Floats
    total: Floats
    usual: Floats
    known: Flags
    state: State


@compiled
def _bank(row: Row, bank: Row, seasons: Row, limits: Limits) -> float:
    """Shows the bank the interval that ended; returns its score where the interval lies far above the last hours: that
    growth leaves its range is no spike."""
    # As much as the records have let in so far: the bank, too, learns an excess slowly.
    most = 5 * standard_of(row, MINUTE_CHANNELS, least_for(row, limits))
    seconds = signed(row.interval) * _INTERVAL
    usual = bank.average[0]
    score = score_point(bank, seasons, min(row.held, most), seconds, True)
    return score if row.held >= limits.unusual * usual else 0.0


@compiled
def _tell(
    found: Candidates, count: int, at: int, closing: int, level: int, channel: int, ratio: float, total: float,
    usual: float, row: Row, limits: Limits,
) -> int:  # fmt: skip
    found.at[count] = at
    found.closing[count] = closing
    found.level[count] = level
    found.channel[count] = channel
    found.ratio[count] = ratio
    found.total[count] = total
    found.usual[count] = usual
    found.known[count] = is_known(row, limits)
    found.state[count] = row
    return count + 1


_NEW = 2.0
"""Times as far beyond must be who is new: what stands in for a record knows nothing of him."""


@compiled
def _level(
    row: Row, ratio: float, channel: int, broad: bool, longer: bool, moment: int, minute: Floats, limits: Limits
) -> int:
    """How grave an excess is; `minute` holds the sums of the minute before, `longer` says that answers are longer than
    ever, too: an import has more calls of the same shape."""
    known, least, extreme = is_known(row, limits), limits.ratio[row.workload], limits.extreme[row.workload]
    if row.over < limits.calls:
        return 0
    # Somebody may well ask a few questions about one long document. The farther beyond, the fewer.
    large = limits.large_calls * (least / ratio if ratio >= extreme else 2.0)
    if ratio < least or (row.over < large and not broad):
        return WEAK if known else 0
    lasted = moment - signed(row.since)
    spend = minute[USD] if minute[USD] > 0.0 else minute[TOKENS] * limits.per_token
    spend *= 60 / min(max(lasted, _MOMENT), 60)
    # Nobody gets up for a burst that costs next to nothing, unless it is far beyond or goes on.
    if known and spend * ratio / least < limits.least_usd and lasted < limits.cheap * least / ratio:
        return WEAK
    if not known and (ratio < _NEW * least or (spend < 2 * limits.least_usd and lasted < limits.cheap)):
        return 0
    # Of somebody young more is told than blocked.
    young = youth(row, limits) if known else 1.0
    # What cost so much more than its dearest ten minutes is not looked at any longer.
    dearest = standard_of(row, TENMIN_CHANNELS + USD, least_for(row, limits))
    if row.spent >= young * least * dearest and (known or ratio >= extreme):
        return EXTREME
    # The farther beyond, the sooner; but not what is measured against others.
    if ratio < young * max(extreme * min(1.0, limits.cheap / max(lasted, 1)), _SLOWEST * least):
        return TOLD
    # Nor for one that is somewhat farther beyond. Over ten minutes whatever lasts is far beyond.
    far = max(1.0, ratio / extreme) if known and channel < TENMIN_CHANNELS else 1.0
    if spend * far < limits.throttled_usd and lasted < (limits.cheap if longer else limits.cheap_throttled):
        return TOLD
    if not known:
        return EXTREME if lasted >= limits.cheap and ratio >= extreme else HIGH
    return EXTREME if lasted >= limits.sustained * max(0.25, extreme / ratio) else HIGH


@compiled
def _goes_on(row: Row, channel: int, minute: Floats, limits: Limits) -> bool:
    """Whether an excess over ten minutes is one of the last minute, too; `minute` holds its sums."""
    if channel < TENMIN_CHANNELS:
        return True
    standard = standard_of(row, channel, least_for(row, limits))
    return bool(minute[channel - TENMIN_CHANNELS] * _TENTHS >= limits.unusual * standard)


@compiled
def _shown(row: Row, level: int, moment: int, limits: Limits) -> bool:
    """Whether an excess is to be looked at: it became graver, or was not looked at for a while."""
    # The models may find a spike usual now, and not so in a moment.
    every = _TOLD_EVERY if level == TOLD else limits.again
    if level == 0 or (level <= row.level and moment - signed(row.shown) < every):
        return False
    row.shown = moment
    row.level = max(row.level, level)
    return True


@compiled
def _sample(closed: Closed) -> None:
    """Chooses the closed buckets that cohorts learn from: `_SAMPLE` or so of each end."""
    first = 0
    for k in range(1, len(closed.end) + 1):
        if k == len(closed.end) or closed.end[k] != closed.end[first]:
            stride = (k - first) // _SAMPLE + 1
            turn = (closed.end[first] // BUCKET) % stride
            for j in range(first, k):
                closed.sample[j] = (j - first) % stride == turn
            first = k


@compiled
def judge(
    rows: State, banks: State, seasons: State, calls: Calls, closed: Closed, limits: Limits, found: Candidates
) -> int:
    """Scores, then learns, closed buckets and events in their order; returns how many candidates it `found`."""
    count, k, n = 0, 0, len(calls.row)
    _sample(closed)
    sums = np.zeros(BANKED)
    amounts = np.zeros(4)
    blank, blank_bank = np.zeros(1, ROW), np.zeros(1, BANK)
    for i in range(n + 1):
        while k < len(closed.row) and closed.at[k] == i:
            if closed.calls[k] == 0:
                # Refused calls are no history: neither hours nor zeros to be measured against.
                closed.sample[k] = False
                k += 1
                continue
            row = rows[closed.row[k]]
            end, offset = closed.end[k] // 1000, calls.offset[i] if i < n else -1
            for m in range(3):
                sums[MINUTE_CHANNELS + m] = closed.minute[k, m]
                sums[TENMIN_CHANNELS + m] = closed.tenmin[k, m]
            ratio, channel, broad = compare(row, sums, MINUTE_CHANNELS, BANKED, limits)
            since = min(end - signed(row.learnt), DAY) if row.learnt > 0 else 0
            row.learnt = max(signed(row.learnt), end)
            row.closings = min(int(row.closings) + 1, MOST)
            if row.hour != end // 3600:
                row.hour = end // 3600
                row.hours = min(int(row.hours) + 1, MOST)
            excess = ratio >= limits.ratio[row.workload]
            inside = excess or end - signed(row.beyond) <= QUIET
            interval = (end - 1) // _INTERVAL
            if interval > row.interval:
                if row.interval > 0:
                    bank, profile = banks[closed.row[k]], seasons[row.workload]
                    score = _bank(row, bank, profile, limits)
                    # What is long over, or was told as a spike, is no news.
                    news = interval - signed(row.interval) == 1 and row.beyond < signed(row.interval) * _INTERVAL
                    if news and score >= limits.excursion:
                        usual = expected(bank, profile, signed(row.interval) * _INTERVAL) / 5
                        count = _tell(found, count, i, k, WEAK, BANKED, score, row.held, usual, row, limits)
                row.interval = interval
                row.held = 0.0
            row.held += closed.sums[k, TOKENS]
            learn_closed(row, sums, inside, since, limits)
            if not inside:
                row.usd += (closed.minute[k, USD] - row.usd) * max(0.02, 1.0 / row.closings)
            closed.workload[k] = row.workload
            # Nor do the models learn what is about to be judged.
            calm = not inside and end - signed(row.last) > QUIET
            closed.own[k] = calm and row.closings >= MODELLED_FROM
            closed.sample[k] = closed.sample[k] and calm
            if excess:
                excursion(row, end - BUCKET // 1000, offset)
                row.beyond = max(signed(row.beyond), end)
                row.streak = min(row.streak + 1, 100)
                # One bucket has little power; two in a row have it.
                level = _level(row, ratio, channel, broad, False, signed(row.last), closed.minute[k], limits)
                # What is over is no news for the rest of ten minutes.
                level = level if _goes_on(row, channel, closed.minute[k], limits) else 0
                if row.streak >= 2 and _shown(row, level, end, limits):
                    bank, profile = banks[closed.row[k]], seasons[row.workload]
                    usual = expected(bank, profile, end - 1) / 5
                    count = _tell(found, count, i, k, level, channel, ratio, sums[channel], usual, row, limits)
            else:
                row.streak = 0
            k += 1
        if i < n and calls.returned[i]:
            rows[calls.row[i]] = blank[0]
            banks[calls.row[i]] = blank_bank[0]
        if i == n or calls.skip[i]:
            continue
        row = rows[calls.row[i]]
        row.workload = calls.workload[i]
        moment = calls.time[i] // 1000
        amounts[TOKENS] = calls.tokens[i]
        amounts[REQUESTS] = 0.0 if calls.retry[i] else 1.0
        amounts[USD] = calls.cost[i]
        amounts[OUTPUT] = calls.output[i]
        add(row, moment, amounts, limits)
        for m in range(4):
            sums[m] = row.now[m] + row.before[m]
        for m in range(3):
            sums[MINUTE_CHANNELS + m] = calls.minute[i, m]
        ratio, channel, broad = compare(row, sums, 0, TENMIN_CHANNELS, limits)
        if ratio < limits.unusual:
            continue
        excursion(row, moment, calls.offset[i])
        row.spent += calls.cost[i] if calls.cost[i] > 0.0 else calls.tokens[i] * limits.per_token
        row.over = min(int(row.over) + 1, MOST)
        longer = are_longer(row, sums, limits)
        level = _level(row, ratio, channel, broad, longer, moment, calls.minute[i], limits)
        if ratio >= limits.ratio[row.workload] and row.over >= limits.calls:
            row.beyond = max(signed(row.beyond), moment)
        if _shown(row, level, moment, limits):
            bank, profile = banks[calls.row[i]], seasons[row.workload]
            usual = expected(bank, profile, moment) / 5
            count = _tell(found, count, i, -1, level, channel, ratio, sums[channel], usual, row, limits)
    return count
