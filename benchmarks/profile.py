"""Where each microsecond of detect goes."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.cluster import cluster
from benchmarks.figures import Figure
from benchmarks.throughput import EVENTS, WARM_UP, cost, records

_UNIT = "CPU µs/event"


def profile() -> Iterator[Figure]:
    """The steps of detect, sampled in a worker that reads from and writes to Kafka; they add up to what it used."""
    made = records("zipf", WARM_UP + EVENTS)
    with cluster() as where:
        file = where.folder / "steps.json"
        with where.process(sys.executable, "-m", "benchmarks.sampled", "detect", str(file)) as process:
            process.wait_told("detect: ready")
            cost(where, process, "llm.usage", made[:WARM_UP], WARM_UP // 2, "tripswitch-detect")
            before = _steps(file)
            used = cost(where, process, "llm.usage", made[WARM_UP:], 0, "tripswitch-detect")
            after = _steps(file)
    steps = {name: (seconds - before.get(name, 0.0)) / EVENTS * 1e6 for name, seconds in after.items()}
    outside = used - sum(steps.values())
    if outside > 0:
        steps["threads outside of Python"] = outside
    for name, spent in sorted(steps.items(), key=lambda step: -step[1]):
        yield Figure("profile", name, spent, _UNIT, used, "all of detect, sampled", "Zipf(1.1) over 1 M identities")


def _steps(file: Path) -> dict[str, float]:
    """What was told last, once everything up to now is in it."""
    time.sleep(1.2)
    told: dict[str, float] = json.loads(file.read_text())
    return told
