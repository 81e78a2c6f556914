"""`killswitch verify` names what is wrong with a partition, and is silent about what is right."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.command import Command, record_key
from schemas.heartbeat import Heartbeat, Tally
from schemas.times import format_millis
from sinks.keys import new_keys, new_private_key, read_jwks, retire_key, retired_kids, write_jwks
from sinks.killswitch import Signer, Verifier
from streams.verification import Verification

NOW = 1_772_409_600_000
ISSUER = "https://example.test"
BLOCK = Command(
    command_id="cmd-1", time=format_millis(NOW), tenant="acme", identity="key_1", scope="identity", subject="key_1",
    action="suspend", epoch=NOW, expires_at=None, mode="enforce", reason="because", incident_id="inc-1",
    finding_ids=[], policy="p1",
)  # fmt: skip
RESTORE = replace(BLOCK, command_id="cmd-2", action="restore", epoch=NOW + 1)


class Partition:
    def __init__(self, folder: Path) -> None:
        self.jwks = folder / "jwks.json"
        new_keys(folder / "key.pem", self.jwks)
        self.signer = Signer.read(folder / "key.pem", issuer=ISSUER, contact="")
        self.records: list[Any] = []
        self.tally = Tally()

    def raw(self, key: str, value: bytes | None) -> None:
        offset = len(self.records)
        self.records.append(SimpleNamespace(key=key.encode, value=lambda: value, offset=lambda: offset))

    def write(self, command: Command, *, key: str | None = None, counted: bool = True, issued: int = NOW) -> None:
        record = self.signer.records(command, issued)[0]
        self.raw(key or record.key, record.value)
        if counted:
            self.tally.note(command, issued)

    def beat(self, sequence: int = 1, at: int = NOW, number: int = 0, **changes: Any) -> None:
        count, digest = self.tally.at(at)
        keys = Verifier.read(self.jwks).keys.sha256
        beat = replace(Heartbeat(number, sequence, at, 3000, count, digest, keys), **changes)
        record = self.signer.heartbeat(beat)
        self.raw(record.key, record.value)

    def wrong(self, now: int = NOW, partitions: int = 1, number: int = 0) -> list[str]:
        verification = Verification(number, partitions, Verifier.read(self.jwks), ISSUER, retired_kids(self.jwks))
        for record in self.records:
            verification.take(record, now)
        return [one.reason for one in verification.end(now)]


@pytest.fixture
def partition(tmp_path: Path) -> Partition:
    return Partition(tmp_path)


def test_what_is_right(partition: Partition) -> None:
    partition.beat(1)
    partition.write(BLOCK)
    partition.beat(2)
    partition.write(RESTORE)
    partition.beat(3)
    # As after another key: the same command once more.
    partition.write(RESTORE)
    assert partition.wrong() == []


def test_a_command_that_was_withheld(partition: Partition) -> None:
    partition.write(BLOCK)
    partition.beat()
    del partition.records[0]
    [reason] = partition.wrong()
    assert reason.startswith("it says 1 in force (")
    assert ", the topic 0 (" in reason


def test_an_old_command_written_again(partition: Partition) -> None:
    partition.write(BLOCK)
    partition.write(RESTORE)
    partition.write(BLOCK, counted=False)
    partition.beat()
    [reason] = partition.wrong()
    assert "an old command was written again" in reason


def test_two_writers(partition: Partition) -> None:
    partition.write(BLOCK)
    partition.write(replace(BLOCK, command_id="cmd-9"))
    partition.beat()
    assert f"cmd-9 and cmd-1 have the epoch {NOW}" in partition.wrong()


@pytest.mark.parametrize(("value", "said"), [(None, "a tombstone"), (b"x", "not signed by a key that is trusted")])
def test_what_is_no_command(partition: Partition, value: bytes | None, said: str) -> None:
    partition.raw(record_key("acme", "identity", "key_1"), value)
    partition.beat()
    [reason] = partition.wrong()
    assert reason.startswith(said)


def test_a_command_where_it_does_not_belong(partition: Partition) -> None:
    partition.write(BLOCK, key=record_key("acme", "identity", "key_2"), counted=False)
    partition.beat()
    assert partition.wrong() == ["the command cmd-1 under another's key"]
    other = Partition(partition.jwks.parent / "other")
    other.write(BLOCK, counted=False)
    other.beat(number=5)
    reasons = [other.wrong(partitions=16, number=number) for number in range(16)]
    assert sum("cmd-1 is of a tenant of another partition" in one for one in reasons) == 15


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"jwks_sha256": "00" * 32}, "decide has the keys 000000000000, here are"),
        ({"digest": "00" * 32}, "it says 1 in force (000000000000), the topic 1"),
        ({"at": NOW - 20_000, "sequence": 9}, "no heartbeat for 20 s"),
        ({"at": NOW + 301_000}, "a heartbeat from 301 s ahead"),
        ({"partition": 1}, "a heartbeat of partition 1"),
    ],
)
def test_a_heartbeat_that_is_not_as_it_should(partition: Partition, changes: dict[str, Any], said: str) -> None:
    partition.write(BLOCK, issued=NOW - 60_000)
    partition.beat(**changes)
    assert any(reason.startswith(said) for reason in partition.wrong())


def test_a_heartbeat_written_again(partition: Partition) -> None:
    partition.beat(7)
    partition.beat(6)
    assert partition.wrong() == ["heartbeat 6 after 7: it was written again"]


def test_no_heartbeat(partition: Partition) -> None:
    partition.write(BLOCK)
    assert partition.wrong() == ["no heartbeat: has decide ever run?"]


def test_another_issuer(partition: Partition, tmp_path: Path) -> None:
    partition.signer = Signer.read(tmp_path / "key.pem", issuer="https://else.test", contact="")
    partition.write(BLOCK, counted=False)
    partition.beat()
    assert "issued by 'https://else.test', not by 'https://example.test'" in partition.wrong()


def test_what_a_retired_key_signed_is_over_and_not_wrong(partition: Partition, tmp_path: Path) -> None:
    partition.write(BLOCK, counted=False)
    old = partition.signer.kid
    write_jwks(partition.jwks, [*read_jwks(partition.jwks), new_private_key(tmp_path / "next.pem")])
    retire_key(partition.jwks, old)
    partition.signer = Signer.read(tmp_path / "next.pem", issuer=ISSUER, contact="")
    partition.beat()
    assert partition.wrong() == []
    assert retired_kids(partition.jwks) == {old}
