"""The compiled reader against msgspec's decoder: what it takes in means the same, what it declines is read too."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from schemas.columns import read_fields
from schemas.decoding import Malformed
from schemas.events import Decoded, read_events
from schemas.rules import rules_of
from schemas.scan import pack, scan
from schemas.usage import MAX_LINE, UsageData, decode_usage

Raw = Callable[..., bytes]

_ODD = [
    None, True, False, 0, -1, 1, -0.0, 2**53, 2**53 + 1, 10**15, 10**16, 2**64, 1e15, 1e16, 1e308, 5e-324, 0.1,
    1 / 3, 1e-7, 123456789012345.6,
    math.nan, math.inf, "", "a", "\0", "ü" * 128, "ü" * 129, "x" * 256, "x" * 257, "x" * 513, '"', "\\",
    "\x7f", "日本", "😀", [], {}, {"a": 1},
    "2026-03-02T00:01:32.844Z", "1969-12-31T23:59:59Z", "2299-12-31T23:59:59+14:00", "interactive", "request_body",
    "tripswitch_denied", "llm.usage.v1", 401, 429, 499, 999, 1000, 90, -90.5, 180,
]  # fmt: skip
_TIME = (
    r"(19|20|22)[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9]"
    r"(\.[0-9]{0,8})?([Zz]|[+-]0[0-9]:[0-3]0|)"
)
_values = st.sampled_from(_ODD) | st.integers(-5, 10**18) | st.floats() | st.text(max_size=40)
_outer = st.sampled_from(["id", "source", "subject", "time", "type", "data", "specversion", "unknown", "", "tenant"])
_inner = st.sampled_from([*UsageData.__struct_fields__, "unknown", "id"])


def reads_the_same(values: Sequence[bytes]) -> int:
    """Holds `read_events` against msgspec; returns how many records the compiled reader took in itself."""
    expected, reasons = {}, {}
    for place, value in enumerate(values):
        try:
            expected[place] = decode_usage(value)
        except Malformed as error:
            reasons[place] = str(error)
    events, wrong = read_events(values)
    assert wrong == reasons
    assert not scan(pack(values)).good[list(reasons)].any()
    places = np.array(list(expected), np.int64)
    read, told = events.select(places), Decoded(list(expected.values()))
    for name, column, other in zip(read.fields._fields, read.fields, told.fields, strict=True):
        np.testing.assert_array_equal(column, other, err_msg=name)
    assert list(read) == list(told)
    everyone = range(len(places))
    assert read.callers(everyone) == told.callers(everyone)
    assert read.credentials(everyone) == told.credentials(everyone)
    return int(scan(pack(values)).good.sum())


def test_nothing_is_no_events() -> None:
    assert reads_the_same([]) == 0


@given(
    outer=st.lists(st.tuples(_outer, _values), max_size=3),
    inner=st.lists(st.tuples(_inner, _values), max_size=5),
    ascii_only=st.booleans(),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\n:\r ")]),
    data=st.data(),
)
def test_any_field_may_hold_anything(
    outer: list[tuple[str, Any]],
    inner: list[tuple[str, Any]],
    ascii_only: bool,
    separators: tuple[str, str],
    data: st.DataObject,
) -> None:
    members = {"id": "1", "source": "g", "subject": "k", "time": "2026-03-02T00:01:32.844Z"}
    body = {"model": "m", "status": 200, "tenant": "acme", **dict(inner)}
    event = {**members, "data": body, **dict(outer)}
    keys = data.draw(st.permutations(list(event)))
    text = json.dumps({key: event[key] for key in keys}, ensure_ascii=ascii_only, separators=separators)
    # Lone surrogates are no UTF-8.
    reads_the_same([text.encode("utf-8", "surrogatepass")])


@given(st.lists(st.binary(max_size=30), max_size=4))
@example([b"{", b'{"id":"', b'"}', b""])
def test_any_bytes(values: list[bytes]) -> None:
    assert reads_the_same(values) == 0


@given(at=st.integers(0, 200), put=st.binary(max_size=3), cut=st.integers(0, 3))
def test_a_record_that_was_damaged(raw: Raw, at: int, put: bytes, cut: int) -> None:
    whole = raw(data={"cost_usd": 0.000111, "lat": -33.87, "streaming": True, "city": "São Paulo"})
    at %= len(whole)
    reads_the_same([whole, whole[:at] + put + whole[at + cut :], whole])


@given(
    st.floats(-90, 90) | st.from_regex(r"-?(0|[1-9][0-9]{0,21})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
)
@example("0.1e-22")
@example("9007199254740993")
@example("4.35")
@example("0e9999")
@example("00")
@example("1.")
@example("-")
@example(".5")
@example("1e")
@example("90.00000000000000000000001")
@example("1e-400")
def test_numbers_are_the_nearest_doubles(raw: Raw, number: float | str) -> None:
    text = number if isinstance(number, str) else repr(number)
    reads_the_same(
        [raw(data={name: "NUMBER"}).replace(b'"NUMBER"', text.encode()) for name in ("lat", "cost_usd", "status", "x")]
    )


@given(st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.from_regex(_TIME, fullmatch=True))
@example("2024-02-29T23:59:59.999999Z")
@example("2100-02-29T00:00:00Z")
@example("1970-01-01T00:00:00+00:00")
@example("2026-03-02T00:00:00-00:00")
@example("2299-12-31T23:59:59.9+00:00")
@example("2300-01-01T00:00:00Z")
@example("2026-03-02T24:00:00Z")
@example("2026-03-02T00:00:60Z")
@example("+00:00")
@example("Z")
def test_times_are_those_of_the_calendar(raw: Raw, moment: str) -> None:
    reads_the_same([raw(time=moment)])


def test_what_gateways_write_is_taken_in(raw: Raw) -> None:
    """Escapes, foreign time zones and nested members of others are left to msgspec."""
    plain = [
        raw(), raw(data={"tenant": None, "city": None, "workload": "agent"}),
        raw(subject="ключ", data={"city": "x" * 999}), raw(time="2026-03-02T00:01:32+00:00"),
        raw(data={"cost_usd": 1 / 3, "latency_ms": 0.1 + 0.2, "accuracy_km": 12}),
        raw(extra=1.5, more="x", data={"unknown": None, "usage_missing": True}),
    ]  # fmt: skip
    plain = [json.dumps(json.loads(value), ensure_ascii=False).encode() for value in plain]
    assert reads_the_same(plain) == len(plain)
    left = [
        raw(id='a"b'),
        raw(time="2026-03-02T01:01:32+01:00"),
        raw(data={"metadata": {"a": []}}),
        raw(data={"tenant": "é"}),
    ]
    assert reads_the_same(left) == 0


def test_fields_may_be_in_another_order_in_each_record(raw: Raw) -> None:
    event = json.loads(raw(data={"lat": 1.5, "error": "e"}))
    turned = [dict(sorted(event.items(), reverse=n % 2 == 0)) for n in range(5)]
    assert reads_the_same([json.dumps(members).encode() for members in turned]) == 5


@pytest.mark.parametrize(
    "twice", [b'"status":200,"status":500', b'"status":500,"status":"x"', b'"unknown":1,"unknown":2']
)
def test_of_a_field_that_is_there_twice_the_last_counts(raw: Raw, twice: bytes) -> None:
    reads_the_same([raw().replace(b'"status": 200', twice)])


def test_a_record_may_be_too_long(raw: Raw) -> None:
    short = raw(data={"city": ""})
    longest = raw(data={"city": "x" * (MAX_LINE - len(short))})
    assert len(longest) == MAX_LINE
    assert reads_the_same([longest, longest + b" "]) == 1


def test_many_numbers_that_python_reads(raw: Raw) -> None:
    """More than there is room for: the rest of the records is declined."""
    values = [raw(data=dict.fromkeys(("cost_usd", "latency_ms", "lat", "lon", "accuracy_km"), 0.1 + 0.2))] * 10
    assert reads_the_same(values) == 8


def test_an_empty_credential_is_none_however_the_record_is_read(raw: Raw) -> None:
    values = [raw(data={"credential_id": ""}), raw(data={"credential_id": "", "model": "\x1f"})]
    assert reads_the_same(values) == 1
    assert read_events(values)[0].credentials([0, 1]) == [None, None]


def test_a_part_of_events_is_those_events(raw: Raw) -> None:
    values = [raw(id=str(n), subject=f"k{n}", data={"credential_id": f"c{n}"}) for n in range(6)] + [raw(id='"6')]
    events, _ = read_events(values)
    part = events.select(np.array([1, 4, 6]))
    assert [event.id for event in part] == ["1", "4", '"6']
    assert part.callers([1, 2]) == [("acme", "k4"), ("acme", "key_7f3a")]
    assert part.credentials([0, 2]) == ["c1", None]
    assert part[0] is part[0]
    assert [event.id for event in part[1:]] == ["4", '"6']
    assert (part.fields.unique == read_fields(list(part)).unique).all()


class _Inner(Struct):
    value: int


class _Unknown(Struct):
    """Whole numbers without bounds: the compiled reader would not know when to decline."""

    data: _Inner


class _Pattern(Struct):
    name: Annotated[str, Meta(pattern="a+")]


class _Choices(Struct):
    name: Literal["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("struct", [_Unknown, _Pattern, _Choices])
def test_a_struct_that_the_reader_does_not_know_is_refused(struct: type[Struct]) -> None:
    with pytest.raises(TypeError, match="does not know"):
        rules_of(struct)


def test_rules_are_what_the_struct_declares() -> None:
    fields, rules = rules_of(_Known)
    assert fields == ["name", "data", "count"]
    assert rules.bounds.tolist() == [[1, 7, 0], [0, 1e18, 0], [0, 9, 1]]
    assert rules.levels.tolist() == [0, 0, 1]
    assert rules.required == 0b011
    msgspec.json.decode(b'{"name":"a","data":{}}', type=_Known)


class _Counted(Struct):
    count: Annotated[int, Meta(ge=0, le=9)] | None = None


class _Known(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=7)]
    data: _Counted
