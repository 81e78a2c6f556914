"""What `decide` makes of records: signed commands to the owner's partition, gateways first, people's orders."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from faust.types import TP

from schemas.command import Command, from_claims, record_key
from schemas.directory import Directory
from schemas.finding import Cause, Evidence, Finding, Tick, encode
from schemas.heartbeat import Heartbeat, is_heartbeat
from schemas.request import Request
from schemas.times import format_millis, parse_millis
from sinks.keys import new_keys
from sinks.killswitch import REQUEST_TYPE, Signer, Verifier
from streams.decide import Decision
from streams.in_force import Found, read_heartbeat
from streams.keyring import Keyring
from streams.policy import read_policy
from streams.record import Record
from streams.settings import Signing

START = 1_772_409_600_000
SIGNALS, REQUESTS = TP("llm.signals", 3), TP("llm.requests", 3)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    new_keys(tmp_path / "key.pem", tmp_path / "jwks.json")
    return Signer.read(tmp_path / "key.pem", issuer="https://example.test", contact="on-call")


@pytest.fixture
def decision(signer: Signer, tmp_path: Path) -> Decision:
    return owner([], tmp_path)


def keyring(tmp_path: Path) -> Keyring:
    files = {"key": str(tmp_path / "key.pem"), "jwks": str(tmp_path / "jwks.json")}
    return Keyring(Signing(**files, issuer="https://example.test"), "on-call")


def owner(published: list[Record], tmp_path: Path) -> Decision:
    """A worker that has just taken the partition over, and finds on the kill switch what was published."""
    policy = read_policy(Path(__file__).parents[2] / "policy.toml")
    keys, found = keyring(tmp_path), Found()
    for record in published:
        if record.topic == "llm.killswitch":
            found.take(record.key, record.value, keys.commands)
    decision = Decision(policy, Directory(), keys, lambda number: found)
    decision.go_on(3, decision.opened(3, None), {})
    return decision


def record(at: TP, offset: int, value: bytes | None, timestamp: int = START) -> Any:
    return SimpleNamespace(
        topic=at.topic, partition=at.partition, offset=offset, timestamp=timestamp, key=b"acme", value=value
    )


def loop(second: int = 0) -> bytes:
    evidence = Evidence(
        partition=0, offsets=(0, 9), policy="p", detector_version=1, state_digest="d", cause=Cause("gw", "e1"),
        age_seconds=9e4, deterministic=True, session_id="s1", credential_id="c1",
    )  # fmt: skip
    finding = Finding(
        "f-1", format_millis(START + second * 1000), "acme", "agent_1", "loop", "high", 0.5, "loop@1", "1m", 21.0, 12.0,
        "the same call repeated", evidence,
    )  # fmt: skip
    return encode(finding)


def order(signer: Signer, kind: str = REQUEST_TYPE) -> bytes:
    request = Request("req-1", format_millis(START), "acme", "agent_1", "suspend", "leaked", "ann")
    return signer.token(json.loads(msgspec.json.encode(request)), kind)


def test_gateways_are_told_before_analysts_in_the_partition_of_the_signals(decision: Decision) -> None:
    out = decision.take(SIGNALS, [record(SIGNALS, 0, loop())])
    assert [(r.topic, r.partition) for r in out] == [
        ("llm.killswitch", 3), ("llm.killswitch.audit", 3), ("llm.incidents", None),
    ]  # fmt: skip


def test_a_persons_signed_order_is_carried_out(decision: Decision, signer: Signer) -> None:
    out = decision.take(REQUESTS, [record(REQUESTS, 0, order(signer))])
    assert [r.topic for r in out] == ["llm.killswitch", "llm.killswitch.audit"]


@pytest.mark.parametrize("value", [None, b"", b"{}", b'{"action":"restore"}', b"a.b.c"])
def test_an_order_that_nobody_signed_is_a_dead_letter(decision: Decision, value: bytes | None) -> None:
    [letter] = decision.take(REQUESTS, [record(REQUESTS, 0, value)])
    assert letter.topic == "llm.dead-letters"


def test_a_token_for_another_purpose_is_no_order(decision: Decision, signer: Signer) -> None:
    [letter] = decision.take(REQUESTS, [record(REQUESTS, 0, order(signer, "secevent+jwt"))])
    assert "another purpose" in json.loads(letter.value)["reason"]


@pytest.mark.parametrize(
    "value",
    [None, b"", b"[" * 200_000, b"\xff", b"not json", b'{"type":"llm.finding.v1"}', b'{"time":"2026-03-02T00:00:00Z"}'],
)
def test_what_is_no_signal_is_a_dead_letter_and_the_next_is_taken(decision: Decision, value: bytes | None) -> None:
    out = decision.take(SIGNALS, [record(SIGNALS, 0, value), record(SIGNALS, 1, loop())])
    assert [r.topic for r in out][:2] == ["llm.dead-letters", "llm.killswitch"]


@pytest.mark.parametrize("second", [601, 250_000_000_000])
def test_a_signal_from_the_future_is_a_dead_letter(decision: Decision, second: int) -> None:
    """It would carry every block to its end."""
    [letter] = decision.take(SIGNALS, [record(SIGNALS, 0, loop(second))])
    assert f"time is {second} s ahead of the broker's clock" in json.loads(letter.value)["reason"]


def test_a_restored_partition_goes_on_with_the_next_records(decision: Decision, signer: Signer, tmp_path: Path) -> None:
    decision.take(SIGNALS, [record(SIGNALS, 6, loop())])
    checkpoint, offsets = decision.checkpoint(3), decision.offsets(3)
    assert offsets == {"llm.signals": 7}
    again = owner([], tmp_path)
    again.go_on(3, again.opened(3, again.restored(3, iter(checkpoint.pieces))), offsets)
    assert again.take(SIGNALS, [record(SIGNALS, 6, loop())]) == []
    assert again.offsets(3) == offsets
    # Known from before: the same finding in another record is answered with nothing.
    assert again.take(SIGNALS, [record(SIGNALS, 7, loop())]) == []
    assert again.size == decision.size == 1


def test_records_taken_before_are_passed_over(decision: Decision) -> None:
    records = [record(SIGNALS, 0, loop())]
    assert decision.take(SIGNALS, records)
    assert decision.take(SIGNALS, records) == []


def test_a_finding_behind_a_backlog_blocks_nobody(decision: Decision) -> None:
    out = decision.take(SIGNALS, [record(SIGNALS, 0, loop(), timestamp=START + 301_000)])
    assert [r.topic for r in out] == ["llm.incidents"]


def test_an_idle_partition_with_a_block_gets_a_tick_that_ends_it(
    decision: Decision, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("streams.decide.time.monotonic", lambda: now[0])
    decision.take(SIGNALS, [record(SIGNALS, 0, loop())])
    assert decision.ticks() == []
    now[0] += 16 * 60
    [tick] = decision.ticks()
    assert (tick.topic, tick.partition) == ("llm.signals", 3)
    assert msgspec.json.decode(tick.value, type=Tick).time == format_millis(START + 16 * 60_000)
    out = decision.take(SIGNALS, [record(SIGNALS, 1, tick.value, START + 16 * 60_000)])
    assert [r.topic for r in out][:2] == ["llm.killswitch", "llm.killswitch.audit"]


def ordered(out: list[Record], tmp_path: Path) -> list[Command]:
    verifier = Verifier.read(tmp_path / "jwks.json")
    commands = [r for r in out if r.topic == "llm.killswitch" and not is_heartbeat(r.key)]
    return [from_claims(verifier.payload(r.value, "secevent+jwt")) for r in commands]


def test_what_a_person_blocked_is_not_lowered_after_a_restart(
    decision: Decision, signer: Signer, tmp_path: Path
) -> None:
    out = decision.take(REQUESTS, [record(REQUESTS, 0, order(signer))])
    again = owner(out, tmp_path)
    assert ordered(again.take(SIGNALS, [record(SIGNALS, 0, loop(60))]), tmp_path) == []


def test_a_restart_gives_back_what_expires_and_numbers_on(decision: Decision, signer: Signer, tmp_path: Path) -> None:
    out = decision.take(SIGNALS, [record(SIGNALS, 0, loop())])
    [block] = ordered(out, tmp_path)
    again = owner(out, tmp_path)
    moment = parse_millis(block.expires_at or "") + 60_000
    late = record(SIGNALS, 1, encode(Tick(format_millis(moment))), moment)
    [restore] = ordered(again.take(SIGNALS, [late]), tmp_path)
    assert (restore.action, restore.scope, restore.subject) == ("restore", "session", "s1")
    assert restore.epoch > block.epoch
    assert restore.incident_id == block.incident_id


def test_a_person_gives_back_after_a_restart_what_was_blocked_before(
    decision: Decision, signer: Signer, tmp_path: Path
) -> None:
    again = owner(decision.take(SIGNALS, [record(SIGNALS, 0, loop())]), tmp_path)
    request = Request("req-2", format_millis(START + 1000), "acme", "agent_1", "restore", "mended", "ann")
    token = signer.token(json.loads(msgspec.json.encode(request)), REQUEST_TYPE)
    out = ordered(again.take(REQUESTS, [record(REQUESTS, 0, token, START + 1000)]), tmp_path)
    assert {(c.action, c.scope) for c in out} == {("restore", "session"), ("restore", "identity")}


def beat(decision: Decision, tmp_path: Path) -> Heartbeat:
    """What a gateway would read now."""
    [record] = decision.word(3)
    assert (record.topic, record.key, record.partition) == ("llm.killswitch", b"heartbeat/3", 3)
    return read_heartbeat("heartbeat/3", record.value, Verifier.read(tmp_path / "jwks.json"))[0]


def test_a_new_owner_says_what_is_in_force(decision: Decision, signer: Signer, tmp_path: Path) -> None:
    assert decision.has_word(3)
    empty = beat(decision, tmp_path)
    assert (empty.count, empty.digest) == (0, "0" * 64)
    assert not decision.has_word(3)
    assert decision.word(3) == []
    out = decision.take(SIGNALS, [record(SIGNALS, 0, loop())])
    told = beat(owner(out, tmp_path), tmp_path)
    [command] = ordered(out, tmp_path)
    key = record_key(command.tenant, command.scope, command.subject)
    assert (told.count, told.digest) == (1, hashlib.sha256(f"{key}/{command.epoch}".encode()).hexdigest())
    assert told.jwks_sha256 == Verifier.read(tmp_path / "jwks.json").keys.sha256


def test_heartbeats_are_numbered_on_by_the_next_owner(
    decision: Decision, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.killswitch.time.time_ns", lambda: START * 1_000_000)
    published = decision.word(3)
    again = beat(owner(published, tmp_path), tmp_path)
    assert (again.sequence, again.at) == (START + 1, START)


def test_what_was_published_is_in_the_next_heartbeat(
    decision: Decision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("streams.killswitch.time.monotonic", lambda: now[0])
    decision.word(3)
    decision.take(SIGNALS, [record(SIGNALS, 0, loop())])
    now[0] += 3.0
    assert beat(decision, tmp_path).count == 1
