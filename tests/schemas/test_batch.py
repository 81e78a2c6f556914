"""Events as columns."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from schemas.batch import TRUSTS, WORKLOADS, Batch, to_batch
from schemas.times import EPOCH, to_millis
from schemas.usage import CLAIMED, DENIED, UsageData, UsageEvent, decode_usage

Raw = Callable[..., bytes]
COLUMNS = [name for name in Batch.__struct_fields__ if name != "events"]
HASHES = {
    "source": "source",
    "credential": "credential_id",
    "session": "session_id",
    "fingerprint": "fingerprint",
    "country": "country",
    "model": "model",
    "provider": "provider",
    "route": "route",
    "agent": "user_agent",
}
"""Columns and the names of what they hash."""


def one(raw: Raw, **data: object) -> Batch:
    return to_batch([decode_usage(raw(data=data))], [0], [0])


def test_every_column_has_a_row_per_event(raw: Raw) -> None:
    batch = to_batch([decode_usage(raw(id=str(n))) for n in range(5)], range(7, 12), [3] * 5)
    assert len(batch) == 5
    assert {len(getattr(batch, name)) for name in COLUMNS} == {5}
    assert batch.offset.tolist() == [7, 8, 9, 10, 11]
    assert batch.arrived.tolist() == [3] * 5


def test_no_events_are_no_rows() -> None:
    batch = to_batch([], [], [])
    assert len(batch) == 0
    assert batch.tokens.dtype == np.float64


def test_every_column_is_of_its_type(raw: Raw) -> None:
    for batch in (one(raw), to_batch([], [], []), one(raw).without(np.array([True]))):
        types = {name: str(getattr(batch, name).dtype) for name in COLUMNS}
        assert types == {
            **dict.fromkeys(("offset", "time", "arrived", "asn", "status"), "int64"),
            **dict.fromkeys((*HASHES, "unique", "identity"), "uint64"),
            **dict.fromkeys(("input", "output", "tokens", "cost", "latitude", "longitude", "accuracy"), "float64"),
            **dict.fromkeys(("workload", "declared", "trust"), "int8"),
            **dict.fromkeys(("claimed", "retry", "failed", "unmetered", "denied", "excluded"), "bool"),
        }


@given(flags=st.lists(st.booleans(), max_size=12))
def test_what_is_left_is_the_batch_of_the_other_events(raw: Raw, flags: list[bool]) -> None:
    events = [
        decode_usage(raw(id=str(n), data={"session_id": f"s{n}", "asn": n, "cost_usd": n, "attempt": n % 2}))
        for n in range(len(flags))
    ]
    batch = to_batch(events, np.arange(len(flags)), np.arange(len(flags)) + 5)
    left = batch.without(np.array(flags, np.bool_))
    kept = [n for n, flag in enumerate(flags) if not flag]
    expected = to_batch([events[n] for n in kept], kept, [n + 5 for n in kept])
    assert list(left.events) == list(expected.events)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(left, name), getattr(expected, name))


def test_unknown_tokens_are_no_number_and_add_nothing(raw: Raw) -> None:
    batch = one(raw, input_tokens=None, output_tokens=20)
    assert np.isnan(batch.input[0])
    assert batch.tokens[0] == 20
    batch = one(raw, input_tokens=7, output_tokens=None)
    assert (batch.input[0], batch.tokens[0]) == (7, 7)
    batch = one(raw, input_tokens=None, output_tokens=None, cost_usd=None)
    assert (batch.tokens[0], batch.cost[0]) == (0, 0)


def test_an_unknown_place_is_no_place(raw: Raw) -> None:
    batch = one(raw)
    assert np.isnan([batch.latitude[0], batch.longitude[0], batch.accuracy[0]]).all()
    assert (batch.asn[0], batch.country[0]) == (-1, 0)
    batch = one(raw, lat=0, lon=0, accuracy_km=0, asn=0, country="DE")
    assert (batch.latitude[0], batch.longitude[0], batch.accuracy[0], batch.asn[0]) == (0, 0, 0, 0)
    assert batch.country[0] != 0


@pytest.mark.parametrize("column", HASHES.keys() - {"source", "model"})
def test_hashes_tell_names_apart_and_absence_from_both(raw: Raw, column: str) -> None:
    hashes = [getattr(one(raw, **{HASHES[column]: value}), column)[0] for value in ("a", "b", "a", "", None)]
    assert hashes[0] == hashes[2] != hashes[1]
    assert hashes[3] == hashes[4] == 0
    assert 0 not in hashes[:3]


@pytest.mark.parametrize("column", HASHES)
def test_a_hash_is_xxh3_of_the_name(raw: Raw, column: str) -> None:
    """What is saved must mean the same to every version of the program."""
    name = "Straße 1"
    event = raw(source=name) if column == "source" else raw(data={HASHES[column]: name})
    assert getattr(to_batch([decode_usage(event)], [0], [0]), column)[0] == 18_395_535_506_016_314_040


@given(
    names=st.lists(st.none() | st.text(max_size=20) | st.sampled_from(["é" * 120, "é" * 121, "x" * 300]), min_size=4),
    count=st.integers(1, 700),
)
def test_names_of_any_length_have_the_librarys_hash(names: list[str | None], count: int) -> None:
    def name(at: int) -> str | None:
        return names[at % len(names)]

    def seed(text: str | None) -> int:
        return xxh3_64_intdigest(text.encode()) if text else 0

    events = [
        UsageEvent(
            name(n) or "1", name(n + 1) or "s", name(n + 2) or "k", EPOCH,
            UsageData("m", 200, tenant=name(n + 3), session_id=name(n), user_agent=name(n + 1), error=name(n)),
        )
        for n in range(count)
    ]  # fmt: skip
    batch = to_batch(events, range(count), [0] * count)
    rows = [event.data for event in events]
    assert batch.agent.tolist() == [seed(d.user_agent) for d in rows]
    assert batch.session.tolist() == [seed(d.session_id) for d in rows]
    assert batch.source.tolist() == [seed(e.source) for e in events]
    assert batch.unique.tolist() == [xxh3_64_intdigest(e.id.encode(), seed(e.source)) for e in events]
    assert batch.identity.tolist() == [xxh3_64_intdigest(e.subject.encode(), seed(e.data.tenant)) for e in events]


@given(
    given_in=st.none() | st.integers(0, 2**53),
    cost=st.none() | st.floats(0, 1e15) | st.integers(0, 10**15),
    lat=st.none() | st.floats(-90, 90) | st.integers(-90, 90),
    accuracy=st.none() | st.integers(0, 10**15),
)
def test_numbers_are_what_the_event_says(
    raw: Raw, given_in: int | None, cost: float | None, lat: float | None, accuracy: int | None
) -> None:
    data = UsageData("m", 200, input_tokens=given_in, cost_usd=cost, lat=lat, lon=lat and -lat, accuracy_km=accuracy)
    batch = to_batch([UsageEvent("1", "s", "k", EPOCH, data)], [0], [0])
    for column, number in (
        (batch.input, given_in),
        (batch.latitude, lat),
        (batch.longitude, lat and -lat),
        (batch.accuracy, accuracy),
    ):
        np.testing.assert_equal(column[0], np.nan if number is None else number)
    assert batch.cost[0] == (cost or 0)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        to_batch([UsageEvent("1", "s", "k", datetime(2026, 3, 2), UsageData("m", 200))], [0], [0])  # noqa: DTZ001


@pytest.mark.parametrize(
    ("data", "failed", "denied", "excluded"),
    [
        ({"status": 200}, False, False, False),
        ({"status": 399}, False, False, False),
        ({"status": 400}, True, False, False),
        ({"status": 429}, True, False, False),
        ({"status": 401}, True, False, True),
        ({"status": 403}, True, False, False),
        ({"status": 403, "error": DENIED}, True, True, True),
        ({"status": 200, "error": DENIED}, False, True, True),
        ({"status": 500, "error": "timeout"}, True, False, False),
    ],
)
def test_which_calls_are_evidence(
    raw: Raw, data: dict[str, object], failed: bool, denied: bool, excluded: bool
) -> None:
    batch = one(raw, **data)
    assert (bool(batch.failed[0]), bool(batch.denied[0]), bool(batch.excluded[0])) == (failed, denied, excluded)


@pytest.mark.parametrize(("attempt", "retry"), [(None, False), (0, False), (1, True), (7, True)])
def test_a_second_attempt_is_a_retry(raw: Raw, attempt: int | None, retry: bool) -> None:
    assert bool(one(raw, attempt=attempt).retry[0]) is retry


@pytest.mark.parametrize(
    ("workload", "name"),
    [(None, "interactive"), ("interactive", "interactive"), ("batch", "batch"), ("agent", "agent")],
)
def test_a_workload_is_interactive_unless_it_says_else(raw: Raw, workload: str | None, name: str) -> None:
    assert WORKLOADS[one(raw, workload=workload).workload[0]] == name


@pytest.mark.parametrize("workload", [None, "interactive", "batch", "agent"])
def test_what_an_event_declares_can_be_told_from_its_code(raw: Raw, workload: str | None) -> None:
    code = one(raw, workload=workload).declared[0]
    assert (WORKLOADS[code] if code >= 0 else None) == workload


@pytest.mark.parametrize("trust", [None, "authenticated", "mapped_header", "request_body"])
def test_trust_can_be_told_from_its_code(raw: Raw, trust: str | None) -> None:
    assert TRUSTS[one(raw, identity_trust=trust).trust[0]] == trust


@given(micros=st.integers(0, 230 * 366 * 86_400 * 10**6))
def test_times_are_whole_milliseconds_rounded_down(micros: int) -> None:
    moment = EPOCH + timedelta(microseconds=micros)
    batch = to_batch([UsageEvent("1", "s", "k", moment, UsageData("m", 200))], [0], [0])
    assert batch.time[0] == to_millis(moment) == micros // 1000


def test_two_sources_events_are_two_whatever_their_names() -> None:
    def unique(source: str, name: str) -> int:
        return int(
            to_batch(
                [UsageEvent(name, source, "k", datetime(2026, 3, 2, tzinfo=UTC), UsageData("m", 200))], [0], [0]
            ).unique[0]
        )

    assert unique("ab", "c") != unique("a", "bc")
    assert unique("a", "b") != unique("b", "a")
    assert unique("a", "b") == unique("a", "b") != 0


def test_hashes_are_the_same_in_every_process(raw: Raw) -> None:
    code = (
        "import sys\n"
        "from schemas.batch import to_batch\n"
        "from schemas.usage import decode_usage\n"
        "b = to_batch([decode_usage(sys.stdin.buffer.read())], [0], [0])\n"
        "print([int(getattr(b, name)[0]) for name in sys.argv[1:]])\n"
    )
    line = raw(data={"session_id": "s", "fingerprint": "f", "country": "DE", "credential_id": "c"})
    names = ["unique", *HASHES]

    def elsewhere(seed: str) -> bytes:
        environment = os.environ | {"PYTHONHASHSEED": seed}
        return subprocess.run(
            [sys.executable, "-c", code, *names], input=line, env=environment, capture_output=True, check=True
        ).stdout

    batch = to_batch([decode_usage(line)], [0], [0])
    here = [int(getattr(batch, name)[0]) for name in names]
    assert elsewhere("1") == elsewhere("2") == f"{here}\n".encode()


@pytest.mark.parametrize(
    ("data", "unmetered"),
    [
        ({"output_tokens": 5}, False),
        ({"output_tokens": 0}, False),
        ({"output_tokens": None}, True),
        ({"output_tokens": 5, "usage_missing": True}, True),
        ({"output_tokens": None, "status": 499}, True),
        ({"output_tokens": None, "status": 503}, False),
    ],
)
def test_a_call_that_was_served_without_usage_is_unmetered(raw: Raw, data: dict[str, Any], unmetered: bool) -> None:
    assert one(raw, **data).unmetered.tolist() == [unmetered]


@pytest.mark.parametrize("trust", [None, "authenticated", "mapped_header", CLAIMED])
def test_who_claims_a_name_is_another_identity(raw: Raw, trust: str | None) -> None:
    plain, other = one(raw), one(raw, identity_trust=trust)
    assert other.claimed[0] == (trust == CLAIMED)
    assert bool(other.identity[0] == plain.identity[0]) is (trust != CLAIMED)
