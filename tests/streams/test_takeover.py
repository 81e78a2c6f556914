"""What the next owner sets right on the kill switch: what was covered up, written again, or signed by another key."""

import json
from pathlib import Path
from typing import Any

import pytest

from responses import Decider
from schemas.command import Command, from_claims, record_key
from schemas.directory import Directory
from schemas.request import Request
from schemas.times import format_millis
from sinks.keys import new_keys, new_private_key, read_jwks, write_jwks
from sinks.killswitch import Signer, Verifier
from streams.in_force import Found
from streams.policy import Loaded
from streams.takeover import Mended, take_over

START = 1_772_409_600_000
ISSUER = "https://example.test"


class Topic:
    """A partition of the kill switch, written by its owner, by a break-glass key, or by a thief of the broker."""

    def __init__(self, folder: Path, policy: Loaded) -> None:
        new_keys(folder / "key.pem", folder / "jwks.json")
        entry = new_private_key(folder / "glass.pem", role="break-glass")
        write_jwks(folder / "jwks.json", [*read_jwks(folder / "jwks.json"), entry])
        self.signer, self.glass = (
            Signer.read(folder / name, issuer=ISSUER, contact="on-call") for name in ("key.pem", "glass.pem")
        )
        self.verifier = Verifier.read(folder / "jwks.json")
        self.decider = Decider(policy.for_responses, Directory())
        self.records: list[tuple[bytes, bytes | None]] = []
        self._orders = 0

    def order(self, action: Any, identity: str = "key_1") -> Command:
        self._orders += 1
        time = format_millis(START + self._orders * 1000)
        outcomes = self.decider.order(Request(f"req-{self._orders}", time, "acme", identity, action, "why", "ann"))
        [command] = [outcome for outcome in outcomes if isinstance(outcome, Command)]
        self.write(command, self.signer)
        return command

    def write(self, command: Command, signer: Signer, issued: int = START) -> None:
        record = signer.records(command, issued)[0]
        self.records.append((record.key.encode(), record.value))

    def compact(self) -> None:
        """Of each key the last record stays."""
        self.records = list(dict(self.records).items())

    def taken_over(self, *, saved: bool = True) -> Mended:
        found = Found()
        for key, value in self.records:
            found.take(key, value, self.verifier)
        return take_over(self.decider, found, saved=saved, kid=self.signer.kid, now=START + 60_000)

    def brief(self, mended: Mended) -> list[tuple[str, str]]:
        return [(c.action, c.subject) for c in mended.outcomes if isinstance(c, Command)]


@pytest.fixture
def topic(tmp_path: Path, policy: Loaded) -> Topic:
    return Topic(tmp_path, policy)


def key_of(command: Command) -> bytes:
    return record_key(command.tenant, command.scope, command.subject).encode()


def test_nothing_is_written_where_nothing_is_wrong(topic: Topic) -> None:
    topic.order("suspend")
    topic.order("revoke", "key_2")
    topic.order("restore")
    assert topic.taken_over() == ([], [])


@pytest.mark.parametrize("garbage", [None, b"", b"garbage", b"a.b.c"])
def test_what_is_covered_up_is_written_again_as_it_was(topic: Topic, garbage: bytes | None) -> None:
    block = topic.order("suspend")
    topic.records.append((key_of(block), garbage))
    mended = topic.taken_over()
    assert mended.outcomes == []
    [written] = mended.again
    record = topic.signer.again(written.command, written.claims, START + 60_000)
    token = topic.verifier.payload(record.value, "secevent+jwt")
    again, first = json.loads(token), json.loads(topic.verifier.payload(topic.records[0][1] or b"", "secevent+jwt"))
    assert {**again, "iat": first["iat"]} == first
    assert again["iat"] == (START + 60_000) // 1000
    assert (record.key.encode(), from_claims(token).epoch) == (key_of(block), block.epoch)


@pytest.mark.parametrize("garbage", [None, b"garbage"])
def test_what_compaction_took_away_is_ordered_anew(topic: Topic, garbage: bytes | None) -> None:
    block = topic.order("suspend")
    topic.records.append((key_of(block), garbage))
    topic.compact()
    mended = topic.taken_over()
    assert mended.again == []
    [again] = [outcome for outcome in mended.outcomes if isinstance(outcome, Command)]
    assert (again.action, again.subject, again.manual, again.expires_at) == ("suspend", "key_1", True, None)
    assert again.epoch > block.epoch
    topic.write(again, topic.signer)
    assert topic.taken_over() == ([], [])


def test_an_older_command_written_over_a_restore(topic: Topic) -> None:
    topic.order("suspend")
    old = topic.records[0]
    restore = topic.order("restore")
    topic.records.append(old)
    mended = topic.taken_over()
    assert [written.command.command_id for written in mended.again] == [restore.command_id]
    topic.compact()
    mended = topic.taken_over()
    assert topic.brief(mended) == [("restore", "key_1")]
    assert mended.again == []


def test_an_older_command_written_over_a_stricter_one(topic: Topic) -> None:
    topic.order("throttle")
    old = topic.records[0]
    block = topic.order("revoke")
    topic.records.append(old)
    assert [written.command.command_id for written in topic.taken_over().again] == [block.command_id]
    topic.compact()
    assert topic.brief(topic.taken_over()) == [("revoke", "key_1")]


def test_a_command_under_anothers_key_changes_nothing(topic: Topic) -> None:
    block, other = topic.order("suspend"), topic.order("restore", "key_2")
    topic.records.append((key_of(other), topic.records[0][1]))
    assert [written.command.command_id for written in topic.taken_over().again] == [other.command_id]
    assert [subject for subject, _ in topic.decider.blocks.in_force()] == [("acme", "identity", block.subject)]


def glass(action: Any, epoch: int, identity: str = "key_1") -> Command:
    return Command(
        command_id=f"bg-{epoch}", time=format_millis(START), tenant="acme", identity=identity, scope="identity",
        subject=identity, action=action, epoch=epoch, expires_at=None, mode="enforce", reason="decide is down (ann)",
        incident_id=f"bg-{epoch}", finding_ids=[], policy="break-glass", manual=True,
    )  # fmt: skip


@pytest.mark.parametrize("saved", [True, False])
def test_what_a_break_glass_key_signed_is_a_persons_word(topic: Topic, saved: bool) -> None:
    topic.write(command := glass("revoke", START + 10_000), topic.glass)
    mended = topic.taken_over(saved=saved)
    # Signed anew, so that it outlives the key.
    assert [written.command.command_id for written in mended.again] == [command.command_id]
    [(subject, block)] = topic.decider.blocks.in_force()
    assert (subject, block.action, block.manual) == (("acme", "identity", "key_1"), "revoke", True)
    record = topic.signer.again(mended.again[0].command, mended.again[0].claims, START)
    topic.records.append((record.key.encode(), record.value))
    assert topic.taken_over() == ([], [])
    restore = topic.order("restore")
    assert restore.epoch > command.epoch


def test_a_break_glass_restore_ends_what_we_ordered(topic: Topic) -> None:
    topic.order("suspend")
    topic.write(glass("restore", START + 10_000), topic.glass)
    assert topic.taken_over() == ([], [])
    assert list(topic.decider.blocks.in_force()) == []


def test_a_break_glass_command_from_before_the_last_order_is_over(topic: Topic) -> None:
    block = topic.order("suspend")
    topic.write(glass("restore", START - 10_000), topic.glass)
    [written] = topic.taken_over().again
    assert written.command.command_id == block.command_id


def test_another_key_signs_what_is_in_force_and_nothing_else(topic: Topic, tmp_path: Path) -> None:
    block = topic.order("suspend")
    topic.order("suspend", "key_2")
    topic.order("restore", "key_2")
    entry = new_private_key(tmp_path / "next.pem")
    write_jwks(tmp_path / "jwks.json", [*read_jwks(tmp_path / "jwks.json"), entry])
    topic.verifier.keys.refresh()
    topic.signer = Signer.read(tmp_path / "next.pem", issuer=ISSUER, contact="on-call")
    assert [written.command.command_id for written in topic.taken_over().again] == [block.command_id]


def test_what_a_key_signed_that_is_trusted_no_more_is_ordered_anew(topic: Topic, tmp_path: Path) -> None:
    topic.order("suspend")
    topic.order("revoke", "key_2")
    topic.order("restore", "key_2")
    write_jwks(tmp_path / "jwks.json", [new_private_key(tmp_path / "next.pem")])
    topic.verifier.keys.refresh()
    topic.signer = Signer.read(tmp_path / "next.pem", issuer=ISSUER, contact="on-call")
    mended = topic.taken_over()
    assert (mended.again, topic.brief(mended)) == ([], [("suspend", "key_1")])


def test_keys_that_were_written_meanwhile_are_left_alone(topic: Topic) -> None:
    block = topic.order("suspend")
    topic.records.clear()
    found = Found()
    mended = take_over(topic.decider, found, saved=True, kid=topic.signer.kid, now=START, but={key_of(block).decode()})
    assert mended == ([], [])
