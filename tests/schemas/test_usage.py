"""What is a usage event, and why the rest is not."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decoding import Malformed
from schemas.times import to_millis
from schemas.usage import MAX_LINE, UsageEvent, decode_usage

Raw = Callable[..., bytes]
OPTIONAL = [
    "tenant",
    "credential_id",
    "kind",
    "workload",
    "provider",
    "route",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost_usd",
    "error",
    "latency_ms",
    "attempt",
    "operation_id",
    "session_id",
    "end_user",
    "fingerprint",
    "tool",
    "ip",
    "country",
    "city",
    "lat",
    "lon",
    "accuracy_km",
    "asn",
    "user_agent",
    "streaming",
    "usage_missing",
    "identity_trust",
]


def test_the_example_of_the_wire_format() -> None:
    event = decode_usage(
        b'{"specversion":"1.0","type":"llm.usage.v1","id":"a","source":"gateway/eu-1","subject":"key_7f3a",'
        b'"time":"2026-03-02T00:01:32.844Z","data":{"tenant":"acme","credential_id":"cred_1","kind":"api_key",'
        b'"workload":"interactive","provider":"openai","model":"gpt-5-mini","route":"/v1/chat/completions",'
        b'"input_tokens":1064,"output_tokens":145,"cached_tokens":0,"cost_usd":0.000111,"status":200,"error":null,'
        b'"latency_ms":1379.3,"attempt":0,"operation_id":"o","session_id":"s","end_user":"u","fingerprint":"f",'
        b'"tool":"t","ip":"10.0.0.1","country":"DE","city":"Frankfurt","lat":50.11,"lon":8.68,"accuracy_km":50,'
        b'"asn":16509,"user_agent":"ua","streaming":true,"usage_missing":false,"identity_trust":"authenticated"}}'
    )
    assert (event.id, event.source, event.subject, event.data.tenant) == ("a", "gateway/eu-1", "key_7f3a", "acme")
    assert to_millis(event.time) == 1_772_409_692_844
    assert event.data.accuracy_km == 50.0
    assert all(getattr(event.data, name) is not None for name in OPTIONAL if name != "error")


@pytest.mark.parametrize("name", ["id", "source", "subject", "time", "data", "data.model", "data.status"])
def test_what_is_required_is_missed_by_its_name(raw: Raw, name: str) -> None:
    with pytest.raises(Malformed, match=rf"missing required field `{name.rpartition('.')[2]}`"):
        decode_usage(raw(drop=name))


@pytest.mark.parametrize("name", OPTIONAL)
def test_the_rest_is_optional_and_may_be_null(raw: Raw, name: str) -> None:
    assert getattr(decode_usage(raw(data={name: None})).data, name) is None


def test_unknown_usage_is_not_zero(raw: Raw) -> None:
    absent = decode_usage(raw(drop="data.input_tokens")).data
    assert absent.input_tokens is None
    assert decode_usage(raw(data={"input_tokens": None})).data.input_tokens is None
    assert decode_usage(raw(data={"input_tokens": 0})).data.input_tokens == 0


def test_unknown_fields_are_ignored(raw: Raw) -> None:
    plain = decode_usage(raw())
    assert decode_usage(raw(data={"new": [1, {"a": 2}]}, dataschema="https://x.example", traceparent="00-1")) == plain


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 5),
        ("model", None),
        ("status", "200"),
        ("status", 200.5),
        ("status", None),
        ("status", -1),
        ("status", 1000),
        ("input_tokens", "12"),
        ("input_tokens", 1.5),
        ("input_tokens", True),
        ("input_tokens", -1),
        ("output_tokens", -1),
        ("cached_tokens", -5),
        ("input_tokens", 2**53 + 1),
        ("input_tokens", 10**400),
        ("attempt", -1),
        ("cost_usd", -0.01),
        ("cost_usd", "0.1"),
        ("cost_usd", 1.1e15),
        ("latency_ms", -1),
        ("lat", 90.5),
        ("lat", -91),
        ("lon", 181),
        ("accuracy_km", -1),
        ("asn", -1),
        ("asn", 2**32),
        ("asn", "AS1"),
        ("workload", "cron"),
        ("identity_trust", "believed"),
        ("streaming", "yes"),
        ("streaming", 1),
        ("tenant", 7),
        ("session_id", {}),
        ("country", ["DE"]),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_named(raw: Raw, name: str, value: Any) -> None:
    with pytest.raises(Malformed, match=rf"\$\.data\.{name}`"):
        decode_usage(raw(data={name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", ""),
        ("id", 5),
        ("id", None),
        ("id", "x" * 1025),
        ("source", ""),
        ("subject", ""),
        ("subject", None),
        ("time", 1_772_409_692),
        ("time", "2026-03-02T00:01:32"),
        ("time", "yesterday"),
        ("time", "2026-02-30T00:00:00Z"),
        ("data", None),
        ("data", []),
        ("data", "x"),
        ("type", "llm.usage.v2"),
        ("type", None),
    ],
)
def test_an_envelope_that_cannot_be_is_refused_and_named(raw: Raw, name: str, value: Any) -> None:
    with pytest.raises(Malformed, match=rf"\$\.{name}`"):
        decode_usage(raw(**{name: value}))


@pytest.mark.parametrize("name", ["cost_usd", "latency_ms", "lat", "accuracy_km", "input_tokens"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "nan"])
def test_no_number_is_infinite_or_none(raw: Raw, name: str, value: str) -> None:
    line = raw(data={name: 12345}).replace(b"12345", value.encode())
    with pytest.raises(Malformed):
        decode_usage(line)


@pytest.mark.parametrize(
    "time",
    [
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00+01:00",
        "2300-01-01T00:00:00Z",
        "2299-12-31T23:59:59-01:00",
        "0001-01-01T00:00:00+14:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-14:00",
        "9999-12-31T23:59:59Z",
    ],
)
def test_a_time_that_no_table_can_hold_is_refused(raw: Raw, time: str) -> None:
    with pytest.raises(Malformed, match="year"):
        decode_usage(raw(time=time))


@pytest.mark.parametrize(
    ("time", "millis"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1969-12-31T23:30:00-01:00", 1_800_000),
        ("2299-12-31T23:59:59.999Z", 10_413_791_999_999),
        ("2300-01-01T00:30:00+01:00", 10_413_790_200_000),
        ("2026-03-02T00:01:32.844999Z", 1_772_409_692_844),
    ],
)
def test_times_are_utc_whatever_their_zone(raw: Raw, time: str, millis: int) -> None:
    assert to_millis(decode_usage(raw(time=time)).time) == millis


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b'"x"',
        b"\xff\xfe",
        b'{"id":"\xff"}',
        b'{"id":"\xc3"}',
        b"\x00",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"id":"\\ud800","source":"s"}',
        b"id=1",
        b"{}{}",
    ],
    ids=range(15),
)
def test_what_is_no_json_object_of_ours(line: bytes) -> None:
    with pytest.raises(Malformed):
        decode_usage(line)


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
def test_deep_nesting_where_nobody_looks_is_refused_too(raw: Raw, bracket: bytes) -> None:
    with pytest.raises(Malformed, match="nested too deeply"):
        decode_usage(raw()[:-1] + b',"extra":' + bracket * 100_000)


def test_a_line_may_have_one_mebibyte(raw: Raw) -> None:
    room = MAX_LINE - len(raw(pad=""))
    assert len(raw(pad="x" * room)) == MAX_LINE == 1024 * 1024
    decode_usage(raw(pad="x" * room))
    with pytest.raises(Malformed, match="1048577 bytes; the most is 1048576"):
        decode_usage(raw(pad="x" * (room + 1)))


@given(line=st.binary(max_size=200))
def test_no_bytes_raise_anything_else(line: bytes) -> None:
    with suppress(Malformed):
        decode_usage(line)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(changes=st.dictionaries(st.sampled_from([*OPTIONAL, "model", "status"]), JSON, max_size=4))
def test_no_value_raises_anything_else(raw: Raw, changes: dict[str, Any]) -> None:
    with suppress(Malformed):
        assert isinstance(decode_usage(raw(data=changes)), UsageEvent)
