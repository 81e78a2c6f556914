"""Which keys a gateway believes, and what it does when they change; no broker."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Claims = Callable[..., dict[str, Any]]
NOW_MS = 1_795_223_525_000


@pytest.fixture
def block(claims: Claims) -> dict[str, Any]:
    return claims(command_id="block", now_ms=NOW_MS - 60_000)


class TestKeys:
    def test_keys_that_are_not_the_writers_are_told(self, topic: Any) -> None:
        topic.read()
        assert not topic.reader.keys_differ
        topic.beat(jwks_sha256="0" * 64)
        topic.read()
        assert topic.reader.keys_differ
        topic.beat(sequence=NOW_MS + 1, jwks_sha256=topic.verifier.keys.sha256)
        topic.read()
        assert not topic.reader.keys_differ

    def test_a_new_key_is_acknowledged(self, topic: Any, signer: Any, other_signer: Any) -> None:
        topic.read()
        topic.verifier.keys._path.write_text(json.dumps({"keys": [signer.jwk(), other_signer.jwk()]}))
        topic.read()
        assert [ack["unmapped"] for ack in topic.acked("jwks/")] == [{"jwks_sha256": topic.verifier.keys.sha256}]

    def test_rotation_changes_nothing_and_is_no_news(
        self, topic: Any, signer: Any, other_signer: Any, block: dict[str, Any]
    ) -> None:
        topic.write(signer.record(block))
        topic.read()
        topic.verifier.keys._path.write_text(json.dumps({"keys": [signer.jwk(), other_signer.jwk()]}))
        topic.read()
        topic.write(other_signer.record(block | {"iat": NOW_MS // 1000}))
        topic.read()
        topic.verifier.keys._path.write_text(json.dumps({"keys": [other_signer.jwk()]}))
        topic.read()
        assert topic.blocks()
        assert topic.rewound == []
        assert len(topic.changes) == 1
        assert topic.acked("block") == []
        assert topic.table.conflicts == 0

    def test_what_a_thief_signed_goes_when_a_heartbeat_proves_it_wrong(
        self, topic: Any, signer: Any, other_signer: Any, claims: Claims
    ) -> None:
        """The thief of a signing key restored k1 and blocked k2; nobody trusts that key any more."""
        k1 = claims(subject="k1", identity="k1", command_id="k1", now_ms=NOW_MS - 60_000)
        topic.write(signer.record(k1))
        topic.read()
        topic.write(signer.record(claims("restore", subject="k1", identity="k1", command_id="stolen-1")))
        topic.write(signer.record(claims(subject="k2", identity="k2", command_id="stolen-2")))
        topic.beat(k1)
        topic.read()
        assert (topic.blocks("k1"), topic.blocks("k2"), topic.reader.stale) == (False, True, True)

        topic.verifier.keys._path.write_text(json.dumps({"keys": [other_signer.jwk()]}))
        topic.signer = other_signer
        topic.write(other_signer.record(k1))
        topic.read()
        assert topic.blocks("k2")
        topic.wait(3)
        topic.beat(k1)
        topic.read()
        assert (topic.blocks("k1"), topic.blocks("k2"), topic.reader.stale) == (True, False, False)
        assert topic.changes[-1].command_id == "k1"

    def test_what_a_removed_key_signed_stays_until_then(
        self, topic: Any, signer: Any, other_signer: Any, block: dict[str, Any]
    ) -> None:
        topic.write(signer.record(block))
        topic.read()
        topic.verifier.keys._path.write_text(json.dumps({"keys": [other_signer.jwk()]}))
        topic.read()
        assert topic.rewound == [0]
        assert topic.blocks()

    def test_a_command_that_outruns_its_key(
        self, topic: Any, signer: Any, other_signer: Any, block: dict[str, Any]
    ) -> None:
        topic.write(other_signer.record(block))
        topic.read()
        assert topic.counts.refused == {"unknown-kid": 1}
        topic.verifier.keys._path.write_text(json.dumps({"keys": [signer.jwk(), other_signer.jwk()]}))
        topic.read()
        assert topic.blocks()


class TestBreakGlass:
    @pytest.fixture(autouse=True)
    def _keys(self, topic: Any, signer: Any, break_glass: Any) -> None:
        topic.verifier.keys._path.write_text(json.dumps({"keys": [signer.jwk(), break_glass.jwk()]}))
        topic.read()

    @pytest.mark.parametrize("action", ["suspend", "revoke", "restore"])
    def test_obeyed_counted_and_logged(
        self, topic: Any, break_glass: Any, claims: Claims, action: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        topic.write(break_glass.record(claims(action, manual=True, break_glass=True)))
        topic.read()
        assert topic.blocks() == (action != "restore")
        assert topic.counts.break_glass == 1
        assert "BREAK GLASS" in caplog.text

    @pytest.mark.parametrize(
        ("action", "marks"),
        [
            ("throttle", {"manual": True, "break_glass": True}),
            ("suspend", {"manual": True}),
            ("suspend", {"break_glass": True}),
            ("suspend", {}),
        ],
    )
    def test_nothing_else_may_be_signed_with_it(
        self, topic: Any, break_glass: Any, claims: Claims, action: str, marks: dict[str, bool]
    ) -> None:
        topic.write(break_glass.record(claims(action, **marks)))
        topic.read()
        assert topic.counts.refused == {"role": 1}
        assert not topic.blocks()
