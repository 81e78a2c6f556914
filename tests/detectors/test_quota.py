"""Quotas: what crosses a limit, in which window, and what uses nothing up."""

from collections.abc import Callable
from typing import Any

import pytest
from made_traffic import HOUR, Events, Traffic
from msgspec.structs import replace

from detectors import Config, Partition
from detectors.quota import _ROW
from schemas.batch import to_batch
from schemas.directory import Directory, Entry
from schemas.finding import Finding
from schemas.quota import Quota
from schemas.usage import DENIED

DAY = 24 * HOUR
Found = Callable[..., list[Finding]]


def known(*quotas: Quota, tenant: str | None = None) -> Directory:
    return Directory({"key_1": Entry(tenant=tenant, quotas=list(quotas))})


def spending(every: float, start: float, end: float, usd: float = 0.01, **changes: Any) -> Traffic:
    traffic = Traffic(cost_usd=usd)
    traffic.every(every, start, end, **changes)
    return traffic


def test_a_row_is_small() -> None:
    assert _ROW.itemsize <= 64


def test_the_event_that_crosses_a_limit_tells(findings: Found) -> None:
    traffic = spending(60.0, 0, 2 * HOUR, usd=0.5)
    found = findings(traffic.events, "quota", directory=known(Quota("day", usd=50.0)))
    warned, first, second, *_ = found
    assert (warned.severity, warned.evidence.deterministic, warned.observed) == ("info", False, 40.0)
    assert (first.severity, first.evidence.deterministic, first.observed) == ("high", True, 50.5)
    assert first.evidence.cause is not None
    assert first.evidence.cause.id == traffic.events[100].id
    assert first.reason == "$50.50 of $50.00 a day used at 01:40 UTC, 1 call and $0.50/min now"
    assert first.evidence.span_seconds == 100 * 60
    assert second.observed == 51.0


@pytest.mark.parametrize(
    ("quota", "amount"),
    [(Quota("hour", tokens=100_000.0), 1000), (Quota("hour", requests=100.0), 1), (Quota("hour", usd=1.0), 0.01)],
)
def test_each_unit_is_counted(findings: Found, quota: Quota, amount: float) -> None:
    traffic = spending(10.0, 0, 1200)
    exceeded = [f for f in findings(traffic.events, "quota", directory=known(quota)) if f.severity == "high"]
    assert exceeded[0].observed == pytest.approx(101 * amount)


@pytest.mark.parametrize("seconds", [59.0, 61.0])
def test_told_once_a_minute_while_it_goes_on(findings: Found, seconds: float) -> None:
    traffic = spending(seconds, 0, seconds * 40)
    exceeded = [
        f for f in findings(traffic.events, "quota", directory=known(Quota("day", requests=10))) if f.score > 0.5
    ]
    assert len(exceeded) == (15 if seconds < 60 else 30)


@pytest.mark.parametrize(
    ("per", "start", "told"),
    [
        ("minute", 30.0, False),
        ("minute", 0.0, True),
        ("hour", HOUR - 30, False),
        ("hour", HOUR, True),
        ("day", DAY - 30, False),
        ("day", DAY, True),
        ("month", 30 * DAY - 30, False),
        ("month", 30 * DAY, True),
    ],
)
def test_windows_are_those_of_the_calendar(findings: Found, per: Any, start: float, *, told: bool) -> None:
    """Sixty calls in a minute, half of them before a window begins: the first of April is thirty days after the 2nd."""
    traffic = spending(1.0, start, start + 60)
    exceeded = [
        f for f in findings(traffic.events, "quota", directory=known(Quota(per, requests=31))) if f.severity == "high"
    ]
    assert bool(exceeded) is told


def test_the_next_window_begins_with_nothing(findings: Found) -> None:
    traffic = spending(60.0, 22 * HOUR, 26 * HOUR)
    found = findings(traffic.events, "quota", directory=known(Quota("day", requests=100)))
    assert [f.time[8:10] for f in found if f.severity == "info"] == ["02", "03"]
    assert {f.time[8:13] for f in found if f.severity == "high"} == {"02T23", "03T01"}


@pytest.mark.parametrize(
    "unused", [{"status": 503}, {"status": 401}, {"status": 403, "error": DENIED}], ids=["failed", "401", "denied"]
)
def test_what_is_not_served_uses_nothing_up(findings: Found, unused: dict[str, Any]) -> None:
    traffic = spending(1.0, 0, 300, **unused)
    assert not findings(traffic.events, "quota", directory=known(Quota("day", requests=50, usd=0.5)))


def test_what_the_caller_cut_off_was_served(findings: Found) -> None:
    traffic = spending(1.0, 0, 300, status=499)
    assert findings(traffic.events, "quota", directory=known(Quota("day", requests=50)))


def test_a_second_delivery_uses_nothing_up(findings: Found) -> None:
    events = [event for event in spending(10.0, 0, 990).events for _ in range(2)]
    found = findings(events, "quota", directory=known(Quota("day", requests=99)))
    assert [f.severity for f in found] == ["info"]


def test_exactly_all_of_a_limit_is_not_beyond_it(findings: Found) -> None:
    traffic = spending(1.0, 0, 30, usd=0.1)
    found = findings(traffic.events, "quota", directory=known(Quota("day", usd=3.0)))
    assert [f.severity for f in found] == ["info"]


def test_of_two_limits_that_are_crossed_each_is_told(findings: Found) -> None:
    traffic = spending(1.0, 0, 200)
    quotas = (Quota("minute", requests=50), Quota("hour", requests=100, usd=1.5))
    found = findings(traffic.events, "quota", directory=known(*quotas))
    assert {(f.window, f.evidence.details["unit"]) for f in found if f.severity == "high"} == {
        ("1m", "requests"), ("1h", "requests"), ("1h", "usd"),
    }  # fmt: skip


def test_a_namesake_in_another_tenant_has_no_such_quota(findings: Found) -> None:
    traffic = spending(1.0, 0, 100)
    assert not findings(traffic.events, "quota", directory=known(Quota("day", requests=10), tenant="others"))
    assert findings(traffic.events, "quota", directory=known(Quota("day", requests=10), tenant="acme"))


def test_without_quotas_nothing_is_counted(policy: Config) -> None:
    partition = Partition(0, policy, Directory())
    events = spending(1.0, 0, 100).events
    partition.take(to_batch(events, range(100), [0] * 100))
    assert not any(d.rows.array.view("u8").any() for d in partition._detectors if d.name == "quota")


def test_a_clock_that_is_a_day_ahead_does_not_end_the_day(findings: Found) -> None:
    traffic = Traffic(cost_usd=0.01)
    for n in range(100):
        traffic.call(n * 10.0)
        if n % 30 == 15:
            traffic.call(n * 10.0 + DAY)
    found = findings(traffic.events, "quota", directory=known(Quota("day", requests=90)))
    assert [f.severity for f in found if f.observed == 91] == ["high"]


def test_what_comes_late_counts_in_the_windows_that_are_still_open(findings: Found) -> None:
    traffic = spending(10.0, HOUR - 600, HOUR + 300)
    for n in range(20):
        traffic.call(HOUR - 300 + n, event_id=f"late-{n}")
    quotas = (Quota("hour", requests=45), Quota("day", requests=100))
    exceeded = [f for f in findings(traffic.events, "quota", directory=known(*quotas)) if f.severity == "high"]
    assert {f.window for f in exceeded} == {"1h", "1d"}
    assert all(f.observed > 45 for f in exceeded if f.window == "1h")
    assert [f.evidence.offsets[0] >= 90 for f in exceeded if f.window == "1d"] == [True]


def two_halves(policy: Config, events: Events, first: Directory, second: Directory) -> list[Finding]:
    half = len(events) // 2
    before, after = Partition(0, policy, first), Partition(0, policy, second)
    told = before.take(to_batch(events[:half], range(half), [0] * half))
    after.restore(before.checkpoint().pieces)
    told += after.take(to_batch(events[half:], range(half, len(events)), [0] * (len(events) - half)))
    return [t.signal for t in told if isinstance(t.signal, Finding) and t.signal.kind == "quota"]


def test_a_restart_forgets_nothing_and_reads_the_directory_anew(policy: Config) -> None:
    events = spending(10.0, 0, 1000).events
    limits = known(Quota("day", requests=60))
    assert [f.observed for f in two_halves(policy, events, limits, limits)][:2] == [48, 61]
    # A greater limit of the same sort goes on from the same sum; another sort of limit counts from now on.
    greater, other = known(Quota("day", requests=90)), known(Quota("hour", requests=40))
    assert [f.observed for f in two_halves(policy, events, limits, greater)][:2] == [48, 91]
    assert [f.observed for f in two_halves(policy, events, limits, other)][:3] == [48, 32, 41]


def test_a_freed_row_takes_no_quota_along(policy: Config) -> None:
    [quota] = [d for d in Partition(0, policy, known(Quota("day", requests=5)))._detectors if d.name == "quota"]
    partition = Partition(0, policy, known(Quota("day", requests=5)))
    [quota] = [d for d in partition._detectors if d.name == "quota"]
    events = spending(1.0, 0, 10).events
    partition.take(to_batch(events, range(10), [0] * 10))
    assert quota._plans.array["limits"][0] == 1
    far = [
        replace(e, id=f"far-{n}", subject="key_2") for n, e in enumerate(spending(1.0, 60 * DAY, 60 * DAY + 20).events)
    ]
    partition.take(to_batch(far, range(10, 30), [0] * 20))
    partition.take(to_batch([replace(far[-1], id="new", subject="key_3")], [30], [0]))
    assert quota._plans.array["limits"][:3].tolist() == [0, 0, 0]
