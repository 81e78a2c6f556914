"""A worker that notes where its CPU goes: `python -m benchmarks.sampled APP FILE`.

A timer that counts the process's CPU interrupts it 250 times in a second of it. What each thread has used since the
last time is put down to the step that its stack is in then. A thread that looks on from beside would see the others
where they give up the interpreter's lock, and nowhere else. What was seen is written to FILE twice a second, in seconds
per step.
"""

import functools
import json
import signal
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import get_args

from schemas.finding import Kind
from streams.commands.workers import run

_EVERY_S = 0.004
_TELL_S = 0.5
REST, CHECKPOINT = "Faust, asyncio, sockets", "checkpoint"
STEPS = {
    "/aiokafka/consumer/": "fetch",
    "/aiokafka/record/": "fetch",
    "/streams/transport.py": "fetch",
    "/streams/fetching.py": "fetch",
    "/streams/fetched.py": "fetch",
    "/streams/spans.py": "fetch",
    "/aiokafka/producer/": "publish",
    "/streams/publish.py": "publish",
    "/schemas/finding.py": "publish",
    "/schemas/usage.py": "decode",
    "/schemas/decoding.py": "decode",
    "/schemas/events.py": "decode",
    "/schemas/scan.py": "decode",
    "/streams/detect.py": "records, signals",
    "/schemas/batch.py": "columns",
    "/schemas/columns.py": "columns",
    "/detectors/identities.py": "index",
    "/detectors/index.py": "index",
    "/detectors/memory.py": "index",
    "/detectors/clock.py": "clock, duplicates",
    "/detectors/skew.py": "clock, duplicates",
    "/detectors/duplicates.py": "clock, duplicates",
    "/detectors/windows.py": "windows",
    "/detectors/buckets.py": "windows",
    "/detectors/excursions.py": "spike",
    "/detectors/models.py": "spike",
    "/detectors/engine.py": "findings, tenants' sums",
    "/detectors/tenants.py": "findings, tenants' sums",
    "/detectors/saved.py": CHECKPOINT,
    "/streams/state.py": CHECKPOINT,
} | {f"/detectors/{kind}": kind for kind in get_args(Kind)}
"""By a part of a file's path. The innermost frame that matches tells, but for a checkpoint: all in it is its own."""


def step_of(frame: FrameType | None) -> str:
    """The step that a stack is in."""
    found = REST
    while frame is not None:
        step = _step_of_file(frame.f_code.co_filename)
        if step == CHECKPOINT:
            return step
        if found == REST and step is not None:
            found = step
        frame = frame.f_back
    return found


@functools.cache
def _step_of_file(name: str) -> str | None:
    return next((step for part, step in STEPS.items() if part in name), None)


class Sampler:
    """Seconds of CPU by step."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._before: dict[int, float] = {}
        self._main = threading.get_ident()

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)

    def _look(self, _number: int, interrupted: FrameType | None) -> None:
        """Called in the main thread, where it was interrupted."""
        frames: dict[int, FrameType | None] = {**sys._current_frames(), self._main: interrupted}
        for thread, frame in frames.items():
            used = time.clock_gettime(time.pthread_getcpuclockid(thread))
            self.spent[step_of(frame)] += used - self._before.get(thread, used)
            self._before[thread] = used


def _tell(sampler: Sampler, file: Path) -> None:
    partial = file.with_suffix(".new")
    while True:
        time.sleep(_TELL_S)
        partial.write_text(json.dumps(dict(sampler.spent)))
        partial.replace(file)


if __name__ == "__main__":
    sampler = Sampler()
    sampler.start()
    threading.Thread(target=_tell, args=[sampler, Path(sys.argv[2])], daemon=True).start()
    run(sys.argv[1])  # type: ignore[arg-type]
