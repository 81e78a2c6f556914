"""The offline road: usage events of a file through detection and decision, without a broker."""

import gzip
import json
import shutil
import sys
import tempfile
import time
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BufferedReader, RawIOBase
from itertools import chain, islice
from pathlib import Path
from typing import IO, cast

import msgspec
import numpy as np
from msgspec import Struct

from detectors import Partition
from responses import Decider, Outcome
from schemas.batch import to_batch
from schemas.command import Command
from schemas.directory import Directory
from schemas.events import Decoded, Events
from schemas.finding import Finding, Signal, encode
from schemas.incident import Incident
from schemas.usage import UsageEvent
from streams.intake import Answer, FileIntake
from streams.partitioner import partition_of
from streams.policy import Loaded

OnRejected = Callable[[int, str], None]
"""Told each dead letter's line number (from 1) and reason."""
OnChunk = Callable[[int], None]
"""Told how many lines were taken in since it was last told."""
CHUNK = 2048
"""Lines taken in at once: so many that what each chunk costs, however small, is next to nothing a line."""
_BUFFER = 1 << 16
"""Bytes read at once: so many lines that reading costs next to nothing a line, also out of a gzip file."""


class EventsError(ValueError):
    """An events file that can't be read; says which and why."""


class Summary(Struct):
    """`summary.json`. `events` are accepted deliveries, duplicates and late ones included; `partitions` is how many the
    file was split over, which the evidence of findings counts in."""

    events: int
    duplicates: int
    late: int
    rejected: int
    identities: int
    findings: int
    incidents: int
    commands: int
    seconds: float
    cpu_seconds: float
    events_per_second: float
    partitions: int


def _opened(path: str) -> AbstractContextManager[RawIOBase]:
    if path == "-":
        return nullcontext(cast(RawIOBase, sys.stdin.buffer))
    return Path(path).open("rb", buffering=0)


@contextmanager
def open_events(path: str) -> Iterator[IO[bytes]]:
    """The lines of a file, or of standard input (`-`), as they are or gzipped.

    Raises:
        EventsError: there is no such file, or it can't be opened.
    """
    try:
        with _opened(path) as source:
            raw = BufferedReader(source, _BUFFER)
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            yield BufferedReader(cast(RawIOBase, gzip.GzipFile(fileobj=raw)), _BUFFER) if packed else raw
    except OSError as error:
        raise EventsError(f"{path}: {error.strerror or error}") from error
    except EOFError as error:
        raise EventsError(f"{path}: the gzip file ends in the middle: was it still being written?") from error
    except zlib.error as error:
        raise EventsError(f"{path}: the gzip file is damaged: {error}") from error


def in_chunks(lines: IO[bytes], chunk: int) -> Iterator[list[bytes]]:
    """The lines of a file, `chunk` at a time; less the mark that some editors begin a file with."""
    rest = iter(lines)
    bare = chain([next(rest, b"").removeprefix(BOM_UTF8)], rest)
    while part := list(islice(bare, chunk)):
        yield part


class Replay:
    """Detection and decision over the lines of one file, split over `partitions` as Kafka would split it."""

    def __init__(self, policy: Loaded, directory: Directory, partitions: int = 1) -> None:
        self._partitions = [Partition(n, policy.for_detectors, directory) for n in range(partitions)]
        self._deciders = [Decider(policy.for_responses, directory) for _ in range(partitions)]
        self._offsets = [0] * partitions
        self._intake = FileIntake()
        self.findings: list[Finding] = []
        self.commands: list[Command] = []
        self.incidents: dict[str, Incident] = {}

    def run(
        self, lines: IO[bytes], chunk: int, on_rejected: OnRejected | None = None, on_chunk: OnChunk | None = None
    ) -> None:
        """Takes every line in, `chunk` at a time, and closes what is open at the end."""
        for part in in_chunks(lines, chunk):
            self._take(self._intake.admit(part), on_rejected)
            if on_chunk:
                on_chunk(len(part))
        self._take(self._intake.finish(), on_rejected)
        for partition in self._partitions:
            for told in partition.close():
                self._decide(told.signal)

    def _take(self, answer: Answer, on_rejected: OnRejected | None) -> None:
        if on_rejected:
            for line, reason in answer.rejected:
                on_rejected(line, reason)
        told: list[tuple[int, int, Signal]] = []
        shares = self._shares(answer.events)
        for number, (orders, events) in enumerate(shares):
            if len(events):
                first, n = self._offsets[number], len(events)
                self._offsets[number] += n
                batch = to_batch(events, np.arange(first, first + n), np.zeros(n, np.int64))
                told += [(orders[at], number, signal) for at, signal in self._partitions[number].take(batch)]
        # As they would arrive: in the order of the events that brought them, whatever the chunk.
        for _, _, signal in sorted(told, key=lambda entry: entry[0]) if len(shares) > 1 else told:
            self._decide(signal)

    def _shares(self, events: Sequence[UsageEvent]) -> list[tuple[Sequence[int], Sequence[UsageEvent]]]:
        """By partition: its events, and where they stood among all."""
        count = len(self._partitions)
        if count == 1:
            return [(range(len(events)), events)]
        events = events if isinstance(events, Events) else Decoded(events)
        places = np.array(
            [partition_of(subject.encode(), count) for _, subject in events.callers(range(len(events)))], np.int64
        )
        shares = [np.flatnonzero(places == number) for number in range(count)]
        return [(share.tolist(), events.select(share)) for share in shares]

    def _decide(self, signal: Signal) -> None:
        if isinstance(signal, Finding):
            self.findings.append(signal)
        decider = self._deciders[
            partition_of(getattr(signal, "tenant", "-").encode(), len(self._deciders)) if len(self._deciders) > 1 else 0
        ]
        self._note(decider.take(signal))

    def _note(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Command):
                self.commands.append(outcome)
            else:
                self.incidents[outcome.incident_id] = outcome

    def summary(self, seconds: float, cpu_seconds: float) -> Summary:
        """The counts so far."""
        counts = [partition.counts for partition in self._partitions]
        events = sum(c.events for c in counts)
        return Summary(
            events=events,
            duplicates=sum(c.duplicates for c in counts),
            late=sum(c.late for c in counts),
            rejected=self._intake.rejected,
            identities=sum(partition.identities for partition in self._partitions),
            findings=len(self.findings),
            incidents=len(self.incidents),
            commands=len(self.commands),
            seconds=round(seconds, 3),
            cpu_seconds=round(cpu_seconds, 3),
            events_per_second=round(events / seconds, 1) if seconds else 0.0,
            partitions=len(self._partitions),
        )


def replay(
    events: str,
    out: Path,
    policy: Loaded,
    directory: Directory,
    *,
    partitions: int = 1,
    chunk: int = CHUNK,
    on_rejected: OnRejected | None = None,
    on_chunk: OnChunk | None = None,
) -> Summary:
    """Replays `events` and writes findings.jsonl, incidents.jsonl, commands.jsonl and summary.json into `out`.

    Raises:
        EventsError: the events can't be read.
        OSError: `out` can't be written.
    """
    started, cpu = time.perf_counter(), time.process_time()
    road = Replay(policy, directory, partitions)
    with open_events(events) as lines:
        road.run(lines, chunk, on_rejected, on_chunk)
    summary = road.summary(time.perf_counter() - started, time.process_time() - cpu)
    write(road, summary, out)
    return summary


def write(road: Replay, summary: Summary, out: Path) -> None:
    """Writes what a replay found into `out`. Nothing is left half written: the files appear together, or not at all.

    Raises:
        OSError: `out` can't be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        _write_lines(Path(scratch, "findings.jsonl"), road.findings)
        _write_lines(
            Path(scratch, "incidents.jsonl"), sorted(road.incidents.values(), key=lambda i: (i.opened, i.incident_id))
        )
        _write_lines(Path(scratch, "commands.jsonl"), road.commands)
        Path(scratch, "summary.json").write_text(json.dumps(msgspec.to_builtins(summary), indent=1) + "\n")
        for name in ("findings.jsonl", "incidents.jsonl", "commands.jsonl", "summary.json"):
            shutil.move(Path(scratch, name), out / name)


def _write_lines(path: Path, rows: list[Finding] | list[Incident] | list[Command]) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(encode(row) + b"\n")
