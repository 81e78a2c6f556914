"""Quotas of whole tenants: sums over partitions, windows of the calendar, each limit told once."""

from typing import Any

import msgspec
import pytest

from responses.quotas import TenantQuotas, Used
from schemas.directory import Directory, Tenant
from schemas.finding import Finding, TenantBucket
from schemas.quota import Quota
from schemas.times import format_millis, parse_millis

NOON = parse_millis("2026-03-31T12:00:00.000Z")
HOUR, DAY = 3_600_000, 86_400_000


def bucket(end: int, tenant: str = "acme", partition: int = 0, **changes: Any) -> TenantBucket:
    held: dict[str, Any] = {"identities": 3, "requests": 10, "failures": 0, "tokens": 5000.0, "cost_usd": 1.0} | changes
    return TenantBucket(format_millis(end + 2000), tenant, format_millis(end), partition, **held)


def quotas(*of: Quota) -> TenantQuotas:
    return TenantQuotas(Directory(tenants={"acme": Tenant(list(of))}), 0.8, "policy-1")


def told(watch: TenantQuotas, used: Used, *buckets: TenantBucket) -> list[Finding]:
    out = []
    for one in buckets:
        end = parse_millis(one.end)
        out += list(watch.take(used, one, end, end + 2000))
    return out


def every(seconds: int, count: int, start: int = NOON, **changes: Any) -> list[TenantBucket]:
    return [bucket(start + (n + 1) * seconds * 1000, **changes) for n in range(count)]


def test_the_sum_of_all_partitions_crosses_the_limit_once() -> None:
    buckets = [bucket(NOON + (n + 1) * 10_000, partition=n % 4, cost_usd=0.5) for n in range(40)]
    warned, exceeded = told(quotas(Quota("day", usd=10.0)), Used(), *buckets)
    assert (warned.severity, warned.evidence.deterministic, warned.observed) == ("info", False, 8.0)
    assert (exceeded.severity, exceeded.evidence.deterministic, exceeded.observed) == ("high", True, 10.5)
    assert (exceeded.tenant, exceeded.identity, exceeded.kind) == ("acme", "", "quota")
    assert exceeded.reason == (
        "the whole tenant used $10.50 of $10.00 a day by 12:03 UTC; 60 calls and $3.00 a minute now"
    )
    assert exceeded.evidence.span_seconds == 12 * 3600 + 210


@pytest.mark.parametrize(
    ("quota", "observed"),
    [(Quota("hour", tokens=50_000.0), 55_000.0), (Quota("hour", requests=100.0), 110.0), (Quota("hour", usd=10), 11.0)],
)
def test_each_unit_is_summed(quota: Quota, observed: float) -> None:
    assert told(quotas(quota), Used(), *every(10, 12))[-1].observed == observed


@pytest.mark.parametrize(("per", "length"), [("minute", 60_000), ("hour", HOUR), ("day", DAY), ("month", 31 * DAY)])
def test_a_window_begins_with_nothing(per: Any, length: int) -> None:
    """What ends with the window is of the window before."""
    start = parse_millis("2026-03-01T00:00:00.000Z")
    used, watch = Used(), quotas(Quota(per, requests=25))
    last = bucket(start + length)
    assert [f.severity for f in told(watch, used, bucket(start + length - 10_000), last)] == ["info"]
    assert not told(watch, used, bucket(start + length + 10_000))
    [counted] = used.limits.values()
    assert counted.amount == 10


def test_a_partition_that_is_behind_adds_nothing_to_the_new_window() -> None:
    used, watch = Used(), quotas(Quota("hour", requests=25))
    told(watch, used, bucket(NOON + 10_000, partition=0))
    assert not told(watch, used, *[bucket(NOON - n * 10_000, partition=1) for n in range(9, -1, -1)])
    [(counted)] = used.limits.values()
    assert counted.amount == 10


def test_a_bucket_that_is_published_twice_counts_once() -> None:
    buckets = [one for one in every(10, 10) for _ in range(2)]
    used = Used()
    told(quotas(Quota("day", requests=1000)), used, *buckets)
    assert [counted.amount for counted in used.limits.values()] == [100]


def test_tenants_without_quotas_are_not_counted() -> None:
    used = Used()
    assert not told(quotas(Quota("day", requests=1)), used, *every(10, 10, tenant="others"))
    assert used == Used()


def test_it_goes_on_from_what_was_saved() -> None:
    used, watch = Used(), quotas(Quota("day", usd=10.0), Quota("month", usd=12.0))
    first = told(watch, used, *every(10, 9))
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(used), type=Used)
    assert again == used
    second = told(watch, again, *every(10, 5, NOON + 90_000))
    assert [(f.severity, f.window) for f in first + second] == [
        ("info", "1d"), ("info", "1 month"), ("high", "1d"), ("high", "1 month"),
    ]  # fmt: skip


def test_what_is_kept_does_not_outlive_the_directorys_limits() -> None:
    used = Used()
    told(quotas(Quota("day", usd=10.0, tokens=1e9), Quota("hour", requests=99)), used, *every(10, 3))
    assert len(used.limits) == 3
    told(quotas(Quota("day", usd=20.0)), used, *every(10, 3, NOON + 30_000))
    assert [counted.amount for counted in used.limits.values()] == [6.0]


def test_ids_differ_for_each_limit_and_window() -> None:
    watch, used = quotas(Quota("minute", usd=2.0, requests=20)), Used()
    found = told(watch, used, *every(10, 18))
    assert len({finding.finding_id for finding in found}) == len(found) == 12


def test_the_decider_alerts_on_the_tenant_and_blocks_nobody(story: Any) -> None:
    s = story(Directory(tenants={"acme": Tenant(quotas=[Quota("hour", usd=1.0)])}))
    for n in range(12):
        time = format_millis(NOON + (n + 1) * 10_000)
        s.take(TenantBucket(time, "acme", time, 0, 1, 5, 0, 900.0, 0.1))
    [incident] = s.incidents.values()
    assert (incident.identity, incident.kinds, incident.tenant) == (None, ["quota"], "acme")
    assert "the whole tenant used" in incident.headline
    assert s.commands == []
