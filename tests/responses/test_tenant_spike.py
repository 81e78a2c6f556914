"""A tenant whose keys rise together is told; one that keeps its rhythm, or has one busy key, is not."""

import math
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from responses.tenant_spike import SLOT, WAIT, Rhythm, TenantSpike
from schemas.finding import Finding, TenantBucket
from schemas.times import format_millis, parse_millis
from streams.policy import read_policy

MONDAY = 1_772_409_600_000
HOUR = 3_600_000
_POLICY = Path(__file__).parents[2] / "policy.toml"

Level = Callable[[float], float]
"""Identities at work in a slot, by hours since Monday."""


def daily(hour: float) -> float:
    return 6 + 5 * math.sin(math.tau * (hour - 8) / 24)


@pytest.fixture
def detector() -> TenantSpike:
    return TenantSpike(read_policy(_POLICY).for_responses.tenant_spike, "p")


def told(
    detector: TenantSpike,
    hours: float,
    level: Level,
    calls: Level = lambda _: 4.0,
    *,
    partitions: int = 1,
    seed: int = 0,
    start: int = MONDAY,
    batch: Level = lambda _: 0.0,
) -> list[Finding]:
    """What is told over so many hours of a tenant, with noise; `calls` are those of an identity and slot, and `batch`
    those of a job that is no one's, in a slot."""
    rhythm, out, rng = Rhythm(), list[Finding](), random.Random(seed)
    for slot in range(int(hours * HOUR / SLOT)):
        end, hour = start + slot * SLOT + SLOT, slot * SLOT / HOUR
        for partition in range(partitions):
            arrived = max(0, round(rng.gauss(level(hour), math.sqrt(level(hour)) / 2) / partitions))
            requests = round(arrived * calls(hour) * rng.uniform(0.7, 1.4))
            job = round(batch(hour))
            bucket = TenantBucket(
                format_millis(end + WAIT), "acme", format_millis(end), partition, arrived, requests + job, 0,
                requests * 900.0, requests * 0.002, arrived=arrived + (job > 0), interactive_arrived=arrived,
                interactive_requests=requests,
            )  # fmt: skip
            out += detector.take(rhythm, bucket, end, end + 2_000)
    return out


@pytest.mark.parametrize("seed", range(5))
def test_the_rhythm_of_days_and_weekends_is_no_spike(detector: TenantSpike, seed: int) -> None:
    assert told(detector, 24 * 14, lambda h: daily(h) * (0.3 if h // 24 % 7 >= 5 else 1.0), seed=seed) == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("partitions", [1, 4])
def test_keys_that_rise_together_are_told_within_two_hours(detector: TenantSpike, seed: int, partitions: int) -> None:
    found = told(detector, 63, lambda h: daily(h) * (2.6 if h >= 60 else 1), seed=seed, partitions=partitions)
    first = found[0]
    assert first.kind == "tenant_spike"
    assert first.identity == ""
    assert MONDAY + 60 * HOUR < parse_millis(first.time) <= MONDAY + 62 * HOUR
    assert "the whole tenant" in first.reason


def test_a_rush_within_minutes_is_told_at_once(detector: TenantSpike) -> None:
    found = told(detector, 61, lambda h: 120.0 if h >= 60 else daily(h))
    assert parse_millis(found[0].time) <= MONDAY + 60 * HOUR + 4 * SLOT


def at_night(hour: float) -> bool:
    """Three in the morning of the first Saturday, and the hour after."""
    return 123 <= hour < 125


def test_a_batch_jobs_volume_does_not_hide_people(detector: TenantSpike) -> None:
    """The job ran an hour before, which is all that is known of a Saturday's night."""
    found = told(
        detector, 125, lambda h: 12.0 if at_night(h) else daily(h), batch=lambda h: 2000.0 if h % 24 < 3 else 2.0
    )
    assert MONDAY + 123 * HOUR < parse_millis(found[0].time) <= MONDAY + 125 * HOUR
    assert "interactive" in found[0].reason


def test_a_new_sort_of_day_borrows_each_hour_from_the_other(detector: TenantSpike) -> None:
    """The night's shift ends at three: that its hours are known of a Saturday does not make it last until five."""
    night: Level = lambda h: 14.0 if h % 24 < 3 else 2.0  # noqa: E731
    assert told(detector, 125, night) == []
    found = told(detector, 125, lambda h: 14.0 if at_night(h) else night(h))
    assert MONDAY + 123 * HOUR < parse_millis(found[0].time) <= MONDAY + 124.5 * HOUR


def test_a_few_more_are_not_the_tenant(detector: TenantSpike) -> None:
    """A quiet hour of next to nobody, in which two work: 25 times the calls, of two."""
    quiet: Level = lambda h: 0.3 + 6 * (8 <= h % 24 < 20)  # noqa: E731
    assert told(detector, 55, lambda h: 2.4 if 50 <= h < 54 else quiet(h), lambda h: 20.0 if h >= 50 else 4.0) == []
    assert told(detector, 55, lambda h: 6.0 if 50 <= h < 54 else quiet(h)) != []


SHIFT: Level = lambda h: 25.0 if 13 <= h % 24 < 15 else 3.0  # noqa: E731


@pytest.mark.parametrize("begins", range(7))
def test_a_shift_of_the_day_is_no_spike(detector: TenantSpike, begins: int) -> None:
    """Whatever day it was seen first on, and however sharply it begins."""
    assert told(detector, 24 * 9, SHIFT, start=MONDAY + begins * 24 * HOUR) == []


def test_the_first_monday_is_not_told(detector: TenantSpike) -> None:
    office: Level = lambda h: 25.0 if 33 <= h < 41 else 3.0  # noqa: E731
    assert told(detector, 48, office, start=MONDAY - 24 * HOUR) == []


@pytest.mark.parametrize("batch", [0.0, 4000.0])
def test_an_hour_that_is_far_out_is_not_learnt(detector: TenantSpike, batch: float) -> None:
    """Neither where it is told, nor where a batch job's calls keep it from being told of the whole tenant."""
    rhythm = Rhythm()
    for slot in range(12 * 24 * 4):
        end, hour = MONDAY + slot * SLOT + SLOT, slot / 12
        many, job = (12 if hour >= 75 and hour < 76 else 3), (batch if slot // 12 % 24 == 3 and hour < 72 else 2.0)
        bucket = TenantBucket(
            "", "acme", "", 0, many, round(many * 4 + job), 0, 0.0, 0.0, arrived=many, interactive_arrived=many,
            interactive_requests=many * 4,
        )  # fmt: skip
        list(detector.take(rhythm, bucket, end, end + 2_000))
    for habit in (rhythm, rhythm.interactive):
        assert math.expm1(habit.level[3][0]) < 36 * 1.2


def test_the_first_hour_is_learnt_where_it_is_whole(detector: TenantSpike) -> None:
    """A tenant, or a worker, that appears at ten to four has not been seen from three to four."""
    rhythm, minutes = Rhythm(), range(50, 125, 5)
    for minute in minutes:
        end = MONDAY + 3 * HOUR + (minute + 5) * 60_000
        bucket = TenantBucket("", "acme", "", 0, 3, 9, 0, 0.0, 0.0, arrived=3, interactive_arrived=2)
        assert list(detector.take(rhythm, bucket, end, end + WAIT)) == []
    assert [hour for hour, times in enumerate(rhythm.times) if times] == [4]
    assert [hour for hour, times in enumerate(rhythm.interactive.times) if times] == [4]


def test_whoever_never_says_what_is_interactive_has_no_habit_of_it(detector: TenantSpike) -> None:
    """Sums of an older worker name none: what follows is no rise from zero."""
    rhythm, out = Rhythm(), list[Finding]()
    for slot in range(12 * 30):
        end, people = MONDAY + slot * SLOT + SLOT, 9 if slot >= 12 * 26 else 0
        bucket = TenantBucket(
            "", "acme", "", 0, 9, 90, 0, 0.0, 0.0, arrived=9, interactive_arrived=people, interactive_requests=people
        )
        out += detector.take(rhythm, bucket, end, end + 2_000)
    assert out == []
    assert sum(rhythm.interactive.times) == 3


def test_one_busy_key_is_not_the_tenant(detector: TenantSpike) -> None:
    assert told(detector, 60, daily, lambda h: 200.0 if h >= 52 else 4.0) == []


def test_it_is_told_once_an_hour_and_what_lasts_becomes_the_rhythm(detector: TenantSpike) -> None:
    found = told(detector, 24 * 9, lambda h: daily(h) * (2.6 if h >= 48 else 1))
    times = [parse_millis(f.time) for f in found]
    assert all(b - a >= HOUR for a, b in pairwise(times))
    assert times[-1] < MONDAY + 24 * 8 * HOUR


def test_without_a_history_nothing_is_told(detector: TenantSpike) -> None:
    assert told(detector, 23, lambda h: 90.0 if h >= 20 else 3.0) == []


def test_a_bucket_that_is_published_again_counts_once(detector: TenantSpike) -> None:
    rhythm, time = Rhythm(), format_millis(MONDAY + SLOT)
    bucket = TenantBucket(time, "acme", time, 0, 3, 9, 0, 90.0, 0.1, arrived=3)
    for _ in range(2):
        assert list(detector.take(rhythm, bucket, MONDAY + SLOT, MONDAY + SLOT + WAIT)) == []
    assert list(rhythm.slots.values()) == [(3.0, 9.0, 90.0, 0.1)]


def test_after_a_long_silence_nothing_is_made_up(detector: TenantSpike) -> None:
    rhythm = Rhythm()
    for end in (MONDAY + SLOT, MONDAY + 400 * 24 * HOUR + SLOT):
        bucket = TenantBucket(format_millis(end), "acme", format_millis(end), 0, 3, 9, 0, 90.0, 0.1, arrived=3)
        assert list(detector.take(rhythm, bucket, end, end + WAIT)) == []
    assert len(rhythm.slots) <= 2


def test_a_habit_that_was_saved_before_there_were_two_is_read(detector: TenantSpike) -> None:
    """What was learnt holds; of what is interactive nothing is known yet, and the hour that was cut is not learnt."""
    slot = MONDAY // SLOT + 3 * 12
    old = {
        "slots": {str(slot - 1): [3.0, 9.0, 90.0, 0.1]}, "taken": {"0": slot * SLOT}, "judged": slot - 2,
        "level": [[1.0, 2.0]] * 48, "times": [2] * 48, "variance": 0.1, "streak": 0, "told": 0,
    }  # fmt: skip
    rhythm = msgspec.json.decode(msgspec.json.encode(old), type=Rhythm)
    for at in range(slot, slot + 20):
        end = (at + 1) * SLOT
        bucket = TenantBucket("", "acme", "", 0, 3, 9, 0, 0.0, 0.0, arrived=3, interactive_arrived=3)
        assert list(detector.take(rhythm, bucket, end, end + WAIT)) == []
    assert sum(rhythm.times) == 2 * 48 + 1
    assert sum(rhythm.interactive.times) == 1
