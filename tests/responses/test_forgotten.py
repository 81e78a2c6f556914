"""What nothing hangs on any more is forgotten, and nobody can tell."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from responses import Config
from schemas.command import Command
from schemas.directory import Directory
from schemas.finding import Tick, encode
from schemas.times import format_millis

Begin = Callable[..., Any]
START_MS = 1_772_409_600_000
DAY = 86_400


def tick(s: Any, at: float) -> None:
    s.take(Tick(format_millis(START_MS + round(at * 1000))))


def kept(s: Any) -> list[int]:
    d = s.decider
    return [
        len(each)
        for each in (
            d._cases._held,
            d.blocks._holders,
            d.blocks.epochs.held,
            d.blocks.epochs._passing,
            d._cases._due,
            d._cases._farewells,
            d._cases.sweep._waiting,
        )
    ]


def test_fifty_thousand_identities_leave_nothing(story: Begin) -> None:
    """Each has one finding: a third of them is small, a third opens an incident, a third blocks."""
    s = story()
    severities = ("low", "high", "critical")
    for n in range(50_000):
        s.find(n * 0.1, "spike", severities[n % 3], identity=f"key_{n}", extreme=n % 3 == 2)
    assert len(s.decider._cases) == 50_000
    assert len(s.decider._caps._last) <= 41
    # A spike fades within hours; a day after that it is over.
    for hour in range(2, 48):
        tick(s, hour * 3600)
    assert len(s.commands) == 2 * 16_666
    assert kept(s) == [0] * 7
    gone = s.decider.checkpoint()
    assert s.decider._cases.sweep._changed == {}
    assert sum(map(len, s.decider.checkpoint().pieces)) < 10_000
    assert gone.begins


def test_a_place_is_remembered_for_longer_than_a_day(story: Begin) -> None:
    s = story()
    s.find(0, "geo_shift", "high")
    for hour in range(49):
        tick(s, hour * 3600)
    assert len(s.decider._cases) == 1
    tick(s, 5 * DAY)
    tick(s, 5 * DAY + 1)
    assert kept(s) == [0] * 7


def test_a_persons_block_stays(story: Begin) -> None:
    s = story()
    [suspended] = s.order(0, "suspend")
    for day in range(60):
        tick(s, day * DAY)
    assert len(s.decider._cases) == 1
    [restored] = s.order(60 * DAY, "restore")
    assert restored.epoch > suspended.epoch
    tick(s, 61 * DAY)
    tick(s, 62 * DAY)
    assert kept(s) == [0] * 7


def test_an_open_incident_stays(story: Begin) -> None:
    s = story()
    s.loop(0)
    for n in range(0, 3 * DAY, 150):
        s.denied(n + 1)
    assert s.incident.state == "open"
    assert set(s.decider._cases._held) == {("acme", "key_1"), ("acme", "")}


def test_an_incident_that_waits_longer_than_a_day_for_its_end_stays(story: Begin, config: Config) -> None:
    s = type(story())(replace(config, risk=replace(config.risk, quiet_minutes=3 * 24 * 60.0)), Directory())
    s.find(0)
    tick(s, 3 * DAY - 1)
    assert s.incident.state == "open"
    tick(s, 3 * DAY)
    assert s.incident.state == "closed"


def test_what_a_person_gave_back_is_remembered_for_a_day(story: Begin) -> None:
    s = story()
    s.order(0, "suspend")
    s.order(20 * 3600, "restore")
    for hour in range(20, 40):
        tick(s, hour * 3600)
    s.extreme(40 * 3600, span_seconds=DAY)
    assert [command.action for command in s.commands] == ["suspend", "restore"]


def test_a_clock_that_leaps_forgets_what_it_leaps_over(story: Begin) -> None:
    s = story()
    s.find(0)
    tick(s, 100 * DAY)
    tick(s, 102 * DAY)
    assert kept(s) == [0] * 7


def test_what_faded_before_an_incident_is_no_part_of_it(story: Begin) -> None:
    s = story()
    s.find(0, "loop", "low")
    s.find(12 * 3600, "spike", "high")
    assert s.incident.kinds == ["spike"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["spike", "geo_shift", "model_shift", "loop", "extreme", "denied", "order", "tick"]),
        st.sampled_from([0.0, 1.0, 45.0, 400.0, -400.0, 4000.0, 30_000.0, 90_000.0, 200_000.0, 600_000.0]),
        st.integers(0, 2),
        st.integers(0, 11),
    ),
    min_size=1,
    max_size=40,
)


def play(s: Any, steps: list[tuple[str, float, int, int]]) -> list[bytes]:
    at = 0.0
    for what, gap, who, pick in steps:
        at = max(0.0, at + gap)
        name = f"key_{who}"
        if what == "order":
            s.order(at, ("throttle", "suspend", "revoke", "restore")[pick % 4], name)
        elif what == "tick":
            tick(s, at)
        else:
            severity = ("info", "low", "medium", "high")[pick % 4]
            s.tell(at, what, name, f"s{pick % 2}", severity=severity, credential_id=f"c{pick % 2}", span_seconds=600.0)
    return [encode(unnamed(outcome)) for outcome in s.outcomes]


def unnamed(outcome: Any) -> Any:
    """A person's order names the incident that was open last, if it is remembered: that may differ."""
    if isinstance(outcome, Command) and outcome.manual:
        return replace(outcome, incident_id="")
    return outcome


@given(steps=STEPS)
def test_a_decider_that_never_forgets_answers_the_same(story: Begin, steps: list[Any]) -> None:
    said = play(story(), steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("responses.case._FORGET_AFTER", 10**18)
        assert play(story(), steps) == said
