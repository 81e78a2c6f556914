import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.usage import UsageData, decode_usage
from tripswitch_gateway.callers import MAX_NAME, Caller
from tripswitch_gateway.events import usage_event

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**53 - 1, max_value=2**70),
    st.floats(),
    st.text(st.characters(), max_size=20),
    st.text(st.sampled_from("\ud800a\x00é"), min_size=1, max_size=2000),
    st.binary(max_size=5),
    st.sampled_from(["batch", "agent", "request_body", "nan", "499"]),
    st.lists(st.integers(), max_size=2),
)
NAMES = [*UsageData.__struct_fields__, "surplus"]
TEXT = st.text(st.characters(), max_size=600)


def decoded(event: dict[str, Any]) -> Any:
    return decode_usage(json.dumps(event, ensure_ascii=False, allow_nan=False).encode())


@given(
    data=st.dictionaries(st.sampled_from(NAMES), ODD),
    identity=TEXT.filter(bool),
    others=st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT),
    event_id=st.none() | TEXT,
    ended_ms=st.none() | st.integers(),
)
def test_whatever_a_gateway_says_the_call_is_told_of(
    data: dict[str, Any], identity: str, others: tuple[str, ...], event_id: str | None, ended_ms: int | None
) -> None:
    tenant, credential, session, end_user, trust, source = others
    caller = Caller(identity, tenant, credential, session, end_user, trust=trust)
    event = decoded(usage_event(caller, source, data, event_id=event_id, ended_ms=ended_ms))
    assert event.subject == caller.identity
    assert (event.data.tenant, event.data.session_id) == (caller.tenant, caller.session)
    for name in ("input_tokens", "output_tokens"):
        value = data.get(name)
        right = type(value) is int and 0 <= value <= 2**53
        assert getattr(event.data, name) == (value if right else None)
    cost = data.get("cost_usd")
    right = type(cost) in (int, float) and math.isfinite(cost) and 0 <= cost <= 1e15
    assert event.data.cost_usd == (cost if right else None)


def test_every_field_of_the_event_can_be_told() -> None:
    caller = Caller("key_1", "acme", "cred_1", "s_1", "u_1", kind="api_key")
    data = {
        "workload": "agent", "provider": "openai", "model": "m", "route": "/v1", "input_tokens": 3, "output_tokens": 4,
        "cached_tokens": 1, "cost_usd": 0.5, "status": 200, "error": "e", "latency_ms": 1.5, "attempt": 2,
        "operation_id": "o", "fingerprint": "f", "tool": "t", "ip": "192.0.2.1", "country": "DE", "city": "c",
        "lat": 1, "lon": -2.5, "accuracy_km": 5, "asn": 64500, "user_agent": "ua", "streaming": True,
        "usage_missing": False,
    }  # fmt: skip
    event = decoded(usage_event(caller, "gateway/eu-1", data, event_id="i-1", ended_ms=1_795_223_525_123))
    names = {"tenant": "acme", "credential_id": "cred_1", "session_id": "s_1", "end_user": "u_1", "kind": "api_key"}
    expected = data | names | {"identity_trust": "authenticated"}
    assert {name: getattr(event.data, name) for name in UsageData.__struct_fields__} == expected
    assert (event.id, event.source, event.time.isoformat(timespec="milliseconds")) == (
        "i-1", "gateway/eu-1", "2026-11-21T01:12:05.123+00:00",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["", None])
def test_a_caller_needs_an_identity(name: Any) -> None:
    with pytest.raises(ValueError, match="identity"):
        Caller(name)


def test_the_name_that_is_checked_is_the_name_that_is_told() -> None:
    caller = Caller("\ud800" + "x" * 1000, tenant="", session="s" * 1000)
    assert (caller.identity, caller.tenant) == ("?" + "x" * (MAX_NAME - 1), "-")
    event = decoded(usage_event(caller, "g", {"model": "m", "status": 200}))
    assert (event.subject, event.data.tenant, event.data.session_id) == (caller.identity, "-", caller.session)
