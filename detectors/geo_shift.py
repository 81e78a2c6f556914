"""Finds machines that are suddenly somewhere else."""

import math

import numpy as np
from msgspec import Struct
from numba import njit
from numpy.typing import NDArray

from detectors.identities import Rows
from detectors.view import Raised, View, digest
from schemas.finding import Kind

_PLACES = 8
_EARTH_KM = 6371.0
_ROW = np.dtype([
    ("calls", "i8"), ("first", "i8"), ("here", "i8"), ("hours", "i4"), ("hour", "i8"),
    ("country", "u8", (_PLACES,)), ("asn", "i8", (_PLACES,)), ("latitude", "f4", (_PLACES,)), ("longitude", "f4", (_PLACES,)),
    ("accuracy", "f4", (_PLACES,)), ("seen", "i8", (_PLACES,)), ("since", "i8", (_PLACES,)), ("count", "i4", (_PLACES,)),
    ("suspect", "i1", (_PLACES,)), ("alternated", "i4", (_PLACES,)), ("told", "i1", (_PLACES,)), ("offset", "i8", (_PLACES,)),
])  # fmt: skip
_NEW_PLACE, _TRAVEL = 1, 2


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[geo_shift]` of policy.toml."""

    warm_up_calls: int
    warm_up_hours: int
    calls_to_tell: int
    travel_km: float
    travel_kmh: float
    default_accuracy_km: float
    accuracy_factor: float
    alternations: int
    trusted_after_hours: float


class GeoShift:
    """A network and a country that the identity never called from, and travel that nothing can travel.

    What it detects:
        A *place* is a country and a network (AS number). Up to eight are learnt per identity. A place whose country
        and whose network are both new, with `calls_to_tell` calls from it, is told once, when the identity has a history
        of `warm_up_calls` calls in `warm_up_hours` distinct hours.
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

    def judge(self, view: View) -> list[Raised]:
        """One finding when a place is told, and one when travel proves impossible."""
        batch, n, c = view.batch, len(view.batch), self._config
        at, how, place, states = np.empty(n, np.int64), np.empty(n, np.int8), np.empty(n, np.int64), np.empty(n, _ROW)
        told = _judge(
            self.rows.reach(view.identities), view.row, view.ticked.time, view.ticked.duplicate, batch.excluded,
            batch.offset, batch.country, batch.asn, batch.latitude, batch.longitude, batch.accuracy,
            c.warm_up_calls, c.warm_up_hours, c.calls_to_tell, c.travel_km, c.travel_kmh, c.default_accuracy_km,
            c.accuracy_factor, c.alternations, c.trusted_after_hours * 3_600_000,
            at, how, place, states,
        )  # fmt: skip
        return [self._raised(view, int(at[k]), int(how[k]), int(place[k]), states[k : k + 1]) for k in range(told)]

    def _raised(self, view: View, at: int, how: int, place: int, state: NDArray[np.void]) -> Raised:
        event, row = view.batch.events[at].data, state[0]
        calls, history = int(row["count"][place]), int(row["calls"])
        days = max(0.0, (int(view.ticked.time[at]) - int(row["first"])) / 86_400_000)
        where = f"AS{event.asn} in {event.country}"
        if how == _TRAVEL:
            reason = (
                f"{int(row['alternated'][place])} jumps between {where} and its usual place, each faster than "
                f"{self._config.travel_kmh:g} km/h: two clients use this identity at once"
            )
        else:
            reason = f"{calls} calls from {where}, network and country never seen in {history} calls over {days:.1f} days"
        return Raised(
            at=at, closing=-1, row=int(view.row[at]), since=int(row["offset"][place]),
            severity="high" if how == _TRAVEL else "medium", score=0.9 if how == _TRAVEL else 0.6, window="history",
            observed=float(row["alternated"][place] if how == _TRAVEL else calls), baseline=0.0, reason=reason, digest=digest(state),
            usd_per_minute=float(view.velocities.minute[at, 2]),
            details={"country": event.country or "", "asn": -1 if event.asn is None else event.asn, "pattern": "travel" if how == _TRAVEL else "place"},
        )  # fmt: skip


@njit(cache=True)
def _apart(lat_a, lon_a, lat_b, lon_b):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Great-circle distance in km (haversine); NaN where a coordinate is unknown."""
    p, q = math.radians(lat_a), math.radians(lat_b)
    h = math.sin((q - p) / 2) ** 2 + math.cos(p) * math.cos(q) * math.sin(math.radians(lon_b - lon_a) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(math.sqrt(min(1.0, h)))


@njit(cache=True)
def _judge(rows, row_of, time, duplicate, excluded, offset, country, asn, latitude, longitude, accuracy, warm_calls, warm_hours, enough, far_km, fast_kmh, default_km, factor, alternations, trusted_ms, out_at, out_how, out_place, out_state):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    told = 0
    for i in range(len(time)):
        if duplicate[i] or excluded[i] or country[i] == 0 or asn[i] < 0:
            continue
        row = rows[row_of[i]]
        t = time[i]
        at, new_country, new_asn, oldest = -1, True, True, 0
        for k in range(_PLACES):
            if row.count[k] == 0:
                continue
            if row.country[k] == country[i] and row.asn[k] == asn[i]:
                at = k
            # A place under suspicion vouches for nothing.
            if row.suspect[k] == 0:
                new_country = new_country and row.country[k] != country[i]
                new_asn = new_asn and row.asn[k] != asn[i]
        warm = row.calls >= warm_calls and row.hours >= warm_hours
        if at < 0:
            for k in range(_PLACES):
                if row.count[k] == 0:
                    oldest = k
                    break
                # Many new places at once must not push out where it always was.
                if (row.suspect[k], -row.seen[k]) > (row.suspect[oldest], -row.seen[oldest]):
                    oldest = k
            at = oldest
            row.country[at] = country[i]
            row.asn[at] = asn[i]
            row.latitude[at] = latitude[i]
            row.longitude[at] = longitude[i]
            row.accuracy[at] = default_km if np.isnan(accuracy[i]) else accuracy[i]
            row.count[at] = 0
            row.alternated[at] = 0
            row.told[at] = 0
            row.since[at] = t
            row.seen[at] = t
            row.offset[at] = offset[i]
            row.suspect[at] = 1 if warm and new_country and new_asn else 0
        if row.suspect[at] == 1 and t - row.since[at] >= trusted_ms:
            row.suspect[at] = 0
        here = row.here
        jumped = row.calls > 0 and here != at and row.suspect[at] != row.suspect[here]
        if jumped:
            new = at if row.suspect[at] == 1 else here
            km = _apart(row.latitude[at], row.longitude[at], row.latitude[here], row.longitude[here])
            km -= factor * (row.accuracy[at] + row.accuracy[here])
            hours = max(abs(t - row.seen[here]), 1000) / 3_600_000.0
            if km >= far_km and km / hours >= fast_kmh:
                row.alternated[new] += 1
        row.here = at
        row.seen[at] = max(row.seen[at], t)
        row.count[at] += 1
        if row.calls == 0:
            row.first = t
        if row.suspect[at] == 0:
            row.calls += 1
            if t // 3_600_000 != row.hour:
                row.hour = t // 3_600_000
                row.hours += 1
            continue
        how = 0
        if row.alternated[at] >= alternations:
            how = _TRAVEL
        elif row.count[at] >= enough:
            how = _NEW_PLACE
        if how <= row.told[at]:
            continue
        row.told[at] = how
        out_at[told] = i
        out_how[told] = how
        out_place[told] = at
        out_state[told] = row
        told += 1
    return told
