"""The broker of docker-compose.yml: TLS, a principal for each part, and no right that it does not need.

Claimed: each part works with the rights of streams/rights.py and a certificate of its own, a gateway by its password;
who takes a gateway over can write no command; who has no name reaches nothing.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from composed import PASSWORD, broker_settings
from kafka_node import KafkaNode, free_port
from schemas.topics import ACKS, AUDIT, KILLSWITCH, REQUESTS, USAGE
from streams.rights import RIGHTS
from traffic import Story
from tripswitch_gateway import CommandVerifier, KeyFile, RevocationList
from workers import Road, wait_until

ROOT = Path(__file__).parents[2]
CLIENTS = ["tripswitch-admin", *(f"tripswitch-{role}" for role in RIGHTS)]


class Secured:
    """A road on such a broker, and how each role reaches it."""

    def __init__(self, road: Road, certificates: Path, gateways: str) -> None:
        self.road = road
        self.certificates = certificates
        self._gateways = gateways

    def environment(self, role: str) -> dict[str, str]:
        """What Compose gives to the containers of a role."""
        at = self.certificates / f"tripswitch-{role}"
        return {
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CA": str(at / "ca.pem"),
            "KAFKA_SSL_CERT": str(at / "certificate.pem"),
            "KAFKA_SSL_KEY": str(at / "key.pem"),
        }

    def gateway(self, password: str = PASSWORD) -> dict[str, str]:
        """The options of a gateway outside the containers."""
        return {
            "bootstrap.servers": self._gateways,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "tripswitch-gateway",
            "sasl.password": password,
            "ssl.ca.location": str(self.certificates / "tripswitch-gateway" / "ca.pem"),
        }


def as_client(certificates: Path, name: str) -> dict[str, str]:
    """librdkafka's options of the principal `name`."""
    at = certificates / name
    return {
        "security.protocol": "SSL",
        "ssl.ca.location": str(at / "ca.pem"),
        "ssl.certificate.location": str(at / "certificate.pem"),
        "ssl.key.location": str(at / "key.pem"),
    }


@pytest.fixture(scope="module")
def secured(kafka_classpath: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    certificates, gateways = folder / "certificates", free_port()
    made = [sys.executable, str(ROOT / "deploy" / "certificates.py"), str(certificates)]
    made += ["--broker", "kafka:localhost,127.0.0.1", *(word for name in CLIENTS for word in ("--client", name))]
    subprocess.run(made, check=True, capture_output=True)
    admin = as_client(certificates, "tripswitch-admin")
    node = KafkaNode(kafka_classpath, folder / "kafka", clients=admin)
    ours = node.settings
    at = f"WORKERS://{node.bootstrap},GATEWAYS://127.0.0.1:{gateways}"
    places = {
        "listeners": f"{at},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": at,
        "ssl.keystore.location": str(certificates / "kafka" / "keystore.pem"),
        "ssl.truststore.location": str(certificates / "kafka" / "ca.pem"),
        "controller.quorum.voters": ours["controller.quorum.voters"],
        "log.dirs": ours["log.dirs"],
    }
    node.settings = {**ours, **broker_settings(), **places}
    with node, closing(Road(node.bootstrap, folder, clients=admin)) as road:
        it = Secured(road, certificates, f"127.0.0.1:{gateways}")
        road.environment |= {**it.environment("admin"), "KAFKA_GRANT_RIGHTS": "true"}
        assert "rights of User:tripswitch-detect" in road.cli("init").stdout
        yield it


def test_each_part_works_with_its_own_rights(secured: Secured) -> None:
    road = secured.road
    for app in ("detect", "decide", "archive"):
        road.start(app, **secured.environment(app))
    verifier = CommandVerifier(
        KeyFile(Path(road.environment["TRIPSWITCH_JWKS"])), road.environment["TRIPSWITCH_ISSUER"]
    )
    with RevocationList(secured.gateway(), verifier, gateway="outside") as blocks:
        producer = Producer({**secured.gateway(), "partitioner": "murmur2_random", "linger.ms": 5})
        for event in Story(int(time.time() * 1000)).events:
            producer.produce(USAGE, json.dumps(event).encode(), event["subject"].encode())
        assert producer.flush(30) == 0
        wait_until(
            lambda: not blocks.check("key_stolen", credential="cred_key_stolen", tenant="acme").allowed,
            "a denial",
            road,
        )
        words = ("suspend", "acme/key_by_hand", "--reason", "a person says so")
        road.cli(*words, **secured.environment("operator"))
        wait_until(lambda: not blocks.check("key_by_hand", tenant="acme").allowed, "the person's order", road)
    health = [sys.executable, str(ROOT / "deploy" / "worker_health.py")]
    named = {**road.environment, **secured.environment("detect")}
    asked = subprocess.run(health, env=named, capture_output=True, text=True, check=False)
    assert (asked.returncode, "tripswitch-detect" in asked.stdout) == (0, True), asked.stdout + asked.stderr
    wait_until(lambda: len(road.read(ACKS)) > 1, "acknowledgements", road)
    for app in ("detect", "decide", "archive"):
        wait_until(lambda app=app: road.lag(app) == 0, f"{app} has read everything", road)
    archive = road.workers[-1]
    assert road.stop(archive) == 0
    found = json.loads(road.cli("incidents", "--json", **secured.environment("operator")).stdout)
    assert "key_stolen" in {incident["identity"] for incident in found}
    assert "uthoriz" not in road.logs()


def test_what_workers_and_commands_wrote_has_no_secret(secured: Secured) -> None:
    """Their logs, searched for every line of every private key, and for the password."""
    keys = [*secured.certificates.glob("*/key.pem"), Path(secured.road.environment["TRIPSWITCH_SIGNING_KEY"])]
    secrets = {line for key in keys for line in key.read_text().splitlines() if not line.startswith("-")}
    secrets.add(secured.gateway()["sasl.password"])
    written = [log.read_text(errors="replace") for log in secured.road.folder.glob("*.log")]
    assert len(keys) > len(CLIENTS)
    assert len(written) >= 3
    assert not [secret for secret in secrets if any(secret in text for text in written)]


@pytest.mark.parametrize("topic", [KILLSWITCH, AUDIT, REQUESTS])
def test_a_gateway_writes_no_command(secured: Secured, topic: str) -> None:
    refused: list[KafkaError] = []
    producer = Producer({**secured.gateway(), "log_level": 0})
    producer.produce(topic, b"x", b"y", on_delivery=lambda error, _: refused.append(error))
    producer.flush(30)
    assert [error.code() for error in refused] == [KafkaError.TOPIC_AUTHORIZATION_FAILED]


@pytest.mark.parametrize("role", sorted(set(RIGHTS) - {"decide", "break-glass"}))
def test_nobody_but_decide_writes_the_kill_switch(secured: Secured, role: str) -> None:
    options = {"bootstrap.servers": secured.road.bootstrap, **as_client(secured.certificates, f"tripswitch-{role}")}
    refused: list[KafkaError] = []
    producer = Producer({**options, "log_level": 0})
    producer.produce(KILLSWITCH, b"x", b"y", on_delivery=lambda error, _: refused.append(error))
    producer.flush(30)
    assert [error.code() for error in refused] == [KafkaError.TOPIC_AUTHORIZATION_FAILED]
    thief = Producer({**options, "log_level": 0, "transactional.id": "tripswitch-decide-0"})
    with pytest.raises(KafkaException) as caught:
        thief.init_transactions(10)
    assert caught.value.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def test_a_gateway_reads_nobodys_usage(secured: Secured) -> None:
    consumer = Consumer({**secured.gateway(), "group.id": "tripswitch-gateway", "log_level": 0})
    consumer.subscribe([USAGE])
    message, end = None, time.monotonic() + 30
    while message is None and time.monotonic() < end:
        message = consumer.poll(1)
    consumer.close()
    assert message is not None
    assert message.error() is not None
    assert message.error().code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_who_has_no_name_reaches_nothing(secured: Secured) -> None:
    bare = {"bootstrap.servers": secured.road.bootstrap, "log_level": 0}
    ca = secured.gateway()["ssl.ca.location"]
    for options in (
        bare,
        {**bare, "security.protocol": "SSL", "ssl.ca.location": ca},
        {**secured.gateway("wrong"), "log_level": 0},
    ):
        with pytest.raises(KafkaException):
            AdminClient(options).list_topics(timeout=5)
