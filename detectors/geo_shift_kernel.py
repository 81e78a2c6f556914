"""What `geo_shift` keeps of an identity, and its pass over a batch."""

from typing import NamedTuple

import numpy as np

from detectors.compiled import Row, State, compiled
from detectors.places import (
    add_regular,
    apart,
    count_bits,
    count_country,
    mixed,
    name_of,
    others_are,
    share_of,
    to_cell,
    to_degrees,
)
from schemas.batch import Codes, Flags, Floats, Hashes, Ints

_PLACES = 5
_MOST_CALLS, _MOST_JUMPS, _MOST_KM = 65_535, 255, 65_535
ROW = np.dtype([
    ("first", "u4"), ("last", "u4"), ("calls", "u4"), ("visits", "f4"), ("agents", "u8"), ("offset", "i8"),
    ("told_at", "u4"), ("told_by", "u1"), ("here", "i1"), ("watched", "i1"),
    ("level", "u1", (_PLACES,)), ("news", "u1", (_PLACES,)), ("told", "u1", (_PLACES,)), ("jumps", "u1", (_PLACES,)),
    ("regular", "u1", (_PLACES,)), ("country", "u4", (_PLACES,)), ("asn", "u4", (_PLACES,)), ("seen", "u4", (_PLACES,)),
    ("since", "u4", (_PLACES,)), ("count", "u2", (_PLACES,)), ("latitude", "i2", (_PLACES,)),
    ("longitude", "i2", (_PLACES,)), ("accuracy", "u2", (_PLACES,)),
], align=True)  # fmt: skip
"""Times are in s, positions in hundredths of a degree, `accuracy` in km. `first`, `last`, `calls` and `visits` are of
places above suspicion, whose `level` is 0. `here` and `watched` are numbers of places plus one: where the last call
came from, and the suspect place whose first call is at `offset`. `agents` has a bit per client. What most calls need
comes first: memory is what a call costs."""
WEAK, PLACE, BUSY, TRAVEL, STILL, VOUCHED = 1, 2, 3, 4, 5, 6
"""What is told, and how much a place is suspected: `level`, `told`, `told_by`. `STILL` reminds of what was told. What
is `VOUCHED` is no strange place, but its client is strange: only travel is told of it."""
NEW_COUNTRY, NEW_NETWORK, NEW_CLIENT, RARE_CLIENT = 1, 2, 4, 8
"""Of `news`: what the identity had not seen before; `RARE_CLIENT` where it hardly ever has a client never seen."""
_SETTLED = 3600
"""Seconds after which a place above suspicion counts as one that the identity uses."""
_APART = 3600
"""Seconds after which going back and forth begins anew."""
_IN_FLIGHT = 30
"""Seconds in which calls under way may still come from both places though the identity has moved."""
_TOO_SOON = 60
"""Seconds between findings of the same weight."""
_AGAIN = 300
"""Seconds after which travel that goes on is told again."""


class Calls(NamedTuple):
    """Columns of a batch. `tenant` is a hash of the tenant's name."""

    row: Ints
    tenant: Hashes
    identity: Hashes
    time: Ints
    returned: Flags
    duplicate: Flags
    excluded: Flags
    retry: Flags
    offset: Ints
    country: Hashes
    asn: Ints
    agent: Hashes
    latitude: Floats
    longitude: Floats
    accuracy: Floats


class Told(NamedTuple):
    """What the kernel tells: where, how gravely, of which of the identity's places, and its state then."""

    at: Ints
    how: Codes
    place: Ints
    state: State


class Limits(NamedTuple):
    """The policy's thresholds; times in s."""

    enough: float
    visit: float
    common: float
    least: float
    weak: float
    far_km: float
    fast_kmh: float
    default_km: float
    factor: float
    alternations: float
    client_alternations: float
    trusted: float
    visits: float
    age: float
    client: float
    busy: float
    remind: float
    news: float


@compiled
def _suspicion(
    row: Row, calls: Calls, i: int, t: int, regular: State, countries: State, limits: Limits
) -> tuple[int, int]:
    """How much a place that is new to an identity is to be suspected, and what is new about it.

    An honest call comes from somewhere new with about (places so far) / (visits + 1), and then from this country with
    the country's share among all. A place under suspicion vouches for nothing; that a country is new is told once.
    """
    country, asn = name_of(calls.country[i]), calls.asn[i]
    new_country, new_network, places, lands, told = True, True, 0, 0, False
    for k in range(_PLACES):
        if row.count[k] == 0 or row.level[k] != 0:
            told = told or (row.count[k] != 0 and row.told[k] >= PLACE and row.country[k] == country)
            continue
        places += 1
        first_of_land = True
        for j in range(k):
            if row.count[j] != 0 and row.level[j] == 0 and row.country[j] == row.country[k]:
                first_of_land = False
        lands += 1 if first_of_land else 0
        new_country = new_country and row.country[k] != country
        new_network = new_network and row.asn[k] != asn
    news = (NEW_COUNTRY if new_country else 0) | (NEW_NETWORK if new_network else 0)
    if row.agents & (np.uint64(1) << (calls.agent[i] & np.uint64(63))) == 0:
        news |= NEW_CLIENT
    rare = count_bits(row.agents) / (row.visits + 1.0)
    seen_enough = row.visits >= limits.visits and t - row.first >= limits.age
    if news & NEW_CLIENT != 0 and rare <= limits.client and seen_enough:
        news |= RARE_CLIENT
    who, land = name_of(calls.identity[i]), mixed(calls.tenant[i], calls.country[i])
    if not (new_country or new_network) or places == 0:
        return 0, news
    elsewhere = new_country and new_network and news & RARE_CLIENT != 0
    if others_are(regular, mixed(land, np.uint64(asn)), who, t):
        # They vouch for the place, not for whoever is there with a client of his own while the identity is at work.
        return (VOUCHED if elsewhere else 0), news
    share = limits.common
    if new_country and new_network:
        places = lands
        if not others_are(regular, land, who, t):
            share = min(share, share_of(countries, calls.country[i]))
    chance = share * places / (row.visits + 1.0)
    strange = new_country and new_network and not told
    if news & NEW_CLIENT != 0:
        # Who changes the network and the client at once is somebody else, wherever he is; so is who changes the country
        # and the client: a network may well span countries.
        chance *= min(rare, 1.0)
        strange = strange or rare <= limits.client
    if strange and chance <= limits.least and seen_enough:
        return PLACE, news
    if chance <= limits.weak:
        return WEAK, news
    return (VOUCHED if elsewhere else 0), news


@compiled
def _room(row: Row) -> int:
    """Where a new place goes: an empty slot, else the suspect or else the known place that was seen longest ago, so
    that many new places at once do not push out where the identity always was."""
    worst = 0
    for k in range(_PLACES):
        if row.count[k] == 0:
            return k
        if (row.level[k] != 0, -np.int64(row.seen[k])) > (row.level[worst] != 0, -np.int64(row.seen[worst])):
            worst = k
    return worst


@compiled
def _enter(row: Row, at: int, calls: Calls, i: int, t: int, level: int, news: int, default_km: float) -> None:
    row.country[at] = name_of(calls.country[i])
    row.asn[at] = calls.asn[i]
    row.latitude[at] = to_cell(calls.latitude[i])
    row.longitude[at] = to_cell(calls.longitude[i])
    km = default_km if np.isnan(calls.accuracy[i]) else calls.accuracy[i]
    row.accuracy[at] = int(min(np.ceil(km), _MOST_KM))
    row.count[at] = 0
    row.level[at] = level
    row.news[at] = news
    row.told[at] = 0
    row.jumps[at] = 0
    row.regular[at] = 0
    row.since[at] = t
    row.seen[at] = t
    if level != 0:
        row.offset = calls.offset[i]
        row.watched = at + 1


@compiled
def _impossible(row: Row, here: int, there: int, t: int, limits: Limits) -> bool:
    """Whether nothing can travel between two places in the time since the first was seen."""
    km = apart(
        to_degrees(row.latitude[there]), to_degrees(row.longitude[there]),
        to_degrees(row.latitude[here]), to_degrees(row.longitude[here]),
    )  # fmt: skip
    km -= limits.factor * (np.float64(row.accuracy[there]) + np.float64(row.accuracy[here]))
    hours = max(abs(t - row.seen[here]), 1) / 3600.0
    return bool(km >= limits.far_km and km / hours >= limits.fast_kmh)


@compiled
def _settle(row: Row, at: int, calls: Calls, i: int, t: int, regular: State, countries: State) -> None:
    """Lets everybody know that the identity is regularly at a place."""
    who, land = name_of(calls.identity[i]), mixed(calls.tenant[i], calls.country[i])
    add_regular(regular, land, who, t)
    add_regular(regular, mixed(land, np.uint64(calls.asn[i])), who, t)
    if row.regular[at] == 0:
        there_already = False
        for k in range(_PLACES):
            if row.count[k] != 0 and row.regular[k] != 0 and row.country[k] == row.country[at]:
                there_already = True
        if not there_already:
            count_country(countries, calls.country[i])
        row.regular[at] = 1


@compiled
def _calls_abroad(row: Row, level: int, t: int, visit: float) -> int:
    """The calls of the last minutes from places so suspected: who changes networks at each call is told too."""
    calls = 0
    for k in range(_PLACES):
        if level <= row.level[k] <= PLACE and t - row.seen[k] <= visit:
            calls += row.count[k]
    return calls


@compiled
def _add_client(row: Row, client: np.uint64, t: int) -> None:
    """Learns a client that was never seen, where the identity always is. It may be the one of places under suspicion:
    who takes it along is one party."""
    row.agents |= client
    for k in range(_PLACES):
        if row.level[k] != 0 and t - row.seen[k] <= _APART:
            row.news[k] &= ~RARE_CLIENT & 255


@compiled
def _travels(row: Row, at: int, t: int, limits: Limits) -> bool:
    """Whether the jumps to and from a place under suspicion are those of two."""
    # Who has been there for an hour may as well have moved, and be seen by an old network now and then.
    needed = limits.alternations if t - row.since[at] <= _SETTLED else limits.alternations + 1
    if row.level[at] != PLACE:
        needed = limits.client_alternations if row.news[at] & RARE_CLIENT != 0 else np.inf
    return bool(row.jumps[at] >= needed)


@compiled
def _learn(row: Row, agent: np.uint64, t: int, visit: float) -> None:
    """Learns from a call from a place above suspicion."""
    if row.calls == 0:
        row.first = t
        row.visits = 1.0
    else:
        row.visits += min(max(t - row.last, 0) / visit, 1.0)
    row.last = max(row.last, t)
    row.calls += 1
    client = np.uint64(1) << (agent & np.uint64(63))
    if row.agents & client == 0:
        _add_client(row, client, t)


@compiled
def judge(rows: State, regular: State, countries: State, calls: Calls, limits: Limits, told: Told) -> int:
    """Judges, then learns, each call in turn; returns how many findings there are in `told`."""
    count = 0
    blank = np.zeros(1, ROW)
    for i in range(len(calls.row)):
        if calls.returned[i]:
            rows[calls.row[i]] = blank[0]
        if calls.duplicate[i] or calls.excluded[i] or calls.country[i] == 0 or calls.asn[i] < 0:
            continue
        row = rows[calls.row[i]]
        t = max(calls.time[i] // 1000, 0)
        country, asn, here = name_of(calls.country[i]), calls.asn[i], row.here - 1
        at = -1
        if here >= 0 and row.country[here] == country and row.asn[here] == asn:
            at = here
            # Nearly every call: it is where it always is.
            if row.level[at] == 0 and row.regular[at] != 0 and 0 <= t - row.seen[at] < _SETTLED:
                row.seen[at] = t
                _learn(row, calls.agent[i], t, limits.visit)
                continue
        else:
            for k in range(_PLACES):
                if row.count[k] != 0 and row.country[k] == country and row.asn[k] == asn:
                    at = k
        if at < 0:
            level, news = _suspicion(row, calls, i, t, regular, countries, limits)
            at = _room(row)
            if here == at:
                here = -1
            _enter(row, at, calls, i, t, level, news, limits.default_km)
        stayed = t - row.since[at]
        # What travels is not trusted for staying.
        if row.told[at] == TRAVEL:
            stayed = min(stayed, t - row.told_at)
        if row.level[at] != 0 and stayed >= limits.trusted:
            row.level[at] = 0
            row.told[at] = 0
            row.jumps[at] = 0
        known = row.level[at] == 0
        if known and stayed >= _SETTLED and (row.regular[at] == 0 or t - row.seen[at] >= _SETTLED):
            _settle(row, at, calls, i, t, regular, countries)
        jumped = here >= 0 and here != at and known != (row.level[here] == 0) and _impossible(row, here, at, t, limits)
        if jumped:
            suspect = here if known else at
            # Who is back after an hour has travelled, or its VPN is on again.
            if t - row.seen[suspect] > _APART:
                row.jumps[suspect] = 0
            if row.jumps[suspect] == 0 or t - row.since[suspect] >= _IN_FLIGHT:
                row.jumps[suspect] = min(row.jumps[suspect] + 1, _MOST_JUMPS)
        row.here = at + 1
        row.seen[at] = max(row.seen[at], t)
        if row.count[at] == 0 or not calls.retry[i]:
            row.count[at] = min(row.count[at] + 1, _MOST_CALLS)
        if known:
            _learn(row, calls.agent[i], t, limits.visit)
            # The owner's call may be the one that shows that there are two.
            if not jumped or row.told[here] == TRAVEL:
                continue
            at = here
        how, busy = 0, row.count[at] >= limits.busy
        if _travels(row, at, t, limits):
            how = TRAVEL
        elif known or row.level[at] == VOUCHED:
            continue
        elif row.level[at] == PLACE and row.news[at] & NEW_CLIENT != 0 and busy and t - row.since[at] <= _SETTLED:
            how = BUSY
        elif max(row.count[at], _calls_abroad(row, int(row.level[at]), t, limits.visit)) >= limits.enough:
            how = row.level[at]
        goes_on = how == TRAVEL and jumped and t - row.told_at >= _AGAIN
        if how <= row.told[at] and not goes_on:
            # Other evidence may come hours later: what comes with it from a strange place must not be forgotten.
            stays = row.told[at] > 0 and row.news[at] & NEW_CLIENT != 0 and row.count[at] % int(limits.busy) == 0
            if not stays or t - row.told_at < limits.remind or t - row.since[at] > limits.news:
                continue
            how = STILL
        if how <= row.told_by and 0 <= t - row.told_at < _TOO_SOON:
            continue
        row.told_at = t
        if how != STILL:
            row.told[at] = how
            row.told_by = how
        told.at[count] = i
        told.how[count] = how
        told.place[count] = at
        told.state[count] = row
        count += 1
    return count
