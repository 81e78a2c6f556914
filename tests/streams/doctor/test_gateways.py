"""Gateways as their acknowledgements show them."""

import json
from typing import Any

from streams.acknowledged import heard_of, obeyed
from streams.doctor.gateways import check_gateways

NOW = 1_800_000_000_000
KEYS = "k" * 64


def ack(name: str, seconds_ago: float, **told: Any) -> bytes:
    return json.dumps(
        {
            "time": NOW - round(seconds_ago * 1000),
            "metadata": {"product": {"name": "tripswitch-gateway", "vendor_name": name}},
            "unmapped": told,
        }
    ).encode()


def said(*records: bytes) -> list[tuple[str, str]]:
    return [(c.what, c.state) for c in check_gateways(heard_of(records).values(), NOW, KEYS)]


def test_one_that_lives_is_well() -> None:
    assert said(ack("eu-1", 20, jwks_sha256=KEYS, ready=True, stale=False, refused={})) == [("gateway eu-1", "ok")]


def test_nobody_is_a_fault() -> None:
    assert said() == [("gateways", "failure")]
    assert said(b"{", b"[]", b'{"time": "x"}') == [("gateways", "failure")]


def test_one_that_fell_silent() -> None:
    assert said(ack("eu-1", 200, jwks_sha256=KEYS)) == [("gateway eu-1", "failure")]
    assert said(ack("eu-1", 90_000), ack("eu-2", 1, jwks_sha256=KEYS)) == [("gateway eu-2", "ok")]


def test_the_last_word_counts() -> None:
    late = ack("eu-1", 10, jwks_sha256=KEYS, ready=True, stale=True)
    early = ack("eu-1", 70, jwks_sha256="o" * 64, ready=False)
    assert said(late, early) == [("gateway eu-1", "failure")]
    [check] = check_gateways(heard_of([late, early]).values(), NOW, KEYS)
    assert check.seen.startswith("stale")


def test_each_fault_is_said_with_how_to_mend_it() -> None:
    record = ack("eu-1", 5, jwks_sha256="o" * 64, ready=False, stale=True, refused={"signature": 3, "tombstone": 1})
    checks = list(check_gateways(heard_of([record]).values(), NOW, KEYS))
    assert [c.state for c in checks] == ["failure", "failure", "failure", "warning"]
    assert "4 records" in checks[-1].seen
    assert all(c.mend for c in checks)


def test_what_is_no_acknowledgement_is_passed_over() -> None:
    odd = [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"time": 1, "metadata": {"product": {}}}', ack("eu-1", 0)[:-9]]
    assert heard_of(odd) == {}
    assert [obeyed(raw, "cmd-1") for raw in odd] == [{}] * len(odd)


def test_a_record_that_says_nothing_of_keys_leaves_those_that_were_told() -> None:
    found = heard_of([ack("eu-1", 20, jwks_sha256=KEYS)])
    heard_of([ack("eu-1", 10), ack("eu-1", 5, jwks_sha256=None), ack("eu-1", 30, jwks_sha256="older")], found)
    assert (found["eu-1"].keys, found["eu-1"].heard) == (KEYS, NOW - 5000)


def test_who_obeyed_a_command() -> None:
    record = {**json.loads(ack("eu-1", 3)), "command_uid": "cmd-1", "status_id": 1}
    assert obeyed(json.dumps(record).encode(), "cmd-1") == {"eu-1": NOW - 3000}
    assert obeyed(json.dumps(record).encode(), "cmd-2") == {}
    assert obeyed(json.dumps(record | {"status_id": 2}).encode(), "cmd-1") == {}
