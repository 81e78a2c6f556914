"""Publishes usage events at a rate, and attacks among them: `python -m benchmarks.load RATE SECONDS RUN`.

Bystanders are drawn from Zipf(1.1) over a million. Twice a second an attack begins: a fresh identity that repeats one
call in one session, ten times a second, until any gateway would have refused it. The id of an attack's event ends with
the moment in ns at which it was handed to the producer.
"""

import json
import os
import sys
import time
from collections.abc import Iterator

import numpy as np
from confluent_kafka import Producer

from benchmarks.traffic import drawn, head, subject, tails
from schemas.times import format_millis

PROBE = "bench.probe"
"""A topic that nobody works on: beside each attack's event a record goes there and straight to a reader."""
ATTACKS_PER_SECOND = 2.0
CALLS, PAUSE_S = 24, 0.1
STARTED = "load: started"
_POOL = 100_000
"""Calls of bystanders that are made in advance but for id, fingerprint and time."""
_TICK_S = 0.005


def attacks(seconds: float, seed: int = 7) -> list[tuple[float, int]]:
    """(when in s, whose) of every attack's calls, in order. The last attacks end with the load."""
    begins = np.arange(0.5, seconds - CALLS * PAUSE_S, 1 / ATTACKS_PER_SECOND)
    begins += np.random.default_rng(seed).random(len(begins)) / 10
    return sorted((begin + n * PAUSE_S, k) for k, begin in enumerate(begins.tolist()) for n in range(CALLS))


def attacker(run: int, k: int) -> str:
    """The name of the k-th attacker of a run."""
    return f"loop_{run}_{k:05d}"


def attack_call(run: int, k: int, moment_ns: int) -> bytes:
    """A call of the k-th attacker."""
    event = {
        "specversion": "1.0", "type": "llm.usage.v1", "id": f"{run}-{k}-{moment_ns}", "source": "gateway/0",
        "subject": attacker(run, k), "time": format_millis(moment_ns // 1_000_000),
        "data": {
            "tenant": f"tenant-{k % 997:03d}", "credential_id": f"cred_loop_{run}_{k}", "workload": "agent",
            "model": "gpt-5-mini", "status": 200, "input_tokens": 1800, "output_tokens": 120, "cost_usd": 0.003,
            "session_id": f"run-{run}-{k}", "fingerprint": "f00d", "country": "DE", "asn": 3320,
        },
    }  # fmt: skip
    return json.dumps(event).encode()


def moment_of(unique: str) -> int:
    """The moment (ns) at which an attack's event was handed to the producer."""
    return int(unique.rpartition("-")[2])


def _bystanders() -> Iterator[tuple[bytes, bytes]]:
    who = drawn(_POOL, 1_000_000, "zipf")
    pool = [(subject(k).encode(), tail) for k, tail in zip(who.tolist(), tails(who), strict=True)]
    while True:
        yield from pool


def main() -> None:
    rate, seconds, run = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    producer = Producer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP"],
            "partitioner": "murmur2_random",
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    bystanders, due = _bystanders(), attacks(seconds)
    next(bystanders)
    print(STARTED, flush=True)
    sent, called, late = 0, 0, 0.0
    began = time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        while called < len(due) and due[called][0] <= now:
            k, moment = due[called][1], time.time_ns()
            producer.produce("llm.usage", attack_call(run, k, moment), attacker(run, k).encode())
            producer.produce(PROBE, str(moment).encode())
            late = max(late, now - due[called][0])
            called += 1
        text = format_millis(time.time_ns() // 1_000_000)
        # At the most a tenth of a second's worth, so that attacks do not wait behind what is made up for.
        for _ in range(min(int(now * rate) - sent, int(rate / 10) + 1)):
            key, tail = next(bystanders)
            producer.produce("llm.usage", head(f"{run}-{sent:x}", text) + tail, key)
            sent += 1
        producer.poll(0)
        time.sleep(max(0.0, _TICK_S - (time.monotonic() - began - now)))
    spent = time.monotonic() - began
    producer.flush(60)
    print(json.dumps({"per_second": (sent + called) / spent, "late_ms": late * 1000, "attacks": len(due) // CALLS}))


if __name__ == "__main__":
    main()
