"""`tripswitch doctor` on a real broker: what is well, a canary that every gateway obeys, and what is broken."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tripswitch_gateway import CommandVerifier, KeyFile, RevocationList
from workers import Road, wait_until


@pytest.fixture(scope="module")
def served(road: Road) -> Iterator[Road]:
    """decide, and two gateways that obey it."""
    road.cli("init")
    road.start("decide")
    verifier = CommandVerifier(
        KeyFile(Path(road.environment["TRIPSWITCH_JWKS"])), road.environment["TRIPSWITCH_ISSUER"]
    )
    with ExitStack() as stack:
        gateways = [
            stack.enter_context(RevocationList({"bootstrap.servers": road.bootstrap}, verifier, gateway=name))
            for name in ("eu-1", "eu-2")
        ]
        wait_until(lambda: all(gateway.ready.is_set() for gateway in gateways), "gateways", road)
        wait_until(lambda: len(road.read("llm.killswitch.acks")) >= len(gateways), "their word", road)
        yield road


def examined(road: Road, *words: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    done = road.cli("doctor", "--json", *words, check=False)
    assert done.returncode in (0, 1), done.stderr
    checks: dict[str, list[dict[str, Any]]] = {}
    for check in json.loads(done.stdout):
        checks.setdefault(check["what"], []).append(check)
    return done.returncode, checks


def test_what_is_well_and_a_canary_that_all_obey(served: Road) -> None:
    code, checks = examined(served, "--canary", "acme/canary")
    assert code == 0, [check for some in checks.values() for check in some if check["state"] == "failure"]
    states = {what: {check["state"] for check in some} for what, some in checks.items()}
    assert states.pop("rights") == {"warning"}, checks["rights"]
    assert set(states) == {
        "topics", "heartbeats", "gateway eu-1", "gateway eu-2", "canary at eu-1", "canary at eu-2",
    }  # fmt: skip
    assert {state for some in states.values() for state in some} == {"ok"}
    assert [check["seen"].split()[0] for check in checks["canary at eu-1"]] == ["block", "restore"]


def test_what_is_broken_is_told_with_how_to_mend_it(served: Road) -> None:
    producer = Producer({"bootstrap.servers": served.bootstrap})
    producer.produce("llm.killswitch", b"garbage", b"a" * 64, partition=1)
    producer.flush(10)
    [decide] = served.workers
    served.stop(decide, signal.SIGKILL)
    time.sleep(16)
    code, checks = examined(served)
    assert code == 1
    assert [check["state"] for check in checks["heartbeats"]] == ["failure"]
    [covered] = checks["kill switch"]
    assert "llm.killswitch/1" in covered["seen"]
    assert all(check["mend"] for some in checks.values() for check in some if check["state"] == "failure")
    served.start("decide")


def test_users_mistakes(served: Road) -> None:
    for words in (
        ("--canary", "nobody"),
        ("--probe", "http://127.0.0.1:1"),
        ("--canary", "a/b", "--probe", "http://x"),
    ):
        done = served.cli("doctor", *words, check=False)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
