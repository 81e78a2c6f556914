"""Replay against what decoding the same lines costs alone."""

import io
import time

from benchmarks.traffic import events
from schemas.directory import Directory
from schemas.usage import decode_usage
from streams.policy import find_policy, read_policy
from streams.replay import Replay

_START = 1_772_400_000_000


def replay(count: int, identities: int) -> list[dict[str, object]]:
    """CPU µs per event of decoding alone and of the whole replay, after a warm-up that compiles the kernels."""
    policy = read_policy(find_policy())
    lines = [raw for _, raw in events(count, identities, start=_START, per_second=2_000)]
    file = b"\n".join(lines)

    def run(raw: bytes) -> None:
        Replay(policy, Directory()).run(io.BytesIO(raw), 4096)

    run(b"\n".join(lines[:2_000]))
    started = time.process_time()
    for first in range(0, count, 4096):
        _ = [decode_usage(line) for line in lines[first : first + 4096]]
    decode = (time.process_time() - started) / count * 1e6
    started, wall = time.process_time(), time.perf_counter()
    run(file)
    whole, seconds = (time.process_time() - started) / count * 1e6, time.perf_counter() - wall
    return [
        {"what": "decode alone", "identities": identities, "cpu_us_per_event": round(decode, 2), "ratio": 1.0},
        {
            "what": "replay, decode to commands", "identities": identities, "cpu_us_per_event": round(whole, 2),
            "ratio": round(whole / decode, 2), "events_per_second": round(count / seconds),
        },
    ]  # fmt: skip
