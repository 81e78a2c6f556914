"""What a policy would have cut off: whom, when, for how long, why, and what the calls cost that would have been denied.

Traffic of the past went on through every block, so this is what would have happened if nobody had reacted: whoever is
denied may stop, or come back with another key.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from schemas.batch import Flags, Floats
from schemas.command import STRICTNESS, Command
from schemas.incident import Incident
from schemas.times import format_millis
from streams.backtest.blocks import FOREVER, Held, blocks_of
from streams.backtest.calls import Calls, hash_of

_BURST_SECONDS = 10.0
"""A gateway's throttle lets so many seconds' worth of calls through at once."""


class Cut(Struct, frozen=True):
    """One incident's blocks. `until` is null where the last of them ends by a person's word only. `minutes` is how long
    any of them held, at the most until the last call of the file. `usd_saved` is what the denied calls cost,
    `usd_total` all calls of the identity. `actions` are in the order in which they came."""

    incident_id: str
    tenant: str
    identity: str | None
    since: str
    until: str | None
    minutes: float
    actions: list[str]
    why: str
    calls_denied: int
    usd_saved: float
    usd_total: float


class TenantCuts(Struct, frozen=True):
    """One tenant's identities: all, those that would have been cut off, and what that would have saved."""

    tenant: str
    identities: int
    cut_off: int
    cuts: int
    calls_denied: int
    usd_saved: float
    usd_total: float


class Shadow(Struct, frozen=True):
    """All of it, the most money first. `alerted` are identities on which an incident was opened."""

    since: str | None
    until: str | None
    calls: int
    identities: int
    alerted: int
    cut_off: int
    cut_off_share: float
    calls_denied: int
    usd_saved: float
    usd_total: float
    cuts: list[Cut]
    tenants: list[TenantCuts]


def shadow(calls: Calls, incidents: Iterable[Incident], commands: Iterable[Command]) -> Shadow:
    """What the commands of a replay, in force or shadow, would have done to the calls that it read."""
    opened = {incident.incident_id: incident for incident in incidents}
    by_incident: dict[str, list[Held]] = defaultdict(list)
    for block in blocks_of(commands):
        by_incident[block.command.incident_id].append(block)
    last = float(calls.time.max(initial=0.0))
    rows = _Rows(calls)
    denied = np.zeros(len(calls), np.bool_)
    cuts: list[Cut] = []
    touched: set[int] = set()
    for incident_id, blocks in by_incident.items():
        first = blocks[0].command
        numbers = rows.of(first)
        mine = np.zeros(len(calls), np.bool_)
        for block in blocks:
            mine[rows.denied(block)] = True
        # What another incident's block has denied already is saved once.
        mine &= ~denied
        denied |= mine
        touched.update(numbers)
        incident, until = opened.get(incident_id), max(block.until for block in blocks)
        cuts.append(
            Cut(
                incident_id=incident_id,
                tenant=first.tenant,
                identity=first.identity,
                since=_time(blocks[0].start),
                until=None if until == FOREVER else _time(until),
                minutes=round(_union([(b.start, min(b.until, last)) for b in blocks]) / 60, 1),
                actions=list(dict.fromkeys(block.command.action for block in blocks)),
                why=incident.headline if incident else first.reason,
                calls_denied=int(mine.sum()),
                usd_saved=_usd(calls.cost[mine]),
                usd_total=_usd(calls.cost[np.isin(calls.who, numbers)]),
            )
        )
    cuts.sort(key=lambda c: (-c.usd_saved, -c.usd_total, c.since, c.incident_id))
    alerted = {(i.tenant, i.identity) for i in opened.values() if i.identity} & set(calls.identities)
    return Shadow(
        since=_time(float(calls.time.min())) if len(calls) else None,
        until=_time(last) if len(calls) else None,
        calls=len(calls),
        identities=len(calls.identities),
        alerted=len(alerted),
        cut_off=len(touched),
        cut_off_share=round(len(touched) / len(calls.identities), 6) if calls.identities else 0.0,
        calls_denied=int(denied.sum()),
        usd_saved=_usd(calls.cost[denied]),
        usd_total=_usd(calls.cost),
        cuts=cuts,
        tenants=_tenants(calls, cuts, denied, touched),
    )


class _Rows:
    """Which calls a block denies."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._number = {name: n for n, name in enumerate(calls.identities)}

    def of(self, command: Command) -> list[int]:
        """The numbers of the identities that a command is about."""
        if command.identity is None:
            return [n for (tenant, _), n in self._number.items() if tenant == command.tenant]
        number = self._number.get((command.tenant, command.identity))
        return [] if number is None else [number]

    def denied(self, block: Held) -> Flags:
        """Flags per call."""
        calls, command = self._calls, block.command
        covers = np.isin(calls.who, self.of(command)) & calls.served
        covers &= (calls.time > block.start) & (calls.time <= block.until)
        column = {"credential": calls.credential, "session": calls.session, "end_user": calls.end_user}.get(
            command.scope
        )
        if column is not None:
            covers &= column == hash_of(command.subject)
        if STRICTNESS[command.action] >= STRICTNESS["suspend"]:
            return covers
        if command.action == "throttle" and command.limits and command.limits.rpm is not None:
            at = np.flatnonzero(covers)
            covers[at] = _beyond(calls.time[at], command.limits.rpm)
            return covers
        return np.zeros(len(calls), np.bool_)


def _beyond(times: Floats, per_minute: int) -> Flags:
    """Which of the calls a throttle denies: a token bucket of ten seconds' worth, as gateways have it."""
    capacity = max(1.0, per_minute * _BURST_SECONDS / 60)
    level, before = capacity, float(times[0]) if len(times) else 0.0
    out = np.zeros(len(times), np.bool_)
    for k, moment in enumerate(times.tolist()):
        level = min(capacity, level + max(0.0, moment - before) * per_minute / 60)
        before = max(before, moment)
        out[k] = level < 1.0
        level -= 0.0 if out[k] else 1.0
    return out


def _union(spans: Sequence[tuple[float, float]]) -> float:
    """The length (s) of what any of the spans covers."""
    total, reached = 0.0, -FOREVER
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _tenants(calls: Calls, cuts: Sequence[Cut], denied: Flags, touched: set[int]) -> list[TenantCuts]:
    names = sorted({tenant for tenant, _ in calls.identities})
    number = {tenant: n for n, tenant in enumerate(names)}
    of_identity = np.array([number[tenant] for tenant, _ in calls.identities], np.int64)
    of_call = of_identity[calls.who] if len(calls) else np.empty(0, np.int64)
    count = len(names)
    identities, cut_off = (
        np.bincount(of_identity, minlength=count),
        np.bincount(of_identity[sorted(touched)] if touched else np.empty(0, np.int64), minlength=count),
    )
    many, total = np.bincount(of_call[denied], minlength=count), np.bincount(of_call, calls.cost, count)
    saved = np.bincount(of_call[denied], calls.cost[denied], count)
    incidents = np.bincount(np.array([number[c.tenant] for c in cuts if c.tenant in number], np.int64), minlength=count)
    rows = [
        TenantCuts(
            name, int(identities[n]), int(cut_off[n]), int(incidents[n]), int(many[n]), round(float(saved[n]), 6),
            round(float(total[n]), 6),
        )
        for n, name in enumerate(names)
    ]  # fmt: skip
    return sorted(rows, key=lambda r: (-r.usd_saved, -r.cuts, r.tenant))


def _usd(costs: Floats) -> float:
    return round(float(costs.sum()), 6)


def _time(moment: float) -> str:
    return format_millis(round(moment * 1000))
