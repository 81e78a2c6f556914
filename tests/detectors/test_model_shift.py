"""Identities that turn to dearer models, and changes of models that mean nothing."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_traffic import HOUR, Traffic, in_order

from detectors import Config, Partition
from detectors.model_shift_kernel import MODELS
from schemas.batch import to_batch
from schemas.directory import Directory
from schemas.finding import Finding

Found = Callable[..., list[Finding]]
NOW = 10 * HOUR
DEAR: dict[str, Any] = {"model": "opus", "cost_usd": 0.04}
NEAR: dict[str, Any] = {"model": "better", "cost_usd": 0.0025}


def settled(subject: str = "key_1", hours: float = 10.0, **common: Any) -> Traffic:
    """An identity that has used one model twenty times an hour."""
    traffic = Traffic(subject, **common)
    traffic.quietly(hours, per_hour=20)
    return traffic


def told(findings: Found, *traffic: Traffic) -> list[Finding]:
    return findings(in_order(*(of.events for of in traffic)), "model_shift")


def test_a_dear_model_that_was_never_used(findings: Found, policy: Config) -> None:
    traffic = settled()
    traffic.every(120.0, NOW, NOW + HOUR, **DEAR)
    found = told(findings, traffic)
    assert [f.severity for f in found][:2] == ["low", "medium"]
    assert [f.evidence.offsets[0] - 200 for f in found][:2] == [2, 6]
    assert {f.evidence.shared for f in found} == {"model:opus"}
    assert found[1].observed / found[1].baseline == pytest.approx(20, rel=0.01)
    assert "opus costs 20.0 times the usual mix" in found[1].reason
    assert len(found) == 1 + math.ceil(24 * 120 / policy.model_shift.repeat_finding_seconds / 1.2)
    assert not any(f.evidence.deterministic or f.evidence.extreme for f in found)


def test_amid_the_usual_calls_the_spend_tells(findings: Found) -> None:
    traffic, usual = settled(), Traffic()
    traffic.every(60.0, NOW, NOW + HOUR, **DEAR)
    usual.every(45.0, NOW, NOW + HOUR, event_id="", source="gateway/eu-2")
    [medium, *_] = [f for f in told(findings, traffic, usual) if f.severity == "medium"]
    assert medium.evidence.details["calls_share"] < 0.5 < medium.evidence.details["spend_share"]


@pytest.mark.parametrize(("calls", "sessions", "severity"), [(18, 1, "low"), (18, 2, "medium"), (40, 1, "medium")])
def test_a_conversation_with_a_dear_model_is_weak_evidence(
    findings: Found, calls: int, sessions: int, severity: str
) -> None:
    """Who tries a model for as long as one conversation lasts has not turned to it."""
    traffic = settled()
    for n in range(calls):
        traffic.call(NOW + n * 45.0, **(DEAR | {"session_id": f"s-{n % sessions}"}))
    assert told(findings, traffic)[-1].severity == severity


def test_several_dear_models_add_up(findings: Found) -> None:
    traffic = settled()
    for n in range(12):
        traffic.call(NOW + n, model=("opus", "pro", "sonnet")[n % 3], cost_usd=0.04)
    assert [f.severity for f in told(findings, traffic)] == ["low", "medium"]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "gpt-5-mini-renamed"},
        {"model": "nano", "cost_usd": 0.0002},
        {"model": "embeddings", "input_tokens": 8000, "output_tokens": 0, "cost_usd": 0.0001},
        {"cost_usd": 0.04},
        {"cost_usd": None},
        {"input_tokens": 40_000, "cost_usd": 0.06},
        {"output_tokens": 16_000, "cost_usd": 0.1},
        DEAR | {"status": 403, "cost_usd": 0.0},
        DEAR | {"model": ""},
    ],
    ids=[
        "renamed",
        "cheaper",
        "embeddings",
        "new prices",
        "no prices",
        "long context",
        "long answers",
        "refused",
        "nameless",
    ],
)
def test_what_is_no_dearer_model_is_not_told(findings: Found, change: dict[str, Any]) -> None:
    traffic = settled()
    traffic.every(20.0, NOW, NOW + HOUR, **change)
    assert not told(findings, traffic)


@pytest.mark.parametrize("ratio", [1.3, 1.7])
def test_dear_is_what_the_policy_says(findings: Found, policy: Config, ratio: float) -> None:
    traffic = settled()
    traffic.every(60.0, NOW, NOW + HOUR, model="other", cost_usd=0.002 * ratio)
    assert bool(told(findings, traffic)) == (ratio >= policy.model_shift.dear_ratio)


@pytest.mark.parametrize("price", [1e-9, 1e-3, 1e6])
def test_prices_may_be_of_any_currency(findings: Found, price: float) -> None:
    traffic = settled(cost_usd=price)
    traffic.every(60.0, NOW, NOW + HOUR, model="other", cost_usd=price * 10)
    assert [f.severity for f in told(findings, traffic)][:2] == ["low", "medium"]


@pytest.mark.parametrize("known", [True, False])
def test_a_model_without_a_price_is_weak_evidence(findings: Found, known: bool) -> None:
    traffic = settled(cost_usd=0.002 if known else None)
    traffic.every(30.0, NOW, NOW + HOUR, model="unpriced", cost_usd=None)
    found = told(findings, traffic)
    assert {f.severity for f in found} == {"low"}
    assert "whose price is unknown" in found[0].reason
    assert (found[0].observed, found[0].baseline) == (0.0, 0.0)


def test_other_identities_prices_are_their_own(findings: Found) -> None:
    """What a tenant pays for a model, with its discount or in its currency, says nothing of what another pays."""
    other = settled("key_2", tenant="elsewhere", cost_usd=0.2)
    traffic = settled()
    traffic.every(60.0, NOW, NOW + HOUR, model="gpt-5-mini-renamed")
    assert not told(findings, traffic, other)


def test_a_new_identity_has_no_past(findings: Found) -> None:
    traffic = Traffic()
    traffic.every(60.0, 0, HOUR)
    traffic.every(20.0, HOUR, 2 * HOUR, **DEAR)
    assert not told(findings, traffic)


def test_with_little_history_it_is_weak_evidence(findings: Found) -> None:
    traffic = settled(hours=4.0)
    traffic.every(20.0, 4 * HOUR, 5 * HOUR, **DEAR)
    assert {f.severity for f in told(findings, traffic)} == {"low"}


def test_whoever_has_used_many_models_in_few_hours_may_use_another(findings: Found, policy: Config) -> None:
    """Each model of its own asks for as many hours of history again."""
    for hours, severities in ((2.5, {"low"}), (3.5, {"low", "medium"})):
        traffic = Traffic()
        for n in range(round(hours * policy.model_shift.warm_up_hours * 20)):
            traffic.call(n * 180.0, model=("a", "b", "c")[n % 3])
        traffic.every(60.0, n * 180.0 + 60, n * 180.0 + HOUR, **DEAR)
        assert {f.severity for f in told(findings, traffic)} == severities


def test_a_change_that_lasts_is_learnt(findings: Found, policy: Config) -> None:
    traffic = settled()
    traffic.every(60.0, NOW, NOW + 24 * HOUR, **DEAR)
    found = told(findings, traffic)
    hours = [(f.evidence.offsets[0] - 200) / 60 for f in found]
    assert max(hours) <= policy.model_shift.trusted_after_hours + 1


def test_a_whole_tenant_that_moves_is_weak_evidence(findings: Found) -> None:
    """The first to move are told, and say what they share; once most have moved it is nobody's doing."""
    team = [settled(f"key_{n}") for n in range(8)]
    for n, traffic in enumerate(team):
        traffic.every(240.0, NOW + 600 * n, NOW + 4 * HOUR, **DEAR)
    found = told(findings, *team)
    assert {f.evidence.shared for f in found} == {"model:opus"}
    told_late = {f.identity for f in found if f.severity == "medium"} & {"key_6", "key_7"}
    assert not told_late


def test_who_always_uses_new_models_has_none(findings: Found) -> None:
    traffic = Traffic()
    for hour in range(40):
        for n in range(12):
            traffic.call(hour * HOUR + n * 60, model=f"m{hour}", cost_usd=0.001 * 1.01**hour)
    traffic.every(60.0, 40 * HOUR, 41 * HOUR, **DEAR)
    assert {f.severity for f in told(findings, traffic)} <= {"low"}
    assert len({e.data.model for e in traffic.events}) > MODELS


def now_and_then(dear_every: int) -> Traffic:
    """An identity of two models: each `dear_every`th call is of the dear one."""
    traffic = Traffic()
    for n in range(600):
        traffic.call(n * 120.0, **(DEAR if n % dear_every == 0 else {}))
    return traffic


def test_the_dear_ones_of_its_own_models_take_over(findings: Found, policy: Config) -> None:
    traffic = now_and_then(40)
    traffic.every(60.0, 20 * HOUR, 21 * HOUR, **DEAR)
    [first, *_] = told(findings, traffic)
    assert first.severity == "medium"
    assert first.evidence.details["pattern"] == "mix"
    assert first.observed / first.baseline >= policy.model_shift.mix_ratio
    assert 600 + 8 <= first.evidence.offsets[0] <= 600 + 25


def test_a_mix_that_stays_is_not_told(findings: Found) -> None:
    assert not told(findings, now_and_then(40))
    assert not told(findings, now_and_then(4))


def test_sessions_on_the_dear_model_are_known_after_the_first(findings: Found) -> None:
    traffic = Traffic()
    for hour in range(72):
        traffic.every(60.0, hour * HOUR, hour * HOUR + 1800, **(DEAR if hour % 12 == 5 else {}))
    assert {f.evidence.offsets[0] // 30 for f in told(findings, traffic)} <= {5, 29}


def test_a_backfill_of_embeddings_is_no_new_past(findings: Found) -> None:
    """After thousands of cheap calls the usual ones are no excursion."""
    traffic = settled()
    traffic.every(2.0, NOW, NOW + 2 * HOUR, model="embeddings", output_tokens=0, cost_usd=0.00001)
    traffic.every(60.0, NOW + 2 * HOUR, NOW + 6 * HOUR)
    assert not told(findings, traffic)


NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, 5e-324, 1e-9, 0.002, 1e15]))


@settings(max_examples=40)
@given(
    calls=st.lists(
        st.tuples(st.floats(0, 30 * HOUR), st.sampled_from([f"m{n}" for n in range(9)]), NUMBERS), max_size=150
    )
)
def test_the_state_stays_in_order(policy: Config, calls: list[tuple[float, str, float | None]]) -> None:
    traffic = Traffic()
    for at, model, cost in calls:
        traffic.call(round(at, 3), model=model, cost_usd=cost)
    partition = Partition(0, policy, Directory())
    partition.take(to_batch(traffic.events, range(len(calls)), [0] * len(calls)))
    [detector] = [d for d in partition._detectors if d.name == "model_shift"]
    for row in detector.rows.array[: partition.identities]:
        assert np.isfinite([row["fresh"], row["record"], row["peak"]]).all()
        used = row["model"][row["model"] != 0]
        assert len(set(used.tolist())) == len(used)
        assert row["recent"].astype(int).sum() <= 65_535
    if calls:
        held = detector._users
        detector._users = None
        again = detector._users_of(detector.rows.array, partition._identities.tenant, 0)
        assert counted(held) == counted(again)


def counted(users: Any) -> dict[int, int]:
    return {int(of["use"]): int(of["identities"]) for of in users[:-1] if of["identities"] > 0}


def test_who_uses_what_is_counted_the_same_after_a_restart(policy: Config) -> None:
    team = [settled(f"key_{n}", hours=8.0, tenant=f"t{n % 3}") for n in range(9)]
    events = in_order(*(traffic.events for traffic in team))
    partition = Partition(0, policy, Directory())
    partition.take(to_batch(events, range(len(events)), [0] * len(events)))
    again = Partition(0, policy, Directory())
    again.restore(partition.checkpoint().pieces)
    [one], [two] = ([d for d in p._detectors if d.name == "model_shift"] for p in (partition, again))
    counts = [sorted(counted(of._users_of(of.rows.array, again._identities.tenant, 0)).values()) for of in (one, two)]
    assert counts[0] == counts[1] == [3] * 6


def test_the_table_of_users_grows(policy: Config) -> None:
    partition = Partition(0, policy, Directory())
    for part in range(6):
        traffic = [Traffic(f"key_{part}_{n}", tenant=f"t{part}_{n}") for n in range(1000)]
        events = [of.call(part * 10.0 + n / 1000, event_id=f"{part}-{n}") for n, of in enumerate(traffic)]
        partition.take(to_batch(events, range(part * 1000, part * 1000 + 1000), [0] * 1000))
    [detector] = [d for d in partition._detectors if d.name == "model_shift"]
    assert sorted(counted(detector._users).values()) == [1] * 12_000
    assert len(detector._users) > 2 * 12_000
