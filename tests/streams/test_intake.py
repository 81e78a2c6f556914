"""Which lines of a file are events, where no broker vouches for a time."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traffic import Traffic, as_lines

from schemas.usage import MAX_LINE, UsageEvent
from streams.intake import AHEAD, FileIntake

FAR = AHEAD / 1000 + 60


def events(times: Sequence[float], ids: Sequence[int] | None = None) -> list[UsageEvent]:
    traffic = Traffic()
    for n, at in enumerate(times):
        traffic.call(at, event_id=f"e{n if ids is None else ids[n]}")
    return traffic.events


def admit(given_events: Sequence[UsageEvent], chunk: int = 10_000) -> tuple[list[str], list[int], FileIntake]:
    """Ids of the admitted, line numbers of the rejected."""
    intake = FileIntake()
    lines = as_lines(given_events).splitlines(keepends=True)
    answers = [intake.admit(lines[at : at + chunk]) for at in range(0, len(lines), chunk)] + [intake.finish()]
    admitted = [event.id for answer in answers for event in answer.events]
    return admitted, [line for answer in answers for line, _ in answer.rejected], intake


def test_a_good_file_is_admitted_in_its_order() -> None:
    admitted, rejected, _ = admit(events([float(n) for n in range(50)]))
    assert admitted == [f"e{n}" for n in range(50)]
    assert rejected == []


@pytest.mark.parametrize("at", [5, 20, 39])
def test_one_line_from_the_future_is_rejected(at: int) -> None:
    times = [float(n) for n in range(40)]
    times.insert(at, at + FAR)
    admitted, rejected, intake = admit(events(times))
    assert rejected == [at + 1]
    assert len(admitted) == 40
    assert intake.rejected == 1


def test_a_line_from_the_future_at_the_very_end_is_rejected() -> None:
    admitted, rejected, _ = admit(events([*(float(n) for n in range(40)), 39 + FAR]))
    assert (len(admitted), rejected) == (40, [41])


def test_the_reason_says_how_far_ahead_of_what() -> None:
    intake = FileIntake()
    intake.admit(as_lines(events([0.0, 1.0, 2.0, 3602.0])).splitlines())
    [(line, reason)] = intake.finish().rejected
    assert line == 4
    assert reason == (
        "time 2026-03-02T01:00:02.000Z is 3600 s ahead of the stream (2026-03-02T00:00:02.000Z) "
        "and what follows is not there"
    )


@pytest.mark.parametrize("after", [1, 2, 3, 30])
def test_a_jump_after_a_quiet_night_is_accepted(after: int) -> None:
    """However little the new day holds, as long as something follows."""
    times = [*(float(n) for n in range(40)), *(30_000.0 + n for n in range(after + 1))]
    admitted, rejected, _ = admit(events(times))
    assert rejected == []
    assert admitted == [f"e{n}" for n in range(len(times))]


def test_second_deliveries_of_a_wrong_line_do_not_vouch_for_it() -> None:
    times = [float(n) for n in range(20)] + [5000.0] * 4 + [float(n) for n in range(20, 40)]
    ids = [*range(20), *[99] * 4, *range(20, 40)]
    admitted, rejected, _ = admit(events(times, ids))
    assert "e99" not in admitted
    assert rejected == [21, 22, 23, 24]


def test_second_deliveries_at_the_end_do_not_either() -> None:
    admitted, rejected, _ = admit(events([*(float(n) for n in range(20)), 5000.0, 5000.0], [*range(20), 99, 99]))
    assert "e99" not in admitted
    assert len(rejected) == 2


@pytest.mark.parametrize("gap", [600.0, 3600.0, 86_400.0])
def test_a_sparse_file_is_followed(gap: float) -> None:
    """Every event is far ahead of the one before. Only the last has nobody who follows."""
    admitted, rejected, _ = admit(events([n * gap for n in range(30)]))
    assert admitted[:29] == [f"e{n}" for n in range(29)]
    assert rejected in ([], [30])


def test_a_line_just_within_bounds_is_no_question() -> None:
    admitted, rejected, _ = admit(events([0.0, 1.0, 2.0, 2 + AHEAD / 1000, 3.0]))
    assert (len(admitted), rejected) == (5, [])


def test_late_lines_are_admitted() -> None:
    admitted, rejected, _ = admit(events([5000.0, 5001.0, 5002.0, 5003.0, 0.0, 5004.0]))
    assert (len(admitted), rejected) == (6, [])


def test_the_first_lines_have_no_stream_to_be_ahead_of() -> None:
    admitted, rejected, _ = admit(events([0.0, 90_000.0, 180_000.0]))
    assert (len(admitted), rejected) == (3, [])


def test_what_is_no_event_is_rejected_with_its_line() -> None:
    intake = FileIntake()
    [good] = events([0.0])
    blank = [b"", b"\n", b" \t\r\n"]
    answers = [intake.admit([*blank, b"{\n", *blank]), intake.admit([*blank, as_lines([good]), b"\xff"])]
    assert [answer.events for answer in answers] == [[], [good]]
    assert [[line for line, _ in answer.rejected] for answer in answers] == [[4], [12]]
    assert intake.rejected == 2


def test_the_longest_line_may_have_an_end() -> None:
    intake = FileIntake()
    [good] = events([0.0])
    line = as_lines([good]).strip()
    longest = line[:-1] + b',"pad":"' + b"x" * (MAX_LINE - len(line) - len(b',"pad":""')) + b'"}'
    assert len(longest) == MAX_LINE
    answer = intake.admit([longest + b"\r\n", b"  " + longest, longest.replace(b"xx", b"xxx", 1)])
    assert answer.events == [good, good]
    assert [line for line, _ in answer.rejected] == [3]


@given(
    times=st.lists(
        st.sampled_from([0.0, 1.0, 2.0, 100.0, 400.0, 401.0, 1000.0, 5000.0, 5001.0, 99_999.0]), max_size=30
    ),
    chunk=st.integers(1, 7),
)
def test_every_line_has_one_answer_however_the_file_is_cut(times: list[float], chunk: int) -> None:
    given_events = events(times)
    admitted, rejected, intake = admit(given_events)
    assert len(admitted) + len(rejected) == len(times)
    assert intake.rejected == len(rejected)
    assert set(admitted).isdisjoint(given_events[line - 1].id for line in rejected)
    again, rejected_again, _ = admit(given_events, chunk)
    assert (again, rejected_again) == (admitted, rejected)


@pytest.mark.parametrize("burst", [2, 3, 10])
def test_a_burst_of_one_wrong_clock_does_not_vouch_for_itself(burst: int) -> None:
    times = [float(n) for n in range(60)]
    times[20:20] = [20 + FAR + n / 10 for n in range(burst)]
    admitted, rejected, _ = admit(events(times))
    assert rejected == list(range(21, 21 + burst))
    assert len(admitted) == 60
