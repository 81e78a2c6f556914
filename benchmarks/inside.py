"""Detection alone, in one process, over columns that are ready: memory and time as identities and detectors grow.

Each measurement is a process of its own, `python -m benchmarks.inside IDENTITIES DETECTORS`, as memory that was given
back is not given back to the machine.
"""

import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from benchmarks.cluster import ROOT, resident
from benchmarks.figures import Figure
from benchmarks.traffic import drawn, events
from detectors import DETECTORS, Config, Partition
from schemas.batch import to_batch
from schemas.directory import Directory
from schemas.usage import decode_usage
from streams.compiling import compile_kernels
from streams.policy import find_policy, read_policy

_START = 1_772_400_000_000
_CHUNK = 4096
_PER_SECOND = 4_000
_LOAD = 400_000
_SIZES = 1_000, 100_000, 1_000_000
_BYTES_LIMIT, _TOTAL_LIMIT = 3000, 3e9


def memory() -> Iterator[Figure]:
    """Memory per identity, and time per event beyond decoding, at 1k, 100k and 1 M identities."""
    for size in _SIZES:
        told = _run(size, len(DETECTORS))
        conditions = f"{size:,} identities, each seen; then {_LOAD:,} events of Zipf(1.1)"
        yield Figure(
            "memory", "resident memory per identity", told["bytes"] / size, "bytes", _BYTES_LIMIT,
            "3 GB at 1 M", conditions, {"resident_mb": round(told["bytes"] / 1e6)},
        )  # fmt: skip
        yield Figure("memory", "detection", told["detect"], "CPU µs/event", told["decode"], "decode alone", conditions)
        yield Figure("memory", "columns", told["columns"], "CPU µs/event", told["decode"], "decode alone", conditions)


def ladder() -> Iterator[Figure]:
    """Detection with no detector, and as they are added one by one."""
    first, names = 0.0, ["no detector"] + [f"+ {detector.name}" for detector in DETECTORS]
    for count, name in enumerate(names):
        used = _run(100_000, count)["detect"]
        first = first or used
        yield Figure("detectors", name, used, "CPU µs/event", first, "no detector", "100,000 identities, Zipf(1.1)")


def _run(size: int, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.inside", str(size), str(count)]
    told: dict[str, float] = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    return told


def main() -> None:
    size, count = int(sys.argv[1]), int(sys.argv[2])
    loaded = read_policy(find_policy())
    compile_kernels(loaded)
    policy = loaded.for_detectors
    # As a worker does.
    gc.freeze()
    gc.set_threshold(50_000, 20, 1000)
    who = np.concatenate([np.random.default_rng(3).permutation(size), drawn(_LOAD, size, "zipf")])
    # What the first chunk needs for itself is no identity's.
    _take(_partition(policy, count), who, 0)
    gc.collect()
    before, partition = resident(), _partition(policy, count)
    costs = []
    for first in range(0, len(who), _CHUNK):
        cost = _take(partition, who, first)
        if first >= size:
            costs.append(cost)
    gc.collect()
    means = dict(zip(("decode", "columns", "detect"), np.mean(costs, axis=0).tolist(), strict=True))
    print(json.dumps({**means, "bytes": resident() - before}))


def _partition(policy: Config, count: int) -> Partition:
    """With the first `count` of the detectors."""
    partition = Partition(0, policy, Directory())
    partition._detectors = partition._detectors[:count]
    return partition


def _take(partition: Partition, who: NDArray[np.int64], first: int) -> tuple[float, float, float]:
    """Gives the partition a chunk of calls; returns the CPU µs per event of decoding, columns and detection."""
    part = who[first : first + _CHUNK]
    start = _START + first * 1000 // _PER_SECOND
    raw = [line for _, line in events(part, start=start, per_second=_PER_SECOND, first=first, seed=first)]
    moments = [time.process_time()]
    decoded = [decode_usage(line) for line in raw]
    moments.append(time.process_time())
    batch = to_batch(decoded, np.arange(first, first + len(part)), np.zeros(len(part), np.int64))
    moments.append(time.process_time())
    partition.take(batch)
    moments.append(time.process_time())
    decoding, columns, detection = (np.diff(moments) / len(part) * 1e6).tolist()
    return decoding, columns, detection


if __name__ == "__main__":
    main()
