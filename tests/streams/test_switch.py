"""A partition of the kill switch as its owner writes it: what is written again never covers what is newer."""

from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from schemas.command import Command, from_claims
from schemas.heartbeat import is_heartbeat
from schemas.times import format_millis
from sinks.keys import new_keys
from sinks.killswitch import Signer, Verifier
from streams.in_force import Found
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


class Owner:
    def __init__(self, folder: Path) -> None:
        new_keys(folder / "key.pem", folder / "jwks.json")
        self.signer = Signer.read(folder / "key.pem", issuer="https://example.test", contact="")
        self.verifier = Verifier.read(folder / "jwks.json")

    def found(self, *commands: Command) -> Found:
        found = Found()
        for command in commands:
            record = self.signer.records(command, NOW)[0]
            found.take(record.key.encode(), record.value, self.verifier)
        return found

    def said(self, switch: Switch) -> list[str]:
        """The commands in all that the switch has to say."""
        records: list[Record] = []
        while switch.has_word():
            records += switch.word(self.signer, "00")
        commands = [r.value for r in records if not is_heartbeat(r.key)]
        return [from_claims(self.verifier.payload(value, "secevent+jwt")).command_id for value in commands]


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    return Owner(tmp_path)


@pytest.mark.parametrize("last", [BLOCK, RESTORE])
def test_what_is_the_last_word_is_written_again(owner: Owner, last: Command) -> None:
    found = owner.found(BLOCK, last)
    switch = Switch(3, found)
    switch.say([], found.commands.values())
    assert owner.said(switch) == [last.command_id]


@pytest.mark.parametrize("newer", [STRICTER, RESTORE])
def test_what_was_published_before_it_was_read_and_committed_after_stays_the_last_word(
    owner: Owner, newer: Command
) -> None:
    found = owner.found(BLOCK)
    switch = Switch(3, found)
    switch.records([newer], owner.signer)
    switch.say([], found.commands.values())
    assert owner.said(switch) == []


@pytest.mark.parametrize("newer", [STRICTER, RESTORE])
def test_what_is_published_meanwhile_is_not_covered(owner: Owner, newer: Command) -> None:
    found = owner.found(BLOCK)
    switch = Switch(3, found)
    switch.say([], found.commands.values())
    switch.records([newer], owner.signer)
    assert owner.said(switch) == []


def test_many_are_written_again_a_few_at_a_time(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [replace(BLOCK, subject=f"key_{n}", identity=f"key_{n}", command_id=f"cmd-{n}") for n in range(9)]
    found = owner.found(*commands)
    # Three milliseconds go by from one look at the clock to the next.
    looks = count()
    monkeypatch.setattr("streams.killswitch.time.monotonic", lambda: 0.003 * next(looks))
    switch = Switch(3, found)
    switch.say([], found.commands.values())
    first = switch.word(owner.signer, "00")
    # Those that 10 ms are enough for, and the heartbeat.
    assert [is_heartbeat(record.key) for record in first] == [False] * 3 + [True]
    assert len(first) - 1 + len(owner.said(switch)) == len(commands)


def test_keys_written_while_the_partition_is_read_are_told(owner: Owner) -> None:
    switch = Switch(3, owner.found(BLOCK))
    switch.records([STRICTER], owner.signer)
    switch.read_begins()
    switch.records([replace(BLOCK, subject="key_2", identity="key_2")], owner.signer)
    assert len(switch.read_ends()) == 1
