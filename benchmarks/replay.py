"""Replay of a file, decode to commands in one process, against what decoding the same lines costs alone."""

import io
import time
from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.traffic import Shape, drawn, events
from schemas.directory import Directory
from schemas.usage import decode_usage
from streams.collector import spare_what_stays
from streams.policy import find_policy, read_policy
from streams.replay import Replay

_START = 1_772_400_000_000
_EVENTS, _PER_SECOND, _CHUNK = 400_000, 2_000, 4096
_CASES: tuple[tuple[Shape, int, str], ...] = (
    ("zipf", 1_000_000, "Zipf(1.1) over 1 M identities"),
    ("uniform", 1_000_000, "uniform over 1 M identities"),
    ("zipf", 300, "Zipf(1.1) over 300 identities"),
)


def replay() -> Iterator[Figure]:
    """CPU µs per event and events per second of wall time, on one core, after a warm-up that compiles the kernels."""
    policy = read_policy(find_policy())
    # As the command does.
    spare_what_stays()

    def run(raw: bytes) -> None:
        Replay(policy, Directory()).run(io.BytesIO(raw), _CHUNK)

    for shape, identities, conditions in _CASES:
        who = drawn(_EVENTS, identities, shape)
        lines = [raw for _, raw in events(who, start=_START, per_second=_PER_SECOND)]
        run(b"\n".join(lines[:2_000]))
        began = time.process_time()
        for first in range(0, len(lines), _CHUNK):
            _ = [decode_usage(line) for line in lines[first : first + _CHUNK]]
        decoding = (time.process_time() - began) / len(lines) * 1e6
        file = b"\n".join(lines)
        lines.clear()
        began, wall = time.process_time(), time.perf_counter()
        run(file)
        used, seconds = (time.process_time() - began) / _EVENTS * 1e6, time.perf_counter() - wall
        yield Figure("replay", "replay, decode to commands", used, "CPU µs/event", decoding, "decode alone", conditions)
        # On one core: by CPU time, as other work on the machine must not count.
        yield Figure(
            "replay", "replay, decode to commands", 1e6 / used, "events per CPU second", 80_000, "target", conditions,
            {"events_per_second_of_wall_time": round(_EVENTS / seconds)},
        )  # fmt: skip
