"""Gateways on a real Kafka on a bad day: what goes wrong, and what they go on doing."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Self

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from kafka_node import KafkaNode
from tripswitch_gateway import CommandVerifier, KeyFile, RevocationList, record_key

Claims = Callable[..., dict[str, Any]]
Gateway = Callable[..., RevocationList]
PARTITIONS = 2
PATIENCE_S = 3.0
# As `tripswitch init` makes it, but that compaction does not wait.
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "1000",
    "min.cleanable.dirty.ratio": "0.01",
    "max.compaction.lag.ms": "1000",
    "delete.retention.ms": "100",
}
# The cleaner looks this often, and a short-lived broker has little memory for it.
QUICK_CLEANER = {"log.cleaner.backoff.ms": "500"}


class Writer:
    """Signs and publishes commands, and a heartbeat of each partition three times a second."""

    def __init__(self, bootstrap: str, topic: str, signer: Any, claims: Claims) -> None:
        self.topic = topic
        self.kafka = {"bootstrap.servers": bootstrap, "log_level": "0"}
        self.signer = signer
        self._claims = claims
        # What the broker did not take in time is lost: a heartbeat that comes late is worth nothing.
        self.producer = Producer({**self.kafka, "enable.idempotence": True, "message.timeout.ms": 60_000})
        self._in_force: list[dict[str, dict[str, Any]]] = [{} for _ in range(PARTITIONS)]
        self._epoch = 0
        self._lock = Lock()
        self._ended = Event()
        self._thread = Thread(target=self._beat)
        admin = AdminClient(self.kafka)
        admin.create_topics([NewTopic(topic, PARTITIONS, config=COMPACTED)])[topic].result(60)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.producer.purge()
        self.producer.flush(10)

    def order(self, action: str, *identities: str, **ext: Any) -> None:
        """A command on each of these identities, in the partition that follows from the name."""
        for identity in identities:
            now_ms = int(time.time() * 1000)
            self._epoch = max(self._epoch + 1, now_ms)
            made = self._claims(
                action,
                subject=identity,
                identity=identity,
                now_ms=now_ms,
                epoch=self._epoch,
                command_id=identity,
                **ext,
            )
            key, value = self.signer.record(made)
            partition = partition_of(identity)
            # A heartbeat between the two would be wrong.
            with self._lock:
                self._in_force[partition][key.decode()] = made
                self.send(key, value, partition)
        self.producer.flush(30)

    def send(self, key: bytes, value: bytes | None, partition: int) -> None:
        while True:
            try:
                self.producer.produce(self.topic, value, key, partition)
                return
            except BufferError:
                self.producer.poll(0.1)

    def _beat(self) -> None:
        while not self._ended.wait(0.3):
            now_ms = int(time.time() * 1000)
            for partition in range(PARTITIONS):
                with self._lock:
                    held = [(key, ext_of(made)) for key, made in self._in_force[partition].items()]
                    live = [
                        (key, ext["epoch"])
                        for key, ext in held
                        if ext["action"] != "restore" and (ext["on_expiry"] == "hold" or ext["expires_at"] > now_ms)
                    ]
                    self.send(*self.signer.heartbeat(partition, now_ms, live), partition)
            self.producer.poll(0)


def ext_of(claims: dict[str, Any]) -> dict[str, Any]:
    [event] = claims["events"].values()
    ext: dict[str, Any] = event["ext"]
    return ext


def partition_of(identity: str) -> int:
    return sum(identity.encode()) % PARTITIONS


@pytest.fixture
def gateway(jwks: Path, claims: Claims) -> Iterator[Gateway]:
    """Start a gateway; it is closed after the test."""
    started: list[RevocationList] = []

    def start(writer: Writer, **more: Any) -> RevocationList:
        options = {"gateway": f"gw-{len(started)}", "topic": writer.topic, "acks_topic": None} | more
        verifier = CommandVerifier(KeyFile(jwks), claims()["iss"])
        blocks = RevocationList(writer.kafka, verifier, patience_s=PATIENCE_S, **options).start()
        started.append(blocks)
        return blocks

    yield start
    for blocks in started:
        blocks.close()
        assert not blocks.alive


@pytest.fixture
def writer(kafka_kind: str, kafka: str, signer: Any, claims: Claims) -> Iterator[Writer]:
    """A writer on the broker that the whole run shares."""
    if kafka_kind == "mock":
        pytest.skip("the mock cluster neither compacts nor makes topics as we ask")
    with Writer(kafka, f"test-{uuid.uuid4().hex[:12]}", signer, claims) as writer:
        yield writer


@pytest.fixture
def own_writer(kafka_node: KafkaNode, signer: Any, claims: Claims) -> Iterator[Writer]:
    """A writer on the test's own broker."""
    with Writer(kafka_node.bootstrap, "llm.killswitch", signer, claims) as writer:
        yield writer


def denies(blocks: RevocationList, *identities: str) -> Callable[[], bool]:
    return lambda: not any(blocks.check(identity, tenant="acme").allowed for identity in identities)


def proven(blocks: RevocationList) -> Callable[[], bool]:
    return lambda: blocks.ready.is_set() and not blocks.stale


def test_the_broker_goes_away_and_comes_back(
    kafka_node: KafkaNode, own_writer: Writer, gateway: Gateway, wait_until: Any
) -> None:
    last_known, closed = gateway(own_writer), gateway(own_writer, on_stale="closed")
    open_ = gateway(own_writer, on_stale="open")
    for blocks in (last_known, closed, open_):
        wait_until(proven(blocks), "proven", 60)
    own_writer.order("suspend", "k1")
    for blocks in (last_known, closed, open_):
        wait_until(denies(blocks, "k1"), "block")
        assert blocks.check("k2", tenant="acme").allowed
    kafka_node.kill9()
    for blocks in (last_known, closed, open_):
        wait_until(lambda one=blocks: one.stale, "stale")
    assert denies(last_known, "k1")()
    assert last_known.check("k2", tenant="acme").allowed
    assert denies(closed, "k1", "k2")()
    assert [closed.check(name, tenant="acme").status for name in ("k1", "k2")] == [403, 503]
    assert open_.check("k1", tenant="acme").allowed
    kafka_node.start()
    for blocks in (last_known, closed, open_):
        wait_until(proven(blocks), "proven again", 60)
    own_writer.order("restore", "k1")
    own_writer.order("revoke", "k3")
    for blocks in (last_known, closed, open_):
        wait_until(denies(blocks, "k3"), "the next block")
        assert blocks.check("k1", tenant="acme").allowed
        assert blocks.refusals == {}


def test_a_restart_in_mid_incident(
    kafka_node: KafkaNode, own_writer: Writer, gateway: Gateway, wait_until: Any, tmp_path: Path
) -> None:
    snapshot = tmp_path / "blocks"
    first = gateway(own_writer, snapshot=snapshot)
    wait_until(proven(first), "proven", 60)
    own_writer.order("suspend", "k1", "k2")
    own_writer.order("restore", "k2")
    wait_until(lambda: first.counts.applied.total() == 3, "three commands")
    first.close()
    # With the broker, and with the file or without it.
    for more in ({"snapshot": snapshot}, {}):
        again = gateway(own_writer, **more)
        wait_until(proven(again), "proven after a restart", 60)
        assert denies(again, "k1")()
        assert again.check("k2", tenant="acme").allowed
        again.close()
    # Without the broker.
    kafka_node.stop()
    with_file, without = gateway(own_writer, snapshot=snapshot), gateway(own_writer)
    assert with_file.ready.wait(60)
    assert denies(with_file, "k1")()
    assert with_file.check("k2", tenant="acme").allowed
    assert with_file.stale
    assert not without.ready.is_set()
    kafka_node.start()
    for blocks in (with_file, without):
        wait_until(proven(blocks), "proven when the broker is back", 60)
        assert denies(blocks, "k1")()


def read_all(writer: Writer) -> dict[bytes, int]:
    """How many records there are of each key."""
    consumer = Consumer({**writer.kafka, "group.id": "test", "enable.partition.eof": True})
    consumer.assign([TopicPartition(writer.topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    found: dict[bytes, int] = {}
    ended = 0
    while ended < PARTITIONS:
        message = consumer.poll(10)
        assert message is not None
        if message.error() is not None:
            ended += 1
        else:
            found[message.key()] = found.get(message.key(), 0) + 1
    consumer.close()
    return found


def test_compaction(
    kafka_classpath: Path, tmp_path: Path, signer: Any, claims: Claims, gateway: Gateway, wait_until: Any
) -> None:
    with (
        KafkaNode(kafka_classpath, tmp_path / "kafka", QUICK_CLEANER) as node,
        Writer(node.bootstrap, "llm.killswitch", signer, claims) as writer,
    ):
        warm = gateway(writer)
        wait_until(proven(warm), "proven", 60)
        for _ in range(20):
            writer.order("suspend", "k1", "k2", "k3")
        writer.order("restore", "k2")
        wait_until(lambda: warm.counts.applied.total() == 61, "all commands")
        # A thief of the broker deletes a live block, and compaction takes it away for good.
        stolen = record_key("acme", "identity", "k3").encode()
        writer.send(stolen, None, partition_of("k3"))
        kept = record_key("acme", "identity", "k1").encode()
        wait_until(lambda: (found := read_all(writer)).get(kept) == 1 and stolen not in found, "compaction", 90)
        assert denies(warm, "k1", "k3")()
        assert proven(warm)()
        cold = gateway(writer)
        assert cold.ready.wait(60)
        assert denies(cold, "k1")()
        assert cold.check("k2", tenant="acme").allowed
        # It cannot know what it was never shown, but that there is something.
        wait_until(lambda: cold.counts.disagreements == 1, "a disagreement")
        assert cold.stale
        writer.order("suspend", "k3")
        wait_until(proven(cold), "proven once the writer has issued it again", 60)
        assert denies(cold, "k1", "k3")()


@pytest.mark.parametrize("off_s", [-300, 300])
def test_a_clock_that_is_five_minutes_off(
    writer: Writer, gateway: Gateway, wait_until: Any, monkeypatch: pytest.MonkeyPatch, off_s: int
) -> None:
    writer.order("suspend", "k1")
    monkeypatch.setattr(time, "time_ns", lambda: int((time.time() + off_s) * 1e9))
    blocks = gateway(writer)
    wait_until(proven(blocks), "proven", 60)
    assert denies(blocks, "k1")()
    ends_at = int(time.time() * 1000) + 5_000
    writer.order("suspend", "k2", expires_at=ends_at)
    wait_until(denies(blocks, "k2"), "block")
    wait_until(lambda: not denies(blocks, "k2")(), "its end")
    assert abs(time.time() * 1000 - ends_at) < 60_000
    assert denies(blocks, "k1")()
    assert blocks.refusals == {}


def test_many_commands_at_the_start(writer: Writer, gateway: Gateway, wait_until: Any) -> None:
    names = [f"k{number}" for number in range(2_000)]
    writer.order("suspend", *names)
    writer.order("restore", *names[:100])
    blocks = gateway(writer)
    wait_until(proven(blocks), "proven", 60)
    assert denies(blocks, *names[100:])()
    assert all(blocks.check(name, tenant="acme").allowed for name in names[:100])


def test_a_thief_of_the_broker(
    writer: Writer, gateway: Gateway, signer: Any, stranger: Any, claims: Claims, wait_until: Any
) -> None:
    """Some of what test_security tries, on the wire."""
    writer.order("suspend", "k1")
    key, partition = record_key("acme", "identity", "k1").encode(), partition_of("k1")
    warm = gateway(writer)
    wait_until(proven(warm), "proven", 60)
    restore = claims("restore", subject="k1", identity="k1", now_ms=int(time.time() * 1000) + 1)
    head, payload, _ = signer.sign(restore).split(b".")
    old = claims("restore", subject="k1", identity="k1", now_ms=int(time.time() * 1000) - 60_000)
    attempts = [
        (None, "tombstone"),
        (b"garbage", "malformed"),
        (stranger.sign(restore), "signature"),
        (head + b"." + payload + b".", "signature"),
        (signer.sign(restore | {"iss": "https://elsewhere.example"}), "issuer"),
        (signer.sign(claims("restore", subject="k2", identity="k2")), "key-mismatch"),
        (signer.sign(old), "older-epoch"),
    ]
    for value, _ in attempts:
        writer.send(key, value, partition)
    beat = json.dumps({"alg": "none"}).encode()
    writer.send(b"heartbeat/0", beat, 0)
    writer.producer.flush(30)
    wait_until(lambda: sum(warm.refusals.values()) == len(attempts) + 1, "all refused")
    assert {reason for _, reason in attempts} == warm.refusals.keys()
    cold = gateway(writer)
    for blocks in (warm, cold):
        wait_until(proven(blocks), "proven", 60)
        assert denies(blocks, "k1")()
