"""What `model_shift` computes for every call: each identity's mix of models, and which of a tenant use them."""

import math
from typing import NamedTuple

import numpy as np

from detectors.compiled import Row, State, compiled
from detectors.model_users import change_users, vouched
from detectors.seconds import seconds_of
from schemas.batch import Codes, Flags, Floats, Hashes, Ints

MODELS = 5
ROW = np.dtype([
    ("told", "u4"), ("at", "u4"), ("began", "u4"), ("fresh", "f4"), ("record", "f4"), ("peak", "f4"),
    ("model", "u4", (MODELS,)), ("calls", "u2"), ("hours", "u2"), ("usual", "u2", (MODELS,)),
    ("recent", "u2", (MODELS,)), ("price", "u2", (MODELS,)), ("session", "u1"), ("suspects", "u1"),
], align=True)  # fmt: skip
"""`told` and `at` (its last call) are seconds since 1970. `fresh` is a fading count of calls of dear models that it
never used, `began` when the first of them came, and `session` 8 bits of a hash of the session that they all are of, 0
where there is none. `record` is the greatest ratio of its recent mix's price to its usual mix's in the hours before,
`peak` in this one. `calls` and distinct `hours` of its history. By model: a hash, its shares of the `usual` and the
`recent` calls, and the `price` that the identity's own calls told, coded. Of a suspect (a bit each) `usual` is the hour
of its first call: hours since 1970, their lowest 16 bits. The highest two bits of `suspects` say how grave it was when
it was last told."""
LOW, MEDIUM = 1, 2
NEVER_USED, MIX = 1, 2
_WHOLE = 65535
"""A share of 1."""
_CROWDED = np.uint8(1 << MODELS)
"""Set among the suspects' bits once the identity had more models than fit, other than in a burst of new ones: none is
news any more."""
_GRAVITY = 6
"""The lowest of the bits of `suspects` that say how grave."""
_OUTPUT = 5.0
"""Input tokens that one output token costs: vendors ask 3 to 8."""
_RECENT = 1.0 / 16
"""Of a call, in the recent mix and in a model's price."""
_CODES, _CHEAPEST = 700.0, -46.0
"""A price is coded by its logarithm (of USD per token): so many codes a unit, from this on; 0 is no price."""
_BURST_HOURS = 2
"""New models that give way to one another within so many hours are one burst."""


class Calls(NamedTuple):
    """The columns of a batch's calls; `skip` those that are no use of a model."""

    row: Ints
    time: Ints
    returned: Flags
    skip: Flags
    model: Hashes
    session: Hashes
    input: Floats
    output: Floats
    cost: Floats


class Told(NamedTuple):
    """What the kernel tells: where, by which pattern, how grave, (recent price, usual price, share of the recent
    spend, share of the recent calls), prices in USD per token, and the identity's state then."""

    at: Ints
    how: Codes
    gravity: Codes
    value: Floats
    state: State


class Limits(NamedTuple):
    """The policy's; times in seconds, `trusted` and `memory` in hours."""

    first_calls: float
    first_hours: float
    warm_calls: float
    warm_hours: float
    dear: float
    hint: float
    alert: float
    session: float
    calls_share: float
    spend_share: float
    mix: float
    mix_share: float
    record: float
    half_life: float
    trusted: float
    memory: float
    vouching: float
    vouching_share: float
    again: float
    adapt: float


@compiled
def judge(rows: State, tenant: Ints, users: State, calls: Calls, limits: Limits, told: Told) -> int:
    """Scores, then learns, every call; returns how many are told."""
    count = 0
    blank = np.zeros(1, ROW)
    value = np.zeros(4)
    for i in range(len(calls.row)):
        row = rows[calls.row[i]]
        of = tenant[calls.row[i]]
        if calls.returned[i]:
            _leave(row, of, users)
            rows[calls.row[i]] = blank[0]
        if calls.skip[i]:
            continue
        now = seconds_of(calls.time[i])
        key = _short(calls.model[i])
        if _gravity(row) > 0 and now - float(row.told) >= limits.adapt:
            _grade(row, 0)
        # A late call is of the latest hour too.
        hour = np.uint16((max(now, int(row.at)) // 3600) & 0xFFFF)
        if now // 3600 > row.at // 3600:
            _fold(row, limits)
        at = _find(row, key)
        if at < 0:
            at = _admit(row, key, hour, of, users, limits)
        suspect = _is_suspect(row, at)
        if suspect and np.uint16(hour - row.usual[at]) >= limits.trusted:
            _trust(row, at)
            suspect = False
        _count(row, at)
        _learn_price(row, at, calls.input[i], calls.output[i], calls.cost[i])
        row.fresh *= 0.5 ** (max(now - float(row.at), 0.0) / limits.half_life)
        row.at = max(row.at, now)
        if not suspect:
            row.calls += 1 if row.calls < _WHOLE else 0
        how, gravity = 0, 0
        if suspect:
            gravity = _never_used(row, at, now, calls.session[i], of, users, limits, value)
            how = NEVER_USED
        elif _is_warm(row, limits):
            gravity = _of_mix(row, at, limits, value)
            how = MIX
        if gravity == 0:
            continue
        if gravity <= _gravity(row) and (gravity == LOW or now - float(row.told) < limits.again):
            continue
        if how == MIX:
            # What lasts becomes the record, a step at each telling.
            row.record += (row.peak - row.record) * min(1.0, limits.again / limits.adapt)
        row.told = now
        _grade(row, gravity)
        told.at[count] = i
        told.how[count] = how
        told.gravity[count] = gravity
        told.value[count, :] = value
        told.state[count] = row
        count += 1
    return count


@compiled
def count_users(rows: State, tenant: Ints, users: State) -> None:
    """Fills the blank table `users` from the rows."""
    for i in range(len(tenant)):
        row = rows[i]
        for k in range(MODELS):
            if row.model[k] != 0:
                change_users(users, tenant[i], row.model[k], 1)
        if _knows_any(row):
            change_users(users, tenant[i], np.uint32(0), 1)


# -- one identity's models --------------------------------------------------------------------------------------------


@compiled
def _short(model: np.uint64) -> np.uint32:
    """32 bits of a model's hash, never 0."""
    return np.uint32(max((model ^ (model >> np.uint64(32))) & np.uint64(0xFFFFFFFF), np.uint64(1)))


@compiled
def _gravity(row: Row) -> int:
    return int(row.suspects >> _GRAVITY)


@compiled
def _grade(row: Row, gravity: int) -> None:
    row.suspects = np.uint8((row.suspects & ((1 << _GRAVITY) - 1)) | (gravity << _GRAVITY))


@compiled
def _is_suspect(row: Row, k: int) -> bool:
    return bool((row.suspects >> k) & 1)


@compiled
def _find(row: Row, key: np.uint32) -> int:
    for k in range(MODELS):
        if row.model[k] == key:
            return k
    return -1


@compiled
def _knows_any(row: Row) -> bool:
    taken = False
    for k in range(MODELS):
        taken = taken or row.model[k] != 0
    return taken


@compiled
def _enter(row: Row, at: int, key: np.uint32, tenant: int, users: State) -> None:
    """Puts a model into an empty place of the row."""
    if not _knows_any(row):
        change_users(users, tenant, np.uint32(0), 1)
    change_users(users, tenant, key, 1)
    row.model[at] = key
    row.recent[at] = 0
    row.price[at] = 0


@compiled
def _remove(row: Row, at: int, tenant: int, users: State) -> None:
    change_users(users, tenant, row.model[at], -1)
    row.model[at] = 0
    if not _knows_any(row):
        change_users(users, tenant, np.uint32(0), -1)


@compiled
def _leave(row: Row, tenant: int, users: State) -> None:
    for k in range(MODELS):
        if row.model[k] != 0:
            _remove(row, k, tenant, users)


@compiled
def _admit(row: Row, key: np.uint32, hour: np.uint16, tenant: int, users: State, limits: Limits) -> int:
    """Makes room for a model: in an empty place, else in that of the suspect or else the own model used least, so that
    many new models do not push out the usual ones. It is a suspect, unless the identity is quite new itself."""
    at, least = 0, 1 << 30
    for k in range(MODELS):
        weight = -1
        if row.model[k] != 0:
            weight = int(row.recent[k]) if _is_suspect(row, k) else int(row.recent[k]) + int(row.usual[k]) + (1 << 20)
        if weight < least:
            at, least = k, weight
    if row.model[at] != 0:
        if not _is_suspect(row, at) or np.uint16(hour - row.usual[at]) >= _BURST_HOURS:
            row.suspects |= _CROWDED
        _remove(row, at, tenant, users)
    _enter(row, at, key, tenant, users)
    if row.calls < limits.first_calls or row.hours < limits.first_hours:
        row.usual[at] = 0
        row.suspects &= np.uint8(~(1 << at) & 0xFF)
    else:
        row.usual[at] = hour
        row.suspects |= np.uint8(1 << at)
    return at


@compiled
def _trust(row: Row, at: int) -> None:
    """A suspect that lasted is the identity's own, with the share that it has by now."""
    share = row.recent[at] / _WHOLE
    for k in range(MODELS):
        if row.model[k] != 0 and not _is_suspect(row, k):
            row.usual[k] = round(row.usual[k] * (1.0 - share))
    row.usual[at] = row.recent[at]
    row.suspects &= np.uint8(~(1 << at) & 0xFF)


@compiled
def _count(row: Row, at: int) -> None:
    """Counts a call into the recent mix."""
    for k in range(MODELS):
        row.recent[k] = int(row.recent[k] * (1.0 - _RECENT))
    row.recent[at] += int(_WHOLE * _RECENT)


@compiled
def _price(row: Row, k: int) -> float:
    """USD per token; NaN where no call of the model had a cost."""
    return math.exp((row.price[k] - 1) / _CODES + _CHEAPEST) if row.price[k] > 0 else np.nan


@compiled
def _learn_price(row: Row, at: int, given_in: float, given_out: float, cost: float) -> None:
    tokens = (0.0 if np.isnan(given_in) else given_in) + _OUTPUT * (0.0 if np.isnan(given_out) else given_out)
    if tokens <= 0.0 or not cost > 0.0:
        return
    code = (math.log(cost) - math.log(tokens) - _CHEAPEST) * _CODES + 1.0
    code = min(max(code, 1.0), float(_WHOLE))
    before = float(row.price[at]) if row.price[at] > 0 else code
    row.price[at] = round(before + (code - before) * _RECENT)


@compiled
def _fold(row: Row, limits: Limits) -> None:
    """Once an hour with calls: the recent mix is learnt, each hour weighing the same however many calls it had."""
    if row.at > 0:
        total = 0.0
        for k in range(MODELS):
            if row.model[k] != 0 and not _is_suspect(row, k):
                total += row.recent[k]
        weight = 1.0 / max(min(float(row.hours), limits.memory), 1.0)
        for k in range(MODELS):
            if row.model[k] != 0 and not _is_suspect(row, k):
                share = row.recent[k] / total * _WHOLE if total > 0 else 0.0
                row.usual[k] = round(row.usual[k] + (share - row.usual[k]) * weight)
        row.record = max(1.0, row.record + (1.0 - row.record) / limits.memory)
        # What was told is no record yet: until it ends, or lasts.
        if _gravity(row) == 0:
            row.record = max(row.record, row.peak)
            row.peak = 0.0
    row.hours += 1 if row.hours < _WHOLE else 0


# -- what is told -----------------------------------------------------------------------------------------------------


@compiled
def _is_warm(row: Row, limits: Limits) -> bool:
    """Whether the history says what is usual: who has used many models in few hours may well use another one."""
    own = 0
    for k in range(MODELS):
        own += 1 if row.model[k] != 0 and not _is_suspect(row, k) else 0
    return bool(row.calls >= limits.warm_calls and row.hours >= limits.warm_hours * own)


@compiled
def _usual_price(row: Row) -> float:
    """Mean price of the identity's usual mix, over those of its models whose price is known; NaN where none is."""
    total, spend = 0.0, 0.0
    for k in range(MODELS):
        if row.model[k] != 0 and not _is_suspect(row, k) and row.usual[k] > 0:
            price = _price(row, k)
            if not np.isnan(price):
                total += row.usual[k]
                spend += row.usual[k] * price
    return spend / total if total > 0 else np.nan


@compiled
def _never_used(
    row: Row, at: int, now: int, session: np.uint64, tenant: int, users: State, limits: Limits, value: Floats
) -> int:
    """Judges a call of a suspect: whether it is dear, and how much of the recent calls and spend suspects are."""
    usual, price = _usual_price(row), _price(row, at)
    priced = not (np.isnan(usual) or np.isnan(price))
    if priced and price < limits.dear * usual:
        return 0
    named = 0 if session == 0 else max(1, int(session & np.uint64(255)))
    if row.fresh < 1.0:
        row.began = now
        row.session = named
    elif row.session != named:
        row.session = 0
    row.fresh += 1.0
    if row.fresh < limits.hint or (row.suspects & _CROWDED) != 0:
        return 0
    new_calls, new_spend, all_calls, all_spend = 0.0, 0.0, 0.0, 0.0
    for k in range(MODELS):
        of = _price(row, k) if row.recent[k] > 0 else 0.0
        all_calls += row.recent[k]
        all_spend += 0.0 if np.isnan(of) else row.recent[k] * of
        if _is_suspect(row, k) and row.model[k] != 0 and not (priced and of < limits.dear * usual):
            new_calls += row.recent[k]
            new_spend += 0.0 if np.isnan(of) else row.recent[k] * of
    value[0] = price if priced else 0.0
    value[1] = usual if priced else 0.0
    value[2] = new_spend / all_spend if priced and all_spend > 0 else 0.0
    value[3] = new_calls / all_calls if all_calls > 0 else 0.0
    # The recent mix forgets slowly: of few calls in a row it shows less than their share.
    if row.fresh < limits.alert or value[2] < limits.spend_share or value[3] < limits.calls_share:
        return LOW
    # A conversation is one choice of a model, however long it is.
    if row.session != 0 and row.fresh < limits.session:
        return LOW
    if not _is_warm(row, limits) or vouched(row.model[at], tenant, users, limits.vouching, limits.vouching_share):
        return LOW
    return MEDIUM


@compiled
def _of_mix(row: Row, at: int, limits: Limits, value: Floats) -> int:
    """Judges a call of one of its own models: whether the dear ones have taken over as they never did."""
    others = False
    for k in range(MODELS):
        others = others or (k != at and row.model[k] != 0 and not _is_suspect(row, k))
    if not others:
        return 0
    usual, price = _usual_price(row), _price(row, at)
    if not price > limits.dear * usual:
        return 0
    calls, spend, dear_calls, dear_spend = 0.0, 0.0, 0.0, 0.0
    for k in range(MODELS):
        if row.model[k] != 0 and not _is_suspect(row, k) and row.recent[k] > 0:
            of = _price(row, k)
            if not np.isnan(of):
                calls += row.recent[k]
                spend += row.recent[k] * of
                if of > limits.dear * usual:
                    dear_calls += row.recent[k]
                    dear_spend += row.recent[k] * of
    if spend <= 0:
        return 0
    value[0] = spend / calls
    value[1] = usual
    value[2] = dear_spend / spend
    value[3] = dear_calls / calls
    ratio = value[0] / usual
    row.peak = max(row.peak, ratio)
    if ratio < limits.mix or ratio < limits.record * row.record or value[3] < limits.mix_share:
        return 0
    return MEDIUM
