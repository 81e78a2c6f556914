"""A tenant whose keys rise together is told; one that keeps its rhythm, or has one busy key, is not."""

import math
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

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
) -> list[Finding]:
    """What is told over so many hours of a tenant, with noise; `calls` are those of an identity and slot."""
    rhythm, out, rng = Rhythm(), list[Finding](), random.Random(seed)
    for slot in range(int(hours * HOUR / SLOT)):
        end, hour = MONDAY + slot * SLOT + SLOT, slot * SLOT / HOUR
        for partition in range(partitions):
            arrived = max(0, round(rng.gauss(level(hour), math.sqrt(level(hour)) / 2) / partitions))
            requests = round(arrived * calls(hour) * rng.uniform(0.7, 1.4))
            bucket = TenantBucket(
                format_millis(end + WAIT), "acme", format_millis(end), partition, arrived, requests, 0,
                requests * 900.0, requests * 0.002, arrived=arrived,
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
