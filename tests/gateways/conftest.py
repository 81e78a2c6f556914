"""A signing key made for this run, commands as the writer would sign them, and librdkafka's own mock broker."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from joserfc import jws
from joserfc.jwk import RSAKey

from tripswitch_gateway import Command, CommandVerifier, KeyFile, RevocationTable, record_key
from tripswitch_gateway.clock import HeartbeatClock
from tripswitch_gateway.counts import Counts
from tripswitch_gateway.enforcer import Enforcer
from tripswitch_gateway.reader import Reader
from tripswitch_gateway.reports import Reporter

ISSUER = "https://tripswitch.example/ssf"
NOW_MS = 1_795_223_525_000
_CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
EVENT_OF = {
    "revoke": f"{_CAEP}session-revoked",
    "suspend": f"{_CAEP}session-revoked",
    "downgrade": f"{_CAEP}session-revoked",
    "throttle": f"{_CAEP}risk-level-change",
    "restore": "https://schemas.openid.net/secevent/risc/event-type/account-enabled",
}
LIMITS_OF = {"throttle": {"rpm": 60, "tpm": None, "model": None}, "downgrade": {"model": "small", "rpm": None}}


def opaque(name: str) -> dict[str, str]:
    return {"format": "opaque", "id": name}


def make_claims(
    action: str = "suspend",
    scope: str = "identity",
    subject: str = "key_7f3a",
    tenant: str = "acme",
    *,
    identity: str | None = "key_7f3a",
    command_id: str = "cmd-1",
    now_ms: int = NOW_MS,
    **ext: Any,
) -> dict[str, Any]:
    """Claims as on the wire; keyword arguments replace members of ``ext``."""
    if scope == "tenant":
        identity = None
    sub_id: dict[str, Any] = {"format": "complex", "tenant": opaque(tenant)}
    if identity is not None:
        sub_id["user"] = opaque(identity)
    if scope == "session":
        sub_id["session"] = opaque(subject)
    event: dict[str, Any] = {
        "event_timestamp": now_ms // 1000,
        "initiating_entity": "policy",
        "reason_admin": {"en": "231 near-identical calls in 10 minutes"},
        "reason_user": {"en": "This key was paused automatically."},
        "ext": {
            "action": action,
            "scope": scope,
            "tenant": tenant,
            "identity": identity,
            "subject": subject,
            "epoch": now_ms,
            "not_before": now_ms,
            "expires_at": now_ms + 3_600_000,
            "on_expiry": "hold" if action == "revoke" else "restore",
            "limits": LIMITS_OF.get(action),
            "in_flight": "abort",
            "http_status": 403,
            "finding_ids": ["f-1"],
            "evidence_sha256": "f2" * 32,
            "policy": "1",
            "manual": False,
            "contact": "#ai-platform",
        }
        | ext,
    }
    if action == "throttle":
        event |= {"principal": "ROBOT", "current_level": "HIGH"}
    return {
        "iss": ISSUER,
        "jti": command_id,
        "iat": now_ms // 1000,
        "aud": ["tripswitch-gateways"],
        "txn": "inc-1",
        "sub_id": sub_id,
        "events": {EVENT_OF[action]: event},
    }


def ext_of(claims: dict[str, Any]) -> dict[str, Any]:
    [event] = claims["events"].values()
    ext: dict[str, Any] = event["ext"]
    return ext


def key_of(claims: dict[str, Any]) -> str:
    ext = ext_of(claims)
    return record_key(ext["tenant"], ext["scope"], ext["subject"])


VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"


def digest_of(*in_force: tuple[str, int]) -> str:
    """The contract's digest of (record key, epoch), written out plainly."""
    hashes = [hashlib.sha256(key.encode() + b"/" + str(epoch).encode()).digest() for key, epoch in in_force]
    return f"{sum(int.from_bytes(one, 'big') for one in hashes) % 2**256:064x}"


def heartbeat_claims(
    partition: int, at: int, in_force: Iterable[tuple[str, int]] = (), *, sequence: int | None = None, **ext: Any
) -> dict[str, Any]:
    """Claims of a heartbeat as on the wire; keyword arguments replace members of ``ext``."""
    blocks = list(in_force)
    says = {
        "partition": partition,
        "sequence": at if sequence is None else sequence,
        "at": at,
        "interval_ms": 3000,
        "count": len(blocks),
        "digest": digest_of(*blocks),
        "jwks_sha256": "0" * 64,
    } | ext
    return {
        "iss": ISSUER,
        "jti": f"heartbeat/{partition}/{says['sequence']}",
        "iat": at // 1000,
        "aud": ["tripswitch-gateways"],
        "sub_id": {"format": "opaque", "id": f"killswitch/{partition}"},
        "events": {VERIFICATION: {"ext": says}},
    }


class Signer:
    """Signs claims the way the writer of the topic does."""

    def __init__(self, kid: str = "2026-11-a", role: str | None = None) -> None:
        self.kid = kid
        self.role = role
        self.key = RSAKey.generate_key(2048)

    def jwk(self) -> dict[str, Any]:
        role = {} if self.role is None else {"tripswitch_role": self.role}
        return {**self.key.as_dict(private=False), "kid": self.kid, "alg": "RS256", "use": "sig"} | role

    def sign(self, claims: dict[str, Any], **header: Any) -> bytes:
        return self.sign_bytes(json.dumps(claims).encode(), **header)

    def sign_bytes(self, payload: bytes, **header: Any) -> bytes:
        protected = {"alg": "RS256", "typ": "secevent+jwt", "kid": self.kid} | header
        return jws.serialize_compact(protected, payload, self.key, ["RS256"]).encode()

    def heartbeat(
        self, partition: int, at: int, in_force: Iterable[tuple[str, int]] = (), **more: Any
    ) -> tuple[bytes, bytes]:
        """Record key and value of a heartbeat."""
        return f"heartbeat/{partition}".encode(), self.sign(heartbeat_claims(partition, at, in_force, **more))

    def record(self, claims: dict[str, Any]) -> tuple[bytes, bytes]:
        """Record key and value."""
        return key_of(claims).encode(), self.sign(claims)


def write_jwks(path: Path, *keys: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": list(keys)}), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="session")
def stranger() -> Signer:
    """Another key under the same kid: a forger's."""
    return Signer()


@pytest.fixture(scope="session")
def other_signer() -> Signer:
    """The key that comes after the first."""
    return Signer("2026-12-a")


@pytest.fixture(scope="session")
def break_glass() -> Signer:
    """The key for the worst day."""
    return Signer("2026-11-glass", "break-glass")


@pytest.fixture
def claims() -> Callable[..., dict[str, Any]]:
    return lambda *args, **kwargs: deepcopy(make_claims(*args, **kwargs))


@pytest.fixture
def jwks(tmp_path: Path, signer: Signer) -> Path:
    return write_jwks(tmp_path / "jwks.json", signer.jwk())


@pytest.fixture
def verifier(jwks: Path) -> CommandVerifier:
    return CommandVerifier(KeyFile(jwks), ISSUER, clock_ms=lambda: NOW_MS)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    """Poll ``condition`` up to a deadline."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout} s: {what}")
        time.sleep(0.01)


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    return wait_until


@pytest.fixture
def live_claims() -> Callable[..., dict[str, Any]]:
    """Claims made now, for what runs by the wall clock; each greater in epoch than the one before."""
    last = 0

    def make(*args: Any, **kwargs: Any) -> dict[str, Any]:
        nonlocal last
        last = max(last + 1, time.time_ns() // 1_000_000)
        return make_claims(*args, **({"now_ms": last} | kwargs))

    return make


class Topic:
    """A topic that is a list, and one gateway's reader of it, with clocks that a test turns."""

    def __init__(self, jwks: Path, signer: Signer, partitions: int = 1, patience_s: float = 15.0) -> None:
        self.signer = signer
        self.wall_ms = NOW_MS
        """This machine's clock, which may be wrong."""
        self.true_ms = NOW_MS
        """The writer's clock."""
        self.monotonic_s = 1000.0
        self.records: list[list[tuple[bytes | None, bytes | None]]] = [[] for _ in range(partitions)]
        self.acks: list[dict[str, Any]] = []
        self.changes: list[Command] = []
        self.counts = Counts()
        self.clock = HeartbeatClock(lambda: self.wall_ms, lambda: self.monotonic_s)
        self.table = RevocationTable(self.clock.now_ms)
        self.verifier = CommandVerifier(KeyFile(jwks), ISSUER)
        reporter = Reporter("gw-1", "llm.killswitch", self.counts, self.acks.append)
        self.reader = Reader(
            self.table,
            self.verifier,
            self.clock,
            Enforcer(self.table, self.verifier, self.clock, reporter, self.counts, self.changes.append),
            reporter,
            self.counts,
            patience_s=patience_s,
            read_again=self._rewind,
            monotonic=lambda: self.monotonic_s,
        )
        self._positions = [0] * partitions
        self.rewound: list[int] = []

    def write(self, *records: tuple[bytes | None, bytes | None], partition: int = 0) -> None:
        self.records[partition] += records

    def beat(self, *claims: dict[str, Any], partition: int = 0, **more: Any) -> None:
        """A heartbeat by the writer's clock that speaks of these commands."""
        in_force = [
            (record_key(ext["tenant"], ext["scope"], ext["subject"]), ext["epoch"]) for ext in map(ext_of, claims)
        ]
        self.write(
            self.signer.heartbeat(partition, more.pop("at", self.true_ms), in_force, **more), partition=partition
        )

    def read(self) -> None:
        """Have the reader take what it has not read, verify it, and do what is due."""
        if not self.reader.partitions:
            self.reader.begin(range(len(self.records)))
        while any(position < len(self.records[number]) for number, position in enumerate(self._positions)):
            for number, records in enumerate(self.records):
                while self._positions[number] < len(records):
                    offset = self._positions[number]
                    self._positions[number] += 1
                    self.reader.receive(number, offset, *records[offset])
        for number, position in enumerate(self._positions):
            self.reader.reach_end(number, position)
        while self.reader.work():
            pass
        self.reader.tick()
        if any(position < len(self.records[number]) for number, position in enumerate(self._positions)):
            self.read()

    def wait(self, seconds: float) -> None:
        """Time goes by, on every clock."""
        self.monotonic_s += seconds
        self.wall_ms += int(seconds * 1000)
        self.true_ms += int(seconds * 1000)

    def acked(self, name: str) -> list[dict[str, Any]]:
        """The acknowledgements whose command_uid starts with ``name``."""
        return [ack for ack in self.acks if str(ack["command_uid"]).startswith(name)]

    def blocks(self, identity: str = "key_7f3a") -> bool:
        return not self.table.check(identity, tenant="acme").allowed

    def _rewind(self, partition: int) -> None:
        self.rewound.append(partition)
        self._positions[partition] = 0


@pytest.fixture
def make_topic(jwks: Path, signer: Signer) -> Callable[..., Topic]:
    return lambda **more: Topic(jwks, signer, **more)


@pytest.fixture
def topic(jwks: Path, signer: Signer) -> Topic:
    return Topic(jwks, signer)


class MockBroker:
    """librdkafka's mock cluster of one broker; 4 partitions a topic."""

    def __init__(self) -> None:
        self._cluster: Producer | None = Producer(
            {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0}
        )
        [broker] = self._cluster.list_topics(timeout=10).brokers.values()
        self.bootstrap = f"{broker.host}:{broker.port}"
        self.kafka = {"bootstrap.servers": self.bootstrap, "log_level": "0"}
        self.producer = Producer({**self.kafka, "partitioner": "murmur2_random"})

    def create(self, *topics: str) -> None:
        """The mock creates a topic when a producer first asks for it."""
        for topic in topics:
            wait_until(lambda name=topic: self._exists(name), f"topic {topic}")

    def _exists(self, topic: str) -> bool:
        return self.producer.list_topics(topic, timeout=10).topics[topic].error is None

    def send(self, topic: str, key: bytes | None, value: bytes | None, partition: int = -1) -> None:
        self.producer.produce(topic, value, key, partition)
        assert self.producer.flush(10) == 0

    def read(self, topic: str, until: Callable[[list[Message]], bool]) -> list[Message]:
        """All records of ``topic``, in the order of arrival, as soon as ``until`` says that they are enough."""
        consumer = Consumer({**self.kafka, "group.id": "test", "fetch.wait.max.ms": 20})
        count = len(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(count)])
        records: list[Message] = []
        deadline = time.monotonic() + 20
        while not until(records):
            if time.monotonic() > deadline:
                pytest.fail(f"{topic} has only {[record.value() for record in records]}")
            record = consumer.poll(0.05)
            if record is not None and record.error() is None:
                records.append(record)
        consumer.close()
        return records

    def stop(self) -> None:
        """Take the cluster away for good."""
        self._cluster = None


@pytest.fixture
def broker() -> Iterator[MockBroker]:
    broker = MockBroker()
    yield broker
    broker.stop()


@pytest.fixture
def beating(broker: MockBroker, signer: Signer) -> Iterator[None]:
    """A writer that says three times a second, in every partition, that nothing is in force."""
    ended = Event()

    def beat() -> None:
        while not ended.wait(0.3):
            now_ms = time.time_ns() // 1_000_000
            for partition in range(4):
                key, value = signer.heartbeat(partition, now_ms)
                broker.producer.produce("llm.killswitch", value, key, partition)
            broker.producer.poll(0)

    thread = Thread(target=beat)
    thread.start()
    yield
    ended.set()
    thread.join()
