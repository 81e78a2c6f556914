"""From decide's decision, and from a person's order, to the denial at three gateways, beside ordinary traffic."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import gateway
from benchmarks.cluster import ROOT, Cluster, cluster
from benchmarks.figures import Figure
from benchmarks.latency import lift_caps
from benchmarks.load import STARTED
from schemas.command import record_key
from sinks.killswitch import REQUEST_TYPE, Signer
from streams.orders import make_request

GATEWAYS = ("eu-1", "us-1", "ap-1")
_ISSUER = "https://tripswitch.example/ssf"
_EVENTS_PER_SECOND = 5_000
_ORDERS_PER_SECOND, _SECONDS, _WARM_UP_S = 10, 90, 15
WARM_UP = _WARM_UP_S * _ORDERS_PER_SECOND
"""Orders that are not counted: they meet processes that have done nothing yet."""
_LIMIT_MS, _LIMIT_OF_ORDERS_MS = 250.0, 500.0
_GRACE_S = 10.0


class Order(NamedTuple):
    """A person's order: the identity that it revokes, and when it was handed to the producer (ns)."""

    subject: str
    produced: int


class Denial(NamedTuple):
    """When a gateway first denied a subject (ns), and the command's `not_before` (ms): decide's clock as it signed."""

    at: int
    not_before: int


def denial() -> Iterator[Figure]:
    """p50, p99 and p99.9. All clocks are those of one machine."""
    with cluster() as where, ExitStack() as workers:
        lift_caps(where)
        where.environment |= {"TRIPSWITCH_ISSUER": _ISSUER, "PYTHONPATH": f"{ROOT}:{ROOT / 'gateways' / 'src'}"}
        for name in ("detect", "decide"):
            workers.enter_context(where.worker(name)).wait_told(f"{name}: ready")
        with ExitStack() as gateways:
            for name in GATEWAYS:
                command = sys.executable, "-m", "benchmarks.gateway", name, str(_file(where, name))
                gateways.enter_context(where.process(*command)).wait_told(gateway.READY)
            orders, appended = _order(where)
        denials = [_denials(_file(where, name)) for name in GATEWAYS]
    yield from summed_up(orders, appended, denials)


def _order(where: Cluster) -> tuple[list[Order], dict[str, int]]:
    """Orders at a steady pace beside the load; and by record key, when the broker appended the command (ms)."""
    signer = Signer.read(Path(where.environment["TRIPSWITCH_SIGNING_KEY"]), issuer=_ISSUER, contact="bench")
    producer = Producer({"bootstrap.servers": where.bootstrap, "partitioner": "murmur2_random", "linger.ms": 0})
    # Uncommitted records too: it is the append that is asked for, not the commit.
    reading = {"bootstrap.servers": where.bootstrap, "group.id": "bench", "isolation.level": "read_uncommitted"}
    consumer = Consumer({**reading, "enable.auto.commit": False})
    consumer.assign([TopicPartition("llm.killswitch", n, end) for n, end in where.ends("llm.killswitch").items()])
    orders: list[Order] = []
    appended: dict[str, int] = {}
    seconds = _WARM_UP_S + _SECONDS
    load = sys.executable, "-m", "benchmarks.load", str(_EVENTS_PER_SECOND), str(seconds + 2), "0"
    with where.process(*load) as process:
        process.wait_told(STARTED)
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds + _GRACE_S:
            if now < seconds and len(orders) < now * _ORDERS_PER_SECOND:
                orders.append(_ask(producer, signer, len(orders)))
            producer.poll(0)
            message = consumer.poll(0.005)
            if message is not None and message.error() is None:
                appended.setdefault(message.key().decode(), message.timestamp()[1])
    consumer.close()
    return orders, appended


def _ask(producer: Producer, signer: Signer, k: int) -> Order:
    request = make_request("revoke", tenant(k), f"victim_{k:05d}", "for the figures", "bench")
    token = signer.token(msgspec.to_builtins(request), REQUEST_TYPE)
    moment = time.time_ns()
    producer.produce("llm.requests", token, request.tenant.encode())
    return Order(request.identity, moment)


def tenant(k: int) -> str:
    """The tenant of the k-th order."""
    return f"tenant-{k % 997:03d}"


def _file(where: Cluster, name: str) -> Path:
    return where.folder / f"{name}.denials.jsonl"


def _denials(file: Path) -> dict[str, Denial]:
    """By subject, the first."""
    found: dict[str, Denial] = {}
    for subject, at, not_before in map(json.loads, file.read_text().splitlines()):
        found.setdefault(subject, Denial(at, not_before))
    return found


def summed_up(
    orders: Sequence[Order], appended: Mapping[str, int], denials: Sequence[Mapping[str, Denial]]
) -> Iterator[Figure]:
    """The figures of `orders`: `appended` by record key, `denials` of each gateway by subject."""
    decided: list[float] = []
    ordered: list[float] = []
    slowest: list[float] = []
    before: list[float] = []
    after: list[float] = []
    missing = 0
    for k, order in enumerate(orders):
        seen = [found[order.subject] for found in denials if order.subject in found]
        missing += len(denials) - len(seen)
        if k < WARM_UP or not seen:
            continue
        decided += [one.at / 1e6 - one.not_before for one in seen]
        ordered += [(one.at - order.produced) / 1e6 for one in seen]
        slowest.append(max(one.at for one in seen) / 1e6 - seen[0].not_before)
        if (at := appended.get(record_key(tenant(k), "identity", order.subject))) is not None:
            before.append(at - seen[0].not_before)
            after += [one.at / 1e6 - at for one in seen]
    extra = {
        "orders": len(orders), "denials": len(decided), "missing": missing,
        "slowest_gateway_p99_ms": round(_at(slowest, 99.0), 1),
        "decision_to_append_p50_ms": round(_at(before, 50.0), 1),
        "append_to_denial_p50_ms": round(_at(after, 50.0), 1), "append_to_denial_p99_ms": round(_at(after, 99.0), 1),
    }  # fmt: skip
    conditions = f"{len(denials)} gateways, {_EVENTS_PER_SECOND:,} events/s, {_ORDERS_PER_SECOND} orders/s"
    for what, waits, limit in (
        ("decision to denial", decided, _LIMIT_MS), ("order to denial", ordered, _LIMIT_OF_ORDERS_MS)
    ):  # fmt: skip
        for share, name in ((50.0, "p50"), (99.0, "p99"), (99.9, "p99.9")):
            yield Figure("denial", f"{what}, {name}", _at(waits, share), "ms", limit, "limit", conditions, extra)


def _at(values: list[float], share: float) -> float:
    return float(np.percentile(values, share))
