"""Drift: slow rises, skims and poisoned baselines; launches that last, rhythms, weekends and holidays."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from made_traffic import HOUR, Events, Traffic, in_order
from msgspec.structs import replace

from detectors import Config, Partition
from detectors.drift import Config as DriftConfig
from detectors.drift import Drift
from detectors.drift_starts import note_session, starts_of
from detectors.drift_usual import COHORT, NAMED, ROW
from schemas.batch import to_batch
from schemas.directory import Directory
from schemas.finding import Finding

DAY = 24 * HOUR
Shape = Callable[[float], float]


def office(hour: float) -> float:
    """Nine to six, Monday to Friday."""
    return 1.0 if 9 <= hour % 24 < 18 and hour // 24 % 7 < 5 else 0.0


def always(_: float) -> float:
    return 1.0


def calls(
    shape: Shape, per_hour: float, days: float, seed: int = 1, *, session: int = 1, first: float = 0.0
) -> list[float]:
    """Times (s) of calls that come at random, `per_hour` times `shape(hour)`, and of the rest of their sessions."""
    dice, out, at = random.Random(seed), [], first * DAY
    while at < (first + days) * DAY:
        rate = per_hour * shape(at / HOUR)
        step = dice.expovariate(rate) * HOUR if rate > 0 else HOUR
        at += min(step, HOUR / 2)
        if step <= HOUR / 2:
            out += [at + n * 20.0 for n in range(session)]
    return out


def story(*times: list[float], subject: str = "key_1", **common: Any) -> Events:
    traffic = Traffic(subject, **common)
    for at in sorted(at for some in times for at in some):
        traffic.call(at)
    return traffic.events


def conversations(starts: list[float], each: int, gap: float = 20.0, subject: str = "key_1", **common: Any) -> Events:
    """Sessions that begin at `starts` (s), of `each` calls, `gap` seconds apart."""
    traffic = Traffic(subject, **common)
    for number, start in enumerate(starts):
        for n in range(each):
            traffic.call(start + n * gap, event_id=f"{start}-{n}", session_id=f"{subject} {start} {number}")
    return in_order(traffic.events)


@pytest.fixture(scope="session")
def drifts(policy: Config) -> Callable[..., list[Finding]]:
    """`drifts(events)`: what drift alone tells of them."""

    def told(events: Events) -> list[Finding]:
        partition = Partition(0, policy, Directory())
        partition._detectors = tuple(d for d in partition._detectors if d.name == "drift")
        out = []
        for first in range(0, len(events), 4096):
            some = events[first : first + 4096]
            out += partition.take(to_batch(some, range(first, first + len(some)), [0] * len(some)))
        return [t.signal for t in out + partition.close() if isinstance(t.signal, Finding)]

    return told


Drifts = Callable[[Events], list[Finding]]


def medium(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.severity == "medium"]


@pytest.mark.parametrize(
    ("workload", "begins", "told"),
    [("interactive", 26, False), ("interactive", 38, True), ("agent", 26, False), ("agent", 50, True)],
)
def test_a_day_says_little_of_the_next(drifts: Drifts, workload: str, begins: float, told: bool) -> None:
    """Six times the usual, for five hours."""
    usual, more = calls(always, 20, 4), calls(always, 100, 5 / 24, seed=2, first=begins / 24)
    until = (begins + 5) * HOUR
    events = story([at for at in usual if at < until], more, workload=workload)
    assert bool(medium(drifts(events))) == told


@pytest.mark.parametrize(("usd", "told"), [(0.0005, False), (0.01, True)])
def test_a_job_that_polls_more_often_is_weak_evidence_where_it_is_cheap(drifts: Drifts, usd: float, told: bool) -> None:
    """Every minute instead of every ten, for six hours."""
    often, seldom = [60.0 * n for n in range(6 * 60)], [600.0 * n for n in range(2 * 144)]
    events = story(seldom, [2 * DAY + at for at in often], workload="batch", cost_usd=usd)
    found = drifts(events)
    assert found
    assert bool(medium(found)) == told


def test_a_row_is_small() -> None:
    assert ROW.itemsize <= 96


@pytest.mark.parametrize("per_hour", [0.4, 3.0, 60.0])
def test_usage_that_grows_by_the_hour_is_told_while_it_grows(drifts: Drifts, per_hour: float) -> None:
    usual = calls(always, per_hour, 4.0)
    grown = calls(lambda hour: 1.4 ** (hour - 72), max(per_hour / 3, 2.0), 12 / 24, first=3.0)
    [first, *_] = medium(drifts(story(usual, grown)))
    assert "2026-03-05T02" < first.time < "2026-03-05T10"
    assert first.observed >= 2 * first.baseline
    assert first.window.endswith("h")


def test_it_is_told_again_once_it_has_doubled_and_not_before(drifts: Drifts) -> None:
    usual = calls(always, 40.0, 7.0)
    thrice, tenfold = calls(always, 80.0, 3.0, first=4.0), calls(always, 300.0, 1.0, first=6.0)
    found = medium(drifts(story(usual, thrice, tenfold)))
    assert [finding.time[8:10] for finding in found] == ["06", "08"]


def test_work_in_hours_in_which_nobody_ever_worked_is_told(drifts: Drifts) -> None:
    """As many calls as ever by day, and a customer of the thief's by night."""
    day = calls(office, 30.0, 5.0)
    night = calls(lambda hour: 1.0 if hour % 24 < 6 else 0.0, 25.0, 1.0, first=3.0)
    [first, *_] = medium(drifts(story(day, night)))
    assert "2026-03-05T00" < first.time < "2026-03-05T05"


@pytest.mark.parametrize(
    ("shape", "per_hour", "session"), [(office, 40.0, 1), (office, 4.0, 6), (always, 60.0, 1), (always, 0.2, 1)]
)
def test_a_rhythm_of_days_and_weeks_is_no_drift(drifts: Drifts, shape: Shape, per_hour: float, session: int) -> None:
    """Of five such identities one may have a busy morning before its mornings are known."""
    stories = [
        story(calls(shape, per_hour, 22.0, seed, session=session), subject=f"key_{seed}") for seed in range(1, 6)
    ]
    found = [finding.time for finding in medium(drifts(in_order(*stories)))]
    assert len(found) <= 1
    assert all(time < "2026-03-09" for time in found)


@pytest.mark.parametrize("first_day", [4, 5, 6])
def test_a_monday_after_a_first_weekend_is_no_drift(drifts: Drifts, first_day: int) -> None:
    def shape(hour: float) -> float:
        return 1.0 if hour // 24 % 7 < 5 else 0.3

    assert not medium(drifts(story(calls(shape, 40.0, 8.0, first=float(first_day)))))


def test_the_return_from_a_holiday_is_no_drift(drifts: Drifts) -> None:
    before, after = calls(office, 20.0, 12.0), calls(office, 20.0, 5.0, first=28.0)
    assert not drifts(story(before, after))


def test_of_a_new_identity_nothing_is_told_on_its_first_day(drifts: Drifts) -> None:
    grown = calls(lambda hour: 1.5 ** (hour % 24), 1.0, 0.9)
    assert not drifts(story(grown))


def test_one_long_session_is_no_drift(drifts: Drifts) -> None:
    """A developer who starts one session a day works through forty steps in an afternoon, once through a hundred."""
    usual = calls(office, 0.2, 12.0, session=40)
    long = [9 * DAY + 14 * HOUR + n * 30.0 for n in range(100)]
    assert not medium(drifts(story(usual, long, workload="agent")))


def test_a_skim_of_weeks_is_weak_evidence(drifts: Drifts) -> None:
    usual = calls(always, 30.0, 40.0)
    skim = calls(always, 10.0, 14.0, first=26.0)
    undisturbed, skimmed = drifts(story(usual)), drifts(story(usual, skim))
    assert not undisturbed
    assert {(finding.severity, finding.window) for finding in skimmed} == {("low", "days")}
    assert "2026-03-28" < skimmed[0].time < "2026-04-08"


def test_no_drift_lifts_the_ceiling_over_the_first_weeks(drifts: Drifts) -> None:
    """Five percent more every day for seven weeks: each day looks like the one before."""
    poisoned = calls(lambda hour: 1.05 ** (hour / 24), 8.0, 50.0)
    beyond = [finding for finding in drifts(story(poisoned)) if finding.window == "1d"]
    assert len(beyond) == 1
    assert beyond[0].severity == "medium"
    assert beyond[0].observed > 4 * beyond[0].baseline
    assert "first days" in beyond[0].reason


def test_a_burst_after_the_poisoning_crosses_the_ceiling_within_the_day(drifts: Drifts) -> None:
    poisoned = calls(lambda hour: 1.05 ** (hour / 24), 8.0, 30.0)
    burst = [30 * DAY + n * 5.0 for n in range(4000)]
    beyond = [finding for finding in drifts(story(poisoned, burst)) if finding.window == "1d"]
    assert beyond[0].time.startswith("2026-04-01T0")


def test_what_is_called_usual_is_the_identitys_own(drifts: Drifts) -> None:
    """Others of its workload class do not make a rise less."""
    mine = story(calls(always, 10.0, 4.0), calls(always, 60.0, 0.5, first=3.0), subject="key_mine")
    others = [story(calls(always, 100.0, 4.0, seed=n), subject=f"key_{n}") for n in range(2, 5)]
    assert {finding.identity for finding in medium(drifts(in_order(mine, *others)))} == {"key_mine"}


def test_a_retry_is_no_more_usage(drifts: Drifts) -> None:
    events = story(calls(always, 20.0, 4.0))
    again = [
        replace(event, id=f"{event.id}-{n}", data=replace(event.data, attempt=n, status=503))
        for event in events[len(events) // 2 :]
        for n in range(1, 5)
    ]
    assert not medium(drifts(in_order(events, again)))


def test_what_is_usual_for_a_class_is_saved(policy: Config) -> None:
    """A restart in the middle changes nothing, not in the last digit."""
    events = in_order(*(story(calls(always, 15.0, 3.0, seed=n), subject=f"key_{n}") for n in range(4)))
    half = len(events) // 2

    def batches() -> Iterator[Any]:
        for first, last in ((0, half), (half, len(events))):
            yield to_batch(events[first:last], range(first, last), [0] * (last - first))

    first, second = batches()
    whole, resumed = Partition(0, policy, Directory()), Partition(0, policy, Directory())
    whole.take(first)
    resumed.restore(whole.checkpoint().pieces)
    whole.take(second)
    resumed.take(second)
    [mine], [theirs] = ([d for d in p._detectors if d.name == "drift"] for p in (whole, resumed))
    assert mine.save_shared() == theirs.save_shared()
    assert mine.rows.array[:4].tobytes() == theirs.rows.array[:4].tobytes()


@pytest.mark.parametrize(("key", "value"), [("growth", 1.0), ("ratio", 0.5), ("after_weekend", 0.1)])
def test_a_policy_that_contradicts_itself_is_refused(policy: Config, key: str, value: float) -> None:
    with pytest.raises(ValueError, match="growth"):
        DriftConfig(**{name: getattr(policy.drift, name) for name in DriftConfig.__struct_fields__} | {key: value})


@pytest.mark.parametrize("per_hour", [0.15, 0.3, 0.6])
def test_bursts_that_come_at_random_are_no_rise(drifts: Drifts, per_hour: float) -> None:
    """Sixty calls at once, now and then: some hours have three of them, many have none."""
    for seed in range(8):
        times = [at + n for at in calls(always, per_hour, 4.0, seed) for n in range(60)]
        assert not medium(drifts(story(times)))


@pytest.mark.parametrize(
    ("sessions", "starts"),
    [([1, 2, 3] * 10, 3), ([7] * 20, 1), ([1, 2, 3, 4] * 5, 20), ([0] * 6, 6), ([9, 0, 9, 0, 9], 3)],
)
def test_a_session_counts_once_and_a_call_without_one_counts_itself(sessions: list[int], starts: int) -> None:
    """Three sessions side by side are known again; who has more at a time is counted by calls, today as ever."""
    rows = np.zeros(1, ROW)
    for session in sessions:
        note_session(rows[0], np.uint64(session), 12_345, False)
    assert starts_of(rows[0], float(len(sessions)), 20_000) == starts
    assert not rows["continued"].any()
    assert bool(rows["flags"][0] & NAMED) == bool(sessions[-1])


def test_what_continues_in_buckets_that_close_late_is_not_lost() -> None:
    rows = np.zeros(1, ROW)
    for second in range(0, 100, 10):
        note_session(rows[0], np.uint64(5), 1000 * second, False)
    assert sum(starts_of(rows[0], 1.0, 1000 * (second + 10)) for second in range(0, 100, 10)) == 1
    assert not rows["continued"].any()


def test_a_call_counts_in_its_own_bucket() -> None:
    """Whether the bucket before has closed or not; one that comes too late is in none."""
    rows = np.zeros(1, ROW)
    for time, late in ((9_000, False), (9_500, False), (11_000, False), (12_000, False), (1_000, True)):
        note_session(rows[0], np.uint64(5), time, late)
    assert starts_of(rows[0], 2.0, 10_000) == 1
    assert starts_of(rows[0], 2.0, 20_000) == 0


def test_more_calls_in_as_many_sessions_are_no_rise(drifts: Drifts) -> None:
    """An agent that is asked as often as ever, and takes ten times the steps."""
    usual = calls(always, 1.5, 4.0)
    short = conversations([at for at in usual if at < 3 * DAY], 10, workload="agent")
    long = conversations([at for at in usual if at >= 3 * DAY], 100, workload="agent")
    assert not medium(drifts(in_order(short, long)))


def test_more_sessions_are_a_rise(drifts: Drifts) -> None:
    usual, more = calls(always, 1.5, 4.0), calls(always, 15.0, 10 / 24, seed=2, first=3.0)
    [first, *_] = medium(drifts(in_order(conversations(usual, 10, workload="agent"), conversations(more, 1))))
    assert "2026-03-05T02" < first.time < "2026-03-05T07"
    assert "sessions an hour" in first.reason
    assert first.evidence.details["unit"] == "sessions/h"


def test_who_names_no_session_hides_nothing(drifts: Drifts) -> None:
    """The owner's client names sessions of ten calls, the thief's none."""
    usual, more = calls(always, 3.0, 4.0), calls(always, 25.0, 8 / 24, seed=2, first=3.0)
    found = medium(drifts(in_order(conversations(usual, 10), story(more))))
    assert found
    assert found[0].time < "2026-03-05T08"


def test_what_is_over_is_not_told(drifts: Drifts) -> None:
    """Thirty times the usual for two hours, and little more than the usual in the third."""
    usual, burst = calls(always, 2.0, 3.0), calls(always, 60.0, 2 / 24, 2, first=3.0)
    rest = [3 * DAY + 2 * HOUR + minute * 60 for minute in (5, 15, 35, 50, 150)]
    assert not drifts(conversations(sorted(usual + burst + rest), 3))


def test_a_cheap_rise_is_told_once_it_costs(drifts: Drifts) -> None:
    usual, more = calls(always, 20.0, 4.0), calls(always, 120.0, 9 / 24, seed=2, first=3.0)
    events = [
        replace(event, data=replace(event.data, cost_usd=1e-6 if event.time.hour < 6 or event.time.day < 5 else 1e-3))
        for event in story(usual, more)
    ]
    found = drifts(events)
    assert [finding.severity for finding in found if finding.time < "2026-03-05T06"] == ["low"]
    assert medium(found)[0].time.startswith("2026-03-05T06")


@pytest.mark.parametrize("days", [3.0, 5.0])
def test_a_long_day_of_somebody_who_works_now_and_then_is_no_rise(drifts: Drifts, days: float) -> None:
    """Every other day some hours of work, then twelve of it."""
    some = calls(lambda hour: 1.0 if 8 <= hour % 24 < 11 and hour // 24 % 2 == 0 else 0.0, 4.0, days)
    whole = calls(lambda hour: 1.0 if 8 <= hour % 24 < 20 else 0.0, 3.2, 1.0, seed=2, first=days)
    assert not medium(drifts(conversations(sorted(some + whole), 12, workload="agent")))


def test_what_an_older_version_held_for_usual_of_a_class_is_learnt_anew(policy: Config) -> None:
    new, old = Drift(policy.drift), Drift(policy.drift)
    old._cohorts = np.ones(3, COHORT)
    new.restore_shared(old.save_shared())
    assert new.save_shared() == Drift(policy.drift).save_shared()
