"""Far more than ever: what is told, when, and what is not."""

import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from made_traffic import HOUR, START_MS, Traffic, in_order
from msgspec.structs import replace

from detectors import Config, Partition, excursions, spike_kernel
from detectors.spike import ClassConfig
from schemas.batch import to_batch
from schemas.directory import Directory
from schemas.finding import Finding
from schemas.times import parse_millis

Found = Callable[..., list[Finding]]
WARM, SETTLED = 7.0, 25.0


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


def alerts(found: list[Finding]) -> list[Finding]:
    """Those that alert: weak evidence does not."""
    return [finding for finding in found if finding.severity not in ("info", "low")]


def seconds_to(finding: Finding, after: float = WARM) -> float:
    """Seconds from the end of the warm-up, `after` so many hours, to a finding."""
    return (parse_millis(finding.time) - START_MS) / 1000 - after * HOUR


def test_a_cheap_burst_is_weak_evidence_until_it_goes_on(
    findings: Found, policy: Config, limits: ClassConfig, least: float
) -> None:
    """The same burst, for a dollar and a half a minute and for next to nothing."""

    def story(usd: float) -> list[Finding]:
        traffic = Traffic(cost_usd=usd)
        traffic.quietly(WARM, per_hour=30)
        burst(traffic, WARM * HOUR, 300, least * limits.ratio * 1.6)
        return findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")

    dear, cheap = story(0.05), story(1e-6)
    assert seconds_to(alerts(dear)[0]) <= 60
    assert cheap[0].severity == "low"
    assert {f.severity for f in alerts(cheap)} == {"medium"}
    assert policy.spike.cheap_seconds / 2 <= seconds_to(alerts(cheap)[0]) <= policy.spike.cheap_seconds + 10
    assert not any(f.evidence.extreme for f in cheap)
    ratio = alerts(cheap)[0].evidence.details["ratio"]
    assert limits.ratio <= ratio < limits.extreme_ratio
    assert f"{ratio:.1f} times" in alerts(cheap)[0].reason


def test_the_farther_beyond_the_cheaper_a_burst_may_be_to_be_extreme(
    findings: Found, limits: ClassConfig, least: float
) -> None:
    """Three cents a minute: nobody is throttled for that at once, unless it is thirty times the most there ever was."""

    def story(ratio: float) -> list[Finding]:
        traffic = Traffic(cost_usd=0.03 / 60)
        traffic.quietly(WARM, per_hour=30)
        burst(traffic, WARM * HOUR, 120, least * ratio)
        return findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")

    assert not any(f.evidence.extreme for f in story(limits.extreme_ratio * 1.2))
    assert any(f.evidence.extreme for f in story(limits.extreme_ratio * 4))


def test_a_burst_that_costs_more_than_the_dearest_ten_minutes_is_extreme(
    findings: Found, limits: ClassConfig, least: float
) -> None:
    """However little beyond the record it is: two dollars a minute, and two cents."""

    def story(usd: float) -> list[Finding]:
        traffic = Traffic(cost_usd=0.001)
        traffic.quietly(WARM, per_hour=30)
        for event in range(180):
            traffic.call(WARM * HOUR + event, input_tokens=round(least * limits.ratio * 1.4 / 60), cost_usd=usd / 60)
        return findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")

    assert not any(f.evidence.extreme for f in story(0.02))
    [first, *_] = [f for f in story(2.0) if f.evidence.extreme]
    assert first.evidence.details["ratio"] >= limits.ratio


def test_what_grows_within_the_hour_is_measured_against_the_time_before(findings: Found, policy: Config) -> None:
    """Each call a tenth dearer than the last: none is much more than ever, all of them are."""
    traffic = Traffic(cost_usd=0.01)
    traffic.quietly(WARM, per_hour=30)
    for n in range(60):
        traffic.call(WARM * HOUR + 20 * n, cost_usd=0.01 * 1.1**n)
    assert policy.spike.learn_after_minutes * 60 > 60 * 20
    assert any(f.evidence.extreme for f in findings(in_order(traffic.events, others(WARM + 0.4).events), "spike"))


def test_what_goes_on_needs_fewer_calls_a_minute(findings: Found, limits: ClassConfig) -> None:
    """Half the floor of a minute, for ten minutes."""
    traffic = Traffic(cost_usd=0.0)
    traffic.quietly(WARM, per_hour=10)
    traffic.every(120 / limits.floor_requests, WARM * HOUR, (WARM + 0.3) * HOUR)
    found = alerts(findings(in_order(traffic.events, others(WARM + 0.4).events), "spike"))
    assert found
    assert found[0].window == "10m"


def test_a_burst_far_beyond_the_record_is_extreme_within_ten_seconds_or_so(findings: Found, policy: Config) -> None:
    """Two calls a second of somebody who never made more than a few a minute."""
    traffic = Traffic(cost_usd=0.005)
    traffic.quietly(SETTLED, per_hour=30)
    traffic.every(0.5, SETTLED * HOUR, SETTLED * HOUR + 60)
    found = findings(in_order(traffic.events, others(SETTLED + 0.2).events), "spike")
    [first, *_] = alerts(found)
    assert seconds_to(first, SETTLED) <= 10
    [extreme, *_] = [f for f in found if f.evidence.extreme]
    assert extreme.severity == "critical"
    assert policy.spike.sustained_seconds / 2 <= seconds_to(extreme, SETTLED) <= 20


def test_a_finding_names_the_event_that_crossed_the_line(findings: Found, policy: Config, least: float) -> None:
    traffic = Traffic()
    traffic.quietly(WARM, per_hour=30)
    for n in range(policy.spike.calls):
        crossing = traffic.call(
            WARM * HOUR + 1 + n, output_tokens=round(least * policy.spike.interactive.extreme_ratio)
        )
    [found, *_] = alerts(findings(in_order(traffic.events, others(WARM + 0.01).events), "spike"))
    assert found.evidence.cause is not None
    assert (found.evidence.cause.source, found.evidence.cause.id) == (crossing.source, crossing.id)
    assert parse_millis(found.time) == int(crossing.time.timestamp() * 1000)


def test_a_long_document_is_no_extreme_and_a_drained_wallet_is(findings: Found, policy: Config) -> None:
    """Three questions about a document, with answers as ever; and three of the greatest calls there are."""

    def story(output: int, calls: int) -> list[Finding]:
        traffic = Traffic(output_tokens=200)
        traffic.quietly(WARM, per_hour=30)
        for n in range(calls):
            traffic.call(WARM * HOUR + 10 * n, input_tokens=150_000, output_tokens=output, cost_usd=0.4)
        return findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")

    questions, drained = story(300, policy.spike.calls), story(12_000, policy.spike.calls)
    assert {f.severity for f in questions} == {"low"}
    assert any(f.evidence.extreme for f in drained)
    assert any(f.evidence.extreme for f in story(300, policy.spike.large_calls + 1))


def test_an_extreme_that_lasts_is_graver_and_may_throttle_alone(findings: Found, policy: Config, least: float) -> None:
    traffic = Traffic()
    traffic.quietly(WARM, per_hour=30)
    burst(traffic, WARM * HOUR, 120, least * policy.spike.interactive.extreme_ratio * 4)
    found = findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")
    grave = [f for f in found if f.evidence.extreme]
    assert grave
    assert {f.severity for f in grave} == {"critical"}
    assert seconds_to(grave[0]) >= policy.spike.sustained_seconds / 2
    assert grave[0].evidence.usd_per_minute > grave[0].evidence.baseline_usd_per_minute > 0


def test_a_flush_of_one_moment_is_no_extreme(findings: Found) -> None:
    """Two hundred calls that end in the same second: a gateway that was held up."""
    traffic = Traffic()
    traffic.quietly(WARM, per_hour=30)
    for n in range(200):
        traffic.call(WARM * HOUR + n / 200)
    found = findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")
    assert not any(f.evidence.extreme for f in found)


def test_it_is_told_again_once_a_minute_at_most(findings: Found, policy: Config, least: float) -> None:
    traffic = Traffic()
    traffic.quietly(WARM, per_hour=30)
    burst(traffic, WARM * HOUR, 600, least * policy.spike.interactive.extreme_ratio * 4)
    found = findings(in_order(traffic.events, others(WARM + 0.3).events), "spike")
    # As it gets graver, and then one a minute.
    assert 8 <= len(found) <= 3 + 600 / policy.spike.repeat_finding_seconds + 1
    graver = {"low": 1, "medium": 2, "high": 3, "critical": 4}
    for one, other in pairwise(found):
        apart = parse_millis(other.time) - parse_millis(one.time)
        assert apart >= policy.spike.repeat_finding_seconds * 1000 or graver[other.severity] > graver[one.severity]


@pytest.mark.parametrize(
    ("calls", "tokens", "usd"), [(8, 10, 0.001), (1, 29_000, 0.001), (1, 10, 0.24)], ids=["calls", "tokens", "usd"]
)
def test_what_stays_below_the_floor_is_no_spike(findings: Found, calls: int, tokens: int, usd: float) -> None:
    """However many times the usual it is: twenty times nothing is nothing."""
    traffic = Traffic(input_tokens=1, output_tokens=0, cost_usd=1e-6)
    traffic.every(60.0, 0, WARM * HOUR)
    for n in range(10 * calls):
        traffic.call(WARM * HOUR + n * 60 / calls, input_tokens=tokens, cost_usd=usd)
    assert not alerts(findings(in_order(traffic.events, others(WARM + 0.5).events), "spike"))


def test_growth_over_hours_is_no_spike(findings: Found, limits: ClassConfig) -> None:
    traffic = Traffic()
    last = 0.0
    for hour in range(12):
        last = 3000 * 1.34**hour
        traffic.every(60.0, hour * HOUR, (hour + 1) * HOUR, input_tokens=round(last))
    assert last > 2 * limits.floor_tokens
    assert last > 4 * limits.ratio * 3000
    assert not alerts(findings(in_order(traffic.events, others(12).events), "spike"))


def test_a_burst_that_is_over_is_no_news_for_the_rest_of_ten_minutes(findings: Found) -> None:
    """The identity goes on as always: its last ten minutes are far beyond all there was, the last one is not."""
    traffic = Traffic()
    traffic.quietly(WARM + 1, per_hour=60)
    traffic.every(0.5, WARM * HOUR, WARM * HOUR + 180)
    found = alerts(findings(in_order(traffic.events, others(WARM + 1).events), "spike"))
    assert any(f.evidence.extreme for f in found)
    assert max(map(seconds_to, found)) <= 180 + 70


def test_a_job_that_runs_each_hour_is_no_spike_once_it_is_known(findings: Found) -> None:
    """Two minutes of three calls a second after an hour of silence."""
    job = Traffic("job_1", workload="batch")
    for hour in range(12):
        job.every(1 / 3, hour * HOUR, hour * HOUR + 120)
    assert not alerts(findings(in_order(job.events, others(12).events), "spike"))


def test_what_came_once_is_let_in_after_hours(findings: Found, policy: Config) -> None:
    """A job that nobody declared, twice a day: told at first, and no more when it is known. Ten times as much is."""
    traffic = Traffic(output_tokens=10, cost_usd=0.001)
    traffic.quietly(72.0, per_hour=10)
    runs = [12.0 * n for n in range(1, 6)]
    for start in runs[:-1]:
        traffic.every(1.0, start * HOUR, start * HOUR + 180, input_tokens=100)
    traffic.every(0.1, runs[-1] * HOUR, runs[-1] * HOUR + 60, input_tokens=100)
    found = alerts(findings(in_order(traffic.events, others(72.0).events), "spike"))
    told = sorted({round((parse_millis(f.time) - START_MS) / 1000 / HOUR) for f in found})
    assert policy.spike.adapt_hours <= 12.0 + 12.0
    assert told[0] == runs[0]
    assert runs[2] not in told
    assert runs[3] not in told
    assert told[-1] == runs[-1]


def test_whose_records_are_broken_by_much_now_and_then_must_break_them_by_more(findings: Found, policy: Config) -> None:
    """The same burst: after flushes of three times as many calls as ever, and after none."""

    def story(flushes: tuple[int, ...]) -> list[Finding]:
        traffic = Traffic(output_tokens=10, cost_usd=0.01)
        traffic.quietly(12.0, per_hour=10)
        for n, calls in enumerate(flushes):
            traffic.every(0.1, (8.0 + n) * HOUR, (8.0 + n) * HOUR + calls / 10)
        traffic.every(0.1, 11.0 * HOUR, 11.0 * HOUR + 15, input_tokens=10)
        return alerts(findings(in_order(traffic.events, others(12.0).events), "spike"))

    calm, bursty = story((7, 12, 20)), story((7, 24))
    assert calm
    assert calm[0].evidence.details["ratio"] >= policy.spike.interactive.ratio
    assert not bursty


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


def test_a_newcomer_that_goes_on_far_beyond_its_class_is_extreme(
    findings: Found, policy: Config, limits: ClassConfig
) -> None:
    traffic = Traffic(cost_usd=0.0)
    per_minute = limits.cold_tokens / limits.ratio * limits.extreme_ratio * 1.5
    traffic.every(2.0, 0, policy.spike.cheap_seconds + 120, input_tokens=round(per_minute / 30), output_tokens=0)
    found = findings(in_order(traffic.events, others(0.5).events), "spike")
    extreme = [f for f in found if f.evidence.extreme]
    assert extreme[0].evidence.details["warm"] == 0
    assert extreme[0].evidence.age_seconds >= policy.spike.cheap_seconds


@pytest.mark.parametrize(("every", "output", "extreme"), [(10.0, 4000, True), (1.0, 400, False)])
def test_longer_answers_are_no_import_of_many_calls(
    findings: Found, policy: Config, every: float, output: int, extreme: bool
) -> None:
    """The same output, next to free: by a few endless answers, or by many calls as always."""
    traffic = Traffic(cost_usd=1e-7)
    traffic.quietly(SETTLED, per_hour=30)
    start, seconds = SETTLED * HOUR, policy.spike.cheap_seconds + 300
    traffic.every(every, start, start + seconds, input_tokens=10, output_tokens=output)
    found = findings(in_order(traffic.events, others(SETTLED + 0.5).events), "spike")
    assert alerts(found)
    assert any(f.evidence.extreme for f in found) == extreme


def test_history_is_trusted_by_degrees(findings: Found, limits: ClassConfig) -> None:
    """The same burst after two hours, and after a day: too little for a newcomer, told of somebody known."""

    def story(hours: float) -> list[Finding]:
        traffic = Traffic(cost_usd=0.01)
        traffic.quietly(hours, per_hour=30)
        burst(traffic, hours * HOUR, 120, limits.floor_tokens * 2)
        return alerts(findings(in_order(traffic.events, others(hours + 0.2).events), "spike"))

    assert not story(2.0)
    assert story(WARM)


def test_the_record_of_few_hours_must_be_broken_by_more_before_it_blocks(
    findings: Found, policy: Config, least: float
) -> None:
    """The same burst after seven hours and after a day: told of both, extreme of one."""

    def story(hours: float) -> list[Finding]:
        traffic = Traffic(cost_usd=0.005)
        traffic.quietly(hours, per_hour=30)
        burst(traffic, hours * HOUR, 60, least * policy.spike.interactive.extreme_ratio * 1.3)
        return findings(in_order(traffic.events, others(hours + 0.2).events), "spike")

    young, settled = story(WARM), story(SETTLED)
    assert WARM < policy.spike.settled_hours <= SETTLED
    assert alerts(young)
    assert not any(f.evidence.extreme for f in young)
    assert any(f.evidence.extreme for f in settled)


def test_a_lasting_change_is_let_in_after_hours(
    findings: Found, policy: Config, limits: ClassConfig, least: float
) -> None:
    traffic = Traffic(cost_usd=0.0)
    traffic.quietly(WARM, per_hour=30)
    traffic.every(
        20.0, WARM * HOUR, (WARM + 9) * HOUR, input_tokens=round(least * limits.ratio * 2 / 3), output_tokens=0
    )
    found = alerts(findings(in_order(traffic.events, others(WARM + 9).events), "spike"))
    after = [seconds_to(f) / HOUR for f in found]
    assert after[0] < 0.2
    assert max(after) < policy.spike.adapt_hours


def test_a_batch_job_may_use_what_a_person_may_not(findings: Found, policy: Config, least: float) -> None:
    def story(workload: str) -> list[Finding]:
        traffic = Traffic(workload=workload)
        traffic.quietly(WARM, per_hour=30)
        burst(traffic, WARM * HOUR, 120, policy.spike.batch.floor_tokens * 0.9)
        return alerts(findings(in_order(traffic.events, others(WARM + 0.2).events), "spike"))

    assert policy.spike.batch.floor_tokens * 0.9 > 2 * least * policy.spike.interactive.ratio
    assert story("interactive")
    assert not story("batch")


def test_somewhat_more_than_ever_is_weak_evidence_told_once(findings: Found, limits: ClassConfig) -> None:
    """Below a spike: it alerts nobody by itself."""
    traffic = Traffic(cost_usd=0.0)
    traffic.quietly(WARM, per_hour=30)
    traffic.every(
        5.0, WARM * HOUR, WARM * HOUR + 120, input_tokens=round(limits.floor_tokens * 0.7 / 12), output_tokens=0
    )
    [found] = findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")
    assert found.severity == "low"
    assert not found.evidence.extreme


def test_retries_are_no_calls(findings: Found) -> None:
    """A client that tries one call again and again, for nothing, makes one."""
    traffic = Traffic(input_tokens=0, output_tokens=0, cost_usd=0.0, status=503)
    traffic.quietly(WARM, per_hour=30)
    for n in range(120):
        traffic.call(WARM * HOUR + n / 2, attempt=n)
    assert not findings(in_order(traffic.events, others(WARM + 0.2).events), "spike")


def test_unknown_usage_is_neither_zero_nor_a_crash(findings: Found) -> None:
    traffic = Traffic(input_tokens=None, output_tokens=None, cost_usd=None)
    traffic.every(1.0, 0, 300)
    found = findings(in_order(traffic.events, others(0.2).events), "spike")
    assert {f.evidence.details["unit"] for f in found} <= {"requests/min"}


def test_the_bank_in_production_is_the_one_that_scores_series(policy: Config) -> None:
    """An identity's tokens of five minutes are the points; its bank ends as one that was shown them does."""
    dice = random.Random(4)
    tokens = [round(1000 * dice.lognormvariate(0.0, 0.3)) for _ in range(300)]
    traffic = Traffic(output_tokens=0)
    for n, amount in enumerate(tokens):
        traffic.call(300 * n + 60, input_tokens=amount)
    partition = Partition(0, policy, Directory())
    partition.take(to_batch(traffic.events, range(len(tokens)), [0] * len(tokens)))
    spike = partition._detectors[0]
    assert spike_kernel.score_point is excursions.score_point
    bank, seasons = np.zeros(1, excursions.BANK), np.zeros(3, excursions.SEASONS)
    points = int(spike.banks.array[0]["points"])
    assert points > 250
    # The last intervals are still open.
    for n, amount in enumerate(tokens[:points]):
        excursions.score_point(bank[0], seasons[0], float(amount), START_MS / 1000 + 300 * n, True)
    for name in excursions.BANK.names or ():
        assert bank[0][name].tolist() == spike.banks.array[0][name].tolist(), name
    assert spike._seasons.tobytes() == seasons.tobytes()


def test_a_state_that_was_saved_is_the_same(policy: Config, orderly: list[object]) -> None:
    whole, half = Partition(0, policy, Directory()), len(orderly) // 2
    whole.take(to_batch(orderly[:half], range(half), [0] * half))
    again = Partition(0, policy, Directory())
    again.restore(whole.checkpoint().pieces)
    for name, rows in whole._detectors[0].components.items():
        known = whole.identities
        assert again._detectors[0].components[name].array[:known].tobytes() == rows.array[:known].tobytes()
    before, after = whole._detectors[0], again._detectors[0]
    assert after._seasons.tobytes() == before._seasons.tobytes()
    assert [cohort.bins for cohort in after._cohorts] == [cohort.bins for cohort in before._cohorts]


def test_a_policy_whose_ratios_are_out_of_order_is_refused(policy: Config) -> None:
    with pytest.raises(ValueError, match="unusual_ratio"):
        replace(policy.spike, unusual_ratio=5.0)
