"""Far more than ever: what is told, when, and what is not."""

from collections.abc import Callable

import pytest
from made_traffic import HOUR, Traffic, in_order

from detectors import Config
from detectors.spike import ClassConfig
from schemas.finding import Finding
from schemas.times import parse_millis

Found = Callable[..., list[Finding]]
WARM = 7.0


@pytest.fixture
def limits(policy: Config) -> ClassConfig:
    return policy.spike.interactive


@pytest.fixture
def least(limits: ClassConfig) -> float:
    """Tokens a minute that stand for the record of a warm identity that is quiet: its class's floor over the ratio."""
    return limits.floor_tokens / limits.ratio


def others(hours: float) -> Traffic:
    """Somebody who keeps the clock going."""
    traffic = Traffic("key_other")
    traffic.every(10.0, 0, hours * HOUR)
    return traffic


def burst(traffic: Traffic, start: float, seconds: float, tokens_per_minute: float) -> None:
    """Calls each two seconds that make so many tokens a minute."""
    traffic.every(2.0, start, start + seconds, input_tokens=round(tokens_per_minute / 30), output_tokens=0)


def test_an_excess_for_two_buckets_is_told(findings: Found, limits: ClassConfig, least: float) -> None:
    traffic = Traffic()
    traffic.quietly(WARM, per_hour=30)
    burst(traffic, WARM * HOUR, 180, least * limits.ratio * 2)
    found = findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")
    assert {f.identity for f in found} == {"key_1"}
    assert found[0].severity == "medium"
    assert not found[0].evidence.extreme
    assert found[0].observed >= limits.floor_tokens
    assert limits.ratio <= found[0].evidence.details["ratio"] < 10
    assert f"{found[0].evidence.details['ratio']:.1f} times" in found[0].reason


def test_an_excess_of_one_bucket_is_not_told(findings: Found, limits: ClassConfig, least: float) -> None:
    """It stays in the sum of a minute but not above the floor of ten: a single request may be large."""
    traffic = Traffic()
    traffic.quietly(WARM, per_hour=30)
    traffic.call(WARM * HOUR + 1, input_tokens=round(least * limits.ratio * 0.99), output_tokens=0)
    assert not findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")


def test_an_extreme_is_told_with_the_event_that_crossed_it(findings: Found, policy: Config, least: float) -> None:
    traffic = Traffic()
    traffic.quietly(WARM, per_hour=30)
    crossing = traffic.call(WARM * HOUR + 1, input_tokens=round(least * policy.spike.extreme_ratio * 1.2))
    [found, *_] = findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")
    assert found.evidence.cause is not None
    assert (found.evidence.cause.source, found.evidence.cause.id) == (crossing.source, crossing.id)
    assert parse_millis(found.time) == int(crossing.time.timestamp() * 1000)
    assert (found.severity, found.evidence.extreme) == ("high", False)


def test_an_extreme_that_lasts_is_graver_and_may_block_alone(findings: Found, policy: Config, least: float) -> None:
    traffic = Traffic()
    traffic.quietly(WARM, per_hour=30)
    burst(traffic, WARM * HOUR, 120, least * policy.spike.extreme_ratio * 4)
    found = findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")
    grave = [f for f in found if f.evidence.extreme]
    assert grave
    assert {f.severity for f in grave} == {"critical"}
    lasted = parse_millis(grave[0].time) - parse_millis(found[0].time)
    assert lasted >= policy.spike.sustained_seconds * 1000 - 10_000
    assert grave[0].evidence.usd_per_minute > grave[0].evidence.baseline_usd_per_minute > 0


def test_it_is_told_again_once_a_minute_at_most(findings: Found, policy: Config, least: float) -> None:
    traffic = Traffic()
    traffic.quietly(WARM, per_hour=30)
    burst(traffic, WARM * HOUR, 600, least * policy.spike.extreme_ratio * 4)
    found = findings(in_order(traffic.events, others(WARM + 0.3).events), "spike")
    # The first, the one that says that it lasts, and then one a minute.
    assert 8 <= len(found) <= 2 + 600 / policy.spike.repeat_finding_seconds + 1


@pytest.mark.parametrize(
    ("calls", "tokens", "usd"), [(29, 10, 0.001), (1, 29_000, 0.001), (1, 10, 0.24)], ids=["calls", "tokens", "usd"]
)
def test_what_stays_below_the_floor_is_no_spike(findings: Found, calls: int, tokens: int, usd: float) -> None:
    """However many times the usual it is: twenty times nothing is nothing."""
    traffic = Traffic(input_tokens=1, output_tokens=0, cost_usd=1e-6)
    traffic.every(60.0, 0, WARM * HOUR)
    for n in range(10 * calls):
        traffic.call(WARM * HOUR + n * 60 / calls, input_tokens=tokens, cost_usd=usd)
    assert not findings(in_order(traffic.events, others(WARM + 0.5).events), "spike")


def test_growth_over_hours_is_no_spike(findings: Found, limits: ClassConfig) -> None:
    traffic = Traffic()
    last = 0.0
    for hour in range(12):
        last = 3000 * 1.34**hour
        traffic.every(60.0, hour * HOUR, (hour + 1) * HOUR, input_tokens=round(last))
    assert last > 2 * limits.floor_tokens
    assert last > 4 * limits.ratio * 3000
    assert not findings(in_order(traffic.events, others(12).events), "spike")


def test_a_newcomer_may_be_busy(findings: Found, limits: ClassConfig) -> None:
    """Ten times the floor of a warm identity is still half of what stands in for a record at first."""
    traffic = Traffic(cost_usd=0.0)
    tokens = limits.cold_tokens / 2
    traffic.every(6.0, 0, 900, input_tokens=round(tokens / 10), output_tokens=0)
    assert tokens > 4 * limits.floor_tokens
    assert not findings(in_order(traffic.events, others(0.5).events), "spike")


def test_a_newcomer_that_exceeds_its_class_is_told(findings: Found, limits: ClassConfig) -> None:
    traffic = Traffic(cost_usd=0.0)
    traffic.every(2.0, 0, 300, input_tokens=round(limits.cold_tokens * 2 / 30), output_tokens=0)
    found = findings(in_order(traffic.events, others(0.5).events), "spike")
    assert found
    assert found[0].evidence.details["warm"] == 0


def test_a_lasting_change_is_let_in_after_hours(
    findings: Found, policy: Config, limits: ClassConfig, least: float
) -> None:
    traffic = Traffic(cost_usd=0.0)
    traffic.quietly(WARM, per_hour=30)
    traffic.every(
        20.0, WARM * HOUR, (WARM + 9) * HOUR, input_tokens=round(least * limits.ratio * 2 / 3), output_tokens=0
    )
    found = findings(in_order(traffic.events, others(WARM + 9).events), "spike")
    started = parse_millis("2026-03-02T07:00:00Z")
    after = [(parse_millis(f.time) - started) / 3_600_000 for f in found]
    assert after[0] < 0.1
    assert max(after) < policy.spike.adapt_hours


def test_a_batch_job_may_use_what_a_person_may_not(findings: Found, policy: Config, least: float) -> None:
    def story(workload: str) -> list[Finding]:
        traffic = Traffic(workload=workload)
        traffic.quietly(WARM, per_hour=30)
        burst(traffic, WARM * HOUR, 120, policy.spike.batch.floor_tokens * 0.9)
        return findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")

    assert policy.spike.batch.floor_tokens * 0.9 > 2 * least * policy.spike.interactive.ratio
    assert story("interactive")
    assert not story("batch")


def test_unknown_usage_is_neither_zero_nor_a_crash(findings: Found) -> None:
    traffic = Traffic(input_tokens=None, output_tokens=None, cost_usd=None)
    traffic.every(1.0, 0, 300)
    found = findings(in_order(traffic.events, others(0.2).events), "spike")
    assert {f.evidence.details["unit"] for f in found} <= {"requests/min"}
