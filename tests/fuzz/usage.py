"""Fuzzes what strangers may send, guided by coverage: lines of a file, through the decoder into every detector.

    make fuzz FUZZ_SECONDS=60

A line is an event or a dead letter with a reason; nothing else may come of it, whatever the bytes. What is found is
written to build/fuzz/crash-…, and `make fuzz ARGS=build/fuzz/crash-…` runs that one alone.
"""

import json
import random
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]
import numpy as np

# Compiled kernels can't be instrumented, so these are imported as they are.
with atheris.instrument_imports(
    include=["schemas", "streams"],
    exclude=[f"schemas.{name}" for name in ("columns", "compiled", "json_tokens", "scan", "xxh3")],
):
    from schemas.decoding import Malformed
    from schemas.finding import decode_signal
    from schemas.request import decode_request
    from streams.intake import FileIntake

# As are the detectors'.
from detectors import Partition
from schemas.batch import to_batch
from schemas.columns import read_fields
from schemas.directory import Directory
from schemas.events import read_events
from schemas.usage import UsageData, decode_usage
from streams.policy import find_policy, read_policy

_ODD = (
    None, True, 0, -1, 1, 2**53, 2**64, 1e15, 1e308, 5e-324, float("nan"), "", "a", "\0", "ü" * 300, "x" * 513, [], {},
    "2026-03-02T00:01:32.844Z", "1969-12-31T23:59:59Z", "2299-12-31T23:59:59+14:00", "interactive", "request_body",
    "tripswitch_denied", 401, 429, 499,
)  # fmt: skip
_POLICY = read_policy(find_policy(None)).for_detectors
_FIELDS = UsageData.__struct_fields__


def _line(rng: random.Random, number: int) -> bytes:
    """An event in which some fields are odd."""
    data = {name: rng.choice(_ODD) for name in rng.sample(_FIELDS, rng.randrange(6))}
    event = {
        "type": "llm.usage.v1", "id": f"e{number}", "source": "gw", "subject": rng.choice(("k", "l")),
        "time": f"2026-03-02T00:{rng.randrange(60):02}:{rng.randrange(60):02}Z",
        "data": {"model": "m", "status": 200, "input_tokens": rng.randrange(10**6)} | data,
    }  # fmt: skip
    if not rng.randrange(8):
        event[rng.choice(list(event))] = rng.choice(_ODD)
    return json.dumps(event).encode()


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Odd events half of the time, and any bytes the other half: the latter alone would rarely be JSON."""
    rng = random.Random(seed)
    lines = data.split(b"\n")
    if rng.randrange(2):
        lines.insert(rng.randrange(len(lines) + 1), _line(rng, seed))
    else:
        at = rng.randrange(len(lines))
        lines[at] = atheris.Mutate(lines[at], max(1, len(lines[at]) * 2))
    return b"\n".join(lines)[:most]


def check(data: bytes) -> None:
    """Everything that reads what others wrote is given `data`."""
    lines = data.split(b"\n")
    for decode in (decode_signal, decode_request):
        try:
            decode(lines[0])
        except Malformed:
            continue
    _read_the_same(lines)
    intake = FileIntake()
    answers = [intake.admit(lines), intake.finish()]
    events = [event for answer in answers for event in answer.events]
    told = len(events) + sum(len(answer.rejected) for answer in answers)
    if told != sum(bool(line.strip()) for line in lines):
        raise AssertionError(f"{told} lines answered")
    partition = Partition(0, _POLICY, Directory())
    partition.take(to_batch(events, range(len(events)), [0] * len(events)))
    partition.close()


def _read_the_same(lines: list[bytes]) -> None:
    """Holds the compiled reader against the decoder."""
    decoded, reasons = [], {}
    for at, line in enumerate(lines):
        try:
            decoded.append(decode_usage(line))
        except Malformed as error:
            reasons[at] = str(error)
    events, wrong = read_events(lines)
    if wrong != reasons:
        raise AssertionError(f"{wrong} is wrong, and not {reasons}")
    places = np.array([at for at in range(len(lines)) if at not in wrong], np.int64)
    for column, other in zip(events.select(places).fields, read_fields(decoded), strict=True):
        np.testing.assert_array_equal(column, other)


if __name__ == "__main__":
    Path("build/fuzz").mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [sys.argv[0], "-artifact_prefix=build/fuzz/", "-max_len=16384", *sys.argv[1:]], check, custom_mutator=mutate
    )
    atheris.Fuzz()
