from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import EPOCH, format_millis, parse_millis, to_millis

LEAST, MOST = (
    to_millis(datetime(1, 1, 1, tzinfo=UTC)),
    to_millis(datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
)


@given(millis=st.integers(0, MOST))
def test_there_and_back(millis: int) -> None:
    text = format_millis(millis)
    assert parse_millis(text) == millis
    assert (len(text), text[-1]) == (24, "Z")


@given(first=st.integers(0, MOST), second=st.integers(0, MOST))
def test_text_sorts_as_time_does(first: int, second: int) -> None:
    assert (format_millis(first) < format_millis(second)) == (first < second)


@given(millis=st.integers(LEAST + 10**8, MOST - 10**8), hours=st.integers(-14, 14))
def test_a_zone_changes_how_a_time_is_written_and_not_when_it_is(millis: int, hours: int) -> None:
    utc = EPOCH + timedelta(milliseconds=millis)
    there = utc.astimezone(timezone(timedelta(hours=hours)))
    assert to_millis(there) == to_millis(utc)
    assert parse_millis(there.isoformat()) == to_millis(utc)


def test_the_example_of_the_wire_format() -> None:
    assert parse_millis("2026-03-02T00:01:32.844Z") == 1_772_409_692_844
    assert format_millis(1_772_409_692_844) == "2026-03-02T00:01:32.844Z"


@pytest.mark.parametrize(("micros", "millis"), [(0, 0), (999, 0), (1000, 1), (1999, 1)])
def test_milliseconds_are_rounded_down(micros: int, millis: int) -> None:
    assert to_millis(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)) == millis


def test_before_1970_they_are_rounded_down_too() -> None:
    assert to_millis(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    assert parse_millis(format_millis(-1)) == -1


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-03-02T25:00:00Z", "1772409692"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_millis(text)


def test_a_time_without_a_zone_says_what_to_write() -> None:
    with pytest.raises(ValueError, match="no time zone: write 2026-03-02T00:01:32Z"):
        parse_millis("2026-03-02T00:01:32")
    with pytest.raises(TypeError):
        to_millis(datetime(2026, 3, 2))  # noqa: DTZ001 - the point of it


def test_years_have_four_digits() -> None:
    assert format_millis(MOST) == "9999-12-31T23:59:59.999Z"
    with pytest.raises(OverflowError):
        format_millis(MOST + 1)
    with pytest.raises(OverflowError):
        format_millis(LEAST - 1)
