"""`python -m benchmarks [PART ...]`: measures, prints a table and writes build/benchmarks.json."""

import argparse
import time
from collections.abc import Callable, Iterable

from benchmarks import (
    denial,
    figures,
    inside,
    killswitch,
    latency,
    machine,
    page,
    profile,
    replay,
    resign,
    restore,
    throughput,
)
from benchmarks.figures import Figure, Results, Skipped, Unable

PARTS: dict[str, tuple[Callable[[], Iterable[Figure]], str]] = {
    "detect": (throughput.detect, "CPU per event: detect, Kafka in to Kafka out, beside a bare consumer"),
    "peers": (throughput.peers, "CPU per event: Quix Streams, bytewax and Faust, counting"),
    "profile": (profile.profile, "where each microsecond of detect goes"),
    "replay": (replay.replay, "events per second of a replay, decode to commands"),
    "memory": (inside.memory, "memory per identity, time per event, at 1k, 100k and 1 M identities"),
    "detectors": (inside.ladder, "time per event as detectors are added"),
    "latency": (latency.latency, "from an event to the command that it caused, at several loads"),
    "denial": (denial.denial, "from decide's decision, and a person's order, to the denial at three gateways"),
    "check": (killswitch.check, "a gateway's check of a call at a million blocks, and what a block weighs"),
    "verify": (killswitch.verify, "a gateway verifies commands, and refuses what is none"),
    "coldstart": (killswitch.start, "a gateway is ready, with a million commands on the topic"),
    "resign": (resign.resign, "what is in force is signed again for another key, beside decide's loop"),
    "restore": (restore.restore, "seconds until a million identities' state is back"),
}


def main() -> None:
    parts = "\n".join(f"  {name:<10} {about}" for name, (_, about) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures tripswitch on this machine; prints a table and writes build/benchmarks.json, where the "
        "figures of other parts stay as they are.",
        epilog=f"parts:\n{parts}\n  {'page':<10} no measurement: writes docs/performance.md and its picture anew",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure; everything unless named")
    asked: list[str] = parser.parse_args().parts or list(PARTS)
    for name in asked:
        if name not in PARTS and name != "page":
            parser.error(f"{name}: there is no such part")
    for name in asked:
        if name == "page":
            page.refresh()
        else:
            _measure(name)


def _measure(name: str) -> None:
    """Measures one part and keeps what it found: who interrupts the rest has what was measured."""
    known = machine.facts()
    measured: list[Figure] = []
    skipped: list[Skipped] = []
    began = time.monotonic()
    try:
        measured += PARTS[name][0]()
    except Unable as why:
        measured, skipped = [], [Skipped(name, str(why))]
    figures.show(measured, skipped)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    figures.write(figures.merged(figures.read(), Results(known, measured, skipped)))


if __name__ == "__main__":
    main()
