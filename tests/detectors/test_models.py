"""River's blocks behind their guards."""

import math

import pytest

from detectors.models import CohortModel, VelocityModel

USELESS = [math.nan, math.inf, -math.inf, -1.0]


@pytest.mark.parametrize("value", USELESS)
def test_a_value_that_is_no_amount_changes_nothing(value: float) -> None:
    touched, spared = VelocityModel(), VelocityModel()
    for n in range(50):
        touched.learn(10.0 + n % 3)
        touched.learn(value)
        spared.learn(10.0 + n % 3)
    assert touched.count == spared.count == 50
    assert (touched.usual, touched.score(100.0, 30)) == (spared.usual, spared.score(100.0, 30))


@pytest.mark.parametrize("value", USELESS)
def test_a_cohort_leaves_out_what_is_no_amount(value: float) -> None:
    cohort = CohortModel(0.99)
    cohort.learn(value)
    assert cohort.count == 0
    for n in range(300):
        cohort.learn(float(n))
    before = cohort.reach(200)
    cohort.learn(value)
    assert cohort.reach(200) == before
    assert math.isfinite(before)


def test_a_model_says_nothing_before_it_is_warm() -> None:
    model = VelocityModel()
    for _ in range(29):
        model.learn(10.0)
    assert model.score(1e9, 30) == 0.0
    model.learn(10.0)
    assert model.score(1e9, 30) > 3


def test_a_cohort_says_nothing_before_it_is_warm() -> None:
    cohort = CohortModel(0.99)
    for _ in range(199):
        cohort.learn(10.0)
    assert cohort.reach(200) == 0.0
    cohort.learn(10.0)
    assert cohort.reach(200) == pytest.approx(10.0)


def test_a_constant_past_does_not_make_every_change_surprising() -> None:
    model = VelocityModel()
    for _ in range(500):
        model.learn(100.0)
    assert abs(model.score(100.0, 30)) < 0.01
    assert 0 < model.score(120.0, 30) < 1.5
    assert model.score(400.0, 30) > 3


def test_usual_is_what_was_learnt() -> None:
    model = VelocityModel()
    assert model.usual == 0.0
    for _ in range(500):
        model.learn(40.0)
    assert model.usual == pytest.approx(40.0, rel=0.01)


def test_a_cohort_reaches_its_quantile() -> None:
    cohort = CohortModel(0.9)
    for n in range(5000):
        cohort.learn(float((n * 37) % 100))
    assert 80 <= cohort.reach(200) <= 97


def test_huge_amounts_stay_finite() -> None:
    model, cohort = VelocityModel(), CohortModel(0.99)
    for _ in range(300):
        model.learn(1e300)
        cohort.learn(1e300)
    assert math.isfinite(model.score(1e300, 30))
    assert math.isfinite(model.usual)
    assert math.isfinite(cohort.reach(200))
