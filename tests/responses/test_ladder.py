"""Which evidence gets which answer."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.command import Command

Begin = Callable[..., Any]


def test_one_spike_is_an_alert(story: Begin) -> None:
    s = story()
    s.find(0, "spike", "high")
    assert not s.commands
    assert s.incident.response == "alert"


def test_a_small_finding_is_not_even_that(story: Begin) -> None:
    s = story()
    assert s.find(0, "spike", "low") == []


@pytest.mark.parametrize("severity", ["medium", "high", "critical"])
def test_the_place_alone_never_blocks(story: Begin, severity: str) -> None:
    s = story()
    for n in range(200):
        s.find(n * 30.0, "geo_shift", severity)
    assert not s.commands
    assert s.incident.response == "alert"


def test_a_client_as_new_as_the_place_loses_the_credential_for_a_while(story: Begin) -> None:
    s = story()
    s.find(0, "geo_shift", "high", details={"pattern": "busy"})
    assert not s.commands
    s.find(60, "geo_shift", "high", details={"pattern": "stranger"})
    assert s.brief == [("suspend", "credential", "cred_key_1")]
    assert s.commands[0].expires_at


def test_a_stranger_who_does_more_is_a_thief(story: Begin) -> None:
    s = story()
    s.find(60, "geo_shift", "high", details={"pattern": "stranger"})
    s.find(90, "spike", "medium")
    assert s.brief == [("suspend", "credential", "cred_key_1"), ("revoke", "credential", "cred_key_1")]


def test_an_extreme_alone_is_a_throttle_to_the_usual_rate(story: Begin) -> None:
    s = story()
    s.extreme(0, details={"usual_requests_per_minute": 41.6})
    assert s.brief == [("throttle", "identity", "key_1")]
    assert s.commands[0].limits.rpm == 42
    assert s.incident.response == "throttle"


def test_a_throttle_leaves_something_to_those_who_used_nothing(story: Begin) -> None:
    s = story(throttle_least_rpm=6)
    s.extreme(0, details={"usual_requests_per_minute": 0.2})
    assert s.commands[0].limits.rpm == 6


def test_a_loop_costs_its_session_first(story: Begin) -> None:
    s = story()
    s.loop(0, "s1")
    assert s.brief == [("suspend", "session", "s1")]
    assert s.commands[0].identity == "key_1"


def test_a_loop_that_goes_on_for_a_moment_is_given_time_to_stop(story: Begin) -> None:
    s = story(renew_seconds=30.0)
    s.loop(0, "s1")
    s.loop(20, "s1")
    assert len(s.commands) == 1


def test_a_loop_that_escapes_its_session_costs_the_identity(story: Begin) -> None:
    s = story(renew_seconds=30.0)
    s.loop(0, "s1")
    s.loop(60, "s1")
    assert s.brief == [("suspend", "session", "s1"), ("suspend", "identity", "key_1")]


def test_a_loop_without_a_session_costs_the_identity(story: Begin) -> None:
    s = story()
    s.find(0, "loop", deterministic=True)
    assert s.brief == [("suspend", "identity", "key_1")]


def test_a_loop_that_is_not_long_enough_is_an_alert(story: Begin) -> None:
    s = story()
    s.find(0, "loop", "medium", session_id="s1")
    assert not s.commands


@pytest.mark.parametrize("order", [("geo_shift", "spike"), ("spike", "geo_shift")])
def test_two_families_with_the_place_are_theft_and_cost_the_credential(story: Begin, order: tuple[str, str]) -> None:
    s = story()
    s.find(0, order[0])
    s.find(5, order[1])
    assert s.brief == [("revoke", "credential", "cred_key_1")]
    assert s.commands[0].expires_at is None
    assert s.incident.kinds
    assert set(s.commands[0].finding_ids) == set(s.incident.finding_ids)


def test_a_network_that_is_only_unusual_suspends_the_credential(story: Begin) -> None:
    s = story()
    s.find(0, "geo_shift", "low")
    s.find(5, "spike", "high")
    assert s.brief == [("suspend", "credential", "cred_key_1")]
    assert s.commands[0].expires_at is not None


def test_geography_alone_ends_by_itself(story: Begin) -> None:
    s = story()
    s.find(0, "geo_shift", "high")
    s.find(5, "shared_credential", "high")
    assert s.brief == [("suspend", "credential", "cred_key_1")]


def test_retries_without_back_off_are_throttled(story: Begin) -> None:
    s = story()
    s.find(0, "failure_burst", "medium", deterministic=True)
    assert s.brief == [("throttle", "identity", "key_1")]


def test_theft_without_a_credential_costs_the_identity(story: Begin) -> None:
    s = story()
    s.find(0, "geo_shift", credential_id=None)
    s.find(5, "spike", credential_id=None)
    assert s.brief == [("suspend", "identity", "key_1")]


def test_two_families_without_the_place_suspend(story: Begin) -> None:
    s = story()
    s.find(0, "spike")
    s.find(5, "model_shift")
    assert s.brief == [("suspend", "identity", "key_1")]


def test_two_faint_families_do_not_block(story: Begin) -> None:
    s = story(block_risk=60.0)
    s.find(0, "spike", "medium")
    s.find(5, "model_shift", "low")
    assert not s.commands


def test_findings_hours_apart_do_not_add_up(story: Begin) -> None:
    s = story()
    s.find(0, "spike")
    s.find(6 * 3600, "model_shift")
    assert not s.commands


def test_identities_do_not_add_up(story: Begin) -> None:
    s = story()
    s.find(0, "geo_shift", identity="a")
    s.find(1, "spike", identity="b")
    s.find(2, "spike", identity="a", tenant="globex")
    assert not s.commands
    assert len(s.incidents) == 3


def test_the_ladder_is_climbed_and_not_descended(story: Begin) -> None:
    s = story()
    s.extreme(0)
    s.find(5, "model_shift")
    s.extreme(10)
    s.find(15, "geo_shift")
    s.extreme(20)
    assert [command.action for command in s.commands] == ["throttle", "suspend", "revoke"]
    assert s.incident.response == "revoke"


@pytest.mark.parametrize("workload", ["interactive", "batch", "agent", None, "unheard-of"])
def test_every_workload_class_has_a_ladder(story: Begin, workload: str | None) -> None:
    s = story()
    s.loop(0, workload=workload)
    assert len(s.commands) == 1


def test_a_command_says_why_and_what_for(story: Begin, config: Any) -> None:
    s = story()
    [command, incident] = s.extreme(0)
    assert isinstance(command, Command)
    assert command.reason == "spike of key_1"
    assert command.incident_id == incident.incident_id
    assert command.command_id in incident.command_ids
    assert command.policy == config.version
    assert command.mode == "enforce"
    assert not command.manual


def test_in_shadow_mode_commands_say_so(story: Begin) -> None:
    s = story(mode="shadow")
    s.extreme(0)
    assert {command.mode for command in s.commands} == {"shadow"}


def test_a_third_looping_session_costs_the_identity(story: Begin) -> None:
    s = story()
    for at, session in ((0, "s1"), (60, "s2"), (120, "s3")):
        s.loop(at, session)
    assert s.brief == [("suspend", "session", "s1"), ("suspend", "session", "s2"), ("suspend", "identity", "key_1")]


def test_one_session_name_of_two_identities_is_not_one_block(story: Begin) -> None:
    s = story()
    s.loop(0, "run-1", identity="a")
    s.loop(10, "run-1", identity="b")
    assert s.brief == [("suspend", "session", "run-1"), ("suspend", "identity", "b")]


def test_reviews_do_not_pile_up(story: Begin) -> None:
    s = story()
    for session in ("s1", "s2"):
        s.loop(1, session)
    for at in range(30, 3 * 3600, 30):
        s.until(at)
        s.denied(at)
    assert len(s.decider._cases._due) < 10
