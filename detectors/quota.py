"""Finds identities that use up what the directory allows them."""

from typing import NamedTuple

import numpy as np
from msgspec import Struct

from detectors.compiled import Row, State, compiled
from detectors.identities import Rows
from detectors.seconds import seconds_of
from detectors.view import Detector, Raised, View, digest
from schemas.batch import Codes, Flags, Floats, Ints
from schemas.bounds import NotNegative, Share
from schemas.directory import Directory, Entry
from schemas.finding import Kind
from schemas.quota import MOST, PERS, UNITS, Limit, limits_of, start_of, used
from schemas.times import format_millis
from schemas.usage import UsageEvent

_ROW = np.dtype([
    ("sum", "f8", (MOST,)), ("last", "u4"), ("told_at", "u4"), ("told", "u2"), ("month", "u2"), ("sort", "u2"),
], align=True)  # fmt: skip
"""The sums of the identity's limits in their windows, which are those of the minute `last` and of `month` (both since
1970). `told` has a bit for each limit that was warned of and, above, for each that was used up; `told_at` is when
(seconds), and `sort` names which limits these are: where the directory has others, counting starts anew."""
_PLAN = np.dtype([
    ("asked", "u1"), ("limits", "u1"), ("sort", "u2"), ("per", "u1", (MOST,)), ("unit", "u1", (MOST,)),
    ("amount", "f8", (MOST,)),
], align=True)  # fmt: skip
"""What the directory allows an identity. No state: it can be asked again."""
_WARNED, _EXCEEDED = 1, 2
_AHEAD = 360
"""Minutes ahead of the watermark beyond which a time opens no window: one wrong clock must not end the day."""
_EXACT = 1.0 + 1e-9
"""A sum of cents is not exact in binary: beyond a limit is beyond this share of it."""
_CUT = 499
"""The status of a call that its caller cut off: it was served."""
_WINDOW = ("1m", "1h", "1d", "1 month")


class _Calls(NamedTuple):
    row: Ints
    time: Ints
    mark: Ints
    month: Ints
    skip: Flags
    returned: Flags
    amounts: Floats


class _Told(NamedTuple):
    """What is told: where, of which limit, how grave, and the identity's state then."""

    at: Ints
    limit: Ints
    gravity: Codes
    state: State


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[quota]` of policy.toml."""

    warn_share: Share
    repeat_finding_seconds: NotNegative


class Quota(Detector):
    """Tokens, requests or dollars beyond what the directory allows the identity.

    What it detects:
        Sums of served calls over the minute, hour, day or month of the calendar (UTC) against the identity's quotas in
        the directory, with the very event that crosses one. At `warn_share` of a limit it is noted, once; beyond the
        limit it is a rule that blocks, told once a minute while calls go on, until the next window begins. Refused and
        failed calls use nothing up, and a call that is delivered twice counts once.

    Why it matters:
        Gateways count budgets late and per instance; here the stream counts them, over all gateways.

    False positives:
        A quota that is outgrown. An approval in the directory raises it for a while.

    Runbook:
        Ask the owner; raise the quota in the directory, or let the block end with the window.
    """

    name = "quota"
    kind: Kind = "quota"
    version = 1

    def __init__(self, config: Config, directory: Directory) -> None:
        self._config = config
        self._directory = directory
        self._any = any(entry.quotas for entry in directory.identities.values())
        self.rows = Rows(_ROW)
        self._plans = Rows(_PLAN)

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """A finding when a limit comes near, when it is used up, then one a minute."""
        batch, returned = view.batch, view.velocities.returned
        rows = self.rows.reach(view.identities)
        if not self._any and not returned.any():
            return []
        plans = self._plans.reach(view.identities)
        for at in np.flatnonzero(plans["asked"][view.row] == 0).tolist():
            self._ask(plans, int(view.row[at]), batch.events[at])
        which = np.flatnonzero((plans["limits"][view.row] > 0) | returned)
        if not len(which):
            return []
        time = view.ticked.time[which]
        served = ~batch.failed[which] | (batch.status[which] == _CUT)
        calls = _Calls(
            view.row[which], time, view.ticked.watermark[which],
            time.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64),
            view.ticked.duplicate[which] | batch.excluded[which] | ~served, returned[which],
            np.stack([batch.tokens[which], np.ones(len(which)), batch.cost[which]], axis=1),
        )  # fmt: skip
        n = len(which)
        told = _Told(np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int8), np.empty(n, _ROW))
        c = self._config
        count = _judge(rows, plans, calls, c.warn_share, c.repeat_finding_seconds, told)
        return [self._raised(view, int(which[told.at[k]]), told, k) for k in range(count)]

    def forget(self, rows: Ints) -> None:
        """Forgets what the directory said of `rows`."""
        self._plans.reach(int(rows.max(initial=-1)) + 1)[rows] = np.zeros((), _PLAN)

    def restore_shared(self, saved: bytes) -> None:  # noqa: ARG002
        """Another directory may be another answer: it is asked again."""
        self._plans = Rows(_PLAN)

    def _ask(self, plans: State, row: int, event: UsageEvent) -> None:
        """Notes what the directory allows an event's identity."""
        entry = self._entry(event)
        limits = limits_of(entry.quotas) if entry is not None else []
        plan = plans[row]
        plan["asked"], plan["limits"] = 1, len(limits)
        # A bit for each sort of limit, whatever its amount.
        sort = 0
        for k, limit in enumerate(limits):
            plan["per"][k], plan["unit"][k], plan["amount"][k] = limit
            sort |= 1 << (limit.per * len(UNITS) + limit.unit)
        plan["sort"] = sort

    def _entry(self, event: UsageEvent) -> Entry | None:
        """What the directory has of the identity that an event names. A namesake in another tenant is another one."""
        entry = self._directory.identities.get(event.subject)
        tenant = event.data.tenant
        if entry is None or (entry.tenant is not None and tenant and tenant != entry.tenant):
            return None
        return entry

    def _raised(self, view: View, at: int, told: _Told, k: int) -> Raised:
        number, plan = int(told.limit[k]), self._plans.array[view.row[at]]
        limit = Limit(int(plan["per"][number]), int(plan["unit"][number]), float(plan["amount"][number]))
        exceeded = int(told.gravity[k]) == _EXCEEDED
        amount, now = float(told.state[k]["sum"][number]), int(view.ticked.time[at])
        share = amount / limit.amount
        _, requests, spend = view.velocities.minute[at].tolist()
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(view.batch.offset[at]),
            severity="high" if exceeded else "info",
            score=round(min(1.0, share / 2), 4),
            window=_WINDOW[limit.per],
            observed=round(amount, 9),
            baseline=limit.amount,
            reason=(
                f"{used(limit, amount)} used at {format_millis(now)[11:16]} UTC"
                f"{'' if exceeded else f' ({share:.0%})'}, "
                f"{requests:.0f} {'call' if requests == 1 else 'calls'} and ${spend:.2f}/min now"
            ),
            digest=digest(told.state[k : k + 1]),
            span_seconds=max(0, now - start_of(limit.per, now)) / 1000,
            deterministic=exceeded,
            usd_per_minute=round(spend, 6),
            details={"per": PERS[limit.per], "unit": UNITS[limit.unit], "share": round(share, 4)},
        )


@compiled
def _window(per: int, minute: int, month: int) -> int:
    """The number of the minute, hour, day or month."""
    if per == 3:
        return month
    return minute if per == 0 else minute // 60 if per == 1 else minute // 1440


@compiled
def _open(row: Row, plan: Row, minute: int, month: int) -> None:
    """Begins the windows of a minute that is later than the last one."""
    for k in range(np.int64(plan.limits)):
        if _window(plan.per[k], minute, month) != _window(plan.per[k], row.last, row.month):
            row.sum[k] = 0.0
            row.told &= ~((1 << k) | (1 << (k + MOST))) & 0xFFFF
    row.last = minute
    row.month = month


@compiled
def _judge(rows: State, plans: State, calls: _Calls, warn: float, again: float, told: _Told) -> int:
    count = 0
    blank = np.zeros(1, _ROW)
    for i in range(len(calls.row)):
        if calls.returned[i]:
            rows[calls.row[i]] = blank[0]
        plan = plans[calls.row[i]]
        if calls.skip[i] or plan.limits == 0:
            continue
        row = rows[calls.row[i]]
        if row.sort != plan.sort:
            rows[calls.row[i]] = blank[0]
            row.sort = plan.sort
        minute, month = seconds_of(calls.time[i]) // 60, min(max(calls.month[i], 0), 0xFFFF)
        if row.last > 0 and minute > seconds_of(calls.mark[i]) // 60 + _AHEAD:
            minute, month = row.last, row.month
        if minute > row.last:
            _open(row, plan, minute, month)
        gravest, which = 0, 0
        for k in range(np.int64(plan.limits)):
            # What comes late counts where its window is still the one that is counted.
            if _window(plan.per[k], minute, month) != _window(plan.per[k], row.last, row.month):
                continue
            row.sum[k] += calls.amounts[i, plan.unit[k]]
            gravity = 0
            if row.sum[k] > plan.amount[k] * _EXACT:
                gravity = _EXCEEDED
            elif row.sum[k] >= plan.amount[k] * warn and row.told & (1 << k) == 0:
                gravity = _WARNED
            lately = seconds_of(calls.time[i]) - float(row.told_at) < again
            if gravity == _EXCEEDED and row.told & (1 << (k + MOST)) != 0 and lately:
                gravity = 0
            if gravity > gravest:
                gravest, which = gravity, k
        if gravest == 0:
            continue
        row.told |= 1 << which
        if gravest == _EXCEEDED:
            row.told |= 1 << (which + MOST)
            row.told_at = max(row.told_at, seconds_of(calls.time[i]))
        told.at[count] = i
        told.limit[count] = which
        told.gravity[count] = gravest
        told.state[count] = row
        count += 1
    return count
