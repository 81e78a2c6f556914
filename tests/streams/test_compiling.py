"""That a worker has compiled all its kernels before it takes records."""

import gc
import gzip
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP
from made_traffic import DIRECTORY
from numba.core.dispatcher import Dispatcher

from schemas.finding import Tick, encode
from schemas.times import format_millis
from schemas.topics import USAGE
from streams.compiling import compile_kernels
from streams.detection import Detection
from streams.fetched import Chunk, Fetched
from streams.policy import find_policy, read_policy

_ROOT = Path(__file__).parents[2]


def test_no_kernel_is_compiled_while_records_wait() -> None:
    """In a process of its own, for other tests compile too."""
    done = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, cwd=_ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("slow", [True, False])
def test_who_waits_for_it_is_told(
    slow: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compiles(_: object) -> None:
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer) and slow:
                thread.join()

    monkeypatch.setattr("streams.compiling._SAID_AFTER_S", 0.0 if slow else 600.0)
    monkeypatch.setattr("streams.compiling._detect", compiles)
    compile_kernels(read_policy(find_policy(None)))
    assert ("compiles the detectors" in capsys.readouterr().err) is slow


def _compiled() -> dict[str, list[Any]]:
    """The signatures for which there is machine code, by kernel of ours."""
    kernels = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    ours = [(one.py_func.__module__, one) for one in kernels if not one.py_func.__module__.startswith("numba")]
    return {f"{module}.{one.__name__}": one.signatures for module, one in ours}


def _main() -> None:
    policy = read_policy(find_policy(None))
    compile_kernels(policy)
    before = _compiled()
    detection, dice, offset = Detection(policy, DIRECTORY), random.Random(1), 0
    for file in sorted((_ROOT / "tests" / "golden" / "replay").glob("*.events.jsonl.gz")):
        lines = gzip.decompress(file.read_bytes()).splitlines()
        for first in range(0, len(lines), 3000):
            some = [b"no event" if dice.random() < 0.001 else line for line in lines[first : first + 3000]]
            if first % 2:
                some.append(encode(Tick(format_millis(first))))
            records = (Fetched(USAGE, 0, offset + n, 1, 0, None, value, ()) for n, value in enumerate(some))
            detection.take(TP(USAGE, 0), Chunk.of(USAGE, 0, records))
            offset += len(some)
        detection.go_on(0, detection.restored(0, detection.checkpoint(0).pieces), detection.offsets(0))
    late = {f"{name} {one}" for name, known in _compiled().items() for one in known if one not in before[name]}
    sys.stdout.write(f"{sorted(late)}\n")


if __name__ == "__main__":
    _main()
