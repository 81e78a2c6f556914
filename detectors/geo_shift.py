"""Finds machines that are suddenly somewhere else."""

import numpy as np
from msgspec import Struct

from detectors.geo_shift_kernel import (
    BUSY,
    NEW_CLIENT,
    NEW_COUNTRY,
    NEW_NETWORK,
    PLACE,
    RARE_CLIENT,
    ROW,
    STILL,
    TRAVEL,
    WEAK,
    Calls,
    Limits,
    Told,
    judge,
)
from detectors.identities import Rows
from detectors.places import Known
from detectors.view import Detector, Raised, View, amount, digest, short
from schemas.bounds import NotNegative, Positive, Share, Some
from schemas.finding import Kind, Severity

_SEVERITY: dict[int, Severity] = {WEAK: "low", PLACE: "medium", BUSY: "high", TRAVEL: "high", STILL: "info"}
_SCORE = {WEAK: 0.3, PLACE: 0.6, BUSY: 0.8, TRAVEL: 1.0, STILL: 0.1}
_STRANGER = NEW_COUNTRY | NEW_NETWORK | RARE_CLIENT
_PATTERN = {WEAK: "weak", PLACE: "place", BUSY: "busy", TRAVEL: "travel", STILL: "still"}


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[geo_shift]` of policy.toml."""

    calls_to_tell: Some
    visit_minutes: Positive
    common_share: Share
    least_chance: Share
    weak_chance: Share
    travel_km: NotNegative
    travel_kmh: Positive
    default_accuracy_km: NotNegative
    accuracy_factor: NotNegative
    alternations: Some
    client_alternations: Some
    trusted_after_hours: NotNegative
    least_visits: Positive
    least_hours: NotNegative
    client_chance: Share
    busy_calls: Some
    remind_minutes: Positive
    remind_hours: NotNegative

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if self.weak_chance < self.least_chance:
            raise ValueError("what is weak evidence must not be less usual than what alerts: `weak_chance`")


class GeoShift(Detector):
    """A network and a country that the identity never called from, and travel that nothing can travel.

    What it detects:
        A *place* is a country and a network (AS number). Up to five are learnt per identity. A place that is new is
        judged by how likely an honest call from there is: the identity's places so far over its visits (calls well
        apart in time), times the share of the partition's identities in that country. Below `least_chance`, and after
        `least_visits` and `least_hours`, a place whose country and network are both new, or whose client and either of
        them, alerts, with
        `calls_to_tell` calls from it; `busy_calls` within an hour, with a new client, are graver: where all three are
        new it is a *stranger*, and the credential is suspended. If only one is new,
        or the identity has little of a history, it is weak evidence, which counts only together with other families.
        As long as such a client stays, for `remind_hours`, every `busy_calls` calls remind of it, after
        `remind_minutes`: whatever else is found meanwhile comes with a strange place.
        Where two others of the tenant are regularly is no new place. A place is known after `trusted_after_hours`;
        until then it vouches for nothing, but that its country is new is told once.

        *Impossible travel*: calls that go back and forth, `alternations` times, between a known and the new place
        faster than `travel_kmh`, over at least `travel_km` after `accuracy_factor` times both accuracy radii. It is
        told again while it goes on. Where the place is not strange, because two others of the tenant are regularly
        there, it takes `client_alternations`, and a client there that the identity never had: they vouch for the
        place, not for that.

    Why it matters:
        A leaked key is used within minutes, from the thief's network. For machines the network tells first.

    False positives:
        Travel, an hour behind a VPN, a move to another cloud. Geography alone never blocks; whoever takes a new client
        along to a new country and is busy there at once is suspended, for minutes, as a stranger would be.

    Runbook:
        Ask the owner whether the network is theirs; else rotate the credential.
    """

    name = "geo_shift"
    kind: Kind = "geo_shift"
    version = 4

    def __init__(self, config: Config) -> None:
        self._config = config
        self.rows = Rows(ROW)
        self._known = Known()

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"places": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """One finding when a place is told, one when travel proves impossible, then one in five minutes of it."""
        batch, c, n, known = view.batch, self._config, len(view.batch), self._known
        calls = Calls(
            view.row, view.tenant_key[view.tenant[view.row]], batch.identity, view.ticked.time,
            view.velocities.returned, view.ticked.duplicate, batch.excluded, batch.retry, batch.offset, batch.country,
            batch.asn, batch.agent, batch.latitude, batch.longitude, batch.accuracy,
        )  # fmt: skip
        limits = Limits(
            float(c.calls_to_tell), c.visit_minutes * 60, c.common_share, c.least_chance, c.weak_chance, c.travel_km,
            c.travel_kmh, c.default_accuracy_km, c.accuracy_factor, float(c.alternations), float(c.client_alternations),
            c.trusted_after_hours * 3600, c.least_visits, c.least_hours * 3600, c.client_chance,
            float(c.busy_calls), c.remind_minutes * 60, c.remind_hours * 3600,
        )  # fmt: skip
        told = Told(np.empty(n, np.int64), np.empty(n, np.int8), np.empty(n, np.int64), np.empty(n, ROW))
        count = judge(self.rows.reach(view.identities), known.regular, known.countries, calls, limits, told)
        return [self._raised(view, told, k) for k in range(count)]

    def save_shared(self) -> bytes:
        """Where the identities are regularly."""
        return self._known.save()

    def restore_shared(self, saved: bytes) -> None:
        """Takes what `save_shared` gave."""
        self._known.restore(saved)

    def _raised(self, view: View, told: Told, k: int) -> Raised:
        c, at, place, row, how = self._config, int(told.at[k]), int(told.place[k]), told.state[k], int(told.how[k])
        event, now = view.batch.events[at].data, int(view.ticked.time[at]) // 1000
        jumps, news = int(row["jumps"][place]), int(row["news"][place])
        abroad = (row["level"] == row["level"][place]) & (now - row["seen"].astype(np.int64) <= c.visit_minutes * 60)
        abroad[place] = True
        calls = int(row["count"][abroad].sum())
        seconds = max(0, now - int(row["since"][abroad].min()))
        asn, country = event.asn, event.country
        where = f"AS{asn} in {short(country)}"
        if int(row["here"]) - 1 != place:
            # It is back where it always is.
            asn, country = int(row["asn"][place]), None
            where = f"AS{asn}"
        if abroad.sum() > 1:
            where = f"{abroad.sum()} such places, the last {where}"
        pattern = "stranger" if how == BUSY and news & _STRANGER == _STRANGER else _PATTERN[how]
        if how == TRAVEL:
            reason = (
                f"{jumps} jumps between {where} and its usual place within {_span(seconds)}, each faster than "
                f"{c.travel_kmh:g} km/h: two clients use this identity at once"
            )
        else:
            reason = (
                f"{calls} calls in {_span(seconds)} from {where}, {_what(news)} never seen in "
                f"{amount(int(row['calls']))} calls over {_span(max(0, now - int(row['first'])))}"
            )
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(row["offset"] if row["watched"] == place + 1 else view.batch.offset[at]),
            severity=_SEVERITY[how],
            score=_SCORE[how],
            window="history",
            observed=float(jumps if how == TRAVEL else calls),
            baseline=0.0,
            reason=reason,
            digest=digest(told.state[k : k + 1]),
            span_seconds=float(seconds),
            usd_per_minute=round(float(view.velocities.minute[at, 2]), 6),
            # Colleagues move together; that each has a new client at the same time would be a strange coincidence.
            shared=None if pattern == "stranger" else f"asn:{asn}/{country}",
            details={
                "country": country or "",
                "asn": -1 if asn is None else asn,
                "pattern": pattern,
                "client": "new" if news & NEW_CLIENT else "known",
            },
        )


def _what(news: int) -> str:
    """What of a place is new."""
    if news & _STRANGER == _STRANGER:
        return "a network, a country and a client"
    if news & NEW_COUNTRY and news & NEW_NETWORK:
        return "a network and a country"
    client = " with a client" if news & NEW_CLIENT else ""
    return ("a country" if news & NEW_COUNTRY else "a network") + client


def _span(seconds: int) -> str:
    """A span of time as people say it: 9 s, 12 min, 3.5 h, 3.2 days."""
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.3g} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.3g} days"
