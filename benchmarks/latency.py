"""From the moment a usage event is produced to the arrival of the command that it caused, through detect and decide."""

import base64
import json
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from confluent_kafka import Consumer, KafkaError, TopicPartition

from benchmarks.cluster import PARTITIONS, ROOT, Cluster, cluster
from benchmarks.figures import Figure
from benchmarks.load import ATTACKS_PER_SECOND, PROBE, moment_of
from schemas.command import Command, from_claims
from schemas.finding import Finding, decode_signal
from schemas.heartbeat import is_heartbeat

_LOADS = (1_000, 60), (5_000, 120), (20_000, 60)
"""Events per second, and for how many seconds."""
_WARM_UP_S = 5
_LIMIT_MS = 500.0
_GRACE_S = 10.0
_CAPS = "cap_tenant", "cap_all"


class Arrival(NamedTuple):
    """A record that was read, and when (ns)."""

    at: int
    topic: str
    value: bytes


def latency() -> Iterator[Figure]:
    """p50, p99 and p99.9 at several loads. All clocks are those of one machine."""
    with cluster() as where:
        lift_caps(where)
        where.make_topic(PROBE)
        with where.worker("detect") as detect, where.worker("decide") as decide:
            detect.wait_told("detect: ready")
            decide.wait_told("decide: ready")
            for run, (rate, seconds) in enumerate(_LOADS):
                yield from _measured(where, run, rate, seconds + _WARM_UP_S)
                detect.check()
                decide.check()


def lift_caps(where: Cluster) -> None:
    """Attacks come by the hundred here: the caps must not bind."""
    lines = (ROOT / "policy.toml").read_text().splitlines()
    lifted = [f"{line.split()[0]} = 1000000" if line.startswith(_CAPS) else line for line in lines]
    policy = where.folder / "policy.toml"
    policy.write_text("\n".join(lifted) + "\n")
    where.environment["TRIPSWITCH_POLICY"] = str(policy)


def _measured(where: Cluster, run: int, rate: int, seconds: int) -> Iterator[Figure]:
    consumer = Consumer({"bootstrap.servers": where.bootstrap, "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition(t, n, end) for t in ("llm.killswitch", PROBE) for n, end in where.ends(t).items()])
    arrivals: list[Arrival] = []
    with where.process(sys.executable, "-m", "benchmarks.load", str(rate), str(seconds), str(run)) as load:
        while load.child.poll() is None:
            _take(consumer, arrivals)
        told = json.loads(load.told().splitlines()[-1])
        committed = where.committed("tripswitch-detect", "llm.usage")
        behind = sum(end - committed[n] for n, end in where.ends("llm.usage").items())
        quiet = time.monotonic() + _GRACE_S
        while time.monotonic() < quiet:
            if _take(consumer, arrivals):
                quiet = time.monotonic() + _GRACE_S
    consumer.close()
    waits = _waits(where, run, arrivals)
    # The first attacks meet processes that have done nothing yet.
    kept = [wait for k, wait in sorted(waits.items()) if k >= _WARM_UP_S * ATTACKS_PER_SECOND]
    straight = [(arrived - int(value)) / 1e6 for arrived, topic, value in arrivals if topic == PROBE]
    extra = {
        "attacks": len(kept), "without_a_command": int(told["attacks"]) - len(waits),
        "sent_per_second": round(told["per_second"]), "events_behind_at_the_end": behind,
        "straight_through_the_broker_p50_ms": round(float(np.percentile(straight, 50)), 1),
        "straight_through_the_broker_p99_ms": round(float(np.percentile(straight, 99)), 1),
    }  # fmt: skip
    enough = len(kept) >= 1000
    for share, name in ((50.0, "p50"), (99.0, "p99"), (99.9, "p99.9") if enough else (100.0, "the greatest")):
        value = float(np.percentile(kept, share))
        yield Figure(
            "latency", f"event to command, {name}", value, "ms", _LIMIT_MS, "limit", f"{rate:,} events/s", extra
        )


def _take(consumer: Consumer, arrivals: list[Arrival]) -> bool:
    """Waits a moment for a record."""
    message = consumer.poll(0.2)
    if message is None or message.error() is not None or message.value() is None or is_heartbeat(message.key()):
        return False
    arrivals.append(Arrival(time.time_ns(), message.topic(), message.value()))
    return True


def _waits(where: Cluster, run: int, arrivals: list[Arrival]) -> dict[int, float]:
    """By attack: ms from its cause to its first command. A command that names several findings waited for the last."""
    caused = _causes(where)
    waits: dict[int, float] = {}
    for arrived, topic, value in arrivals:
        if topic == PROBE:
            continue
        command = _command(value)
        causes = [caused[name] for name in command.finding_ids if name in caused]
        if command.action == "restore" or not causes:
            continue
        cause = max(causes, key=moment_of)
        of_run, k, _ = cause.split("-")
        if int(of_run) == run:
            waits.setdefault(int(k), (arrived - moment_of(cause)) / 1e6)
    return waits


def _causes(where: Cluster) -> dict[str, str]:
    """By finding about an attacker: the id of the event that caused it."""
    consumer = Consumer({"bootstrap.servers": where.bootstrap, "group.id": "bench", "enable.partition.eof": True})
    consumer.assign([TopicPartition("llm.signals", n, 0) for n in range(PARTITIONS)])
    caused: dict[str, str] = {}
    read = 0
    while read < PARTITIONS:
        for message in consumer.consume(2000, timeout=1.0):
            if message.error() is not None:
                read += message.error().code() == KafkaError._PARTITION_EOF
                continue
            signal = decode_signal(message.value())
            if isinstance(signal, Finding) and signal.identity.startswith("loop_") and signal.evidence.cause:
                caused[signal.finding_id] = signal.evidence.cause.id
    consumer.close()
    return caused


def _command(token: bytes) -> Command:
    payload = token.split(b".")[1]
    return from_claims(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
