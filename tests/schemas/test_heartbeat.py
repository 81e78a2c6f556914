"""The count and digest of what is in force, kept up to date, against what the definition says."""

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.command import Command, record_key
from schemas.decoding import Malformed
from schemas.heartbeat import Heartbeat, Tally, from_heartbeat_claims, heartbeat_claims, heartbeat_key, is_heartbeat
from schemas.times import format_millis, parse_millis
from sinks.keys import keys_sha256

START = 1_772_409_600_000
BLOCK = Command(
    command_id="cmd-1", time=format_millis(START), tenant="acme", identity="key_1", scope="identity", subject="key_1",
    action="suspend", epoch=START, expires_at=None, mode="enforce", reason="because", incident_id="inc-1",
    finding_ids=[], policy="p1",
)  # fmt: skip
BEAT = Heartbeat(3, START + 1, START, 3000, 2, "ab" * 32, "cd" * 32)


def by_definition(latest: dict[str, Command], moment: int) -> tuple[int, str]:
    """What is in force at `moment`, looked at one by one; every command was published when it was decided."""
    live = [
        key + "/" + str(command.epoch)
        for key, command in latest.items()
        if command.action != "restore"
        and (command.expires_at is None or command.action == "revoke" or command.expires_at > format_millis(moment))
    ]
    total = sum(int(hashlib.sha256(text.encode()).hexdigest(), 16) for text in live)
    return len(live), f"{total % 2**256:064x}"


steps = st.lists(
    st.tuples(
        st.integers(-30_000, 60_000),
        st.sampled_from(["key_1", "key_2", "key_3"]),
        st.sampled_from(["suspend", "revoke", "restore", "throttle", "again", None]),
        st.sampled_from([None, 1, 10_000, 40_000]),
    ),
    max_size=40,
)


@given(steps)
def test_the_sum_is_that_of_the_definition(steps: list[tuple[int, str, str | None, int | None]]) -> None:
    """Clocks that are set back included."""
    tally, latest, now, epoch = Tally(), dict[str, Command](), START, START
    for elapsed, subject, action, lasts in steps:
        now += elapsed
        key = record_key("acme", "identity", subject)
        if action == "again" and key in latest:
            # The same command once more, as after another key signs.
            command = latest[key]
            issued = START if command.expires_at is None else parse_millis(command.time)
            tally.note(command, issued)
        elif action is not None and action != "again":
            epoch += 1
            command = latest[key] = replace(
                BLOCK, subject=subject, identity=subject, action=action, epoch=epoch, time=format_millis(now),
                expires_at=None if lasts is None else format_millis(now + lasts),
            )  # fmt: skip
            tally.note(command, now)
        assert tally.at(now) == by_definition(latest, now)


def test_an_expiry_counts_from_publication() -> None:
    tally, block = Tally(), replace(BLOCK, expires_at=format_millis(START + 1000))
    tally.note(block, START + 60_000)
    assert tally.at(START + 60_999)[0] == 1
    assert tally.at(START + 61_000) == (0, "0" * 64)


def test_a_shadow_command_is_not_in_force() -> None:
    tally = Tally()
    tally.note(replace(BLOCK, mode="shadow"), START)
    assert tally.at(START)[0] == 0


def test_a_heartbeat_is_read_back() -> None:
    made = heartbeat_claims(BEAT, issuer="https://t.example")
    assert from_heartbeat_claims(json.dumps(made).encode()) == BEAT
    assert {"txn", "exp", "sub"}.isdisjoint(made)
    assert made["sub_id"] == {"format": "opaque", "id": "killswitch/3"}


@pytest.mark.parametrize("lacking", Heartbeat.__struct_fields__)
def test_what_lacks_something_is_no_heartbeat(lacking: str) -> None:
    made = heartbeat_claims(BEAT, issuer="https://t.example")
    [event] = made["events"].values()
    del event["ext"][lacking]
    with pytest.raises(Malformed):
        from_heartbeat_claims(msgspec.json.encode(made))


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"events":{}}', b'{"events":{"x":{"ext":{}}}}'])
def test_anything_else_is_no_heartbeat(payload: bytes) -> None:
    with pytest.raises(Malformed):
        from_heartbeat_claims(payload)


def test_no_commands_key_is_a_heartbeats() -> None:
    assert is_heartbeat(b"heartbeat/3")
    assert not is_heartbeat(record_key("heartbeat/3", "identity", "x").encode())
    assert not is_heartbeat(None)


def test_the_golden_heartbeat_is_what_we_write() -> None:
    """The file binds us and the gateways."""
    golden = json.loads((Path(__file__).parents[1] / "golden" / "heartbeat.json").read_text(encoding="utf-8"))
    [event] = golden["claims"]["events"].values()
    beat = from_heartbeat_claims(json.dumps(golden["claims"]).encode())
    live = [
        f"{c['record_key']}/{c['epoch']}".encode()
        for c in golden["commands"]
        if c["action"] != "restore"
        and (c["expires_at"] is None or c["on_expiry"] == "hold" or c["expires_at"] > event["ext"]["at"])
    ]
    total = sum(int.from_bytes(hashlib.sha256(text).digest()) for text in live) % 2**256
    assert (beat.count, beat.digest) == (len(live), f"{total:064x}")
    assert beat.jwks_sha256 == keys_sha256(golden["kids"])
    assert heartbeat_claims(beat, issuer=golden["claims"]["iss"]) == golden["claims"]
    assert heartbeat_key(beat.partition) == golden["record_key"]
