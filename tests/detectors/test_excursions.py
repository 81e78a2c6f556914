"""The bank of record excursions."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.excursions import BANK, SEASONS, expected, score_point, score_series

HOUR = 3600.0
MONDAY = 1_772_409_600.0
"""2026-03-02T00:00:00Z."""


def days(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Points each half hour that follow the hour of the day, with noise."""
    seconds = MONDAY + 1800.0 * np.arange(48 * count)
    noise = np.random.default_rng(seed).normal(0, 3, len(seconds))
    return 100 + 50 * np.sin(seconds / 86400 * 2 * math.pi) + noise, seconds


def test_a_jump_out_of_the_range_is_told_at_its_first_point() -> None:
    values, seconds = days(20)
    values[700] = 400.0
    scores = score_series(values, seconds)
    assert int(np.argmax(scores)) == 700
    assert scores[700] > 0.5
    assert np.sort(scores)[-2] < 0.2


def test_what_is_usual_at_another_hour_is_told() -> None:
    """The height of the day in the middle of the night: within the range of all values."""
    values, seconds = days(30)
    night = 48 * 25 + 36
    values[night : night + 4] = 145.0
    scores = score_series(values, seconds)
    assert values[night] < values[:night].max()
    assert night <= int(np.argmax(scores[200:])) + 200 < night + 5


def test_nothing_is_told_of_the_first_points() -> None:
    rng = np.random.default_rng(3)
    scores = score_series(rng.lognormal(0, 2, 100), MONDAY + 300.0 * np.arange(100))
    assert not scores.any()


def test_a_score_knows_nothing_of_what_comes_later() -> None:
    values, seconds = days(20)
    other = values.copy()
    other[600:] = 1e6
    assert score_series(values, seconds)[:600].tolist() == score_series(other, seconds)[:600].tolist()


def test_within_its_memory_the_bank_is_not_told_the_same_twice() -> None:
    values, seconds = days(20)
    values[700] = 400.0
    values[720] = 390.0
    scores = score_series(values, seconds)
    assert scores[700] > 0
    assert scores[720] == 0


def test_units_do_not_matter_to_the_raw_side() -> None:
    """The log side differs by little for large numbers."""
    values, seconds = days(20)
    values[700] = 400.0
    one, other = score_series(values * 1e3, seconds), score_series(values * 1e6, seconds)
    assert int(np.argmax(one)) == int(np.argmax(other)) == 700
    assert abs(one[700] - other[700]) < 0.05


@given(
    st.lists(
        st.tuples(st.floats(-1e18, 1e18) | st.sampled_from([0.0, 1e-30, -1e15]), st.floats(0, 4e9) | st.just(MONDAY)),
        max_size=150,
    )
)
def test_scores_are_finite_and_not_negative(points: list[tuple[float, float]]) -> None:
    scores = score_series(np.array([v for v, _ in points]), np.array([t for _, t in points]))
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()


def test_a_profile_that_is_shared_tells_what_the_hour_leads_to_expect() -> None:
    """A newcomer a hundred times as large as those whose days the profile knows."""
    values, seconds = days(15)
    banks, seasons = np.zeros(2, BANK), np.zeros(1, SEASONS)
    for value, moment in zip(values, seconds, strict=True):
        score_point(banks[0], seasons[0], value, moment, True)
    for value, moment in zip(100 * values[:96], seconds[:96], strict=True):
        score_point(banks[1], seasons[0], value, moment, True)
    noon, night = (expected(banks[1], seasons[0], MONDAY + hour * HOUR) for hour in (6, 18))
    assert 12_000 < noon < 18_000
    assert 4_000 < night < 7_000
    assert expected(np.zeros(1, BANK)[0], seasons[0], MONDAY) == 0.0


def test_a_row_is_as_small_as_was_agreed() -> None:
    assert BANK.itemsize <= 216
    assert BANK.itemsize % 8 == 0
