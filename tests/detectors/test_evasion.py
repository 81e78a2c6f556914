"""Streams that are cut before anyone can count them."""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from made_traffic import HOUR, Events, Traffic, in_order
from msgspec.structs import asdict

from detectors import Config
from detectors.evasion import Config as EvasionConfig
from schemas.finding import Finding
from schemas.times import parse_millis

Found = Callable[..., list[Finding]]
CUT: dict[str, dict[str, Any]] = {
    "499": {"status": 499, "input_tokens": None, "output_tokens": None, "cost_usd": None},
    "no usage": {"output_tokens": None, "cost_usd": None},
    "usage missing": {"usage_missing": True},
    "nothing came": {"output_tokens": 0, "cost_usd": 0.0},
    "499 with a token": {"status": 499, "output_tokens": 1},
}


def streams(
    name: str, start: float, calls: int, share: float, how: str = "499", seconds: float = 5.0, seed: int = 1
) -> Events:
    """So many streams, one in three seconds, of which a share is cut off."""
    dice = random.Random(f"{name} {seed}")
    traffic = Traffic(name, streaming=True, latency_ms=seconds * 1000, route="/v1/chat", provider="openai")
    for n in range(calls):
        changes = CUT[how] if dice.random() < share else {}
        traffic.call(start + n * 3.0, event_id=f"{name}-{start}-{n}", fingerprint=f"{name} {n} {start}", **changes)
    return traffic.events


def past(name: str = "key_1", share: float = 0.03) -> Events:
    return streams(name, 0, 1000, share)


@pytest.mark.parametrize("how", CUT)
def test_streams_cut_early(findings: Found, how: str) -> None:
    found = findings(past() + streams("key_1", HOUR, 60, 0.95, how), "evasion")
    assert found
    assert found[0].severity == "medium"
    # Within the first twenty of them.
    assert 1000 <= found[0].evidence.offsets[0] <= found[0].evidence.offsets[1] < 1020
    assert found[0].evidence.details["estimated_tokens"] > 1000


@pytest.mark.parametrize("seed", range(5))
def test_a_third_of_the_streams_is_told_within_two_hundred(findings: Found, seed: int) -> None:
    assert findings(past() + streams("key_1", HOUR, 200, 0.35, seed=seed), "evasion")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_whoever_always_hung_up_so_often_is_as_usual(findings: Found, share: float, seed: int) -> None:
    """People leave pages; some gateways never report usage on a route."""
    others = [streams(f"key_{k}", 0, 1000, 0.0 if share < 1 else 1.0, seed=seed) for k in range(2, 7)]
    mine = streams("key_1", 0, 3000, share, seed=seed)
    told = findings(in_order(mine, *others), "evasion")
    # Whose past is not known yet may be told once.
    assert [f for f in told if f.evidence.offsets[1] > 2000] == []
    assert not told or share in (0.25, 0.6)


def test_a_new_identity_alone_on_a_route_without_usage_is_not_told(findings: Found) -> None:
    assert not findings(streams("key_1", 0, 400, 1.0, "no usage"), "evasion")


def test_a_gateway_that_loses_usage_for_all_is_nobodys_evasion(findings: Found) -> None:
    names = [f"key_{k}" for k in range(12)]
    before = [past(name, 0.0) for name in names]
    after = [streams(name, HOUR + 0.2 * k, 200, 1.0, "no usage") for k, name in enumerate(names)]
    told = findings(in_order(*before, *after), "evasion")
    assert not told


def test_brief_calls_hide_little(findings: Found) -> None:
    assert not findings(past() + streams("key_1", HOUR, 40, 0.9, seconds=0.05), "evasion")


def test_embeddings_have_no_output(findings: Found) -> None:
    traffic = Traffic(output_tokens=0, streaming=False, latency_ms=3000.0)
    traffic.every(2.0, HOUR, HOUR + 400)
    assert not findings(past() + traffic.events, "evasion")


def test_failed_calls_have_no_usage(findings: Found) -> None:
    traffic = Traffic(output_tokens=None, status=500, latency_ms=3000.0)
    traffic.every(2.0, HOUR, HOUR + 400)
    assert not findings(past() + traffic.events, "evasion")


def test_it_is_told_again_each_two_minutes(findings: Found) -> None:
    assert 9 <= len(findings(past() + streams("key_1", HOUR, 400, 0.9), "evasion")) <= 11


def test_what_was_cut_the_day_before_is_another_story(findings: Found) -> None:
    cut = past() + streams("key_1", HOUR, 100, 0.95)
    assert findings(cut, "evasion")
    next_day = streams("key_1", 20 * HOUR, 200, 0.03)
    assert [f for f in findings(cut + next_day, "evasion") if f.evidence.offsets[1] >= len(cut)] == []


@pytest.mark.parametrize(
    ("calls", "every"), [(20, 60.0), (140, 2.0)], ids=["a few calls later", "within minutes of many"]
)
def test_one_stream_cut_after_a_storm_is_over_is_not_told(findings: Found, calls: int, every: float) -> None:
    """However long it lasted: what is told rests on what happens now."""
    storm = past() + streams("key_1", HOUR, 500, 0.95)
    after = Traffic(streaming=True, latency_ms=5000.0, route="/v1/chat", provider="openai")
    start = HOUR + 1500.0
    for n in range(calls):
        after.call(start + n * every, event_id=f"after {n}")
    after.call(start + calls * every, event_id="one more", **CUT["499"])
    told = findings(storm + after.events, "evasion")
    assert told
    assert told[-1].evidence.offsets[1] < len(storm)


def test_a_storm_that_goes_on_is_told_throughout(findings: Found) -> None:
    """Though every fourth stream is metered."""
    storm = past() + streams("key_1", HOUR, 800, 0.75)
    times = [parse_millis(f.time) for f in findings(storm, "evasion")]
    assert max(later - earlier for earlier, later in pairwise(times)) < 150_000
    assert times[-1] >= storm[-1].time.timestamp() * 1000 - 150_000


def test_streams_cut_at_will_get_graver_and_throttle(findings: Found, policy: Config) -> None:
    """While what a client's timeout cuts, all after the same time, stays as it is."""
    dice, at_will = random.Random(3), Traffic(streaming=True, route="/v1/chat", provider="openai")
    for n in range(200):
        changes = CUT["499"] if dice.random() < 0.6 else {}
        at_will.call(HOUR + n * 3.0, event_id=f"cut {n}", latency_ms=1000 * dice.uniform(2.0, 20.0), **changes)
    told = findings(past() + at_will.events, "evasion")
    graver = [f for f in told if f.severity == "high"]
    assert told[0].severity == "medium"
    assert graver[0].observed >= policy.evasion.high_ratio * policy.evasion.cut_calls
    assert [f.evidence.extreme for f in graver] == sorted(f.evidence.extreme for f in graver)
    assert graver[-1].evidence.extreme
    timeouts = findings(past() + streams("key_1", HOUR, 200, 0.6), "evasion")
    assert {f.severity for f in timeouts} == {"medium"}


def test_embeddings_that_say_they_stream_have_no_output_either(findings: Found) -> None:
    traffic = Traffic(output_tokens=0, streaming=True, latency_ms=3000.0, route="/v1/embeddings", provider="openai")
    traffic.every(2.0, HOUR, HOUR + 400)
    assert not findings(past() + traffic.events, "evasion")


def test_a_policy_that_contradicts_itself_is_refused(policy: Config) -> None:
    with pytest.raises(ValueError, match="must"):
        EvasionConfig(**(asdict(policy.evasion) | {"burst_share": 0.05}))
