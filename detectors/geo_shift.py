"""Finds machines that are suddenly somewhere else."""

import math
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from detectors.compiled import Row, State, compiled
from detectors.identities import Rows
from detectors.view import Detector, Raised, View, amount, digest, short
from schemas.batch import Codes, Flags, Floats, Hashes, Ints
from schemas.bounds import Count, NotNegative, Positive, Some
from schemas.finding import Kind

_PLACES = 8
_EARTH_KM = 6371.0
_JUMPS = 30_000
"""Counted at the most."""
_ROW = np.dtype([
    ("calls", "i8"), ("first", "i8"), ("hours", "i4"), ("hour", "i4"), ("here", "i8"),
    ("country", "u8", (_PLACES,)), ("asn", "i8", (_PLACES,)), ("seen", "i8", (_PLACES,)), ("since", "i8", (_PLACES,)),
    ("offset", "i8", (_PLACES,)), ("latitude", "f4", (_PLACES,)), ("longitude", "f4", (_PLACES,)),
    ("accuracy", "f4", (_PLACES,)), ("count", "i4", (_PLACES,)), ("alternated", "i2", (_PLACES,)),
    ("suspect", "i1", (_PLACES,)), ("told", "i1", (_PLACES,)),
], align=True)  # fmt: skip
_NEW_PLACE, _TRAVEL = 1, 2


class _Calls(NamedTuple):
    row: Ints
    time: Ints
    returned: Flags
    duplicate: Flags
    excluded: Flags
    offset: Ints
    country: Hashes
    asn: Ints
    latitude: Floats
    longitude: Floats
    accuracy: Floats


class _Told(NamedTuple):
    """What the kernel tells: where, by which pattern, of which of the identity's places, and its state then."""

    at: Ints
    how: Codes
    place: Ints
    state: State


class _Limits(NamedTuple):
    warm_calls: float
    warm_hours: float
    enough: float
    far_km: float
    fast_kmh: float
    default_km: float
    factor: float
    alternations: float
    trusted: float


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[geo_shift]` of policy.toml."""

    warm_up_calls: Count
    warm_up_hours: Count
    calls_to_tell: Some
    travel_km: NotNegative
    travel_kmh: Positive
    default_accuracy_km: NotNegative
    accuracy_factor: NotNegative
    alternations: Some
    trusted_after_hours: NotNegative


class GeoShift(Detector):
    """A network and a country that the identity never called from, and travel that nothing can travel.

    What it detects:
        A *place* is a country and a network (AS number). Up to eight are learnt per identity. A place whose country
        and whose network are both new, with `calls_to_tell` calls from it, is told once, when the identity has a
        history of `warm_up_calls` calls in `warm_up_hours` distinct hours.

        *Impossible travel*: calls that go back and forth, `alternations` times, between a known and the new place
        faster than `travel_kmh`, over at least `travel_km` after `accuracy_factor` times both accuracy radii.

    Why it matters:
        A leaked key is used within minutes, from the thief's network. For machines the network tells first.

    False positives:
        Travel, an hour behind a VPN, a move to another cloud. Geography alone never revokes.

    Runbook:
        Ask the owner whether the network is theirs; else rotate the credential.
    """

    name = "geo_shift"
    kind: Kind = "geo_shift"
    version = 1

    def __init__(self, config: Config) -> None:
        self._config = config
        self.rows = Rows(_ROW)

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """One finding when a place is told, and one when travel proves impossible."""
        batch, c, n = view.batch, self._config, len(view.batch)
        calls = _Calls(
            view.row, view.ticked.time, view.velocities.returned, view.ticked.duplicate, batch.excluded, batch.offset,
            batch.country, batch.asn, batch.latitude, batch.longitude, batch.accuracy,
        )  # fmt: skip
        limits = _Limits(
            float(c.warm_up_calls), float(c.warm_up_hours), float(c.calls_to_tell), c.travel_km, c.travel_kmh,
            c.default_accuracy_km, c.accuracy_factor, float(c.alternations), c.trusted_after_hours * 3_600_000,
        )  # fmt: skip
        told = _Told(np.empty(n, np.int64), np.empty(n, np.int8), np.empty(n, np.int64), np.empty(n, _ROW))
        count = _judge(self.rows.reach(view.identities), calls, limits, told)
        return [self._raised(view, told, k) for k in range(count)]

    def _raised(self, view: View, told: _Told, k: int) -> Raised:
        at, place, row, travels = int(told.at[k]), int(told.place[k]), told.state[k], told.how[k] == _TRAVEL
        event = view.batch.events[at].data
        calls, jumps, history = int(row["count"][place]), int(row["alternated"][place]), int(row["calls"])
        days = max(0.0, (int(view.ticked.time[at]) - int(row["first"])) / 86_400_000)
        where = f"AS{event.asn} in {short(event.country)}"
        if travels:
            reason = (
                f"{jumps} jumps between {where} and its usual place, each faster than "
                f"{self._config.travel_kmh:g} km/h: two clients use this identity at once"
            )
        else:
            reason = (
                f"{calls} calls from {where}, a network and a country never seen "
                f"in {amount(history)} calls over {days:.1f} days"
            )
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(row["offset"][place]),
            severity="high" if travels else "medium",
            score=0.9 if travels else 0.6,
            window="history",
            observed=float(jumps if travels else calls),
            baseline=0.0,
            reason=reason,
            digest=digest(told.state[k : k + 1]),
            usd_per_minute=round(float(view.velocities.minute[at, 2]), 6),
            details={
                "country": event.country or "",
                "asn": -1 if event.asn is None else event.asn,
                "pattern": "travel" if travels else "place",
            },
        )


@compiled
def _apart(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Great-circle distance in km (haversine); NaN where a coordinate is unknown."""
    p, q = math.radians(lat_a), math.radians(lat_b)
    h = math.sin((q - p) / 2) ** 2 + math.cos(p) * math.cos(q) * math.sin(math.radians(lon_b - lon_a) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(math.sqrt(min(1.0, h)))


@compiled
def _place_of(row: Row, country: np.uint64, asn: int) -> tuple[int, bool]:
    """The number of a place among the identity's, -1 where it is new to it; whether its country and its network are
    both new. A place under suspicion vouches for nothing."""
    at, new_country, new_asn = -1, True, True
    for k in range(_PLACES):
        if row.count[k] == 0:
            continue
        if row.country[k] == country and row.asn[k] == asn:
            at = k
        if row.suspect[k] == 0:
            new_country = new_country and row.country[k] != country
            new_asn = new_asn and row.asn[k] != asn
    return at, new_country and new_asn


@compiled
def _room(row: Row) -> int:
    """Where a new place goes: an empty slot, else the suspect or else the known place that was seen longest ago, so
    that many new places at once do not push out where the identity always was."""
    worst = 0
    for k in range(_PLACES):
        if row.count[k] == 0:
            return k
        if (row.suspect[k], -row.seen[k]) > (row.suspect[worst], -row.seen[worst]):
            worst = k
    return worst


@compiled
def _enter(row: Row, at: int, calls: _Calls, i: int, t: int, suspect: bool, default_km: float) -> None:
    row.country[at] = calls.country[i]
    row.asn[at] = calls.asn[i]
    row.latitude[at] = calls.latitude[i]
    row.longitude[at] = calls.longitude[i]
    row.accuracy[at] = default_km if np.isnan(calls.accuracy[i]) else calls.accuracy[i]
    row.count[at] = 0
    row.alternated[at] = 0
    row.told[at] = 0
    row.since[at] = t
    row.seen[at] = t
    row.offset[at] = calls.offset[i]
    row.suspect[at] = 1 if suspect else 0


@compiled
def _impossible(row: Row, here: int, there: int, t: int, limits: _Limits) -> bool:
    """Whether nothing can travel between two places in the time since the first was seen."""
    km = _apart(row.latitude[there], row.longitude[there], row.latitude[here], row.longitude[here])
    km -= limits.factor * (row.accuracy[there] + row.accuracy[here])
    hours = max(abs(t - row.seen[here]), 1000) / 3_600_000.0
    return bool(km >= limits.far_km and km / hours >= limits.fast_kmh)


@compiled
def _count_jump(row: Row, place: int) -> None:
    row.alternated[place] = min(row.alternated[place] + 1, _JUMPS)


@compiled
def _judge(rows: State, calls: _Calls, limits: _Limits, told: _Told) -> int:
    count = 0
    blank = np.zeros(1, _ROW)
    for i in range(len(calls.row)):
        if calls.returned[i]:
            rows[calls.row[i]] = blank[0]
        if calls.duplicate[i] or calls.excluded[i] or calls.country[i] == 0 or calls.asn[i] < 0:
            continue
        row = rows[calls.row[i]]
        t = calls.time[i]
        warm = row.calls >= limits.warm_calls and row.hours >= limits.warm_hours
        at, new = _place_of(row, calls.country[i], calls.asn[i])
        if at < 0:
            at = _room(row)
            if row.here == at:
                row.here = -1
            _enter(row, at, calls, i, t, warm and new, limits.default_km)
        if row.suspect[at] == 1 and t - row.since[at] >= limits.trusted:
            row.suspect[at] = 0
        here = row.here
        if (
            row.calls > 0
            and here >= 0
            and row.suspect[at] != row.suspect[here]
            and _impossible(row, here, at, t, limits)
        ):
            _count_jump(row, at if row.suspect[at] == 1 else here)
        row.here = at
        row.seen[at] = max(row.seen[at], t)
        row.count[at] += 1
        if row.calls == 0:
            row.first = t
        if row.suspect[at] == 0:
            row.calls += 1
            # An event that comes late must not count its hour again.
            if t // 3_600_000 > row.hour:
                row.hour = t // 3_600_000
                row.hours += 1
            continue
        how = 0
        if row.alternated[at] >= limits.alternations:
            how = _TRAVEL
        elif row.count[at] >= limits.enough:
            how = _NEW_PLACE
        if how <= row.told[at]:
            continue
        row.told[at] = how
        told.at[count] = i
        told.how[count] = how
        told.place[count] = at
        told.state[count] = row
        count += 1
    return count
