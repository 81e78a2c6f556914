import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tripswitch_gateway import Command, CommandVerifier, KeyFile, RevocationList, record_key
from tripswitch_gateway.follower import Follower

TOPIC, ACKS = "llm.killswitch", "llm.killswitch.acks"
Claims = Callable[..., dict[str, Any]]


@pytest.fixture
def changes() -> list[Command]:
    return []


@pytest.fixture
def follow(broker: Any, jwks: Path, claims: Claims, changes: list[Command]) -> Iterator[Callable[..., RevocationList]]:
    """Start a subscriber on the mock broker; it is closed after the test."""
    started: list[RevocationList] = []

    def start(**more: Any) -> RevocationList:
        verifier = CommandVerifier(KeyFile(jwks), claims()["iss"])
        options = {"gateway": "gw-1", "on_change": changes.append, "patience_s": 0.5} | more
        blocks = RevocationList(broker.kafka, verifier, **options).start()
        started.append(blocks)
        return blocks

    yield start
    for blocks in started:
        blocks.close()
        assert not blocks.alive


def blocked(blocks: RevocationList, identity: str = "key_7f3a") -> Callable[[], bool]:
    return lambda: not blocks.check(identity, tenant="acme").allowed


def acks_of(broker: Any, count: int) -> dict[str, dict[str, Any]]:
    """The first ``count`` acknowledgements by command, the one of the signing keys left out.

    The summary of the only cold start is under "cold-start".
    """
    records = broker.read(ACKS, lambda records: len(records) >= count + 1)
    acks = [json.loads(record.value()) for record in records]
    assert [record.key().decode() for record in records] == [ack["command_uid"] for ack in acks]
    named = {
        ack["command_uid"].partition("/")[0] if ack["activity_id"] in (4, 99) else ack["command_uid"]: ack
        for ack in acks
    }
    assert len(named) == len(acks)
    del named["jwks"]
    return named


def test_a_cold_start_reads_everything_before_it_is_ready(
    broker: Any, follow: Any, signer: Any, live_claims: Claims, changes: list[Command], wait_until: Any
) -> None:
    broker.create(TOPIC, ACKS)
    for number in range(40):
        made = live_claims("suspend", "identity", f"k{number}", identity=f"k{number}", command_id=f"cmd-{number}")
        broker.send(TOPIC, *signer.record(made), number % 4)
    broker.send(TOPIC, *signer.record(live_claims("restore", "identity", "k0", identity="k0", command_id="back")), 0)
    blocks = follow()
    assert blocks.ready.wait(20)
    assert [blocked(blocks, f"k{number}")() for number in range(40)] == [False] + [True] * 39
    wait_until(lambda: len(changes) == 40, "all changes")

    summary = acks_of(broker, 1)["cold-start"]
    assert (summary["class_uid"], summary["activity_id"], summary["status_id"]) == (7001, 99, 1)
    counts = summary["unmapped"]
    assert (counts["partitions"], counts["commands"], counts["live"], counts["refused"]) == (4, 40, 39, {})


def test_a_live_command_is_applied_told_and_acknowledged_once(
    broker: Any, follow: Any, signer: Any, live_claims: Claims, changes: list[Command], wait_until: Any
) -> None:
    broker.create(TOPIC, ACKS)
    blocks = follow()
    assert blocks.ready.wait(20)
    block = signer.record(live_claims(command_id="block"))
    broker.send(TOPIC, *block, 1)
    wait_until(blocked(blocks), "block")
    broker.send(TOPIC, *block, 1)
    broker.send(TOPIC, *signer.record(live_claims("restore", command_id="back")), 1)
    wait_until(lambda: not blocked(blocks)(), "restore")

    acks = acks_of(broker, 3)
    assert acks["cold-start"]["unmapped"]["commands"] == 0
    first = acks["block"]
    assert (first["activity_id"], first["type_uid"], first["status_id"]) == (2, 700102, 1)
    assert first["unmapped"]["epoch"] == changes[0].epoch
    assert first["unmapped"]["propagation_ms"] == first["unmapped"]["applied_at"] - changes[0].not_before
    assert first["metadata"]["product"]["vendor_name"] == "gw-1"
    assert acks["back"]["activity_id"] == 3
    assert [change.command_id for change in changes] == ["block", "back"]


def test_refusals_are_counted_acknowledged_and_change_nothing(
    broker: Any, follow: Any, signer: Any, stranger: Any, live_claims: Claims, wait_until: Any
) -> None:
    broker.create(TOPIC, ACKS)
    key, value = signer.record(live_claims(command_id="good"))
    broker.send(TOPIC, key, value, 0)
    blocks = follow()
    assert blocks.ready.wait(20)
    broker.send(TOPIC, key, None, 0)
    broker.send(TOPIC, key, b"garbage", 0)
    broker.send(TOPIC, *stranger.record(live_claims("restore", command_id="forged")), 0)
    broker.send(TOPIC, record_key("acme", "identity", "other").encode(), value, 0)
    expected = {"tombstone": 1, "malformed": 1, "signature": 1, "key-mismatch": 1}
    wait_until(lambda: blocks.refusals == expected, "four refusals")
    assert blocked(blocks)()
    acks = acks_of(broker, 5)
    del acks["cold-start"]
    assert {uid: (ack["status_id"], ack["status_detail"]) for uid, ack in acks.items()} == {
        f"{TOPIC}/0/1": (2, "refused: tombstone"),
        f"{TOPIC}/0/2": (2, "refused: malformed"),
        f"{TOPIC}/0/3": (2, "refused: signature"),
        "good": (2, "refused: key-mismatch"),
    }


def test_a_flood_of_garbage_floods_neither_acknowledgements_nor_log(
    broker: Any, follow: Any, wait_until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broker.create(TOPIC, ACKS)
    blocks = follow()
    assert blocks.ready.wait(20)
    for _ in range(300):
        broker.producer.produce(TOPIC, b"garbage of one who has got in", b"key", 2)
    broker.producer.flush(10)
    wait_until(lambda: blocks.refusals.get("malformed") == 300, "300 refusals")
    told = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert 1 <= len(told) <= 30
    assert not any("garbage" in message for message in told)
    blocks.close()
    assert len(acks_of(broker, 1 + len(told))) == 1 + len(told)


def test_an_expired_command_is_not_called_a_success(
    broker: Any, follow: Any, signer: Any, live_claims: Claims, changes: list[Command]
) -> None:
    broker.create(TOPIC, ACKS)
    assert follow().ready.wait(20)
    broker.send(TOPIC, *signer.record(live_claims(command_id="late", expires_at=1)))
    ack = acks_of(broker, 2)["late"]
    assert (ack["status_id"], ack["status_detail"]) == (2, "expired")
    assert changes == []


def test_partitions_that_are_added_are_read(
    broker: Any, follow: Any, signer: Any, live_claims: Claims, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.create(TOPIC, ACKS)
    # As if the topic had had two of its four partitions when the gateway started.
    monkeypatch.setattr(Follower, "_await_topic", lambda *_: 2)
    broker.send(TOPIC, *signer.record(live_claims()), 3)
    blocks = follow()
    assert blocks.ready.wait(20)
    wait_until(blocked(blocks), "block in the fourth partition")
    broker.send(TOPIC, *signer.record(live_claims("restore")), 3)
    wait_until(lambda: not blocked(blocks)(), "restore")


def test_ready_only_when_the_topic_exists(broker: Any, follow: Any, wait_until: Any) -> None:
    blocks = follow()
    assert not blocks.ready.wait(0.5)
    broker.create(TOPIC)
    wait_until(blocks.ready.is_set, "ready")


def test_no_broker_at_all(jwks: Path, claims: Claims) -> None:
    kafka = {"bootstrap.servers": "127.0.0.1:1", "log_level": "0"}
    verifier = CommandVerifier(KeyFile(jwks), claims()["iss"])
    with RevocationList(kafka, verifier, gateway="gw-1") as blocks:
        assert not blocks.ready.wait(0.5)
        assert blocks.check("key_7f3a", tenant="acme").allowed
        assert blocks.alive
    assert not blocks.alive


def test_blocks_outlive_the_broker(broker: Any, follow: Any, signer: Any, live_claims: Claims, wait_until: Any) -> None:
    broker.create(TOPIC, ACKS)
    broker.send(TOPIC, *signer.record(live_claims()))
    blocks = follow()
    assert blocks.ready.wait(20)
    broker.stop()
    wait_until(lambda: blocks.stale, "stale")
    assert blocked(blocks)()
    assert blocks.alive


def test_a_command_that_outruns_its_key_is_obeyed_when_the_key_comes(
    broker: Any, follow: Any, jwks: Path, signer: Any, stranger: Any, live_claims: Claims, wait_until: Any
) -> None:
    broker.create(TOPIC, ACKS)
    blocks = follow()
    assert blocks.ready.wait(20)
    made = live_claims()
    broker.send(TOPIC, record_key("acme", "identity", "key_7f3a").encode(), stranger.sign(made, kid="new"))
    wait_until(lambda: blocks.refusals == {"unknown-kid": 1}, "refusal")
    assert not blocked(blocks)()
    jwks.write_text(json.dumps({"keys": [signer.jwk(), stranger.jwk() | {"kid": "new"}]}), encoding="utf-8")
    wait_until(blocked(blocks), "block")


def test_a_listener_that_fails_does_not_stop_the_next_block(
    broker: Any, follow: Any, signer: Any, live_claims: Claims, wait_until: Any
) -> None:
    def fail(command: Command) -> None:
        raise RuntimeError(command.command_id)

    broker.create(TOPIC, ACKS)
    blocks = follow(on_change=fail)
    for name in ("k1", "k2"):
        broker.send(TOPIC, *signer.record(live_claims("suspend", "identity", name, identity=name)))
    wait_until(blocked(blocks, "k2"), "second block")
    wait_until(lambda: blocks.callback_errors == 2, "two faults")
    assert blocked(blocks, "k1")()


def test_every_gateway_reads_everything(
    broker: Any, follow: Any, signer: Any, live_claims: Claims, wait_until: Any
) -> None:
    broker.create(TOPIC, ACKS)
    gateways = [follow(gateway=f"gw-{number}") for number in range(3)]
    for blocks in gateways:
        assert blocks.ready.wait(20)
    broker.send(TOPIC, *signer.record(live_claims(command_id="block")))
    for blocks in gateways:
        wait_until(blocked(blocks), "block")
    records = broker.read(ACKS, lambda records: len(records) >= 9)
    acks = [json.loads(record.value()) for record in records]
    names = [ack["metadata"]["product"]["vendor_name"] for ack in acks if ack["command_uid"] == "block"]
    assert sorted(names) == ["gw-0", "gw-1", "gw-2"]


@pytest.mark.usefixtures("beating")
def test_ready_by_proof(broker: Any, follow: Any) -> None:
    broker.create(TOPIC, ACKS)
    # So long a patience never runs out here: only an agreement makes it ready.
    blocks = follow(patience_s=600.0)
    assert blocks.ready.wait(20)
    assert not blocks.stale
    assert blocks.staleness.keys() == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("on_stale", "blocked_one", "other"), [("last_known", 403, 200), ("closed", 403, 503), ("open", 200, 200)]
)
def test_what_calls_get_when_stale(
    verifier: CommandVerifier, signer: Any, claims: Claims, on_stale: Any, blocked_one: int, other: int
) -> None:
    blocks = RevocationList({"bootstrap.servers": "127.0.0.1:1"}, verifier, gateway="gw-1", on_stale=on_stale)
    blocks.table.apply(verifier.verify(*signer.record(claims("revoke"))), 0)
    assert blocks.stale
    assert blocks.check("key_7f3a", tenant="acme").status == blocked_one
    assert blocks.check("another", tenant="acme").status == other
