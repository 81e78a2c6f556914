"""Gateways as their acknowledgements show them."""

import json
from typing import Any

from streams.doctor.gateways import check_gateways, heard_of

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
