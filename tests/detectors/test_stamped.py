"""Findings of a gateway whose clock is fast, among gateways whose clocks are right."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from made_traffic import Traffic
from msgspec.structs import replace

from schemas.finding import Finding
from schemas.times import parse_millis, to_millis

Found = Callable[..., list[Finding]]


@pytest.mark.parametrize(("ahead", "believed"), [(0.0, True), (3.0, True), (40.0, False)])
def test_nothing_is_told_before_the_event_says_it_happened(findings: Found, ahead: float, believed: bool) -> None:
    """A clock a few seconds fast is set right, and yet nobody reads that a loop was told before it began."""
    agent, others, fast = Traffic(workload="agent"), Traffic("key_2"), timedelta(seconds=ahead)
    for n in range(150):
        agent.call(n * 4.0, fingerprint=f"{n}")
    agent.every(1.5, 600, 660, fingerprint="same again", session_id="s-runaway", tool="search")
    others.every(0.5, 0, 700)
    events = sorted(agent.events + others.events, key=lambda event: event.time)
    events = [replace(e, time=e.time + fast, source="fast") if e.subject == "key_1" else e for e in events]
    found, *_ = findings(events, "loop")
    [cause] = [e for e in events if found.evidence.cause and e.id == found.evidence.cause.id and e.subject == "key_1"]
    assert (parse_millis(found.time) >= to_millis(cause.time)) == believed
