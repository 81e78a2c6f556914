"""An order on a whole tenant takes two persons, known by their keys."""

from collections.abc import Callable
from typing import Any

import pytest

from responses import Config, Decider
from responses.second_person import Refused
from schemas.command import Command
from schemas.directory import Directory
from schemas.request import Request
from schemas.times import format_millis

START = 1_772_409_600_000


@pytest.fixture
def decider(config: Config) -> Decider:
    return Decider(config, Directory())


def request(name: str, at: int = 0, *, action: Any = "suspend", approves: str | None = None, **changes: Any) -> Request:
    of = {"identity": "", "scope": "tenant", "subject": "acme", **changes}
    return Request(
        name, format_millis(START + at * 1000), "acme", action=action, reason=name, by="?", approves=approves, **of
    )


def commands(out: list[Any]) -> list[Command]:
    return [outcome for outcome in out if isinstance(outcome, Command)]


def test_it_waits_for_another_person(decider: Decider) -> None:
    assert decider.order(request("r1"), "ann") == []
    [command] = commands(decider.order(request("r2", 5, approves="r1"), "bob"))
    assert (command.action, command.scope, command.subject, command.identity) == ("suspend", "tenant", "acme", None)
    assert command.reason == "r1 (ann, approved by bob)"
    with pytest.raises(Refused, match="no order r1 waits"):
        decider.order(request("r3", 6, approves="r1"), "cid")


def test_nobody_approves_for_himself_whatever_the_request_says(decider: Decider) -> None:
    decider.order(request("r1"), "ann")
    with pytest.raises(Refused, match="ann asked for r1: another person"):
        decider.order(request("r2", 1, approves="r1"), "ann")
    assert commands(decider.order(request("r3", 2, approves="r1"), "bob"))


def test_a_key_that_names_nobody_can_neither_ask_nor_approve(decider: Decider) -> None:
    with pytest.raises(Refused, match="names nobody"):
        decider.order(request("r1"))
    decider.order(request("r2"), "ann")
    with pytest.raises(Refused, match="names nobody"):
        decider.order(request("r3", approves="r2"))


@pytest.mark.parametrize("changes", [{"action": "revoke"}, {"scope": "identity", "identity": "key_1"}])
def test_an_approval_says_what_it_approves(decider: Decider, changes: dict[str, Any]) -> None:
    decider.order(request("r1"), "ann")
    with pytest.raises(Refused, match="r1 asks for something else: suspend acme tenant acme"):
        decider.order(request("r2", approves="r1", **changes), "bob")


def test_it_does_not_wait_for_ever(decider: Decider, config: Config) -> None:
    decider.order(request("r1"), "ann")
    late = int(config.response.second_person_minutes * 60)
    with pytest.raises(Refused, match="no order r1 waits"):
        decider.order(request("r2", late, approves="r1"), "bob")


def test_what_is_refused_changes_nothing(decider: Decider) -> None:
    before = decider.checkpoint()
    for _ in range(2):
        with pytest.raises(Refused):
            decider.order(request("r1", 60, approves="r0"), "ann")
    assert decider.now == 0
    assert decider.checkpoint().pieces == before.pieces


def test_it_waits_over_a_restart(decider: Decider, config: Config) -> None:
    decider.order(request("r1"), "ann")
    again = Decider(config, Directory())
    again.restore(decider.checkpoint().pieces)
    assert commands(again.order(request("r2", 5, approves="r1"), "bob"))


def test_a_repeated_record_is_no_second_order(decider: Decider) -> None:
    decider.order(request("r1"), "ann")
    assert commands(decider.order(request("r2", 1, approves="r1"), "bob"))
    assert decider.order(request("r2", 1, approves="r1"), "bob") == []


def test_who_gives_an_order_is_whose_key_signed_it(decider: Decider) -> None:
    [command] = commands(decider.order(request("r1", scope="identity", subject=None, identity="key_1"), "ann"))
    assert command.reason == "r1 (ann)"


@pytest.mark.parametrize(
    ("scope", "identity"), [("credential", ""), ("session", "key_1"), ("end_user", ""), ("credential", "key_1")]
)
def test_an_order_on_a_part_is_given_back_alone(decider: Decider, scope: Any, identity: str) -> None:
    of = {"scope": scope, "identity": identity, "subject": "part_1"}
    [block] = commands(decider.order(request("r1", **of)))
    assert (block.scope, block.subject, block.identity) == (scope, "part_1", identity or None)
    [restore] = commands(decider.order(request("r2", 5, action="restore", **of)))
    assert (restore.action, restore.scope, restore.subject) == ("restore", scope, "part_1")
    assert list(decider.blocks.in_force()) == []


def test_a_credential_that_we_blocked_is_given_back_by_its_name(story: Callable[..., Any]) -> None:
    s = story()
    s.find(0, "geo_shift")
    s.find(1, "spike")
    [subject] = [subject for subject, _ in s.decider.blocks.in_force()]
    of = {"scope": "credential", "identity": "", "subject": subject[2]}
    [restore] = commands(s.decider.order(request("r1", 5, action="restore", **of)))
    assert (restore.scope, restore.subject, restore.identity) == ("credential", subject[2], "key_1")


@pytest.mark.parametrize(
    "of",
    [
        {"scope": "tenant", "subject": "globex"},
        {"scope": "session", "subject": "s1"},
        {"scope": "credential", "subject": None},
        {"scope": "identity", "subject": None},
    ],
)
def test_what_names_nothing_is_no_order(of: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="an order"):
        request("r1", **of)
