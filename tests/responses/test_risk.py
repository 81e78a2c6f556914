"""Risk fades, and families add up more than repeats."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from responses import Config
from responses.config import FAMILY, Family
from responses.risk import Standing
from schemas.finding import Finding, Kind
from schemas.times import parse_millis

Make = Callable[..., Finding]


def standing(config: Config, *findings: Finding) -> tuple[Standing, int]:
    made = Standing(config)
    for finding in findings:
        made.add(finding)
    return made, parse_millis(findings[-1].time)


def test_every_kind_has_a_family_and_every_family_fades(config: Config) -> None:
    assert set(FAMILY) == set(get_args(Kind))
    assert set(FAMILY.values()) == set(config.risk.half_life_minutes) == set(get_args(Family))


def test_half_is_left_after_a_half_life(config: Config, finding: Make) -> None:
    risk, now = standing(config, finding(0, "spike", "high"))
    points = config.risk.points["high"]
    assert risk.total(now) == points
    later = now + int(config.risk.half_life_minutes["velocity"] * 60_000)
    assert risk.total(later) == pytest.approx(points / 2)


def test_another_family_adds_all_its_points_and_a_repeat_adds_few(config: Config, finding: Make) -> None:
    high = config.risk.points["high"]
    repeated, now = standing(config, finding(0, "spike"), finding(0, "drift"))
    assert repeated.total(now) == pytest.approx(high * (1 + config.risk.repeat_share))
    medium = config.risk.points["medium"]
    mixed, now = standing(config, finding(0, "spike", "medium"), finding(0, "geo_shift", "medium"))
    assert mixed.total(now) == pytest.approx(2 * medium + config.risk.family_bonus)


def test_families_are_those_that_still_hold_something(config: Config, finding: Make) -> None:
    risk, now = standing(config, finding(0, "spike", "medium"), finding(0, "geo_shift", "medium"))
    assert set(risk.families(now)) == {"velocity", "place"}
    # The velocity fades within hours, the place within days.
    assert set(risk.families(now + 3 * 3_600_000)) == {"place"}


def test_a_low_finding_makes_a_family_and_a_bare_remark_none(config: Config, finding: Make) -> None:
    risk, now = standing(config, finding(0, "spike", "low"), finding(0, "geo_shift", "info"))
    assert risk.families(now) == {"velocity": config.risk.points["low"]}
    assert risk.total(now) < config.risk.open


@given(
    kinds=st.lists(
        st.tuples(st.sampled_from(sorted(FAMILY)), st.sampled_from(["info", "low", "medium", "high", "critical"])),
        min_size=1,
        max_size=60,
    )
)
def test_risk_is_between_0_and_100_and_only_a_finding_raises_it(
    config: Config, finding: Make, kinds: list[tuple[str, Any]]
) -> None:
    risk = Standing(config)
    last = now = 0
    for n, (kind, severity) in enumerate(kinds):
        told = finding(n * 7.0, kind, severity)
        now = parse_millis(told.time)
        before = risk.total(now)
        risk.add(told)
        assert before - 1e-9 <= risk.total(now) <= 100
        assert risk.total(now) >= config.risk.points[severity] - 1e-9
        last = now
    totals = [risk.total(last + minutes * 60_000) for minutes in range(0, 600, 20)]
    assert totals == sorted(totals, reverse=True)
    assert now == last


def test_a_repeat_that_is_graver_counts_as_the_graver(config: Config, finding: Make) -> None:
    risk, now = standing(config, finding(0, "spike", "medium"), finding(0, "spike", "critical"))
    points = config.risk.points
    assert risk.total(now) == pytest.approx(points["critical"] + config.risk.repeat_share * points["medium"])


def test_a_finding_makes_no_news_of_what_an_earlier_event_left(config: Config, finding: Make) -> None:
    """Of a place that was strange in the morning, an unusual network in the afternoon tells nothing."""
    apart = config.response.together_minutes * 60
    low, high = config.risk.points["low"], config.risk.points["high"]
    for seconds, lately in ((apart, high + config.risk.repeat_share * low), (apart + 1, low)):
        risk, now = standing(config, finding(0, "geo_shift", "high"), finding(seconds, "geo_shift", "low"))
        assert risk.since(now).of("place", now) == pytest.approx(lately, rel=0.02)
        assert risk.of("place", now) == pytest.approx(high + config.risk.repeat_share * low, rel=0.02)
    # What only reminds of it does.
    risk, now = standing(config, finding(0, "geo_shift", "high"), finding(4 * apart, "geo_shift", "info"))
    assert risk.since(now).of("place", now) > 0.9 * high


def test_what_was_held_can_be_taken_up_again(config: Config, finding: Make) -> None:
    told = [finding(n * 1500.0, "geo_shift", severity) for n, severity in enumerate(("high", "low", "medium"))]
    risk, now = standing(config, *told)
    again = Standing(config, risk.held)
    assert len(risk.held) == 2
    for later in (now, now + 3_600_000):
        assert (again.total(later), again.since(now).total(later)) == (risk.total(later), risk.since(now).total(later))


def test_what_has_faded_leaves_no_trace(config: Config, finding: Make) -> None:
    told = finding(86_400, "model_shift"), finding(86_401, "spike")
    assert standing(config, finding(0, "spike"), *told)[0].held == standing(config, *told)[0].held


@given(told=st.lists(st.tuples(st.sampled_from(sorted(FAMILY)), st.sampled_from(["info", "high"])), min_size=1))
def test_risk_is_nothing_from_when_it_has_faded(config: Config, finding: Make, told: list[tuple[str, Any]]) -> None:
    risk = standing(config, *(finding(n * 60.0, kind, severity) for n, (kind, severity) in enumerate(told)))[0]
    assert risk.total(risk.faded() + 1) == 0
    # A hundredth of what opens an incident, and at most a family's rounding more.
    assert 0 < risk.total(risk.faded() - 1000) < 1.01 * config.risk.open / 100 * len(get_args(Family))
    assert Standing(config).faded() == 0
