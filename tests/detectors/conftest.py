"""A partition of the shipped policy, and a way to run events through it in any pieces."""

import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from detectors import Config, Partition
from schemas.batch import to_batch
from schemas.directory import Directory
from schemas.finding import Finding, TenantBucket
from schemas.usage import UsageEvent
from streams.policy import read_policy

_ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(_ROOT / "tests" / "golden" / "replay"))

from made_traffic import CASES, DIRECTORY, Events, Traffic, in_order  # noqa: E402

# A deadline would measure the machine, and the compiler at the first call.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

Signals = list[Finding | TenantBucket]


class Stream(list[UsageEvent]):
    """Events that are not printed one by one when a test fails."""

    def __repr__(self) -> str:
        return f"<{len(self)} events>"


@pytest.fixture(scope="session")
def policy() -> Config:
    """What the detectors read of the policy that is shipped."""
    return read_policy(_ROOT / "policy.toml").for_detectors


@pytest.fixture(scope="session")
def run(policy: Config) -> Callable[..., Signals]:
    """`run(events, cuts=[…])`: all that a fresh partition tells, the events being cut before each index of `cuts`."""

    def signals(
        events: Sequence[UsageEvent],
        cuts: Sequence[int] = (),
        arrived: Sequence[int] | None = None,
        *,
        close: bool = True,
        directory: Directory = DIRECTORY,
    ) -> Signals:
        partition = Partition(0, policy, directory)
        out: Signals = []
        edges = [0, *sorted(cuts), len(events)]
        for first, last in pairwise(edges):
            stamps = arrived[first:last] if arrived is not None else [0] * (last - first)
            out += [told.signal for told in partition.take(to_batch(events[first:last], range(first, last), stamps))]
        if close:
            out += [told.signal for told in partition.close()]
        return out

    return signals


@pytest.fixture(scope="session")
def findings(run: Callable[..., Signals]) -> Callable[..., list[Finding]]:
    """`findings(events, kind)`: what was found of that kind."""

    def of(events: Sequence[UsageEvent], kind: str, **options: Any) -> list[Finding]:
        return [signal for signal in run(events, **options) if isinstance(signal, Finding) and signal.kind == kind]

    return of


@pytest.fixture(scope="session")
def orderly() -> Events:
    """Something of everything: each detector has something to say."""
    stories = [[e for e in case() if e.subject != "key_bystander"] for case in CASES.values()]
    everybody_else = Traffic("key_else")
    everybody_else.every(30.0, 0, 10 * 3600)
    return in_order(*stories, everybody_else.events)


@pytest.fixture(scope="session")
def world(orderly: Events) -> Events:
    """The same in a stream with repeats and stragglers."""
    events = list(orderly)

    def near(n: int, m: int) -> bool:
        """What is delivered again after a night is no repeat any more."""
        return events[m].time - events[n].time < timedelta(minutes=4)

    for n in range(50, len(events) - 10, 97):
        if near(n, n + 5):
            events.insert(n + 5, events[n])
    for n in range(40, len(events) - 10, 61):
        if near(n, n + 8):
            events.insert(n + 8, events.pop(n))
    return Stream(events)
