"""Finds calls that the directory does not allow, and that were served all the same."""

from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from detectors.compiled import State, compiled
from detectors.identities import Rows
from detectors.model_names import is_among
from detectors.seconds import seconds_of
from detectors.view import Detector, Raised, View, digest, short
from schemas.batch import Codes, Flags, Hashes, Ints
from schemas.bounds import NotNegative, Positive, Some
from schemas.directory import Directory, Entry
from schemas.finding import Kind, Severity
from schemas.times import to_millis
from schemas.usage import UsageEvent

_ROW = np.dtype([("count", "f4"), ("at", "u4"), ("told", "u4"), ("gravity", "u1")], align=True)
"""Times are seconds since 1970. `count` is a fading count of calls, as of `at`."""
_REMEMBERED = 3
_ANSWERS = np.dtype([("asked", "u4", (_REMEMBERED,)), ("ends", "u4")])
"""What the directory said of an identity: hashes of (model, route), the last one first, whose lowest bit is set where
it is not granted; and the second from which on the identity has expired, 0: never. No state: it can be asked again."""
_EVERYTHING = np.uint32(0xFFFFFFFF)
"""Instead of a hash: all that the identity may ever call is granted."""
_GRANTED, _UNGRANTED, _EXPIRED, _UNKNOWN = 0, 1, 2, 3
_LOW, _MEDIUM, _BLOCKS = 1, 2, 3
_SEVERITY: tuple[Severity, ...] = ("info", "low", "medium", "high")
_SCORE = (0.0, 0.3, 0.6, 0.9)
_USES, _USERS = 1024, 16
"""(tenant, model) pairs whose ungranted users are remembered, and how many of each."""
_DAY = 86_400_000
_NAMED = 5
_CUT = 499
"""The status of a call that its caller cut off: it was served."""


class _Calls(NamedTuple):
    row: Ints
    time: Ints
    skip: Flags
    model: Hashes
    route: Hashes


class _Told(NamedTuple):
    """What the kernel tells: where, how grave, and the identity's state then."""

    at: Ints
    gravity: Codes
    state: State


class _Limits(NamedTuple):
    """Times in seconds."""

    alert: float
    block: float
    refused: float
    half_life: float
    again: float
    remind: float


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[entitlement]` of policy.toml."""

    alert_calls: Positive
    block_calls: Positive
    refused_weight: NotNegative
    half_life_minutes: Positive
    lagging_identities: Some
    remind_hours: NotNegative
    repeat_finding_seconds: NotNegative

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if self.block_calls < self.alert_calls:
            raise ValueError("what blocks must not be less than what alerts: `block_calls`, `alert_calls`")


class Entitlement(Detector):
    """Models and routes that the directory does not grant, and identities whose time is over.

    What it detects:
        Calls that were served though the directory grants the identity neither the model or route, or says that it has
        expired. The first is weak evidence; `alert_calls` of a fading count alert; `block_calls` of it are a rule that
        blocks. A call that the gateway refused itself counts `refused_weight`, and never alerts. An absent list grants
        everything; of an identity that it does not know, the directory says nothing. A model is granted under any name
        that differs by its owner, its region or its date, and by patterns such as `claude-*`.

    Why it matters:
        A thief takes the dearest model there is; a key that outlived its purpose is used by nobody who should.

    False positives:
        A directory that lags behind: a team that was given a new model yesterday. Where `lagging_identities` of a
        tenant use the same one within a day, nothing blocks.

    Runbook:
        Grant the model in the directory, or restore the gateway's own list of what this key may call.
    """

    name = "entitlement"
    kind: Kind = "entitlement"
    version = 1

    def __init__(self, config: Config, directory: Directory) -> None:
        self._config = config
        self._directory = directory
        self.rows = Rows(_ROW)
        self._answers = Rows(_ANSWERS)
        self._users: dict[tuple[str, str], dict[str, int]] = {}
        """By tenant and ungranted model: who used it, and when (ms) that was last told."""
        self._limits = _Limits(
            config.alert_calls, config.block_calls, config.refused_weight, config.half_life_minutes * 60,
            config.repeat_finding_seconds, config.remind_hours * 3600,
        )  # fmt: skip

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """A finding at the first such call, one when it alerts, one when it blocks, then one a minute."""
        batch, n, returned = view.batch, len(view.batch), view.velocities.returned
        if not self._directory.identities and not returned.any():
            return []
        calls = _Calls(
            view.row, view.ticked.time, view.ticked.duplicate | batch.excluded, batch.model, batch.route
        )  # fmt: skip
        rows, answers = self.rows.reach(view.identities), self._answers.reach(view.identities)
        verdict = np.zeros(n, np.int8)
        if _ask(answers, calls, verdict):
            self._look_up(view, calls, answers, verdict)
        positions = np.flatnonzero((verdict != _GRANTED) | returned)
        if not len(positions):
            return []
        m = len(positions)
        told = _Told(np.empty(m, np.int64), np.empty(m, np.int8), np.empty(m, _ROW))
        served = ~batch.failed | (batch.status == _CUT)
        count = _judge(rows, positions, calls, verdict, served, returned, self._limits, told)
        return [self._raised(view, told, verdict, k) for k in range(count)]

    def forget(self, rows: Ints) -> None:
        """Forgets what the directory said of `rows`."""
        self._answers.reach(int(rows.max(initial=-1)) + 1)[rows] = np.zeros((), _ANSWERS)

    def save_shared(self) -> bytes:
        """Who used what is not granted."""
        return msgspec.msgpack.encode([(*use, list(users.items())) for use, users in self._users.items()])

    def restore_shared(self, saved: bytes) -> None:
        """Takes that back. The directory may be another one: it is asked again."""
        uses = msgspec.msgpack.decode(saved, type=list[tuple[str, str, list[tuple[str, int]]]])
        self._users = {(tenant, model): dict(users) for tenant, model, users in uses}
        self._answers = Rows(_ANSWERS)

    def _look_up(self, view: View, calls: _Calls, answers: State, verdict: Codes) -> None:
        """Asks the directory about the calls that have no answer yet, once for all that are alike."""
        unknown = np.flatnonzero(verdict == _UNKNOWN)
        _, first, alike = np.unique(_questions(calls, unknown), return_index=True, return_inverse=True)
        places = unknown[first]
        rows, entries = view.row[places], [self._entry(*who) for who in view.batch.events.callers(places.tolist())]
        answers["ends"][rows] = [_ends(entry) for entry in entries]
        free = np.array([entry is None or (entry.models is None and entry.routes is None) for entry in entries])
        answers["asked"][rows[free], 0] = _EVERYTHING
        said = np.full(len(places), _GRANTED, np.int8)
        for k in np.flatnonzero(~free).tolist():
            said[k] = self._answer(view, calls, answers, int(places[k]))
        verdict[unknown] = said[alike]
        ends = answers["ends"][view.row[unknown]].astype(np.int64)
        verdict[unknown[(ends > 0) & (calls.time[unknown] // 1000 >= ends)]] = _EXPIRED

    def _answer(self, view: View, calls: _Calls, answers: State, at: int) -> int:
        """What the directory says of one call by an identity of which not all is granted; notes it."""
        event, held = view.batch.events[at], answers[view.row[at]]
        entry = self._entry(event.data.tenant, event.subject)
        granted = entry is None or _lacks(entry, event) is None
        held["asked"][1:] = held["asked"][:-1].copy()
        held["asked"][0] = _hash(calls.model[at], calls.route[at]) | np.uint32(0 if granted else 1)
        return _GRANTED if granted else _UNGRANTED

    def _entry(self, tenant: str | None, subject: str) -> Entry | None:
        """What the directory has of the identity that a call names. A namesake in another tenant is another one."""
        entry = self._directory.identities.get(subject)
        if entry is None or (entry.tenant is not None and tenant and tenant != entry.tenant):
            return None
        return entry

    def _raised(self, view: View, told: _Told, verdict: Codes, k: int) -> Raised:
        at, gravity = int(told.at[k]), int(told.gravity[k])
        event, calls = view.batch.events[at], float(told.state[k]["count"])
        entry = self._entry(event.data.tenant, event.subject)
        lacks = None if entry is None or verdict[at] == _EXPIRED else _lacks(entry, event)
        shared, users = None, 1
        if lacks == "model":
            shared = f"model:{short(event.data.model)}"
            users = self._use(event, int(view.ticked.time[at]))
        lags = users >= self._config.lagging_identities
        if lags:
            gravity = min(gravity, _MEDIUM)
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(view.batch.offset[at]),
            severity=_SEVERITY[gravity],
            score=_SCORE[gravity],
            window=f"{self._config.half_life_minutes:g}m half-life",
            observed=round(calls, 3),
            baseline=0.0,
            reason=_reason(event, entry, lacks, calls, users),
            digest=digest(told.state[k : k + 1]),
            span_seconds=self._limits.half_life,
            deterministic=gravity == _BLOCKS,
            usd_per_minute=round(float(view.velocities.minute[at, 2]), 6),
            shared=shared,
            details={"lacks": lacks or "expired", "identities": users},
        )

    def _use(self, event: UsageEvent, now: int) -> int:
        """Notes who uses an ungranted model at `now` (ms); returns how many of the tenant did within a day."""
        tenant = event.data.tenant or self._directory.tenant_of(event.subject)
        use = (tenant, event.data.model)
        users = self._users.pop(use, {})
        # Whoever was told last comes last, so that the others are forgotten before.
        self._users[use] = users
        users.pop(event.subject, None)
        users[event.subject] = now
        if len(users) > _USERS:
            del users[next(iter(users))]
        if len(self._users) > _USES:
            del self._users[next(iter(self._users))]
        return sum(now - when <= _DAY for when in users.values())


def _ends(entry: Entry | None) -> int:
    """When the identity's time is over, in whole seconds; 0: never."""
    return 0 if entry is None or entry.expires is None else max(1, seconds_of(to_millis(entry.expires)))


def _lacks(entry: Entry, event: UsageEvent) -> str | None:
    """Which grant a call lacks: "model", "route", or None. A call that names none lacks none."""
    model, route = event.data.model, event.data.route
    if model and entry.models is not None and not is_among(model, entry.models):
        return "model"
    if route and entry.routes is not None and not is_route_among(route, entry.routes):
        return "route"
    return None


def is_route_among(route: str, granted: list[str]) -> bool:
    """Whether a route is one of those granted: by name, or below one that ends with `*`."""
    return any(route == name or (name.endswith("*") and route.startswith(name[:-1])) for name in granted)


def _reason(event: UsageEvent, entry: Entry | None, lacks: str | None, calls: float, users: int) -> str:
    of, many = event.data, f"{calls:.0f} {'call' if calls < 1.5 else 'calls'} lately"
    others = f"; {users} identities of the tenant use it" if users > 1 else ""
    how = "refused" if of.status >= 400 else "served"
    if entry is not None and lacks is not None:
        granted = (entry.models if lacks == "model" else entry.routes) or []
        names = ", ".join(short(name) for name in granted[:_NAMED]) + (", …" if len(granted) > _NAMED else "")
        what = of.model if lacks == "model" else of.route
        return f"{lacks} {short(what)} was {how} and is not granted ({names or 'none is'}): {many}{others}"
    ended = "" if entry is None or entry.expires is None else f" on {entry.expires:%Y-%m-%d}"
    return f"the identity expired{ended} and its call of {short(of.model)} was {how}: {many}"


@compiled
def _hash(model: np.uint64, route: np.uint64) -> np.uint32:
    """32 bits of a model and a route, the lowest 0, and none of them the sign for everything."""
    mixed = model ^ (route * np.uint64(0x9E3779B97F4A7C15))
    folded = (mixed ^ (mixed >> np.uint64(32))) & np.uint64(0x7FFFFFFE)
    return np.uint32(max(folded, np.uint64(2)))


@compiled
def _questions(calls: _Calls, which: Ints) -> Ints:
    """A number for each of `which` calls: the same for those of one identity, model and route."""
    out = np.empty(len(which), np.int64)
    for k, i in enumerate(which):
        out[k] = (calls.row[i] << 32) | np.int64(_hash(calls.model[i], calls.route[i]))
    return out


@compiled
def _ask(answers: State, calls: _Calls, verdict: Codes) -> int:
    """Answers what was asked before; returns how many calls it has no answer for."""
    unknown = 0
    for i in range(len(calls.row)):
        if calls.skip[i]:
            continue
        held = answers[calls.row[i]]
        said = _UNKNOWN
        if held.asked[0] == _EVERYTHING:
            said = _GRANTED
        elif held.asked[0] != 0:
            asked = _hash(calls.model[i], calls.route[i])
            for k in range(_REMEMBERED):
                if held.asked[k] & np.uint32(0xFFFFFFFE) == asked:
                    said = _GRANTED if held.asked[k] & np.uint32(1) == 0 else _UNGRANTED
                    break
        if said != _UNKNOWN and held.ends > 0 and calls.time[i] // 1000 >= held.ends:
            said = _EXPIRED
        verdict[i] = said
        unknown += 1 if said == _UNKNOWN else 0
    return unknown


@compiled
def _judge(
    rows: State, positions: Ints, calls: _Calls, verdict: Codes, served: Flags, returned: Flags, limits: _Limits,
    told: _Told,
) -> int:  # fmt: skip
    count = 0
    blank = np.zeros(1, _ROW)
    for i in positions:
        if returned[i]:
            rows[calls.row[i]] = blank[0]
        if verdict[i] == _GRANTED:
            continue
        row = rows[calls.row[i]]
        now = seconds_of(calls.time[i])
        row.count *= 0.5 ** (max(now - float(row.at), 0.0) / limits.half_life)
        row.count += 1.0 if served[i] else limits.refused
        row.at = max(row.at, now)
        gravity = 0
        if row.count >= 1.0:
            gravity = _LOW
        if served[i] and row.count >= limits.alert:
            gravity = _BLOCKS if row.count >= limits.block else _MEDIUM
        quiet = now - float(row.told)
        if quiet >= limits.remind:
            row.gravity = 0
        if gravity <= row.gravity and (gravity <= _LOW or quiet < limits.again):
            continue
        row.told = now
        row.gravity = gravity
        told.at[count] = i
        told.gravity[count] = gravity
        told.state[count] = row
        count += 1
    return count
