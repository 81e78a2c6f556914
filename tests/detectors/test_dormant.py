"""Keys that slept and wake up busy, and those that sleep as they always did."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traffic import HOUR, Traffic

from detectors import Config
from schemas.finding import Finding

Found = Callable[..., list[Finding]]
DAY = 24 * HOUR


def sparse(days: float = 1.0, **common: object) -> Traffic:
    """A key that is called every three hours."""
    traffic = Traffic(**common)
    traffic.every(3 * HOUR, 0, days * DAY)
    return traffic


def test_a_sleeping_key_wakes_up_busy(findings: Found, policy: Config) -> None:
    traffic = sparse()
    traffic.every(2.0, 5 * DAY, 5 * DAY + 40)
    found = findings(traffic.events, "dormant")
    assert [f.severity for f in found] == ["low", "medium", "high"]
    assert [f.evidence.cause.id for f in found if f.evidence.cause][:2] == ["key_1-10", "key_1-14"]
    assert found[1].observed >= policy.dormant.busy_calls > found[0].observed >= policy.dormant.hint_calls
    assert found[1].evidence.details == {"slept_hours": 99.0, "longest_gap_hours": pytest.approx(3.0, abs=0.1)}
    assert "99 h of silence" in found[1].reason
    assert not any(f.evidence.deterministic or f.evidence.extreme for f in found)


@pytest.mark.parametrize(("calls", "severity"), [(13, "low"), (21, "medium")])
def test_who_comes_back_has_more_to_do_than_before(findings: Found, calls: int, severity: str) -> None:
    """Six calls at once is what it used to do. Thirteen are no news after four days away."""
    traffic = Traffic()
    for visit in range(6):
        traffic.every(10.0, visit * 3 * HOUR, visit * 3 * HOUR + 60)
    traffic.every(10.0, 5 * DAY, 5 * DAY + calls * 10)
    assert findings(traffic.events, "dormant")[-1].severity == severity


def test_it_is_told_once_a_minute_while_it_is_watched(findings: Found, policy: Config) -> None:
    traffic = sparse()
    traffic.every(2.0, 3 * DAY, 3 * DAY + 2 * HOUR)
    found = findings(traffic.events, "dormant")
    assert 55 <= len(found) <= policy.dormant.watch_minutes + 3


@pytest.mark.parametrize(("hours", "told"), [(30.0, False), (45.0, True)])
def test_a_sleep_is_long(findings: Found, hours: float, told: bool) -> None:
    traffic = sparse()
    traffic.every(2.0, 21 * HOUR + hours * HOUR, 21 * HOUR + hours * HOUR + 40)
    assert bool(findings(traffic.events, "dormant")) == told


def test_a_sleep_is_long_for_whom_it_is(findings: Found) -> None:
    """A key that is called every second day, and then three at a time, sleeps two days and no longer."""
    traffic = Traffic()
    for visit in range(8):
        traffic.every(60.0, visit * 2 * DAY, visit * 2 * DAY + 180)
    told_once = findings(traffic.events, "dormant")
    traffic.every(2.0, 17 * DAY, 17 * DAY + 40)
    assert findings(traffic.events, "dormant") == told_once
    assert {f.severity for f in told_once} <= {"low"}


def test_who_wakes_up_as_slowly_as_before_is_not_told(findings: Found) -> None:
    traffic = sparse()
    traffic.every(3 * HOUR, 4 * DAY, 6 * DAY)
    assert not findings(traffic.events, "dormant")


@pytest.mark.parametrize("hour", [8.0, 9.0, 15.0])
def test_nights_and_weekends_are_no_sleep(findings: Found, hour: float) -> None:
    """Whoever works as on other days after a weekend, at whatever hour the first call comes."""
    traffic = Traffic()
    for day in (0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 14):
        traffic.every(25.0, day * DAY + hour * HOUR, day * DAY + hour * HOUR + 600)
        traffic.every(25.0, day * DAY + 16 * HOUR, day * DAY + 16 * HOUR + 600)
    assert not findings(traffic.events, "dormant")


def test_a_monthly_job_wakes_up_as_it_did(findings: Found) -> None:
    traffic = Traffic("job", workload="batch")
    for month in range(4):
        traffic.every(2.0, month * 30 * DAY, month * 30 * DAY + 1200)
    assert not findings(traffic.events, "dormant")


def test_a_key_that_was_once_busy_and_slept_for_weeks(findings: Found) -> None:
    """The pace of long ago excuses nobody, unless it is a job's."""
    traffic = Traffic()
    for hour in range(12):
        traffic.every(2.0, hour * 2 * HOUR, hour * 2 * HOUR + 120)
    traffic.every(2.0, 25 * DAY, 25 * DAY + 30)
    assert [f.severity for f in findings(traffic.events, "dormant")] == ["low", "medium", "high"]


def test_a_new_key_has_no_sleep_of_its_own(findings: Found) -> None:
    """Of a key that was tried once and is then put to work, there is weak evidence at the most."""
    traffic = Traffic()
    traffic.every(30.0, 0, 300)
    traffic.every(1.0, 3 * DAY, 3 * DAY + 600)
    assert {f.severity for f in findings(traffic.events, "dormant")} == {"low"}


def test_what_was_no_attack_becomes_its_own(findings: Found) -> None:
    traffic = sparse()
    traffic.every(2.0, 3 * DAY, 3 * DAY + 40)
    first = findings(traffic.events, "dormant")
    traffic.every(3 * HOUR, 3 * DAY + 2 * HOUR, 4 * DAY)
    traffic.every(2.0, 6 * DAY, 6 * DAY + 40)
    assert findings(traffic.events, "dormant") == first


def test_retries_do_not_make_it_busy(findings: Found) -> None:
    traffic = sparse()
    for attempt in range(20):
        traffic.call(3 * DAY + attempt, status=503, operation_id="op", attempt=attempt)
    assert not findings(traffic.events, "dormant")


@settings(max_examples=30)
@given(gaps=st.lists(st.floats(60.0, 9 * HOUR), min_size=20, max_size=80))
def test_a_sparse_key_is_never_told(findings: Found, gaps: list[float]) -> None:
    traffic, at = Traffic(), 0.0
    for gap in gaps:
        at += gap
        traffic.call(at)
    assert not findings(traffic.events, "dormant")
