"""Distances, and what identities taken together know of places."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.places import Known, add_regular, apart, count_country, others_are, share_of, to_cell, to_degrees

DAY = 86_400
KEYS = st.integers(1, (1 << 64) - 1).map(np.uint64)


def test_berlin_to_lagos() -> None:
    assert apart(52.52, 13.40, 6.45, 3.39) == pytest.approx(5_207, abs=15)
    assert apart(0.0, 0.0, 0.0, 180.0) == pytest.approx(math.pi * 6371.0)
    assert math.isnan(apart(math.nan, 0.0, 0.0, 0.0))


@given(st.floats(-180, 180))
def test_a_cell_is_within_a_kilometre(degrees: float) -> None:
    cell = to_cell(degrees)
    assert -(1 << 15) < cell < 1 << 15
    assert to_degrees(cell) == pytest.approx(degrees, abs=0.0051)


def test_an_unknown_coordinate_stays_unknown() -> None:
    assert math.isnan(to_degrees(to_cell(math.nan)))


def test_it_takes_two_others() -> None:
    regular, key = Known().regular, np.uint64(77)
    assert not others_are(regular, key, 1, DAY)
    add_regular(regular, key, 5, DAY)
    add_regular(regular, key, 5, DAY)
    assert not others_are(regular, key, 1, DAY)
    add_regular(regular, key, 6, DAY)
    assert others_are(regular, key, 1, DAY)
    assert not others_are(regular, key, 6, DAY)
    assert not others_are(regular, np.uint64(78), 1, DAY)


def test_what_others_did_a_month_ago_says_nothing() -> None:
    regular, key = Known().regular, np.uint64(77)
    for who in (5, 6):
        add_regular(regular, key, who, DAY)
    assert others_are(regular, key, 1, 31 * DAY)
    assert not others_are(regular, key, 1, 31 * DAY + 1)


def test_of_places_that_share_a_set_the_oldest_goes() -> None:
    regular, step = Known().regular, 1 << 33
    keys = [np.uint64(n * step + 3) for n in range(1, 10)]
    for n, key in enumerate(keys):
        for who in (5, 6):
            add_regular(regular, key, who, DAY + n)
    assert [others_are(regular, key, 1, DAY) for key in keys] == [False] + [True] * 8


def test_shares_begin_at_a_half_and_add_up() -> None:
    countries = Known().countries
    assert share_of(countries, np.uint64(1 << 40)) == 0.5
    for n in range(10):
        count_country(countries, np.uint64((1 << 40) * (1 if n < 8 else 2)))
    shares = [share_of(countries, np.uint64((1 << 40) * n)) for n in (1, 2, 3)]
    assert shares == [9 / 12, 3 / 12, 1 / 12]


def test_there_is_an_end_to_countries() -> None:
    countries = Known().countries
    for n in range(1, 1001):
        count_country(countries, np.uint64(n << 33))
    assert countries["identities"].sum() == len(countries)
    assert share_of(countries, np.uint64(1000 << 33)) == 1 / (len(countries) + 2)


@given(st.lists(st.tuples(KEYS, st.integers(1, 9), st.integers(0, 1 << 31)), max_size=50))
def test_what_is_saved_comes_back(entries: list[tuple[np.uint64, int, int]]) -> None:
    known, again = Known(), Known()
    for key, who, t in entries:
        add_regular(known.regular, key, who, t)
        count_country(known.countries, key)
    add_regular(again.regular, np.uint64(9), 9, 9)
    again.restore(known.save())
    assert again.regular.tobytes() == known.regular.tobytes()
    assert again.countries.tobytes() == known.countries.tobytes()
    assert again.save() == known.save()
