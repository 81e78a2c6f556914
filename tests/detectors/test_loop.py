"""Agents that go round in circles, and those that only look like it."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traffic import HOUR, Events, Traffic, in_order
from msgspec.structs import asdict

from detectors import Config
from detectors.loop import Config as LoopConfig
from schemas.finding import Finding

Found = Callable[..., list[Finding]]


def first_block(found: list[Finding]) -> int:
    """The line of the call that the first deterministic finding was told by."""
    return next(f.evidence.offsets[1] for f in found if f.evidence.deterministic)


def test_the_same_call_again_and_again(findings: Found, policy: Config) -> None:
    traffic = Traffic(fingerprint="same", session_id="s1", tool="search")
    traffic.every(1.5, 0, 45)
    found = findings(traffic.events, "loop")
    assert [f.severity for f in found] == ["medium", "high"]
    assert [f.evidence.deterministic for f in found] == [False, True]
    assert found[0].observed == policy.loop.repeats
    assert found[1].observed == policy.loop.block_repeats
    assert first_block(found) == policy.loop.block_repeats
    assert {f.evidence.session_id for f in found} == {"s1"}
    assert found[0].evidence.offsets[0] == 0
    assert "session s1, tool search" in found[0].reason


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 6])
def test_a_cycle_of_calls_is_told_by_the_twelfth(findings: Found, steps: int) -> None:
    traffic = Traffic(session_id="s1")
    for n in range(40):
        traffic.call(n * 1.5, fingerprint=f"step {n % steps}", input_tokens=500 + 400 * (n % steps))
    assert first_block(findings(traffic.events, "loop")) < 12


def test_a_loop_whose_pace_and_sizes_vary_a_little(findings: Found) -> None:
    dice, at, traffic = random.Random(3), 0.0, Traffic(session_id="s1", fingerprint="same")
    for _ in range(30):
        at += 8 * dice.uniform(0.7, 1.3)
        traffic.call(at, input_tokens=round(40_000 * dice.uniform(0.98, 1.02)))
    assert first_block(findings(traffic.events, "loop")) < 12


def test_a_loop_with_something_new_in_between(findings: Found) -> None:
    traffic = Traffic(session_id="s1")
    for n in range(60):
        traffic.call(n * 2.0, fingerprint=f"new {n}" if n % 12 == 5 else "same")
    assert first_block(findings(traffic.events, "loop")) < 24


def test_calls_alike_by_tool_and_size_where_there_are_no_fingerprints(findings: Found, policy: Config) -> None:
    traffic = Traffic(session_id="s1", workload="agent")
    for n in range(60):
        traffic.call(n * 3.0, tool=("search", "read")[n % 2], input_tokens=(900, 4000)[n % 2] + n % 3)
    found = findings(traffic.events, "loop")
    assert found[0].evidence.details["pattern"] == "alike"
    assert found[0].observed == policy.loop.alike
    assert policy.loop.block_alike <= first_block(found) < policy.loop.block_alike + 6


def test_calls_alike_whose_prompts_differ_are_told_late_and_never_block(findings: Found, policy: Config) -> None:
    """They may be the items of a job, cut to one size."""
    traffic = Traffic(session_id="s1", workload="agent")
    for n in range(90):
        traffic.call(n * 3.0, tool="search", input_tokens=4000 + n % 5, fingerprint=f"at {n} o'clock")
    found = findings(traffic.events, "loop")
    assert found[0].observed == policy.loop.alike * policy.loop.differing_factor
    assert found[0].severity == "low"
    # So many of them alert.
    assert found[-1].observed >= policy.loop.block_alike * policy.loop.differing_factor
    assert found[-1].severity == "medium"
    assert not any(f.evidence.deterministic for f in found)


def test_calls_alike_whose_prompts_differ_and_that_name_no_session_are_weak_evidence(findings: Found) -> None:
    traffic = Traffic(workload="agent")
    for n in range(400):
        traffic.call(n * 3.0, tool="search", input_tokens=4000 + n % 5, fingerprint=f"at {n} o'clock")
    found = findings(traffic.events, "loop")
    assert {finding.severity for finding in found} == {"low"}


@pytest.mark.parametrize("seconds", [3.0, 30.0])
def test_calls_alike_that_no_agent_makes_tell_nothing(findings: Found, seconds: float) -> None:
    """Neither session nor fingerprint nor tool: all that is known is that sizes are equal."""
    dice, traffic = random.Random(6), Traffic()
    for n in range(400):
        traffic.call(n * seconds + dice.uniform(0, seconds))
    assert not findings(traffic.events, "loop")


def test_a_great_context_that_gets_on_slowly_is_not_alike(findings: Found) -> None:
    traffic = Traffic(session_id="s1", workload="agent", tool="edit")
    for n in range(120):
        traffic.call(n * 5.0, input_tokens=150_000 + 300 * n + 120 * (n % 4), fingerprint=f"step {n}")
    assert not [f for f in findings(traffic.events, "loop") if f.evidence.details["pattern"] == "alike"]


def test_a_context_that_grows_by_the_same_step(findings: Found, policy: Config) -> None:
    traffic = Traffic(session_id="s1", fingerprint=None)
    for n in range(40):
        traffic.call(n * 4.0, input_tokens=2000 + 1500 * n + (n % 3) * 40)
    found = findings(traffic.events, "loop")
    assert [f.evidence.details["pattern"] for f in found[:2]] == ["growth", "growth"]
    assert [f.evidence.deterministic for f in found[:2]] == [False, True]
    assert found[0].observed == policy.loop.growth_steps
    assert found[1].observed == policy.loop.block_growth_steps
    assert first_block(found) == policy.loop.block_growth_steps


@pytest.mark.parametrize(("apart", "told_by"), [(0.02, 8), (0.08, 11)])
def test_the_more_even_the_steps_the_fewer_tell(findings: Found, apart: float, told_by: int) -> None:
    """Honest steps are random, and some in a row may be alike by chance."""
    traffic, context = Traffic(session_id="s1", fingerprint=None, workload="agent"), 2000.0
    for n in range(40):
        context += 1500 * (1 + (apart if n % 2 else -apart))
        traffic.call(n * 4.0, input_tokens=round(context))
    assert findings(traffic.events, "loop")[0].observed == told_by


def test_growth_whose_calls_end_in_another_order(findings: Found) -> None:
    traffic = Traffic(session_id="s1", workload="agent")
    order = [n + (1 if n % 6 == 4 else -1 if n % 6 == 5 else 0) for n in range(60)]
    for at, n in enumerate(order):
        traffic.call(at * 3.0, input_tokens=2000 + 700 * n, fingerprint=f"turn {n}")
    assert first_block(findings(traffic.events, "loop")) < 18


def test_a_slow_loop_of_two_agents_is_told_on_each_side(findings: Found) -> None:
    """Ping-pong: each answers the other once in half a minute or so, for hours."""
    sides = [Traffic(f"agent_{side}", workload="agent", session_id=f"s-{side}") for side in "ab"]
    dice, at = random.Random(5), 0.0
    for n in range(240):
        at += dice.uniform(10, 22)
        sides[n % 2].call(at, fingerprint=f"you first, {n % 2}", input_tokens=6000)
    found = findings(in_order(*(side.events for side in sides)), "loop")
    assert {f.identity for f in found} == {"agent_a", "agent_b"}
    assert found[0].evidence.age_seconds < 1800


@pytest.mark.parametrize("session", ["s1", None])
def test_growth_amid_the_calls_of_others(findings: Found, policy: Config, session: str | None) -> None:
    """And whose steps are not quite even: two agents that answer each other carry the context along."""
    dice, traffic, context = random.Random(2), Traffic(workload="agent", session_id=session), 4000.0
    for n in range(120):
        context += dice.uniform(350, 600)
        traffic.call(n * 70.0, input_tokens=round(context), fingerprint=f"turn {n}")
        if n % 9 == 4:
            traffic.call(n * 70.0 + 20, input_tokens=300, fingerprint=f"another's {n}", event_id=f"other-{n}")
    found = findings(traffic.events, "loop")
    assert found[0].evidence.details["pattern"] == "growth"
    assert found[0].observed >= policy.loop.slow_growth_factor * policy.loop.growth_steps
    assert first_block(found) < 100


def test_growth_that_stopped_is_not_told_with_the_calls_of_others(findings: Found) -> None:
    traffic = Traffic(workload="agent", session_id="s1")
    for n in range(30):
        traffic.call(n * 5.0, input_tokens=4000 + 500 * n, fingerprint=f"turn {n}")
    last = len(traffic.events)
    for n in range(60):
        traffic.call(150 + n * 5.0, input_tokens=18_000, fingerprint=f"another's {n}", event_id=f"other-{n}")
    growth = [f for f in findings(traffic.events, "loop") if f.evidence.details["pattern"] == "growth"]
    assert growth
    assert all(f.evidence.offsets[1] < last for f in growth)


def test_a_loop_without_a_session_amid_the_calls_of_others(findings: Found) -> None:
    dice, traffic = random.Random(6), Traffic(workload="agent")
    for n in range(400):
        novel = n % 8 == 7
        traffic.call(
            n * 20.0 + dice.uniform(0, 6),
            fingerprint=f"new {n}" if novel else "same",
            input_tokens=900 if novel else 4000,
        )
    assert findings(traffic.events, "loop")[-1].evidence.deterministic


def test_calls_alike_of_nobody_knows_which_session_need_other_evidence(findings: Found, policy: Config) -> None:
    """Neither sessions nor prompts are known: it is grave, and no rule that blocks alone."""
    traffic = Traffic(workload="agent", fingerprint=None, tool="fetch", input_tokens=5000)
    traffic.every(2.0, 0, 400)
    found = findings(traffic.events, "loop")
    assert [f.severity for f in found[:2]] == ["medium", "high"]
    assert found[1].observed == policy.loop.block_alike * policy.loop.unnamed_factor
    assert not any(f.evidence.deterministic for f in found)


def test_a_loop_without_a_session_needs_three_times_as_many(findings: Found, policy: Config) -> None:
    traffic = Traffic(fingerprint="same")
    traffic.every(1.0, 0, 100)
    found = findings(traffic.events, "loop")
    assert found[0].observed == 3 * policy.loop.repeats
    assert found[0].evidence.session_id is None


def test_a_looping_session_is_found_among_hundreds(findings: Found) -> None:
    """Of a busy key, whose sessions of one call each push nobody out."""
    loop = Traffic("key_busy", fingerprint="same", session_id="bad")
    loop.every(2.5, 0, 120)
    crowd = Traffic("key_busy")
    for n in range(1200):
        crowd.call(n * 0.1, event_id=f"c{n}", fingerprint=f"prompt {n}", session_id=f"s-{n}")
    found = findings(in_order(loop.events, crowd.events), "loop")
    assert {f.evidence.session_id for f in found} == {"bad"}
    assert any(f.evidence.deterministic for f in found)


def test_an_agent_that_spawns_sessions_without_end(findings: Found, policy: Config) -> None:
    traffic = Traffic("agent_spawns", workload="agent")
    for n in range(30 * 8):
        traffic.call(n * 450.0, fingerprint=f"task {n}", session_id=f"s-{n // 2}")
    for n in range(600):
        traffic.call(31 * HOUR + n * 5.0, fingerprint=f"sub-task {n}", session_id=f"sub-{n}")
    [found] = findings(traffic.events, "loop")
    assert found.evidence.details["pattern"] == "spawn"
    assert found.observed == policy.loop.spawned
    assert not found.evidence.deterministic


def test_it_is_told_once_a_minute(findings: Found) -> None:
    traffic = Traffic(fingerprint="same", session_id="s1")
    traffic.every(1.0, 0, 600)
    assert 10 <= len(findings(traffic.events, "loop")) <= 12


@pytest.mark.parametrize("times", [2, 3, 5])
@pytest.mark.parametrize("status", [200, 500])
def test_honest_reruns_are_no_loop(findings: Found, times: int, status: int) -> None:
    traffic = Traffic()
    for prompt in range(4):
        for attempt in range(times):
            traffic.call(
                prompt * 20.0 + attempt * 2,
                fingerprint=f"prompt {prompt}",
                session_id="s1",
                status=status,
                attempt=attempt,
            )
    assert not findings(traffic.events, "loop")


@pytest.mark.parametrize("times", [2, 3, 5])
def test_a_few_repeats_in_each_of_many_sessions_are_no_loop(findings: Found, times: int) -> None:
    """Repeats add up within a session, not over all that an identity's sessions do."""
    traffic = Traffic()
    for session in range(12):
        for n in range(times):
            traffic.call(session * 1.0 + n * 2, fingerprint=f"prompt {session}", session_id=f"s{session}")
    assert not findings(in_order(traffic.events), "loop")


def test_retries_are_failure_bursts(findings: Found) -> None:
    """Attempts that fail are no operations: they go in no circle of their own."""
    traffic = Traffic(fingerprint="same", session_id="s1", operation_id="op-1", status=503)
    for attempt in range(40):
        traffic.call(attempt * 1.5, attempt=attempt)
    assert not findings(traffic.events, "loop")


def test_calls_that_are_cut_off_loop_all_the_same(findings: Found) -> None:
    traffic = Traffic(fingerprint="same", session_id="s1", status=499, output_tokens=None)
    traffic.every(1.5, 0, 60)
    assert findings(traffic.events, "loop")


def test_a_popular_prompt_from_many_sessions_is_no_loop(findings: Found) -> None:
    traffic = Traffic(fingerprint="what is new?")
    for visitor in range(400):
        traffic.call(visitor * 0.5, session_id=f"s{visitor}")
    assert not findings(traffic.events, "loop")


def test_a_few_popular_questions_without_sessions_are_no_loop(findings: Found) -> None:
    dice, traffic, at = random.Random(7), Traffic(), 0.0
    for _ in range(3000):
        at += dice.expovariate(1.0)
        question = min(int(dice.paretovariate(1.0)), 12)
        traffic.call(at, fingerprint=f"question {question}", input_tokens=400 + 50 * question)
    assert not findings(traffic.events, "loop")


@pytest.mark.parametrize(("seconds", "tokens"), [(60.0, 5000), (30.0, 5000), (10.0, 60)])
def test_what_comes_like_clockwork_is_no_loop(findings: Found, seconds: float, tokens: int) -> None:
    """A cron job, a poller, a heartbeat: regular to within their calls' latency."""
    dice, traffic = random.Random(2), Traffic(fingerprint="report", session_id="cron", input_tokens=tokens)
    for n in range(600):
        traffic.call(n * seconds + dice.uniform(0, 0.3))
    assert not findings(traffic.events, "loop")


@pytest.mark.parametrize("tokens", [300, 700, 950])
def test_slow_calls_that_burn_next_to_nothing_are_no_loop(findings: Found, tokens: int) -> None:
    """A poller whose gaps vary: what it burns in a minute is as little, however great its calls are."""
    dice, traffic = random.Random(2), Traffic(fingerprint="any news?", session_id="poller", input_tokens=tokens)
    for n in range(1500):
        traffic.call(n * 61.0 + dice.uniform(0, 15))
    assert not findings(traffic.events, "loop")


def test_the_more_a_slow_loop_burns_the_fewer_repeats_it_takes(findings: Found) -> None:
    blocked = []
    for tokens in (3000, 5000, 60_000):
        dice, traffic = random.Random(2), Traffic(fingerprint="same", session_id="s1", input_tokens=tokens)
        for n in range(400):
            traffic.call(n * 20.0 + dice.uniform(0, 6))
        blocked.append(first_block(findings(traffic.events, "loop")))
    assert blocked[0] > blocked[1] > blocked[2]


def test_a_probe_between_an_identitys_own_calls_is_no_loop(findings: Found) -> None:
    """Every minute a service without sessions asks whether the model is there; by day it works in between."""
    dice, traffic = random.Random(3), Traffic()
    for n in range(600):
        traffic.call(n * 60.0 + dice.uniform(-1, 1), fingerprint="are you there?", input_tokens=14)
    for at in sorted(dice.uniform(5 * HOUR, 10 * HOUR) for _ in range(400)):
        traffic.call(at, input_tokens=dice.randint(3000, 9000), fingerprint=f"at {at}")
    assert not findings(in_order(traffic.events), "loop")


def test_a_clockwork_stays_one_when_its_gateways_clock_is_set_right(findings: Found) -> None:
    """Three gateways in a file, one of them 40 s fast: the gaps between its calls are what its own clock says."""
    others = Traffic("others", session_id="other")
    for n in range(9000):
        others.call(n * 1.0, event_id=f"o{n}", fingerprint=f"new {n}", source=f"gateway/{n % 2}")
    fast = Traffic("fast", session_id="cron", fingerprint="report", input_tokens=40_000)
    merged: Events = []
    for n, event in enumerate(others.events):
        merged.append(event)
        if n % 60 == 0:
            fast.call(n + 40.0, source="gateway/fast")
            merged.append(fast.events[-1])
    assert not findings(merged, "loop")


def test_an_evaluation_that_samples_each_prompt_ten_times_is_no_loop(findings: Found) -> None:
    traffic = Traffic("ci", workload="batch", session_id="run-17")
    for n in range(800):
        traffic.call(n * 0.7, fingerprint=f"case {n // 10}", input_tokens=300 + 7 * (n // 10))
    assert not findings(traffic.events, "loop")


def test_a_load_test_is_not_blocked_as_a_loop(findings: Found) -> None:
    traffic = Traffic("load", workload="batch", fingerprint="same")
    dice, at = random.Random(4), 0.0
    for _ in range(60):
        at += dice.expovariate(50.0)
        traffic.call(at)
    assert not any(f.evidence.deterministic for f in findings(traffic.events, "loop"))


def test_virtual_users_who_pick_among_four_prompts_are_not_blocked(findings: Found) -> None:
    traffic, dice, at = Traffic("load"), random.Random(4), 0.0
    for _ in range(1500):
        at += dice.expovariate(20.0)
        traffic.call(at, fingerprint=f"prompt {dice.randrange(4)}", session_id=f"user {dice.randrange(30)}")
    assert not any(f.evidence.deterministic for f in findings(traffic.events, "loop"))


def test_cases_in_order_of_size_are_no_growth(findings: Found) -> None:
    traffic = Traffic("ci", workload="batch", session_id="run")
    for n in range(60):
        traffic.call(n * 0.8, fingerprint=f"case {n}", input_tokens=300 + n)
    assert not findings(traffic.events, "loop")


def test_a_person_who_says_the_same_thrice_is_no_loop(findings: Found) -> None:
    traffic, at = Traffic(session_id="chat"), 0.0
    for turn in range(12):
        for again in range(3):
            at += 20.0 + 7 * again
            traffic.call(at, fingerprint=f"why {turn}?", input_tokens=900 + 400 * turn + 150 * again)
    assert not findings(traffic.events, "loop")


def test_a_person_who_talks_on_is_no_growth_loop(findings: Found, policy: Config) -> None:
    traffic = Traffic(session_id="chat")
    for n in range(60):
        traffic.call(n * (policy.loop.pause_seconds + 10), input_tokens=1000 + 800 * n, fingerprint=f"turn {n}")
    assert not findings(traffic.events, "loop")


@given(seed=st.integers(0, 10_000))
def test_a_context_that_grows_unsteadily_is_no_growth_loop(findings: Found, seed: int) -> None:
    dice, traffic, context = random.Random(seed), Traffic(session_id="work", workload="agent"), 1000
    for n in range(80):
        context += round(dice.lognormvariate(6.2, 1.0)) + 1
        traffic.call(n * 5.0 + dice.uniform(0, 3), input_tokens=context, fingerprint=f"turn {n}")
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


@pytest.mark.parametrize(
    "wrong",
    [{"block_repeats": 1.0}, {"block_alike": 1}, {"block_growth_steps": 1}, {"pause_seconds": 1.0}],
    ids=str,
)
def test_a_policy_that_contradicts_itself_is_refused(policy: Config, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        LoopConfig(**(asdict(policy.loop) | wrong))


def test_an_identity_that_loops_again_later_is_told_again(findings: Found) -> None:
    events: Events = []
    for start in (0, HOUR):
        traffic = Traffic("agent_1", session_id=f"s{start}", fingerprint="same")
        for n in range(20):
            traffic.call(start + 2.0 * n, event_id=f"{start}-{n}")
        events += traffic.events
    found = findings(events, "loop")
    assert [f.evidence.session_id for f in found] == ["s0", "s0", "s3600.0", "s3600.0"]
