"""What a thief of the broker can try, line by line: each is refused, counted and logged, and changes nothing."""

import base64
import hmac
import json
import logging
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tripswitch_gateway import CommandVerifier, KeyFile, RevocationList, load_settings, record_key

Claims = Callable[..., dict[str, Any]]
Record = tuple[bytes | None, bytes | None]
NOW_MS = 1_795_223_525_000
KEY = record_key("acme", "identity", "key_7f3a").encode()


def b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def unsigned(claims: dict[str, Any], signature: bytes = b"", **header: Any) -> bytes:
    return b64(json.dumps(header).encode()) + b"." + b64(json.dumps(claims).encode()) + b"." + b64(signature)


class Thief:
    """May write to the topic whatever it likes, has read all of it, and knows the public keys."""

    def __init__(self, signer: Any, stranger: Any, claims: Claims) -> None:
        self.signer = signer
        self.stranger = stranger
        self.claims = claims
        self.block = claims(command_id="block", now_ms=NOW_MS - 60_000)
        self.restore = claims("restore", command_id="evil", now_ms=NOW_MS)

    def forged(self) -> Record:
        return self.stranger.record(self.restore)

    def alg_none(self) -> Record:
        return KEY, unsigned(self.restore, alg="none", typ="secevent+jwt", kid=self.signer.kid)

    def public_key_as_secret(self) -> Record:
        header = {"alg": "HS256", "typ": "secevent+jwt", "kid": self.signer.kid}
        body = unsigned(self.restore, **header).rpartition(b".")[0]
        return KEY, body + b"." + b64(hmac.digest(self.signer.key.as_pem(private=False), body, "sha256"))

    def wrong_issuer(self) -> Record:
        return self.signer.record(self.restore | {"iss": "https://staging.example"})

    def wrong_audience(self) -> Record:
        return self.signer.record(self.restore | {"aud": ["others"]})

    def wrong_type(self) -> Record:
        return KEY, self.signer.sign(self.restore, typ="tripswitch-request+jwt")

    def older_epoch(self) -> Record:
        return self.signer.record(self.claims("restore", command_id="then", now_ms=NOW_MS - 90_000))

    def same_epoch(self) -> Record:
        return self.signer.record(self.claims("restore", command_id="other", now_ms=NOW_MS - 60_000))

    def other_record_key(self) -> Record:
        other = self.claims("restore", subject="key_other", identity="key_other")
        return KEY, self.signer.sign(other)

    def epoch_far_ahead(self) -> Record:
        return self.signer.record(self.claims("restore", epoch=NOW_MS + 301_000))

    def future_dated(self) -> Record:
        return self.signer.record(self.claims("restore", now_ms=NOW_MS + 301_000, epoch=NOW_MS))

    def tombstone(self) -> Record:
        return KEY, None

    def oversized(self) -> Record:
        return self.signer.record(self.claims("restore", contact="x" * 70_000))

    def tampered(self) -> Record:
        head, _, signature = self.signer.sign(self.block).split(b".")
        return KEY, b".".join([head, b64(json.dumps(self.restore).encode()), signature])

    def unknown_kid(self) -> Record:
        return KEY, self.stranger.sign(self.restore, kid="mine")

    def garbage(self) -> Record:
        return KEY, os.urandom(500)

    def heartbeat_as_command(self) -> Record:
        return KEY, self.signer.heartbeat(0, NOW_MS)[1]

    def command_as_heartbeat(self) -> Record:
        return b"heartbeat/0", self.signer.sign(self.restore)


ATTEMPTS = {
    "forged": "signature",
    "alg_none": "algorithm",
    "public_key_as_secret": "algorithm",
    "wrong_issuer": "issuer",
    "wrong_audience": "audience",
    "wrong_type": "type",
    "older_epoch": "older-epoch",
    "same_epoch": "same-epoch",
    "other_record_key": "key-mismatch",
    "epoch_far_ahead": "epoch-ahead",
    "future_dated": "from-the-future",
    "tombstone": "tombstone",
    "oversized": "oversized",
    "tampered": "signature",
    "unknown_kid": "unknown-kid",
    "garbage": "malformed",
    "heartbeat_as_command": "malformed",
    "command_as_heartbeat": "event-mismatch",
}


@pytest.fixture
def thief(signer: Any, stranger: Any, claims: Claims) -> Thief:
    return Thief(signer, stranger, claims)


def state(topic: Any) -> object:
    return topic.table.commands(), topic.table.tally(0, topic.true_ms), topic.clock.now_ms()


@pytest.mark.parametrize("name", ATTEMPTS)
def test_refused_counted_logged_and_nothing_changes(
    topic: Any, thief: Thief, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic.write(thief.signer.record(thief.block))
    topic.read()
    topic.beat(thief.block)
    topic.read()
    before = state(topic)
    caplog.clear()
    topic.write(getattr(thief, name)())
    topic.read()
    assert state(topic) == before
    assert topic.blocks()
    assert topic.counts.refused == {ATTEMPTS[name]: 1}
    assert f"refused a record of llm.killswitch: {ATTEMPTS[name]} at" in caplog.text
    assert "evil" not in caplog.text
    [told] = [ack for ack in topic.acks if ack["status_id"] == 2]
    assert told["status_detail"] == f"refused: {ATTEMPTS[name]}"
    # And the next heartbeat finds all as it was.
    topic.wait(3)
    topic.beat(thief.block)
    topic.read()
    assert not topic.reader.stale
    assert topic.counts.disagreements == 0


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_gateway_that_starts_afterwards_is_not_taken_in(topic: Any, thief: Thief, name: str) -> None:
    topic.write(thief.signer.record(thief.block), getattr(thief, name)())
    topic.read()
    assert topic.blocks()
    assert len(topic.table) == 1
    topic.beat(thief.block)
    topic.read()
    assert topic.reader.ready.is_set()
    assert not topic.reader.stale


@pytest.mark.parametrize("name", ATTEMPTS)
def test_nobody_is_cut_off_either(topic: Any, signer: Any, stranger: Any, claims: Claims, name: str) -> None:
    """The same attempts, the other way round: to block who was given back."""
    thief = Thief(signer, stranger, lambda action="suspend", **more: claims(_turned(action), **more))
    topic.write(signer.record(thief.block))
    topic.read()
    topic.write(getattr(thief, name)())
    topic.read()
    if name != "same_epoch":
        assert not topic.blocks()
        assert topic.counts.refused == {ATTEMPTS[name]: 1}
        return
    # Who has a signing key may block: the stricter of two holds, loudly.
    assert topic.table.conflicts == 1


def _turned(action: str) -> str:
    return "suspend" if action == "restore" else "restore"


def test_two_writers_raise_an_alarm(topic: Any, thief: Thief, caplog: pytest.LogCaptureFixture) -> None:
    topic.write(thief.signer.record(thief.block))
    topic.read()
    topic.write(thief.same_epoch())
    topic.read()
    assert topic.table.conflicts == 1
    [alarm] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "ALARM" in alarm.getMessage()


def test_the_same_command_again_is_no_news(topic: Any, thief: Thief) -> None:
    topic.read()
    topic.write(thief.signer.record(thief.block))
    topic.read()
    before = state(topic)
    topic.write(*[thief.signer.record(thief.block)] * 3)
    topic.read()
    assert state(topic) == before
    assert topic.counts.refused == {}
    assert (len(topic.changes), len(topic.acked("block"))) == (1, 1)


def test_an_expired_command_blocks_nobody(topic: Any, signer: Any, claims: Claims) -> None:
    topic.read()
    topic.write(signer.record(claims(command_id="late", expires_at=NOW_MS - 1)))
    topic.read()
    assert not topic.blocks()
    [ack] = topic.acked("late")
    assert (ack["status_id"], ack["status_detail"]) == (2, "expired")
    assert topic.changes == []


def test_a_withheld_newest_record_makes_the_gateway_stale(
    topic: Any, thief: Thief, caplog: pytest.LogCaptureFixture
) -> None:
    """The block is on the topic for everyone else; this gateway is shown the record before it, for ever."""
    topic.write(thief.signer.record(thief.claims("restore", command_id="then", now_ms=NOW_MS - 90_000)))
    topic.read()
    topic.beat(thief.block)
    topic.read()
    assert topic.reader.stale
    assert not topic.reader.ready.is_set()
    assert "disagrees with its heartbeat" in caplog.text


def test_a_flood_of_garbage_fills_neither_memory_nor_log(
    topic: Any, thief: Thief, caplog: pytest.LogCaptureFixture
) -> None:
    topic.read()
    junk = [os.urandom(1000), thief.alg_none()[1], thief.unknown_kid()[1], thief.garbage()[1], None]
    for number in range(1_000):
        topic.write((str(number).encode(), junk[number % len(junk)]))
    topic.read()
    told = len(caplog.records)
    for number in range(80_000):
        topic.reader.receive(0, 1_000 + number, str(number).encode(), junk[number % len(junk)])
    tracemalloc.start()
    for number in range(80_000, 100_000):
        topic.reader.receive(0, 1_000 + number, str(number).encode(), junk[number % len(junk)])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert topic.counts.refused.total() == 101_000
    assert held < 1_000_000
    # A minute's worth is sixty, and the flood may take some minutes on a slow machine.
    assert told <= 15
    assert len(caplog.records) < 1_000
    assert len(topic.acks) < 1_000


def test_a_flood_before_the_start_is_not_kept(topic: Any, thief: Thief) -> None:
    """Forged tokens that look right cost a signature each, and no more room than the real ones."""
    forged = thief.forged()
    for _ in range(2_000):
        topic.write(forged)
    topic.write(thief.signer.record(thief.block))
    topic.reader.begin([0])
    kept = 0
    for offset, record in enumerate(topic.records[0]):
        topic.reader.receive(0, offset, *record)
        kept = max(kept, topic.reader.partitions[0].backlog.size)
    topic.reader.reach_end(0, len(topic.records[0]))
    while topic.reader.work():
        pass
    assert kept < 20_000
    assert topic.blocks()
    assert topic.counts.refused == {"signature": 2_000}


def test_a_listener_that_fails_tells_no_secret(
    broker: Any,
    jwks: Path,
    claims: Claims,
    signer: Any,
    stranger: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Everything that is logged and raised in a run with a password and keys, searched for them."""
    caplog.set_level(logging.DEBUG)
    password = "hunter2-hunter2"
    environment = {
        "KAFKA_BOOTSTRAP": broker.bootstrap,
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "gw",
        "KAFKA_SASL_PASSWORD": password,
        "TRIPSWITCH_JWKS": str(jwks),
        "TRIPSWITCH_ISSUER": claims()["iss"],
    }
    settings = load_settings(environment, tmp_path / "absent.toml")
    private = signer.key.as_dict(private=True)
    jwks.write_text(json.dumps({"keys": [private | {"kid": signer.kid}]}))
    said = [repr(settings), repr(KeyFile(jwks))]
    broker.create("llm.killswitch", "llm.killswitch.acks")
    secret_claims = claims(contact="do-not-log-me")
    broker.send("llm.killswitch", KEY, signer.sign(secret_claims)[:-8] + b"AAAAAAAA", 0)
    broker.send("llm.killswitch", KEY, b"do-not-log-me", 0)
    for kafka in (settings.kafka, broker.kafka):
        with RevocationList(
            kafka, CommandVerifier(KeyFile(jwks), settings.issuer), gateway="gw-1", patience_s=0.5
        ) as blocks:
            blocks.ready.wait(3)
            jwks.write_text("{")
            time.sleep(0.6)
            jwks.write_text(json.dumps({"keys": [private | {"kid": signer.kid}]}))
            said.append(repr(blocks))
    said += [record.getMessage() + (record.exc_text or "") for record in caplog.records]
    assert len(said) > 5
    for secret in (password, private["d"], private["p"], "do-not-log-me"):
        assert not any(secret in text for text in said)
