"""The usage event: one finished call of a gateway, as CloudEvents 1.0 structured JSON (`llm.usage.v1`)."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.decoding import Malformed, decode

MAX_LINE = 1 << 20
"""Bytes; a longer record is a dead letter."""

DENIED = "tripswitch_denied"
"""`data.error` of a call that a gateway refused on our word."""

CLAIMED = "request_body"
"""`data.identity_trust` of a call whose caller chose the subject itself."""

# Greater counts than this are wrong, not large: they would not survive a double.
_MOST = 1 << 53
# What ClickHouse can store as a time.
_FIRST, _PAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2300, 1, 1, tzinfo=UTC)

Count = Annotated[int, Meta(ge=0, le=_MOST)]
Amount = Annotated[float, Meta(ge=0.0, le=1e15)]
Name = Annotated[str, Meta(min_length=1, max_length=512)]
Label = Annotated[str, Meta(max_length=256)]


class UsageData(Struct, frozen=True, gc=False):
    """What was called, by whom, from where, at what cost. Absent token counts mean unknown, not zero."""

    model: Label
    status: Annotated[int, Meta(ge=0, le=999)]
    tenant: Label | None = None
    credential_id: Label | None = None
    kind: str | None = None
    workload: Literal["interactive", "batch", "agent"] | None = None
    provider: str | None = None
    route: str | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cached_tokens: Count | None = None
    cost_usd: Amount | None = None
    error: str | None = None
    latency_ms: Amount | None = None
    attempt: Count | None = None
    operation_id: Label | None = None
    session_id: Label | None = None
    end_user: Label | None = None
    fingerprint: Label | None = None
    tool: str | None = None
    ip: str | None = None
    country: Label | None = None
    city: str | None = None
    lat: Annotated[float, Meta(ge=-90.0, le=90.0)] | None = None
    lon: Annotated[float, Meta(ge=-180.0, le=180.0)] | None = None
    accuracy_km: Amount | None = None
    asn: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)] | None = None
    user_agent: str | None = None
    streaming: bool | None = None
    usage_missing: bool | None = None
    identity_trust: Literal["authenticated", "mapped_header", "request_body"] | None = None


class UsageEvent(Struct, frozen=True, gc=False):
    """A gateway's report of one call. `time` is the end of the call; `subject` the identity that would be cut off."""

    id: Name
    source: Name
    subject: Name
    time: Annotated[datetime, Meta(tz=True)]
    data: UsageData
    type: Literal["llm.usage.v1"] = "llm.usage.v1"


_decoder = msgspec.json.Decoder(UsageEvent)


def decode_usage(raw: bytes) -> UsageEvent:
    """The event of one record.

    Raises:
        Malformed: not UTF-8 JSON, a required field is absent, a type is wrong, a number is out of range, or the
            record is longer than `MAX_LINE`.
    """
    if len(raw) > MAX_LINE:
        raise Malformed(f"{len(raw)} bytes; the most is {MAX_LINE}")
    event = decode(_decoder, raw)
    if not _FIRST <= event.time < _PAST:
        raise Malformed(f"time {event.time.isoformat()} is not in the years 1970 to 2299 of UTC")
    return event
