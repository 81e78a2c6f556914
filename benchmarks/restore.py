"""How long a worker that takes over needs until the state is back, after ten minutes of load since it was whole.

A worker meets every identity of a million once, then ten minutes' worth of Zipf(1.1) load by the events' clock, which
is published as fast as it goes; then it is killed, and another takes over. Its own word on standard error is the time.
"""

import re
import signal
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.cluster import Cluster, Process, cluster
from benchmarks.figures import Figure, Unable
from benchmarks.traffic import drawn, events

_IDENTITIES = 1_000_000
_MINUTES = 10
_PER_SECOND = 1_500
_BATCH = 100_000
_STATE = "llm.state.detect"
_RESTORED = re.compile(r"detect: restored (\d+) partitions in ([\d.]+) s, (\d+) identities")
_LIMIT_S = 30.0


def restore() -> Iterator[Figure]:
    """Seconds to restore, and the size of the state topic on disk."""
    with cluster() as where:
        # The same member of the group comes back, so that the broker does not first wait for it to be missed.
        where.environment["KAFKA_GROUP_INSTANCE"] = "bench"
        with where.worker("detect") as worker:
            worker.wait_told("detect: ready")
            if _STATE not in where.topics():
                raise Unable(f"this tripswitch keeps no state in {_STATE}")
            _load(where, worker)
            resident = worker.resident()
            worker.child.send_signal(signal.SIGKILL)
            worker.child.wait()
        on_disk = sum(file.stat().st_size for file in where.records.glob(f"{_STATE}-*/*.log"))
        began = time.monotonic()
        with where.worker("detect") as worker:
            worker.wait_told("detect: restored")
            whole = time.monotonic() - began
            told = _RESTORED.search(worker.told())
            if told is None:
                raise RuntimeError(f"no figure in what the worker says:\n{worker.told()}")
            again = worker.resident()
    partitions, seconds, identities = int(told[1]), float(told[2]), int(told[3])
    conditions = f"{identities:,} identities in {partitions} partitions, after {_MINUTES} minutes of load"
    extra = {
        "from_start_to_restored_s": round(whole, 1),
        "resident_before_mb": resident // 10**6,
        "resident_after_mb": again // 10**6,
    }
    yield Figure("restore", "state restored by a new worker", seconds, "s", _LIMIT_S, "limit", conditions, extra)
    yield Figure(
        "restore", "state topic on disk", on_disk / 1e6, "MB", resident / 1e6, "memory of the worker", conditions
    )


def _load(where: Cluster, worker: Process) -> None:
    """Every identity once, then the load; returns when all of it is in a checkpoint."""
    load = _MINUTES * 60 * _PER_SECOND
    who = np.concatenate([np.random.default_rng(3).permutation(_IDENTITIES), drawn(load, _IDENTITIES, "zipf")])
    # The first meeting at ten times the rate: what counts are the minutes after it.
    first_s, last_s = _IDENTITIES / (10 * _PER_SECOND), _MINUTES * 60
    begins = int((time.time() - first_s - last_s - 30) * 1000)
    for first in range(0, len(who), _BATCH):
        met = first < _IDENTITIES
        per_second = 10 * _PER_SECOND if met else _PER_SECOND
        at = first / per_second if met else first_s + (first - _IDENTITIES) / per_second
        part = who[first : first + _BATCH]
        made = events(part, start=begins + int(at * 1000), per_second=per_second, first=first, seed=first)
        where.publish("llm.usage", made)
        where.wait_committed("tripswitch-detect", "llm.usage", worker)
