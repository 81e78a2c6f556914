"""The command's key and claims, against the files that bind its writer and its receivers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.command import STRICTNESS, Command, Limits, claims, decode_command, from_claims, headers, record_key
from schemas.decoding import Malformed
from schemas.finding import encode
from schemas.times import format_millis, parse_millis

GOLDEN = sorted((Path(__file__).parent.parent / "golden" / "killswitch").glob("*.json"))
golden_files = pytest.mark.parametrize("file", GOLDEN, ids=[file.stem for file in GOLDEN])


def command_of(golden: dict[str, Any]) -> Command:
    """The command that a golden file's claims were made of."""
    [event] = golden["claims"]["events"].values()
    ext = event["ext"]
    return Command(
        command_id=golden["claims"]["jti"],
        time=format_millis(event["event_timestamp"] * 1000),
        tenant=ext["tenant"],
        identity=ext["identity"],
        scope=ext["scope"],
        subject=ext["subject"],
        action=ext["action"],
        epoch=ext["epoch"],
        expires_at=None if ext["expires_at"] is None else format_millis(ext["expires_at"]),
        mode="enforce",
        reason=event["reason_admin"]["en"],
        incident_id=golden["claims"]["txn"],
        finding_ids=ext["finding_ids"],
        policy=ext["policy"],
        manual=ext["manual"],
        limits=None if ext["limits"] is None else Limits(**ext["limits"]),
    )


def made_of(golden: dict[str, Any]) -> dict[str, Any]:
    [event] = golden["claims"]["events"].values()
    issuer, issued = golden["claims"]["iss"], event["ext"]["not_before"]
    return claims(command_of(golden), issuer=issuer, issued=issued, contact=event["ext"]["contact"])


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) >= 5


@golden_files
def test_the_record_key_is_the_one_that_receivers_derive(file: Path) -> None:
    golden = json.loads(file.read_text(encoding="utf-8"))
    command = command_of(golden)
    assert record_key(command.tenant, command.scope, command.subject) == golden["record_key"]


@golden_files
def test_the_claims_are_those_that_receivers_read(file: Path) -> None:
    golden = json.loads(file.read_text(encoding="utf-8"))
    made, expected = made_of(golden), golden["claims"]
    assert {name: made[name] for name in made if name != "events"} == {
        name: expected[name] for name in expected if name != "events"
    }
    assert set(made["events"]) == set(expected["events"])
    [mine], [theirs] = made["events"].values(), expected["events"].values()
    assert set(mine) == set(theirs)
    # What a policy decides may differ; who is meant, when, for how long and how strictly may not.
    free = {"in_flight", "http_status", "evidence_sha256", "limits"}
    assert set(mine["ext"]) - {"mode"} == set(theirs["ext"])
    assert {name: mine["ext"][name] for name in theirs["ext"] if name not in free} == {
        name: theirs["ext"][name] for name in theirs["ext"] if name not in free
    }
    limits = {name: value for name, value in (theirs["ext"]["limits"] or {}).items() if value is not None}
    assert (mine["ext"]["limits"] or {}) == limits


names = st.text(max_size=20).filter(lambda text: "\ud800" not in text)


@given(first=st.tuples(names, names, names), second=st.tuples(names, names, names))
def test_two_subjects_never_share_a_key(first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
    assert (record_key(*first) == record_key(*second)) == (first == second)
    assert len(record_key(*first)) == 64


def test_moving_a_letter_over_a_border_changes_the_key() -> None:
    assert record_key("ab", "identity", "c") != record_key("a", "identity", "bc")
    assert record_key("a", "b", "") != record_key("a", "", "b")


def test_the_key_is_the_digest_of_prefixed_parts() -> None:
    raw = b"\x00\x00\x00\x04acme\x00\x00\x00\x08identity\x00\x00\x00\x03\xe7\x8c\xab"
    assert record_key("acme", "identity", "猫") == hashlib.sha256(raw).hexdigest()


def make(**changes: Any) -> Command:
    fields: dict[str, Any] = {
        "command_id": "cmd-1",
        "time": "2026-03-02T00:00:00.000Z",
        "tenant": "acme",
        "identity": "key_1",
        "scope": "identity",
        "subject": "key_1",
        "action": "suspend",
        "epoch": 1_772_409_600_000,
        "expires_at": "2026-03-02T00:15:00.000Z",
        "mode": "enforce",
        "reason": "because",
        "incident_id": "inc-1",
        "finding_ids": ["f-1", "f-2"],
        "policy": "p1",
    }
    return Command(**(fields | changes))


NOW = 1_772_409_600_000


def ext_of(command: Command, issued: int = NOW) -> dict[str, Any]:
    [event] = claims(command, issuer="https://x.example", issued=issued, contact="ops")["events"].values()
    return dict(event["ext"])


def test_an_expiry_counts_from_publication() -> None:
    ext = ext_of(make(), issued=NOW + 3_600_000)
    assert ext["not_before"] == NOW + 3_600_000
    assert ext["expires_at"] - ext["not_before"] == 15 * 60_000
    assert ext_of(make(expires_at=None))["expires_at"] is None


@pytest.mark.parametrize("action", STRICTNESS)
def test_only_a_revocation_holds_when_it_expires(action: Any) -> None:
    assert ext_of(make(action=action))["on_expiry"] == ("hold" if action == "revoke" else "restore")


def test_the_token_has_what_ssf_asks_for_and_nothing_that_it_forbids() -> None:
    made = claims(make(action="throttle", limits=Limits(rpm=6)), issuer="https://x.example", issued=NOW, contact="ops")
    assert not {"exp", "sub", "nbf"} & set(made)
    assert made["aud"] == ["tripswitch-gateways"]
    assert made["iat"] == NOW // 1000
    [(uri, event)] = made["events"].items()
    assert uri.endswith("/risk-level-change")
    assert (event["principal"], event["current_level"]) == ("ROBOT", "HIGH")
    assert event["ext"]["limits"] == {"rpm": 6}


def test_a_tenants_command_names_no_user() -> None:
    made = claims(make(scope="tenant", identity=None, subject="acme"), issuer="i", issued=NOW, contact="ops")
    assert made["sub_id"] == {"format": "complex", "tenant": {"format": "opaque", "id": "acme"}}


def test_who_ordered_it_is_told() -> None:
    [event] = claims(make(manual=True), issuer="i", issued=NOW, contact="ops")["events"].values()
    assert event["initiating_entity"] == "admin"
    [event] = claims(make(), issuer="i", issued=NOW, contact="the on-call")["events"].values()
    assert event["initiating_entity"] == "policy"
    assert event["reason_user"]["en"].endswith("ask the on-call.")
    assert event["reason_admin"] == {"en": "because"}


def test_the_evidence_is_named_by_its_digest() -> None:
    assert ext_of(make())["evidence_sha256"] == hashlib.sha256(b"f-1\nf-2").hexdigest()


def test_headers_route_and_name_the_content() -> None:
    fields = dict(headers(make(), issuer="https://x.example", issued=NOW))
    assert fields == {
        "ce_specversion": b"1.0",
        "ce_id": b"cmd-1",
        "ce_source": b"https://x.example",
        "ce_type": b"llm.command.v1",
        "ce_subject": b"acme/identity/key_1",
        "ce_time": b"2026-03-02T00:00:00.000Z",
        "content-type": b"application/secevent+jwt",
    }


@pytest.mark.parametrize("limits", [None, Limits(rpm=6), Limits(model="small")])
def test_a_line_of_commands_jsonl_is_read_back(limits: Limits | None) -> None:
    command = make(limits=limits, manual=True)
    assert decode_command(encode(command)) == command


def test_a_command_is_read_back_from_its_claims() -> None:
    for action in STRICTNESS:
        made = Command(
            command_id="cmd-1", time="2026-03-02T00:00:00.000Z", tenant="acme", identity="key_1", scope="session",
            subject="s1", action=action, epoch=7, expires_at="2026-03-02T00:15:00.000Z", mode="enforce", reason="r",
            incident_id="inc-1", finding_ids=["f-1"], policy="p", limits=Limits(rpm=6),
        )  # fmt: skip
        issued = parse_millis(made.time)
        payload = json.dumps(claims(made, issuer="i", issued=issued, contact="c")).encode()
        assert from_claims(payload) == made


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b'{"events":{}}', b'{"events":{"u":{"ext":{}}}}', b'{"events":[]}']
)
def test_what_states_no_command_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        from_claims(payload)
