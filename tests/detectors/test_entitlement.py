"""Calls that the directory does not allow."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from made_traffic import DIRECTORY, START, Events, Traffic, in_order

from detectors import Config, Partition
from schemas.batch import to_batch
from schemas.directory import Directory, Entry
from schemas.finding import Finding

Found = Callable[..., list[Finding]]
KNOWN = Directory({"key_1": Entry(tenant="acme", models=["gpt-5-mini"], routes=["/v1/chat/*", "/v1/models"])})


def told(findings: Found, events: Events, directory: Directory = KNOWN) -> list[Finding]:
    return findings(events, "entitlement", directory=directory)


def test_a_model_that_is_not_granted(findings: Found, policy: Config) -> None:
    traffic = Traffic()
    traffic.every(30.0, 0, 600)
    traffic.every(3.0, 600, 650, model="gpt-5")
    found = told(findings, traffic.events)
    assert [f.severity for f in found] == ["low", "medium", "high"]
    assert [f.evidence.deterministic for f in found] == [False, False, True]
    assert found[0].evidence.cause is not None
    assert found[0].evidence.cause.id == "key_1-20"
    assert found[1].observed == pytest.approx(policy.entitlement.alert_calls, rel=0.5)
    assert found[2].observed >= policy.entitlement.block_calls
    assert {f.evidence.shared for f in found} == {"model:gpt-5"}
    assert "model gpt-5 was served and is not granted (gpt-5-mini)" in found[0].reason


@pytest.mark.parametrize(
    ("route", "lacks"), [("/v1/chat/completions", None), ("/v1/models", None), ("/v1/files", "route")]
)
def test_routes(findings: Found, route: str, lacks: str | None) -> None:
    traffic = Traffic(route=route)
    traffic.every(1.0, 0, 5)
    found = told(findings, traffic.events)
    assert {f.evidence.details["lacks"] for f in found} == ({lacks} if lacks else set())
    assert all(f.evidence.shared is None for f in found)


@pytest.mark.parametrize(
    ("entry", "common"),
    [
        (None, {}),
        (Entry(tenant="acme"), {}),
        (Entry(tenant="elsewhere", models=[]), {}),
        (Entry(models=["gpt-5"]), {}),
        (Entry(models=["gpt-5-*", "gpt-5"]), {"model": "openai/gpt-5-2025-08-07"}),
        (Entry(models=["gpt-5"], routes=["/v1/chat"]), {"route": None}),
        (Entry(models=[]), {"model": ""}),
        (Entry(expires=START + timedelta(hours=1)), {}),
    ],
)
def test_what_the_directory_does_not_forbid(findings: Found, entry: Entry | None, common: dict[str, Any]) -> None:
    traffic = Traffic(**({"model": "gpt-5"} | common))
    traffic.every(1.0, 0, 30)
    assert not told(findings, traffic.events, Directory({"key_1": entry} if entry else {}))


def test_an_empty_list_grants_nothing(findings: Found) -> None:
    traffic = Traffic()
    traffic.every(1.0, 0, 30)
    assert told(findings, traffic.events, Directory({"key_1": Entry(models=[])}))[-1].evidence.deterministic


def test_an_identity_that_has_expired(findings: Found) -> None:
    """Its calls before are nobody's business, though they were answered for in the same batch."""
    traffic = Traffic()
    traffic.every(2.0, 0, 120)
    expired = Directory({"key_1": Entry(expires=START + timedelta(seconds=60))})
    found = told(findings, traffic.events, expired)
    assert [f.severity for f in found] == ["low", "medium", "high"]
    assert found[0].evidence.offsets[0] == 30
    assert {f.evidence.details["lacks"] for f in found} == {"expired"}
    assert "expired on 2026-03-02" in found[0].reason


def test_what_the_gateway_refused_itself_is_weak_evidence(findings: Found) -> None:
    traffic = Traffic(model="gpt-5", status=403)
    traffic.every(1.0, 0, 300)
    assert [f.severity for f in told(findings, traffic.events)] == ["low"]


def test_calls_that_the_caller_cut_off_were_served(findings: Found) -> None:
    traffic = Traffic(model="gpt-5", status=499)
    traffic.every(1.0, 0, 30)
    assert told(findings, traffic.events)[-1].evidence.deterministic


def test_a_call_a_day_is_weak_evidence_once_a_day(findings: Found) -> None:
    traffic = Traffic(model="gpt-5")
    traffic.every(6 * 3600.0, 0, 5 * 86_400)
    found = told(findings, traffic.events)
    assert {f.severity for f in found} == {"low"}
    assert len(found) == 5


def test_a_directory_that_lags_behind_a_whole_team_blocks_nobody(findings: Found, policy: Config) -> None:
    team = [Traffic(f"key_{n}", model="gpt-5") for n in range(policy.entitlement.lagging_identities + 1)]
    for n, traffic in enumerate(team):
        traffic.every(4.0, n * 1.0, 300)
    directory = Directory({f"key_{n}": Entry(tenant="acme", models=["gpt-5-mini"]) for n in range(len(team))})
    found = told(findings, in_order(*(traffic.events for traffic in team)), directory)
    assert {f.identity for f in found} == set(directory.identities)
    assert not any(f.evidence.deterministic for f in found)
    assert {f.evidence.shared for f in found} == {"model:gpt-5"}


def test_another_directory_after_a_restart_is_asked_anew(policy: Config) -> None:
    traffic = Traffic("key_beyond", model="gpt-5")
    traffic.every(1.0, 0, 60)
    first = Partition(0, policy, DIRECTORY)
    batch = to_batch(traffic.events[:30], range(30), [0] * 30)
    assert any(isinstance(t.signal, Finding) and t.signal.kind == "entitlement" for t in first.take(batch))
    again = Partition(0, policy, Directory({"key_beyond": Entry(models=["gpt-5"])}))
    again.restore(first.checkpoint().pieces)
    rest = again.take(to_batch(traffic.events[30:], range(30, 60), [0] * 30))
    assert not [t for t in rest if isinstance(t.signal, Finding) and t.signal.kind == "entitlement"]


def test_more_models_than_are_remembered(findings: Found) -> None:
    """Which combinations the row remembers shows in nothing but speed."""
    granted = [f"model-{n}" for n in range(8)]
    traffic = Traffic()
    for n in range(400):
        traffic.call(n * 1.0, model=f"model-{n * 5 % 8}")
        if n % 40 == 39:
            traffic.call(n + 0.5, model="other")
    found = told(findings, traffic.events, Directory({"key_1": Entry(models=granted)}))
    assert [f.severity for f in found][:2] == ["low", "medium"]
    assert found[0].evidence.cause is not None
    assert found[0].evidence.cause.id == "key_1-40"
    assert {f.evidence.details["lacks"] for f in found} == {"model"}
