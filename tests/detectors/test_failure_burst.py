"""Failing retries, probing, and failures that are nobody's fault."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from made_traffic import HOUR, Events, Traffic, in_order
from msgspec.structs import asdict

from detectors import Config
from detectors.failure_burst import Config as FailureBurstConfig
from schemas.finding import Finding

Found = Callable[..., list[Finding]]
MODELS = [f"model-{n}" for n in range(12)]


def outage(names: int, *, start: float = 0.0, minutes: float = 12.0, status: int = 503) -> Events:
    """A provider that is down for all: each client tries an operation one to three times and backs off."""
    events: Events = []
    for k in range(names):
        dice = random.Random(k)
        traffic = Traffic(f"client_{k}", tenant=f"tenant-{k % 3}", provider="openai", status=status)
        at, operation = start + dice.uniform(0, 60), 0
        while at < start + minutes * 60:
            operation += 1
            for attempt in range(dice.randrange(1, 4)):
                traffic.call(at, attempt=attempt, fingerprint=f"{k} asks {operation}", session_id=f"{k}-{operation}")
                at += 2.0 * 2**attempt
            at += dice.uniform(4, 40)
        events += traffic.events
    return in_order(events)


def test_retries_without_back_off_block_at_the_tenth(findings: Found, policy: Config) -> None:
    traffic = Traffic(status=429, fingerprint="same", session_id="s1", provider="openai")
    for attempt in range(40):
        traffic.call(attempt * 0.8, attempt=attempt)
    found = findings(traffic.events, "failure_burst")
    assert found[0].evidence.deterministic
    assert found[0].severity == "medium"
    assert found[0].evidence.session_id == "s1"
    assert found[0].evidence.offsets == (0, policy.failure_burst.attempts - 1)
    assert "10 failing attempts at one operation, every 0.80 s" in found[0].reason
    assert len(found) == 1


@pytest.mark.parametrize(("session", "calls"), [("s1", 10), (None, 20)])
def test_failing_calls_that_count_no_attempts_are_a_storm_too(findings: Found, session: str | None, calls: int) -> None:
    traffic = Traffic(status=400, fingerprint="too long", session_id=session)
    traffic.every(1.0, 0, 60)
    found = findings(traffic.events, "failure_burst")
    assert found[0].evidence.deterministic
    assert found[0].evidence.offsets == (0, calls - 1)


def test_a_storm_that_opens_a_session_for_each_try(findings: Found, policy: Config) -> None:
    traffic = Traffic(status=500, fingerprint="same")
    for n in range(40):
        traffic.call(n * 1.0, session_id=f"s{n}")
    found = [f for f in findings(traffic.events, "failure_burst") if f.evidence.deterministic]
    assert found[0].observed == policy.failure_burst.attempts * policy.failure_burst.unnamed_factor
    assert found[0].evidence.session_id is None


def test_a_client_that_is_rate_limited_and_backs_off_is_told_late_at_most(findings: Found, policy: Config) -> None:
    """And with what others of its tenant would see, too."""
    traffic = Traffic(provider="openai")
    traffic.quietly(6)
    for n in range(200):
        traffic.call(6 * HOUR + n * 1.0, fingerprint=f"new {n}", session_id=f"s{n}", status=429)
    found = findings(traffic.events, "failure_burst")
    assert found[0].observed >= policy.failure_burst.failures * policy.failure_burst.theirs_factor
    assert found[0].evidence.shared == "provider:openai 429"
    assert not any(f.evidence.deterministic for f in found)


def test_a_storm_whose_prompts_are_unknown(findings: Found) -> None:
    traffic = Traffic(status=500, operation_id="op-1")
    traffic.every(0.5, 0, 20)
    assert findings(traffic.events, "failure_burst")[-1].evidence.deterministic


def test_a_storm_amid_other_failures(findings: Found) -> None:
    storm = Traffic(status=500, fingerprint="same", session_id="s1")
    for attempt in range(60):
        storm.call(attempt * 1.0, attempt=attempt)
    other = Traffic(status=500)
    for n in range(12):
        other.call(n * 5.0 + 0.4, event_id=f"o{n}", fingerprint=f"other {n}", session_id=f"t{n}")
    assert any(f.evidence.deterministic for f in findings(in_order(storm.events, other.events), "failure_burst"))


def test_whoever_backs_off_is_no_storm(findings: Found) -> None:
    traffic, at = Traffic(status=429, fingerprint="same", session_id="s1"), 0.0
    for attempt in range(14):
        traffic.call(at, attempt=attempt)
        at += min(0.5 * 2**attempt, 30.0)
    assert not findings(traffic.events, "failure_burst")


def test_three_times_three_nested_retries_are_no_storm(findings: Found) -> None:
    traffic, at = Traffic(), 0.0
    for operation in range(6):
        for attempt in range(9):
            at += 0.5
            traffic.call(at, status=500, attempt=attempt, fingerprint=f"op {operation}", session_id="s1")
        at += 30
        traffic.call(at, fingerprint=f"op {operation}", session_id="s1")
    assert not any(f.evidence.deterministic for f in findings(traffic.events, "failure_burst"))


def operations(retries: int, every: float, name: str = "key_1", **common: Any) -> Events:
    """Thirty operations that fail, one in so many seconds; each is tried again so often, twice a second."""
    traffic = Traffic(name, status=503, **common)
    for n in range(30):
        for attempt in range(retries + 1):
            told = {"attempt": attempt, "fingerprint": f"op {n}"} if "fingerprint" not in common else {}
            traffic.call(n * every + attempt * 0.5, **told)
    return in_order(traffic.events)


@pytest.mark.parametrize("retries", [4, 7])
def test_hammering_with_many_operations_at_once_is_throttled(findings: Found, policy: Config, retries: int) -> None:
    found = findings(operations(retries, 2.0), "failure_burst")
    first, second = (f for f in found if f.evidence.details["pattern"] == "hammering")
    assert first.observed == policy.failure_burst.retries
    # Not before others could tell of an outage.
    assert [f.evidence.deterministic for f in (first, second)] == [False, True]
    assert 30 <= second.evidence.age_seconds - first.evidence.age_seconds < 40


def test_who_hammers_while_others_are_served_need_not_be_waited_for(findings: Found) -> None:
    fine = [Traffic(f"key_fine{k}", provider="openai") for k in range(4)]
    for k, traffic in enumerate(fine):
        traffic.every(4.0, k, 120)
    mine = operations(5, 2.0, provider="openai")
    found = findings(in_order(mine, *(traffic.events for traffic in fine)), "failure_burst")
    first, second = (f for f in found if f.evidence.details["pattern"] == "hammering")
    assert [f.evidence.deterministic for f in (first, second)] == [False, True]
    assert second.evidence.age_seconds - first.evidence.age_seconds < 30


@pytest.mark.parametrize(("retries", "every"), [(0, 1.0), (2, 2.0), (8, 60.0)], ids=["none", "any client's", "rarely"])
def test_the_retries_of_any_client_are_no_hammering(findings: Found, retries: int, every: float) -> None:
    told = findings(operations(retries, every), "failure_burst")
    assert not any(f.evidence.details["pattern"] == "hammering" for f in told)


def test_nobody_hammers_while_all_fail(findings: Found) -> None:
    others = [operations(0, 2.0, name=f"key_{k}", provider="openai", fingerprint="x") for k in range(8)]
    told = findings(in_order(operations(5, 2.0, provider="openai"), *others), "failure_burst")
    assert not any(f.evidence.deterministic for f in told)


def test_a_popular_prompt_that_fails_side_by_side_is_no_storm(findings: Found) -> None:
    """Twenty samples of one prompt are sent at once, and the provider takes none."""
    traffic = Traffic(status=429, fingerprint="same", session_id="s1")
    for _ in range(20):
        traffic.call(1.0)
    assert not findings(traffic.events, "failure_burst")


def test_an_outage_that_all_share_is_nobodys_fault(findings: Found) -> None:
    assert not findings(outage(24), "failure_burst")


def test_nobody_is_blocked_for_an_outage_by_its_retries(findings: Found) -> None:
    """A client without back-off among those that have one: told, later, with what it shares with them."""
    storm = Traffic("hasty", provider="openai", status=503, fingerprint="same", session_id="s1")
    for attempt in range(200):
        storm.call(300 + attempt * 1.0, attempt=attempt)
    found = findings(in_order(outage(24), storm.events), "failure_burst")
    assert {f.identity for f in found} == {"hasty"}
    assert not any(f.evidence.deterministic for f in found)
    assert found[0].evidence.shared == "provider:openai 503"


def test_another_providers_outage_excuses_nobody(findings: Found) -> None:
    storm = Traffic("hasty", provider="anthropic", status=503, fingerprint="same", session_id="s1")
    for attempt in range(40):
        storm.call(300 + attempt * 1.0, attempt=attempt)
    found = findings(in_order(outage(24), storm.events), "failure_burst")
    assert [f.identity for f in found if f.evidence.deterministic] == ["hasty"]


def test_one_loud_identity_is_no_outage(findings: Found) -> None:
    """However often one fails, it excuses neither itself nor others."""
    loud = Traffic("loud", provider="openai", status=503)
    for n in range(600):
        loud.call(n * 0.2, fingerprint=f"p{n}", session_id=f"s{n}")
    storm = Traffic("hasty", provider="openai", status=503, fingerprint="same", session_id="s1")
    for attempt in range(40):
        storm.call(60 + attempt * 1.0, attempt=attempt)
    found = findings(in_order(loud.events, storm.events), "failure_burst")
    assert any(f.identity == "hasty" and f.evidence.deterministic for f in found)


@pytest.mark.parametrize("status", [400, 403, 404])
def test_models_tried_in_vain_are_probing(findings: Found, status: int) -> None:
    traffic = Traffic()
    traffic.quietly(2)
    history = len(traffic.events)
    for n, model in enumerate(MODELS[:9]):
        for again in range(3):
            traffic.call(
                2 * HOUR + n * 4 + again,
                model=model,
                status=status,
                fingerprint="hi",
                input_tokens=8,
                output_tokens=None,
            )
    found = findings(traffic.events, "failure_burst")
    assert found[0].evidence.deterministic
    assert found[0].severity == "high"
    # By the first call to the fourth model.
    assert found[0].evidence.offsets == (history, history + 9)
    assert "4 or more different models tried in vain within 12 s" in found[0].reason


def test_patient_probing_needs_a_model_more(findings: Found, policy: Config) -> None:
    traffic = Traffic(status=403)
    for n, model in enumerate(MODELS[:6]):
        traffic.call(n * 60.0, model=model)
    found = findings(traffic.events, "failure_burst")
    assert found[0].evidence.offsets[1] == policy.failure_burst.probed_models - 1


def test_one_model_tried_in_every_region_is_probing(findings: Found) -> None:
    traffic = Traffic(status=403)
    for n in range(17):
        traffic.call(n * 2.0, route=f"/region-{n}/invoke")
    assert any(f.evidence.deterministic for f in findings(traffic.events, "failure_burst"))


def test_probing_under_the_owners_own_traffic(findings: Found) -> None:
    """A busy key: what the owner's calls meet with excuses no model that never answers."""
    owner = Traffic()
    owner.every(1.0, 0, 600)
    probes = Traffic(status=404)
    for n, model in enumerate(MODELS[:6]):
        probes.call(300 + n * 2.3, event_id=f"p{n}", model=model)
    assert findings(in_order(owner.events, probes.events), "failure_burst")


def test_a_wrong_name_or_three_are_nothing(findings: Found) -> None:
    traffic = Traffic()
    traffic.quietly(2)
    for n, model in enumerate(["gpt5", "gpt5", "gpt-5-1", "gpt_5", "gpt5", "gpt_5"]):
        traffic.call(2 * HOUR + n * 20.0, model=model, status=404)
    traffic.every(30.0, 2 * HOUR + 200, 2 * HOUR + 800)
    assert not findings(traffic.events, "failure_burst")


def test_models_that_answer_too_are_not_probed(findings: Found) -> None:
    """A test suite that asks each model something wrong, and something right."""
    traffic = Traffic("ci", workload="batch")
    for n in range(120):
        traffic.call(n * 0.5, model=MODELS[n // 2 % 10], status=(400, 200)[n % 2], fingerprint=f"case {n}")
    assert not any(f.evidence.deterministic for f in findings(traffic.events, "failure_burst"))


def test_a_router_that_falls_back_over_many_models_does_not_probe(findings: Found) -> None:
    traffic = Traffic(status=400, fingerprint="too long")
    for operation in range(10):
        for attempt, model in enumerate(MODELS[:7]):
            traffic.call(
                operation * 90.0 + attempt * 0.4, model=model, attempt=attempt, operation_id=f"op {operation}",
                session_id=f"s{operation}",
            )  # fmt: skip
    assert not any(f.evidence.deterministic for f in findings(traffic.events, "failure_burst"))


def test_failures_far_above_the_own_past(findings: Found) -> None:
    traffic = Traffic(provider="openai")
    traffic.quietly(6)
    for n in range(60):
        traffic.call(6 * HOUR + n * 6.0, fingerprint=f"new {n}", session_id=f"s{n}", status=500 if n % 5 else 200)
    found = findings(traffic.events, "failure_burst")
    assert found
    assert found[0].severity == "medium"
    assert not any(f.evidence.deterministic for f in found)
    assert found[0].evidence.shared == "provider:openai 500"


def test_whoever_always_failed_so_often_is_as_usual(findings: Found) -> None:
    dice, traffic = random.Random(3), Traffic()
    for n in range(3000):
        traffic.call(n * 5.0, fingerprint=f"p{n}", session_id=f"s{n}", status=429 if dice.random() < 0.2 else 200)
    assert not findings(traffic.events, "failure_burst")


def test_calls_that_were_cut_off_are_no_failures(findings: Found) -> None:
    traffic = Traffic(status=499, fingerprint="same", session_id="s1")
    traffic.every(1.0, 0, 60)
    assert not findings(traffic.events, "failure_burst")


@pytest.mark.parametrize("wrong", [{"probed_quickly": 9}, {"quick_seconds": 9999.0}, {"burst_share": 0.01}], ids=str)
def test_a_policy_that_contradicts_itself_is_refused(policy: Config, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        FailureBurstConfig(**(asdict(policy.failure_burst) | wrong))
