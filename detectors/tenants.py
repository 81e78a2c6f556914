"""Each tenant's sums over closed buckets."""

from typing import NamedTuple

import numpy as np

from detectors.compiled import State, compiled
from detectors.identities import Identities
from detectors.windows import Closings
from schemas.batch import WORKLOADS, Codes, Flags, Ints
from schemas.finding import TenantBucket
from schemas.times import format_millis

SLOT = 300_000
"""Milliseconds in which an identity at work is counted once among its tenant's."""
_SUM = np.dtype([
    ("group", "i8"), ("tenant", "i8"), ("identities", "i8"), ("arrived", "i8"), ("failures", "i8"),
    ("requests", "f8"), ("tokens", "f8"), ("cost", "f8"), ("people", "i8"), ("asked", "f8"),
])  # fmt: skip
"""`people` and `asked` are the part of `arrived` and of `requests` that is interactive."""
_COLUMNS = ("identities", "arrived", "requests", "failures", "tokens", "cost", "people", "asked")
_INTERACTIVE = WORKLOADS.index("interactive")


class Events(NamedTuple):
    """Of a batch's events, by position: the identity's row, whether the event speaks for it, and its workload class."""

    row: Ints
    speaks: Flags
    workload: Codes


class TenantSums:
    """What a partition's identities used, by tenant."""

    def __init__(self, partition: int, identities: Identities) -> None:
        self._partition = partition
        self._identities = identities
        self._place: Ints = np.zeros(0, np.int64)
        """By tenant's number: where its sum of the moment stands, and 0 between two calls."""

    def take(
        self, events: Events, closings: Closings, now: Ints
    ) -> list[tuple[tuple[int, int, int, int], TenantBucket]]:
        """The tenants' buckets, in order of (end, tenant), each with the order in which it is told: after what the
        buckets of that end told. `now` (ms) is the moment of each event of the batch."""
        names, out = self._identities, []
        if len(self._place) < len(names.tenants):
            self._place = np.zeros(2 * len(names.tenants), np.int64)
        found = np.empty(len(closings.row), _SUM)
        count = _sum_up(names.columns.array, events, closings, self._place, found)
        if not count:
            return []
        found = found[:count]
        denied = self._denied(closings)
        starts = np.flatnonzero(np.diff(found["group"], prepend=-1)).tolist()
        tenants = [names.tenants[number] for number in found["tenant"].tolist()]
        rows = list(zip(tenants, *(found[name].tolist() for name in _COLUMNS), strict=True))
        groups = [*found["group"][starts].tolist(), len(closings.row)]
        for first, last, group, after in zip(starts, [*starts[1:], count], groups, groups[1:], strict=False):
            at, end = int(closings.at[group]), int(closings.end[group])
            decided, ended = format_millis(int(now[at])), format_millis(end)
            for rank, (tenant, many, new, calls, errors, used, spent, people, asked) in enumerate(
                sorted(rows[first:last])
            ):
                bucket = TenantBucket(
                    time=decided,
                    tenant=tenant,
                    end=ended,
                    partition=self._partition,
                    identities=many,
                    arrived=new,
                    requests=int(calls),
                    failures=errors,
                    tokens=used,
                    cost_usd=round(spent, 9),
                    denied=denied.get((end, tenant), {}),
                    interactive_arrived=people,
                    interactive_requests=int(asked),
                )
                out.append(((at, 0, after, rank), bucket))
        return out

    def _denied(self, closings: Closings) -> dict[tuple[int, str], dict[str, int]]:
        """By (end, tenant): each identity's calls that were refused on our word."""
        out: dict[tuple[int, str], dict[str, int]] = {}
        for k in np.flatnonzero(closings.denied).tolist():
            tenant, identity, _ = self._identities.name(int(closings.row[k]))
            of = out.setdefault((int(closings.end[k]), tenant), {})
            of[identity] = of.get(identity, 0) + int(closings.denied[k])
        return out


@compiled
def _sum_up(identities: State, events: Events, closings: Closings, place: Ints, found: State) -> int:
    """Sums closed buckets by end and tenant; `group` is the first closed bucket of that end. Returns how many sums."""
    count, first, told = 0, 0, 0
    for k in range(len(closings.row)):
        told = _classify(identities, events, told, closings.at[k])
        if closings.end[k] != closings.end[first]:
            _leave(place, found, count, first)
            first = k
        who = identities[closings.row[k]]
        at = place[who.tenant] - 1
        if at < 0:
            at = count
            count += 1
            place[who.tenant] = count
            total = found[at]
            total.group = first
            total.tenant = who.tenant
            total.identities = 0
            total.arrived = 0
            total.failures = 0
            total.requests = 0.0
            total.tokens = 0.0
            total.cost = 0.0
            total.people = 0
            total.asked = 0.0
        total = found[at]
        interactive = who.workload == _INTERACTIVE
        total.identities += 1
        total.failures += closings.failed[k]
        total.tokens += closings.sums[k, 0]
        total.requests += closings.sums[k, 1]
        total.cost += closings.sums[k, 2]
        total.asked += closings.sums[k, 1] if interactive else 0.0
        slot = (closings.end[k] - 1) // SLOT
        if closings.calls[k] > closings.failed[k] and who.slot < slot:
            who.slot = slot
            total.arrived += 1
            total.people += 1 if interactive else 0
    _leave(place, found, count, first)
    _classify(identities, events, told, len(events.row))
    return count


@compiled
def _classify(identities: State, events: Events, first: int, end: int) -> int:
    """Takes note of the class of each identity that the events from `first` to before `end` tell; returns `end`."""
    for i in range(first, end):
        if events.speaks[i]:
            identities[events.row[i]].workload = events.workload[i]
    return max(first, end)


@compiled
def _leave(place: Ints, found: State, count: int, first: int) -> None:
    """Makes `place` 0 again where sums of the group `first`, the last ones, stand."""
    for j in range(count - 1, -1, -1):
        if found[j].group != first:
            break
        place[found[j].tenant] = 0
