"""The compiled half of the failure detector."""

from typing import NamedTuple

import numpy as np

from detectors import others
from detectors.compiled import Row, State, compiled
from detectors.others import listen, speak
from detectors.ticks import TICK, WRAP, ticks_since
from schemas.batch import Codes, Flags, Floats, Hashes, Ints

_PROBES, _FAILING = 8, 8
ROW = np.dtype([
    *others.FIELDS, ("told_by", "u1"),
    ("since", "u4"), ("told", "u4"), ("last", "u4"),
    # Its own failures: evidence against its past, its past share, over how many calls, and how many failed lately.
    ("evidence", "f4"), ("share", "f4"), ("calls", "u2"), ("failures", "u2"),
    # The operation that fails most lately: how often, when last, and the mean gap; and the retries of all operations.
    ("operation", "u2"), ("session", "u2"), ("at", "u4"), ("attempts", "u1"), ("retries", "u1"), ("gap", "u2"),
    # Models that were tried in vain: the high ten bits are the model's, the low six the route's.
    ("began", "u4"), ("probes", "u2", (_PROBES,)), ("failing", "u1", (_FAILING,)),
], align=True)  # fmt: skip
"""Moments are ticks of 16 ms that wrap after two years, offsets wrap at 32 bits. `retries` are those beyond two for
each operation, and `failing` has tags of the operations that failed last, the latest first."""

STORM, PROBING, OWN, HAMMERING = 1, 2, 3, 4
LIMITED, BROKEN, REFUSED = 0, 1, 2
_MOST = 60_000
_MOST_ATTEMPTS = 255
_SIDE_BY_SIDE = 48
"""Milliseconds. What fails in the same moment was sent side by side: it is no answer to a failure."""
_EXCUSED = 2
"""Retries of an operation that any client makes."""
_PRIOR = 20.0
"""Calls that an identity without a past counts as having made."""


class Calls(NamedTuple):
    """Columns of a batch. `ill` is how a call failed: LIMITED, BROKEN, REFUSED, -1 for not at all. `attempt` and
    `operation` are of failed calls only, 0 where unknown."""

    row: Ints
    time: Ints
    returned: Flags
    skipped: Flags
    offset: Ints
    ill: Codes
    probe: Flags
    retry: Flags
    attempt: Ints
    operation: Hashes
    fingerprint: Hashes
    session: Hashes
    model: Hashes
    provider: Hashes
    route: Hashes


class Told(NamedTuple):
    """What the kernel tells: where, by which pattern, whether it blocks, whether others fail too, (how many, the
    usual, since which offset, over how many seconds), and the identity's state then."""

    at: Ints
    how: Codes
    blocks: Flags
    shared: Flags
    value: Floats
    state: State


class Limits(NamedTuple):
    """The policy's thresholds, in ms."""

    attempts: float
    gap: float
    retries: float
    unnamed_factor: float
    shared_factor: float
    quick_models: float
    quick: float
    models: float
    pairs: float
    window: float
    share: float
    burst_share: float
    evidence: float
    failures: float
    theirs_factor: float
    outage_identities: float
    outage_share: float
    again: float


@compiled
def _operation(calls: Calls, i: int) -> int:
    """What a failing call tries to do, 0 where nothing tells."""
    key = calls.fingerprint[i] if calls.fingerprint[i] != 0 else calls.operation[i]
    if key == 0:
        key = calls.session[i]
    return int(key >> np.uint64(48))


@compiled
def _attempt(row: Row, operation: int, session: int, tick: int, most_gap: float) -> bool:
    """Counts a failure of an operation; returns whether it is the one that fails most. Others of the identity that
    fail meanwhile take it back one by one."""
    gap = max(ticks_since(row.at, tick), 0)
    if gap * TICK > 4 * most_gap:
        row.attempts = 0
    if row.operation != operation and row.attempts > 1:
        row.attempts -= 1
        return False
    if row.operation != operation or row.attempts == 0:
        row.operation = operation
        row.session = session
        row.attempts = 1
        row.gap = 0
        row.at = tick
        return True
    if row.session != session:
        row.session = 0
    if gap * TICK < _SIDE_BY_SIDE:
        return True
    row.gap = gap if row.attempts == 1 else round(row.gap + (gap - row.gap) / 4)
    row.attempts = min(row.attempts + 1, _MOST_ATTEMPTS)
    row.at = tick
    return True


@compiled
def _tag(calls: Calls, i: int) -> int:
    """A tag of what a call tries to do, whoever else is at it meanwhile; 0 where nothing tells."""
    key = calls.fingerprint[i] if calls.fingerprint[i] != 0 else calls.operation[i]
    # A popular prompt may fail in many sessions at once.
    return 0 if key == 0 else max(int((key ^ calls.session[i]) & np.uint64(255)), 1)


@compiled
def _failed_lately(row: Row, tag: int) -> bool:
    for k in range(_FAILING):
        if row.failing[k] == tag:
            return tag != 0
    return False


@compiled
def _hammer(row: Row, tag: int, retry: bool, tick: int, most_gap: float) -> None:
    """Counts a failing retry that did not back off, of whichever operation. An operation that fails for the first time
    takes back what it excuses, a pause one for every two `most_gap` (ms)."""
    gap = max(ticks_since(row.last, tick), 0) * TICK
    row.retries -= min(int(gap / (2 * most_gap)), row.retries)
    again = _failed_lately(row, tag)
    if tag != 0 and not again:
        for k in range(_FAILING - 1, 0, -1):
            row.failing[k] = row.failing[k - 1]
        row.failing[0] = tag
    if not (again or retry):
        row.retries = max(np.int64(row.retries) - _EXCUSED, 0)
    elif gap <= most_gap and (retry or gap >= _SIDE_BY_SIDE):
        row.retries = min(row.retries + 1, _MOST_ATTEMPTS)


@compiled
def _pair(calls: Calls, i: int) -> int:
    """A model and a route, in 16 bits; never 0."""
    return max(int(calls.model[i] >> np.uint64(54)) << 6 | int(calls.route[i] >> np.uint64(58)), 1)


@compiled
def _probe(row: Row, pair: int, tick: int, window: float) -> tuple[int, int]:
    """Notes a model that was tried in vain; returns how many models and how many pairs there are."""
    if ticks_since(row.began, tick) * TICK > window or row.probes[0] == 0:
        row.probes[:] = 0
        row.began = tick
    models, pairs, known = 0, 0, False
    for k in range(_PROBES):
        if row.probes[k] == 0:
            if known:
                break
            row.probes[k] = pair
        known = known or row.probes[k] == pair
        pairs += 1
        first = True
        for j in range(k):
            first = first and row.probes[j] >> 6 != row.probes[k] >> 6
        models += 1 if first else 0
    return models, pairs


@compiled
def _works(row: Row, pair: int) -> None:
    """Forgets a model that was tried in vain: it answered."""
    for k in range(_PROBES):
        if row.probes[k] == pair:
            last = k
            while last + 1 < _PROBES and row.probes[last + 1] != 0:
                last += 1
            row.probes[k] = row.probes[last]
            row.probes[last] = 0
            return


@compiled
def _learn(row: Row, failed: bool, limits: Limits) -> None:
    """Weighs a call against the identity's past (a CUSUM of log-likelihood ratios), then adds it to the past."""
    usual = min(max(row.share, limits.share), 0.9)
    burst = max(limits.burst_share, min(2 * usual, 0.95))
    if failed:
        row.failures = min(row.failures + 1, _MOST)
        row.evidence += np.log(burst / usual)
    else:
        row.evidence = max(row.evidence + np.log((1 - burst) / (1 - usual)), 0.0)
        if row.evidence == 0.0:
            row.failures = 0
    row.share += ((1.0 if failed else 0.0) - row.share) / (_PRIOR + min(row.calls, 500))
    row.calls = min(row.calls + 1, _MOST)


@compiled
def judge(rows: State, voices: State, calls: Calls, limits: Limits, told: Told) -> int:
    """Follows each call in order; returns how many findings there are."""
    count = 0
    blank = np.zeros(1, ROW)
    for i in range(len(calls.row)):
        if calls.returned[i]:
            rows[calls.row[i]] = blank[0]
        if calls.skipped[i]:
            continue
        row = rows[calls.row[i]]
        t, ill = calls.time[i], calls.ill[i]
        tick = (t // TICK) % WRAP
        speak(voices, row, calls.provider[i], t, ill)
        if ill < 0:
            if row.probes[0] != 0:
                _works(row, _pair(calls, i))
            if row.attempts > 0 and calls.fingerprint[i] != 0 and row.operation == _operation(calls, i):
                row.attempts = 0
            if not calls.retry[i]:
                if row.retries > 0 and not _failed_lately(row, _tag(calls, i)):
                    row.retries -= 1
                _learn(row, False, limits)
            continue
        if ticks_since(row.last, tick) * TICK > limits.window or row.last == 0:
            # A new bout of failures.
            row.since = calls.offset[i] % WRAP
            row.told_by = 0
            row.told = 0
            row.failures = 0
            row.evidence = 0.0
            row.retries = 0
            row.failing[:] = 0
        others_fail, said_ill, said_well = listen(voices, row, calls.provider[i], ill)
        shared = others_fail >= limits.outage_identities and said_ill >= limits.outage_share * (said_ill + said_well)
        how, observed, usual, seconds, blocks = 0, 0.0, 0.0, 0.0, False
        operation = _operation(calls, i)
        session = int(calls.session[i] >> np.uint64(48))
        chained = operation != 0 and operation == row.operation and row.attempts > 0
        chained = chained and ((session != 0 and session == row.session) or calls.operation[i] != 0)
        known = operation != 0 or calls.retry[i]
        fails_most = known and _attempt(row, operation, session, tick, limits.gap)
        if ill != REFUSED:
            _hammer(row, _tag(calls, i), calls.retry[i], tick, limits.gap)
        row.last = tick
        if fails_most and row.attempts > 2 and row.gap * TICK <= limits.gap:
            # An attempt that the gateway counted tells of those before we looked.
            climbing = calls.attempt[i] >= limits.attempts / 2
            attempts = max(float(row.attempts), float(calls.attempt[i] + 1))
            # A popular prompt may fail in many sessions at once.
            factor = 1.0 if row.session != 0 or climbing else limits.unnamed_factor
            factor *= limits.shared_factor if shared else 1.0
            if attempts >= limits.attempts * factor:
                how, observed, usual, blocks = STORM, attempts, limits.attempts, not shared
                seconds = row.gap * TICK / 1000.0 * row.attempts
        if how == 0 and ill != REFUSED and row.retries >= limits.retries * (limits.shared_factor if shared else 1.0):
            # Whoever is the first to meet with an outage must wait until others can tell of it.
            lasts = ticks_since(row.told, tick) * TICK if row.told != 0 else -1
            waited = lasts >= others.SLOT
            if not waited and lasts > t % others.SLOT:
                # Those who spoke since then know already.
                ill_now, well_now = others.said_now(voices, row, calls.provider[i])
                waited = ill_now == 0 and well_now >= limits.outage_identities
            how, observed, usual, blocks = HAMMERING, float(row.retries), limits.retries, waited and not shared
        # A router that falls back from model to model tries one operation, and says so.
        if how == 0 and not shared and calls.probe[i] and not calls.retry[i] and not chained:
            models, pairs = _probe(row, _pair(calls, i), tick, limits.window)
            took = max(ticks_since(row.began, tick), 0) * TICK
            quick = took <= limits.quick and (models >= limits.quick_models or pairs >= limits.pairs)
            if quick or models >= limits.models:
                how, observed, usual, blocks, seconds = PROBING, float(max(models, 1)), 0.0, True, took / 1000.0
        if not calls.retry[i] and not shared:
            before = row.share
            _learn(row, True, limits)
            # Of what the provider may be to blame for, it takes more: others may not have told yet.
            factor = 1.0 if ill == REFUSED else limits.theirs_factor
            if how == 0 and row.evidence >= limits.evidence * factor and row.failures >= limits.failures * factor:
                how, observed, usual = OWN, float(row.failures), before
        level = 2 if blocks else 1
        if how == 0 or (level <= row.told_by and ticks_since(row.told, tick) * TICK < limits.again):
            continue
        row.told = tick
        row.told_by = max(level, row.told_by)
        told.at[count] = i
        told.how[count] = how
        told.blocks[count] = blocks
        told.shared[count] = shared
        told.value[count, 0] = observed
        told.value[count, 1] = usual
        told.value[count, 2] = calls.offset[i] - (calls.offset[i] - row.since) % WRAP
        told.value[count, 3] = seconds
        told.state[count] = row
        count += 1
    return count
