"""A partition of the kill switch as its owner writes it: what is written again never covers what is newer."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.command import Command, from_claims
from schemas.heartbeat import is_heartbeat
from schemas.times import format_millis
from schemas.topics import AUDIT, KILLSWITCH
from sinks.keys import new_keys
from sinks.killswitch import Signer, Verifier
from streams.in_force import Found, read_heartbeat
from streams.killswitch import Switch
from streams.record import Record

NOW = 1_772_409_600_000
BLOCK = Command(
    command_id="cmd-1", time=format_millis(NOW), tenant="acme", identity="key_1", scope="identity", subject="key_1",
    action="throttle", epoch=NOW, expires_at=None, mode="enforce", reason="because", incident_id="inc-1",
    finding_ids=[], policy="p1",
)  # fmt: skip
STRICTER = replace(BLOCK, command_id="cmd-2", action="suspend", epoch=NOW + 1)
RESTORE = replace(BLOCK, command_id="cmd-3", action="restore", epoch=NOW + 2)


class Thread(Executor):
    """Runs what it is given when it is told to."""

    def __init__(self) -> None:
        self._given: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._given.append((future, lambda: call(*args, **kwargs)))
        return future

    def run(self, most: int = 1000) -> int:
        """Returns how many calls were left of `most`."""
        while self._given and most:
            future, call = self._given.pop(0)
            future.set_result(call())
            most -= 1
        return most


class Owner:
    def __init__(self, folder: Path) -> None:
        new_keys(folder / "key.pem", folder / "jwks.json")
        self.signer = Signer.read(folder / "key.pem", issuer="https://example.test", contact="")
        self.verifier = Verifier.read(folder / "jwks.json")
        self.thread = Thread()

    def switch(self, *commands: Command) -> Switch:
        return Switch(3, self.found(*commands), self.thread)

    def found(self, *commands: Command) -> Found:
        found = Found()
        for command in commands:
            record = self.signer.records(command, NOW)[0]
            found.take(record.key.encode(), record.value, self.verifier)
        return found

    def said(self, switch: Switch) -> list[str]:
        """The commands in all that the switch has to say."""
        records: list[Record] = []
        while self.thread.run() < 1000 or switch.has_word():
            records += switch.word(self.signer, "00")
        return self.ids(records)

    def ids(self, records: list[Record]) -> list[str]:
        commands = [r.value for r in records if r.topic == KILLSWITCH and not is_heartbeat(r.key)]
        return [from_claims(self.verifier.payload(value, "secevent+jwt")).command_id for value in commands]


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path)


@pytest.mark.parametrize("last", [BLOCK, RESTORE])
def test_what_is_the_last_word_is_written_again(owner: Owner, last: Command) -> None:
    found = owner.found(BLOCK, last)
    switch = Switch(3, found, owner.thread)
    switch.say([], found.commands.values(), owner.signer)
    assert owner.said(switch) == [last.command_id]


@pytest.mark.parametrize("newer", [STRICTER, RESTORE])
def test_what_was_published_before_it_was_read_and_committed_after_stays_the_last_word(
    owner: Owner, newer: Command
) -> None:
    found = owner.found(BLOCK)
    switch = Switch(3, found, owner.thread)
    switch.records([newer], owner.signer)
    switch.say([], found.commands.values(), owner.signer)
    assert owner.said(switch) == []


@pytest.mark.parametrize("newer", [STRICTER, RESTORE])
def test_what_is_published_meanwhile_is_not_covered(owner: Owner, newer: Command) -> None:
    found = owner.found(BLOCK)
    switch = Switch(3, found, owner.thread)
    switch.say([], found.commands.values(), owner.signer)
    switch.records([newer], owner.signer)
    assert owner.said(switch) == []


@pytest.mark.parametrize("newer", [STRICTER, RESTORE])
def test_what_is_published_while_it_is_signed_is_not_covered(owner: Owner, newer: Command) -> None:
    found = owner.found(BLOCK)
    switch = Switch(3, found, owner.thread)
    switch.say([], found.commands.values(), owner.signer)
    owner.thread.run()
    switch.records([newer], owner.signer)
    assert owner.ids(switch.word(owner.signer, "00")) == []


def test_nothing_waits_for_what_is_being_signed(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.resigning._SLICE", 3)
    commands = [replace(BLOCK, subject=f"key_{n}", identity=f"key_{n}", command_id=f"cmd-{n}") for n in range(9)]
    found = owner.found(*commands)
    switch = Switch(3, found, owner.thread)
    switch.say([], found.commands.values(), owner.signer)
    # The heartbeat alone, since nothing of it changes what is in force.
    [beat] = switch.word(owner.signer, "00")
    assert is_heartbeat(beat.key)
    assert not switch.has_word()
    owner.thread.run(1)
    assert switch.has_word()
    assert owner.ids(switch.word(owner.signer, "00")) == ["cmd-0", "cmd-1", "cmd-2"]
    assert owner.said(switch) == [f"cmd-{n}" for n in range(3, 9)]


def test_no_heartbeat_before_all_that_is_ordered_anew_is_said(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that reads the topic again meanwhile would take the part for the whole."""
    monkeypatch.setattr("streams.resigning._SLICE", 1)
    commands = [replace(BLOCK, subject=f"key_{n}", identity=f"key_{n}", command_id=f"cmd-{n}") for n in range(2)]
    switch = owner.switch()
    switch.say([], commands, owner.signer)
    assert switch.word(owner.signer, "00") == []
    owner.thread.run(1)
    # For the gateways, and for the audit.
    first = switch.word(owner.signer, "00")
    assert [record.topic for record in first] == [KILLSWITCH, AUDIT]
    owner.thread.run()
    last = switch.word(owner.signer, "00")
    assert owner.ids(first + last) == ["cmd-0", "cmd-1"]
    beat, _ = read_heartbeat("heartbeat/3", last[-1].value, owner.verifier)
    assert beat.count == 2


def test_what_was_being_signed_when_the_key_changed_is_signed_by_the_new_one(owner: Owner, tmp_path: Path) -> None:
    found = owner.found(BLOCK)
    switch = Switch(3, found, owner.thread)
    switch.say([], found.commands.values(), owner.signer)
    owner.thread.run()
    new = Owner(tmp_path / "new")
    owner.signer, owner.verifier = new.signer, new.verifier
    assert owner.said(switch) == [BLOCK.command_id]


def test_of_two_that_are_ordered_anew_under_one_key_the_later_is_said(owner: Owner) -> None:
    switch = owner.switch()
    switch.say([], [BLOCK], owner.signer)
    switch.say([], [STRICTER], owner.signer)
    assert owner.said(switch) == [STRICTER.command_id]


def test_keys_written_while_the_partition_is_read_are_told(owner: Owner) -> None:
    switch = owner.switch(BLOCK)
    switch.records([STRICTER], owner.signer)
    switch.read_begins()
    switch.records([replace(BLOCK, subject="key_2", identity="key_2")], owner.signer)
    assert len(switch.read_ends()) == 1
