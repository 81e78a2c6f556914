"""CPU per event of programs that read events from Kafka: tripswitch's detect, a bare consumer, and other frameworks."""

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from benchmarks.cluster import ROOT, Cluster, Process, cluster
from benchmarks.figures import Figure, Unable
from benchmarks.traffic import Shape, drawn, events

IDENTITIES = 1_000_000
EVENTS, WARM_UP = 400_000, 50_000
_SECONDS = 110
"""Of event time that the events are spread over, up to now."""
_UNIT = "CPU µs/event"
_LIMIT_US = 15.0
FLOOR, OURS = "confluent-kafka consume + decode", "tripswitch detect, every detector"
_ZIPF = "Zipf(1.1) over 1 M identities"
_CASES: tuple[tuple[Shape, bool, str], ...] = (
    ("zipf", False, _ZIPF),
    ("uniform", False, "uniform over 1 M identities, most not seen before"),
    ("uniform", True, "uniform over 1 M identities, all seen before"),
    ("hot", False, "90 % of the calls by one identity of 1 M"),
)
"""How identities are drawn, and whether the worker has met each of them."""
Records = list[tuple[str, bytes]]


def records(shape: Shape, count: int) -> Records:
    """Events that end now, the warm-up first."""
    start = int(time.time() * 1000) - (_SECONDS + 10) * 1000
    return list(events(drawn(count, IDENTITIES, shape), start=start, per_second=count / _SECONDS))


def cost(where: Cluster, process: Process, topic: str, made: Records, warm_up: int, group: str | None) -> float:
    """CPU µs per event after the warm-up, from before the events are published until `group` has committed them; with
    no group, until the process says that it has read them."""

    def done(count: int) -> None:
        if group is None:
            process.wait_told(f"read {count}\n")
        else:
            where.wait_committed(group, topic, process)

    where.publish(topic, made[:warm_up])
    done(warm_up)
    before = process.cpu()
    where.publish(topic, made[warm_up:])
    done(len(made))
    return (process.cpu() - before) / (len(made) - warm_up) * 1e6


def peer(where: Cluster, counter: "Counter", made: Records, warm_up: int) -> float:
    """CPU µs per event of one of `benchmarks.peers`, on a topic of its own."""
    topic = f"usage-{counter.name}"
    where.make_topic(topic)
    targets = {"BENCH_TOPIC": topic, "BENCH_TARGETS": f"{warm_up},{len(made)}"}
    with where.process(*counter.command, **targets, **counter.environment) as process:
        return cost(where, process, topic, made, warm_up, counter.name if counter.commits else None)


def bare(where: Cluster, made: Records) -> float:
    """CPU µs per event of confluent-kafka's consumer and the decoder."""
    command = [sys.executable, "-m", "benchmarks.peers.bare"]
    return peer(where, Counter("bare", FLOOR, command, EVENTS, commits=False), made, WARM_UP)


def detect() -> Iterator[Figure]:
    """(a) and (b): the worker with all detectors, Kafka in to Kafka out, beside the bare consumer."""
    for shape, met, conditions in _CASES:
        with cluster() as where:
            with where.worker("detect") as process:
                process.wait_told("detect: ready")
                if met:
                    where.publish("llm.usage", _each_once())
                    where.wait_committed("tripswitch-detect", "llm.usage", process)
                made, system = records(shape, WARM_UP + EVENTS), process.system()
                ours = cost(where, process, "llm.usage", made, WARM_UP, "tripswitch-detect")
                extra = {
                    "resident_mb": process.resident() // 10**6,
                    "signals": sum(where.ends("llm.signals").values()),
                    "system_ns_per_event": round((process.system() - system) / len(made) * 1e9),
                }
            floor = bare(where, made)
        if not met:
            before, after = ({subject for subject, _ in part} for part in (made[:WARM_UP], made[WARM_UP:]))
            extra["new_identities"] = len(after - before)
        if shape == "zipf":
            yield Figure("detect", FLOOR, floor, _UNIT, floor, "itself", conditions)
        yield Figure("detect", OURS, ours, _UNIT, floor, FLOOR, conditions, extra)
        yield Figure("detect", OURS, ours, _UNIT, _LIMIT_US, "limit", conditions)


def _each_once() -> Iterator[tuple[str, bytes]]:
    """A call of every identity, within a minute that ends before that of `records` begins."""
    who = np.random.default_rng(3).permutation(IDENTITIES)
    start = int(time.time() * 1000) - (_SECONDS + 75) * 1000
    return events(who, start=start, per_second=IDENTITIES / 60, first=1 << 32)


class Counter(Struct, frozen=True):
    """A peer: what it is called, how it is started, and how many events it is given after the warm-up."""

    name: str
    what: str
    command: list[str]
    events: int
    commits: bool = True
    environment: dict[str, str] = {}


def peers() -> Iterator[Figure]:
    """(c), (d), (e): frameworks that do nothing but count per identity."""
    python = _environment()
    faust = [sys.executable, "-m", "benchmarks.peers.faust_counter"]
    bytewax = [python, "-m", "bytewax.run", "benchmarks.peers.bytewax_counter:flow"]
    counters = (
        Counter("quix", "Quix Streams, counter", [python, "-m", "benchmarks.peers.quix_counter"], 120_000),
        Counter("bytewax", "bytewax, counter", bytewax, EVENTS, commits=False),
        Counter("faust-dict", "Faust as it comes, dict", faust, 25_000),
        Counter("faust-table", "Faust as it comes, table", faust, 15_000, environment={"BENCH_TABLE": "yes"}),
    )
    made = records("zipf", WARM_UP + EVENTS)
    with cluster() as where:
        floor = bare(where, made)
        for counter in counters:
            warm_up = min(WARM_UP, counter.events // 5)
            used = peer(where, counter, made[: warm_up + counter.events], warm_up)
            conditions = f"{_ZIPF}, {counter.events:,} events"
            yield Figure("peers", counter.what, used, _UNIT, floor, FLOOR, conditions)


def _environment() -> str:
    """The Python of the peers' own environment, made when it is absent, as their pins are not ours."""
    folder, pins = ROOT / "build" / "peers", ROOT / "benchmarks" / "peers.txt"
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != pins.read_text():
        steps = (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "-q", "-r", str(pins)],
        )
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unable(f"the peers can't be installed: {done.stderr.strip()[-300:]}")
        stamp.write_text(pins.read_text())
    return str(python)
