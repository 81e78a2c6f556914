"""What a restarted gateway knows from its file, and which files it does not believe."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tripswitch_gateway import CommandVerifier, KeyFile, RevocationList
from tripswitch_gateway.snapshot import Origin, Snapshot, Unusable, read_snapshot, write_snapshot

TOPIC = "llm.killswitch"
Claims = Callable[..., dict[str, Any]]
NOWHERE = {"bootstrap.servers": "127.0.0.1:1", "log_level": "0"}
ORIGIN = Origin("issuer", TOPIC, "ab")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blocks"


@pytest.fixture
def gateway(jwks: Path, path: Path, claims: Claims, broker: Any) -> Callable[..., RevocationList]:
    """A gateway with a snapshot; by default without any broker that answers."""

    def make(kafka: dict[str, str] = NOWHERE, *, keys: Path = jwks, **more: Any) -> RevocationList:
        options: dict[str, Any] = {"gateway": "gw-1", "patience_s": 0.5, "snapshot": path} | more
        return RevocationList(kafka, CommandVerifier(KeyFile(keys), claims()["iss"]), **options)

    return make


@pytest.fixture
def written(gateway: Any, broker: Any, signer: Any, live_claims: Claims, wait_until: Any) -> None:
    """The snapshot of a gateway that knew of one block, one that was restored and one that came after the start."""
    broker.create(TOPIC, "llm.killswitch.acks")
    for name, action in (("k1", "suspend"), ("k2", "suspend"), ("k2", "restore")):
        broker.send(TOPIC, *signer.record(live_claims(action, subject=name, identity=name)), 0)
    with gateway(broker.kafka) as blocks:
        assert blocks.ready.wait(20)
        broker.send(TOPIC, *signer.record(live_claims(subject="k3", identity="k3")), 1)
        wait_until(lambda: denied(blocks, "k3"), "block")


def denied(blocks: RevocationList, *identities: str) -> bool:
    return not any(blocks.check(identity, tenant="acme").allowed for identity in identities)


def test_what_is_written_is_read(path: Path) -> None:
    tokens = [(0, b"key", b"value"), (7, b"other", b"x" * 70_000)]
    write_snapshot(path, ORIGIN, {0: 5, 7: 1 << 40}, tokens)
    assert read_snapshot(path) == Snapshot(ORIGIN, {0: 5, 7: 1 << 40}, tokens)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    write_snapshot(path, ORIGIN, {}, [])
    assert read_snapshot(path) == Snapshot(ORIGIN, {}, [])
    assert read_snapshot(path.with_name("absent")) is None


def test_a_damaged_file_is_told_from_a_good_one(path: Path) -> None:
    write_snapshot(path, ORIGIN, {0: 5}, [(0, b"key", b"value")])
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(Unusable):
            read_snapshot(path)
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(Unusable):
            read_snapshot(path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(path: Path) -> None:
    write_snapshot(path, ORIGIN, {}, [(0, b"key", b"value")])
    with pytest.raises(TypeError):
        write_snapshot(path, ORIGIN, {}, [(0, b"key", None)])  # type: ignore[list-item]
    assert read_snapshot(path) == Snapshot(ORIGIN, {}, [(0, b"key", b"value")])
    assert len(list(path.parent.glob(".blocks*"))) == 0


@pytest.mark.usefixtures("written")
def test_a_restart_without_a_broker_knows_the_last_blocks(gateway: Any) -> None:
    with gateway() as blocks:
        assert blocks.ready.wait(20)
        assert denied(blocks, "k1", "k3")
        assert not denied(blocks, "k2")
        assert blocks.stale


@pytest.mark.usefixtures("written")
def test_a_restart_reads_on_from_where_it_was(
    gateway: Any, broker: Any, signer: Any, live_claims: Claims, wait_until: Any, path: Path
) -> None:
    snapshot = read_snapshot(path)
    assert snapshot is not None
    assert (snapshot.offsets, len(snapshot.tokens)) == ({0: 3, 1: 1, 2: 0, 3: 0}, 3)
    broker.send(TOPIC, *signer.record(live_claims("restore", subject="k1", identity="k1")), 0)
    with gateway(broker.kafka) as blocks:
        assert blocks.ready.wait(20)
        assert denied(blocks, "k3")
        wait_until(lambda: not denied(blocks, "k1"), "restore")
        assert blocks.counts.applied == {"restore": 2, "suspend": 1}
    after = read_snapshot(path)
    assert after is not None
    assert after.offsets == {0: 4, 1: 1, 2: 0, 3: 0}


def test_without_a_snapshot_and_a_broker_nothing_is_ready(gateway: Any, path: Path) -> None:
    with gateway() as blocks:
        assert not blocks.ready.wait(1)
    assert not path.exists()


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("damage", ["cut", "issuer", "topic"])
def test_a_snapshot_that_is_not_ours_is_ignored(
    gateway: Any, path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = read_snapshot(path)
    assert good is not None
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        issuer = "https://elsewhere.example" if damage == "issuer" else good.origin.issuer
        topic = "another" if damage == "topic" else TOPIC
        write_snapshot(path, Origin(issuer, topic, good.origin.jwks_sha256), good.offsets, good.tokens)
    with gateway() as blocks:
        assert not blocks.ready.wait(1)
        assert not denied(blocks, "k1")
    assert "ignoring the snapshot" in caplog.text


@pytest.mark.usefixtures("written")
def test_tokens_are_verified_again(gateway: Any, path: Path, stranger: Any, live_claims: Claims) -> None:
    good = read_snapshot(path)
    assert good is not None
    forged = [(0, key, value) for key, value in [stranger.record(live_claims(subject="k9", identity="k9"))]]
    write_snapshot(path, good.origin, good.offsets, good.tokens + forged)
    with gateway() as blocks:
        assert blocks.ready.wait(20)
        assert denied(blocks, "k1")
        assert not denied(blocks, "k9")
        assert blocks.refusals == {"signature": 1}


@pytest.mark.usefixtures("written")
def test_with_other_keys_the_topic_is_read_from_its_beginning(
    gateway: Any, broker: Any, jwks: Path, signer: Any, other_signer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    jwks.write_text(json.dumps({"keys": [signer.jwk(), other_signer.jwk()]}), encoding="utf-8")
    with gateway(broker.kafka) as blocks:
        assert blocks.ready.wait(20)
        assert denied(blocks, "k1", "k3")
    assert "the signing keys are others" in caplog.text


@pytest.mark.usefixtures("written")
def test_offsets_that_are_gone_are_ignored(
    gateway: Any, broker: Any, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = read_snapshot(path)
    assert good is not None
    write_snapshot(path, good.origin, {0: 3000, 1: 1, 2: 0, 3: 0}, [one for one in good.tokens if one[0] != 0])
    with gateway(broker.kafka) as blocks:
        assert blocks.ready.wait(20)
        assert denied(blocks, "k1", "k3")
    assert "has no offset 3000" in caplog.text
