"""A tenant's sums tell its interactive identities apart, however the stream is cut."""

from collections.abc import Callable, Sequence

import pytest
from made_traffic import Traffic, in_order

from schemas.directory import Directory, Entry
from schemas.finding import Finding, TenantBucket
from schemas.usage import UsageEvent

Run = Callable[..., list[Finding | TenantBucket]]


def sums(run: Run, events: Sequence[UsageEvent], **options: object) -> list[tuple[int, int, int, int]]:
    """Of each bucket: those at work for the first time and operations, of all and of the interactive ones."""
    return [
        (s.arrived, s.requests, s.interactive_arrived, s.interactive_requests)
        for s in run(events, **options)
        if isinstance(s, TenantBucket)
    ]


def office() -> list[UsageEvent]:
    """Two people and a batch job with twenty times their calls, in one bucket."""
    job, ann = Traffic("key_job", workload="batch"), Traffic("key_ann", workload="interactive")
    bob = Traffic("key_bob")
    job.every(0.2, 0, 8)
    ann.every(4.0, 0, 8)
    bob.every(4.0, 1, 5)
    return in_order(job.events, ann.events, bob.events)


def test_a_batch_job_is_not_people(run: Run) -> None:
    assert sums(run, office()) == [(3, 43, 2, 3)]


def test_what_an_event_leaves_out_the_directory_knows(run: Run) -> None:
    directory = Directory(identities={"key_bob": Entry(tenant="acme", workload="agent")})
    assert sums(run, office(), directory=directory) == [(3, 43, 1, 2)]


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_class_is_that_of_the_last_call_however_the_stream_is_cut(run: Run, chunk: int) -> None:
    """What closes the second bucket comes after the first calls of the new class."""
    traffic = Traffic("key_1")
    traffic.every(5.0, 0, 30, workload="interactive")
    traffic.every(5.0, 30, 60, workload="batch")
    assert sums(run, traffic.events, cuts=range(chunk, 12, chunk)) == [
        (1, 2, 1, 2), (0, 2, 0, 0), (0, 2, 0, 0), (0, 2, 0, 0), (0, 2, 0, 0), (0, 2, 0, 0),
    ]  # fmt: skip
