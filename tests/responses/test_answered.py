"""Evidence counts once: not again after a person gave access back, not against a credential that replaced the stolen
one, and not when Kafka delivers it twice."""

from collections.abc import Callable
from typing import Any

from schemas.request import Request

Begin = Callable[..., Any]


def stolen(s: Any) -> None:
    """A theft: a new place, then a spike, with the credential `cred_old`."""
    s.find(0, "geo_shift", "medium", credential_id="cred_old")
    s.find(5, "spike", "high", credential_id="cred_old", span_seconds=60.0)


def test_what_a_person_gave_back_is_not_taken_for_what_was_before(story: Begin) -> None:
    s = story()
    s.loop(0, span_seconds=240.0)
    s.order(60, "restore")
    blocked = len(s.commands)
    s.extreme(100, span_seconds=60.0)
    s.loop(200, span_seconds=240.0)
    assert len(s.commands) == blocked
    s.extreme(361, span_seconds=60.0)
    assert s.brief[-1] == ("throttle", "identity", "key_1")


def test_what_a_person_gave_back_starts_without_risk(story: Begin) -> None:
    s = story()
    stolen(s)
    assert s.brief == [("revoke", "credential", "cred_old")]
    s.order(60, "restore")
    s.find(300, "spike", "high", credential_id="cred_old", span_seconds=60.0)
    assert [command.action for command in s.commands[1:]] == ["restore", "restore"]


def test_a_rotated_credential_does_not_pay_for_the_stolen_one(story: Begin) -> None:
    s = story()
    stolen(s)
    s.extreme(20, credential_id="cred_new", span_seconds=60.0)
    assert s.brief == [("revoke", "credential", "cred_old")]
    s.extreme(70, credential_id="cred_new", span_seconds=60.0)
    assert s.brief[1:] == [("throttle", "identity", "key_1")]


def test_more_of_the_blocked_credential_adds_no_command(story: Begin) -> None:
    s = story()
    stolen(s)
    for at in range(60, 600, 60):
        s.extreme(at, credential_id="cred_old", span_seconds=60.0)
    assert s.brief == [("revoke", "credential", "cred_old")]


def test_a_finding_that_is_delivered_twice_is_answered_once(story: Begin) -> None:
    s = story()
    first = s.loop(0)
    assert len(first) == 2
    assert s.loop(0) == []
    assert s.incident.finding_ids == ["f-acme-key_1-loop-0"]


def test_a_request_that_is_delivered_twice_is_carried_out_once(story: Begin) -> None:
    s = story()
    request = Request("req-7", "2026-03-02T00:00:00.000Z", "acme", "key_1", "suspend", "because", "ann")
    assert len(s.decider.order(request)) == 1
    assert s.decider.order(request) == []


def test_a_cap_leaves_a_rule_what_more_evidence_would_have_weakened(story: Begin) -> None:
    s = story(cap_tenant=1)
    s.extreme(0, identity="decoy")
    s.find(10, "geo_shift", "medium", identity="key_2")
    s.loop(20, identity="key_2")
    assert s.brief[-1] == ("suspend", "session", "s1")


def test_an_incident_says_what_is_in_force(story: Begin) -> None:
    s = story()
    s.find(0)
    assert (s.incident.response, s.incident.in_force) == ("alert", None)
    s.loop(10)
    assert (s.incident.response, s.incident.in_force) == ("suspend", "suspend")
    s.order(60, "restore")
    assert (s.incident.response, s.incident.in_force) == ("suspend", None)
