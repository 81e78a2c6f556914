"""Unusual use that a person approves by an order: expected from then on, and what it led to is ended."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from responses import Config, Decider
from responses.approved import _MOST, Approved
from schemas.directory import Directory
from schemas.request import Planned, Request, decode_request
from schemas.times import format_millis

Begin = Callable[..., Any]
START_MS = 1_772_409_600_000
START = datetime.fromtimestamp(START_MS / 1000, UTC)
HOUR = 3600


def request(at: float, *, until: float = 4 * HOUR, multiplier: float = 10.0, identity: str = "key_1") -> Request:
    planned = Planned(START + timedelta(seconds=at), START + timedelta(seconds=until), multiplier)
    time = format_millis(START_MS + round(at * 1000))
    return Request(f"req-{identity}-{at}", time, "acme", identity, "approve", "launch", "ann", planned=planned)


def test_what_is_approved_in_advance_is_no_case_until_it_ends(story: Begin) -> None:
    s = story()
    assert s.decider.order(request(0)) == []
    s.extreme(HOUR)
    assert not s.outcomes
    s.extreme(HOUR, identity="key_2")
    assert {command.identity for command in s.commands} == {"key_2"}
    s.extreme(5 * HOUR)
    assert {command.identity for command in s.commands} == {"key_1", "key_2"}


def test_a_quota_is_approved_by_the_multiple_of_its_limit(story: Begin) -> None:
    s = story()
    s.decider.order(request(0, multiplier=2.0))
    s.find(HOUR, "quota", "high", deterministic=True, observed=200.0, baseline=100.0)
    assert not s.outcomes
    s.find(HOUR + 60, "quota", "high", deterministic=True, observed=201.0, baseline=100.0)
    assert s.brief == [("suspend", "identity", "key_1")]


def test_beyond_the_multiplier_it_is_a_case(story: Begin) -> None:
    s = story()
    s.decider.order(request(0, multiplier=2.0))
    s.extreme(HOUR)
    assert s.commands


@pytest.mark.parametrize("tenant", ["acme", "globex"])
def test_an_approval_is_of_one_tenants_identity(story: Begin, tenant: str) -> None:
    s = story()
    s.decider.order(request(0))
    s.extreme(HOUR, tenant=tenant)
    assert bool(s.commands) == (tenant == "globex")


def test_a_false_block_is_ended_and_does_not_come_back(story: Begin) -> None:
    s = story()
    s.extreme(0)
    [block] = s.commands
    [restore] = [one for one in s.decider.order(request(60), "bob") if hasattr(one, "action")]
    assert (restore.action, restore.scope, restore.subject, restore.manual) == ("restore", "identity", "key_1", True)
    assert restore.epoch > block.epoch
    assert restore.reason == "launch (bob)"
    s.extreme(120)
    s.until(2 * HOUR)
    assert s.commands == [block]


@pytest.mark.parametrize("kind", ["loop", "geo_shift"])
def test_what_has_other_reasons_too_stays_blocked(story: Begin, kind: str) -> None:
    s = story()
    s.find(0, kind, "critical", deterministic=True)
    s.extreme(1)
    assert s.commands
    assert s.decider.order(request(60)) == []


def test_what_a_person_blocked_stays_blocked(story: Begin) -> None:
    s = story()
    s.extreme(0)
    s.order(1, "revoke")
    assert s.decider.order(request(60)) == []


def test_a_later_approval_replaces_the_one_before(story: Begin) -> None:
    s = story()
    s.decider.order(request(0))
    s.decider.order(request(1, multiplier=2.0))
    s.extreme(HOUR)
    assert s.commands


def test_approvals_are_saved(story: Begin, config: Config) -> None:
    s = story()
    s.decider.order(request(0))
    again = Decider(config, Directory())
    again.restore(s.decider.checkpoint().pieces)
    s.decider = again
    s.extreme(HOUR)
    assert not s.outcomes
    s.extreme(5 * HOUR)
    assert s.commands


def test_they_are_forgotten_a_day_after_their_end_and_when_there_are_too_many() -> None:
    approved = Approved()
    for n in range(_MOST + 1):
        approved.add(request(0, identity=f"key_{n}"))
    assert len(approved.held) == _MOST
    assert not approved.of("acme", "key_0")
    approved.forget(START_MS + 27 * HOUR * 1000)
    assert len(approved.held) == _MOST
    approved.forget(START_MS + 29 * HOUR * 1000)
    assert not approved.held


def test_the_request_says_what_is_planned_and_of_whom() -> None:
    made = request(0)
    assert decode_request(msgspec.json.encode(made)) == made
    for change in (
        {"planned": None},
        {"action": "suspend"},
        {"scope": "tenant", "subject": "acme"},
        {"planned": Planned(START, START, 2.0)},
    ):
        with pytest.raises(ValueError, match="approv"):
            msgspec.structs.replace(made, **change)
