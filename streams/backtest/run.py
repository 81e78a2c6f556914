"""Runs a policy over a corpus and scores it."""

import time
from collections.abc import Callable

from msgspec import Struct

from schemas.directory import Directory
from streams.backtest.calls import Calls, read_calls
from streams.backtest.corpus import Corpus
from streams.backtest.score import AttackScore, KindScore, Score, score
from streams.policy import Loaded
from streams.replay import CHUNK, OnRejected, Replay, Summary, open_events


class Result(Struct, frozen=True):
    """What a policy makes of a corpus."""

    policy: str
    version: str
    score: Score
    by_attack: dict[str, AttackScore]
    by_kind: dict[str, KindScore]


def calls_of(events: str, directory: Directory) -> Calls:
    """The calls of an events file.

    Raises:
        EventsError: it can't be read.
    """
    with open_events(events) as lines:
        return read_calls(lines, directory)


def replayed(
    events: str,
    policy: Loaded,
    directory: Directory,
    on_rejected: OnRejected | None = None,
    on_chunk: Callable[[int], None] | None = None,
) -> tuple[Replay, Summary]:
    """The replay of an events file.

    Raises:
        EventsError: it can't be read.
    """
    started, cpu = time.perf_counter(), time.process_time()
    road = Replay(policy, directory)
    with open_events(events) as lines:
        road.run(lines, CHUNK, on_rejected, on_chunk)
    return road, road.summary(time.perf_counter() - started, time.process_time() - cpu)


def backtest(corpus: Corpus, calls: Calls, policy: Loaded, road: Replay) -> Result:
    """The score of a replay of the corpus under `policy`."""
    known = corpus.directory.identities
    tenants = {subject: tenant for tenant, subject in calls.identities}
    tenants |= {name: corpus.directory.tenant_of(name) for name in known}
    # Who is watched: all that the directory knows, else all that called.
    watched = len(known) or len(calls.identities)
    scored = score(corpus.labels, calls, tenants, watched, road.findings, road.incidents.values(), road.commands)
    return Result(policy.path, policy.version, scored.score, scored.by_attack, scored.by_kind)
