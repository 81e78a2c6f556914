"""Agents that go round in circles, and those that only look like it."""

from collections.abc import Callable

import pytest
from made_traffic import Traffic, in_order

from detectors import Config
from schemas.finding import Finding

Found = Callable[..., list[Finding]]


def test_the_same_call_again_and_again(findings: Found, policy: Config) -> None:
    traffic = Traffic(fingerprint="same", session_id="s1", tool="search")
    traffic.every(1.5, 0, 90)
    found = findings(traffic.events, "loop")
    assert [f.severity for f in found] == ["medium", "high"]
    assert [f.evidence.deterministic for f in found] == [False, True]
    assert found[0].observed >= policy.loop.repeats > found[0].observed - 1
    assert found[1].observed >= policy.loop.block_repeats > found[1].observed - 1
    assert {f.evidence.session_id for f in found} == {"s1"}
    assert found[0].evidence.offsets[0] == 0
    assert "session s1, tool search" in found[0].reason


def test_a_cycle_of_five_calls(findings: Found) -> None:
    traffic = Traffic(session_id="s1")
    for n in range(60):
        traffic.call(n * 1.5, fingerprint=f"step {n % 5}")
    found = findings(traffic.events, "loop")
    assert found[-1].evidence.deterministic
    assert "5 calls" in found[-1].reason


def test_a_context_that_grows_by_the_same_step(findings: Found, policy: Config) -> None:
    traffic = Traffic(session_id="s1", fingerprint=None)
    for n in range(40):
        traffic.call(n * 4.0, input_tokens=2000 + 1500 * n + (n % 3) * 40)
    found = findings(traffic.events, "loop")
    assert [f.evidence.details["pattern"] for f in found[:2]] == ["growth", "growth"]
    assert [f.evidence.deterministic for f in found[:2]] == [False, True]
    assert found[0].observed == policy.loop.growth_steps
    assert found[1].observed == policy.loop.block_growth_steps


def test_a_loop_without_a_session_needs_three_times_as_many(findings: Found, policy: Config) -> None:
    traffic = Traffic(fingerprint="same")
    traffic.every(1.0, 0, 100)
    found = findings(traffic.events, "loop")
    assert found[0].observed >= 3 * policy.loop.repeats
    assert found[0].evidence.session_id is None


def test_it_is_told_once_a_minute(findings: Found) -> None:
    traffic = Traffic(fingerprint="same", session_id="s1")
    traffic.every(1.0, 0, 600)
    assert 10 <= len(findings(traffic.events, "loop")) <= 12


@pytest.mark.parametrize("times", [2, 3, 5])
def test_an_honest_rerun_of_a_failed_call_is_no_loop(findings: Found, times: int) -> None:
    traffic = Traffic()
    for prompt in range(2):
        for attempt in range(times):
            traffic.call(
                prompt * 20.0 + attempt * 2,
                fingerprint=f"prompt {prompt}",
                session_id="s1",
                status=500,
                attempt=attempt,
            )
    assert not findings(traffic.events, "loop")


@pytest.mark.parametrize("times", [2, 3, 5])
def test_many_sessions_that_each_rerun_a_call_are_no_loop(findings: Found, times: int) -> None:
    """As in an outage of the provider, which all of an application's sessions share."""
    traffic = Traffic()
    for session in range(12):
        for attempt in range(times):
            traffic.call(
                session * 1.0 + attempt * 2,
                fingerprint=f"prompt {session}",
                session_id=f"s{session}",
                status=503,
                attempt=attempt,
            )
    assert not findings(in_order(traffic.events), "loop")


@pytest.mark.parametrize("times", [2, 3, 5])
def test_a_few_repeats_in_each_of_many_sessions_are_no_loop(findings: Found, times: int) -> None:
    """Repeats add up within a session, not over all that an identity's sessions do."""
    traffic = Traffic()
    for session in range(12):
        for n in range(times):
            traffic.call(session * 1.0 + n * 2, fingerprint=f"prompt {session}", session_id=f"s{session}")
    assert not findings(in_order(traffic.events), "loop")


def test_retries_without_end_are_a_loop(findings: Found) -> None:
    """One attempt is no operation of its own, but a client that never backs off goes in a circle."""
    traffic = Traffic(fingerprint="same", session_id="s1", operation_id="op-1", status=503)
    for attempt in range(40):
        traffic.call(attempt * 1.5, attempt=attempt)
    assert findings(traffic.events, "loop")


def test_a_popular_prompt_from_many_sessions_is_no_loop(findings: Found) -> None:
    traffic = Traffic(fingerprint="what is new?")
    for visitor in range(400):
        traffic.call(visitor * 0.5, session_id=f"s{visitor}")
    assert not findings(traffic.events, "loop")


def test_a_cron_job_every_minute_is_no_loop(findings: Found) -> None:
    traffic = Traffic(fingerprint="report", session_id="cron")
    traffic.every(60.0, 0, 6 * 3600)
    assert not findings(traffic.events, "loop")


def test_a_person_who_talks_on_is_no_growth_loop(findings: Found, policy: Config) -> None:
    traffic = Traffic(session_id="chat")
    for n in range(60):
        traffic.call(n * (policy.loop.growth_pause_seconds + 10), input_tokens=1000 + 800 * n, fingerprint=f"turn {n}")
    assert not findings(traffic.events, "loop")


def test_a_context_that_grows_unsteadily_is_no_growth_loop(findings: Found) -> None:
    traffic, context = Traffic(session_id="work"), 1000
    for n in range(60):
        context += (300, 2400, 900)[n % 3]
        traffic.call(n * 5.0, input_tokens=context, fingerprint=f"turn {n}")
    assert not findings(traffic.events, "loop")


def test_another_sessions_calls_are_not_to_blame(findings: Found) -> None:
    looping = Traffic("key_1", fingerprint="same", session_id="bad")
    looping.every(1.5, 0, 120)
    honest = Traffic("key_1", session_id="good")
    for n in range(120):
        honest.call(n * 1.0 + 0.3, event_id=f"honest-{n}", fingerprint=f"new {n}")
    found = findings(in_order(looping.events, honest.events), "loop")
    assert found
    assert {f.evidence.session_id for f in found} == {"bad"}
