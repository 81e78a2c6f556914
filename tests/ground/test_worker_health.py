"""The workers' health check, against real consumer groups."""

import runpy
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from streams.settings import Kafka

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
HEALTH = runpy.run_path(str(ROOT / "deploy" / "worker_health.py"))


def test_a_worker_is_healthy_while_its_group_has_it(
    kafka: str, kafka_kind: str, new_topic: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kafka_kind == "mock":
        pytest.skip("the mock cluster cannot describe groups")
    group = f"health-{uuid.uuid4().hex[:8]}"
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": group, "log_level": 0})
    consumer.subscribe([new_topic()])
    deadline = time.monotonic() + DEADLINE_S
    while not consumer.assignment():
        assert time.monotonic() < deadline
        consumer.poll(0.1)
    address = HEALTH["own_address"](kafka)
    assert group in HEALTH["groups_of"](address, Kafka(kafka))
    assert group not in HEALTH["groups_of"]("192.0.2.1", Kafka(kafka))
    monkeypatch.setenv("KAFKA_BOOTSTRAP", kafka)
    assert HEALTH["main"]() == 0
    consumer.close()
    assert group not in HEALTH["groups_of"](address, Kafka(kafka))


def test_no_broker_is_a_reason_and_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "127.0.0.1:1")
    assert HEALTH["main"]() == 1
    assert "cannot ask 127.0.0.1:1" in capsys.readouterr().out
