"""Usage events: one finished call, as CloudEvents 1.0 in structured JSON."""

import math
import time
import uuid
from collections.abc import Callable, Mapping

from tripswitch_gateway.callers import Caller, clean
from tripswitch_gateway.denials import rfc3339

TYPE = "llm.usage.v1"
TRUSTS = ("authenticated", "mapped_header", "request_body")
WORKLOADS = ("interactive", "batch", "agent")

_MOST_COUNT = 1 << 53
_MOST_AMOUNT = 1e15
_MOST_MS = 7_258_118_400_000  # the year 2200
UNKNOWN_STATUS = 500
UNKNOWN_MODEL = "unknown"


def usage_event(
    caller: Caller, source: str, data: Mapping[str, object], *, event_id: str | None = None, ended_ms: int | None = None
) -> dict[str, object]:
    """The event of a call by ``caller`` at the gateway ``source`` that ended at ``ended_ms`` (Unix ms; None: now).

    ``data`` are the fields of the event's own ``data``; those that name the caller are filled in. What no reader would
    take is left out, field by field: a negative count, a cost that is not a number, a text where a number belongs. The
    call is worth more than the field. Unknown fields are dropped, ``model`` is "unknown" when it is missing, and
    ``status`` 500.

    ``event_id`` must differ from one call to the next, or the second is taken for a repetition: never make it from what
    a caller sends. None makes a new one.
    """
    fields = {
        name: value for name, read in _FIELDS.items() if (value := read(data.get(name))) is not None
    }  # fmt: skip
    fields.setdefault("model", UNKNOWN_MODEL)
    fields.setdefault("status", UNKNOWN_STATUS)
    names = {
        "tenant": caller.tenant,
        "credential_id": caller.credential,
        "kind": caller.kind,
        "session_id": caller.session,
        "end_user": caller.end_user,
        "identity_trust": caller.trust if caller.trust in TRUSTS else None,
    }
    fields.update({name: value for name, value in names.items() if value is not None})
    if ended_ms is None or not 0 <= ended_ms < _MOST_MS:
        ended_ms = time.time_ns() // 1_000_000
    return {
        "specversion": "1.0",
        "type": TYPE,
        "id": clean(event_id) or uuid.uuid4().hex,
        "source": clean(source) or "gateway",
        "subject": caller.identity,
        "time": rfc3339(ended_ms),
        "data": fields,
    }


def count(value: object) -> int | None:
    """A whole number from 0 to 2^53, else None."""
    return value if type(value) is int and 0 <= value <= _MOST_COUNT else None


def amount(value: object) -> float | None:
    """A finite number from 0 to 1e15, else None."""
    if type(value) is int and 0 <= value <= _MOST_AMOUNT:
        return float(value)
    return value if type(value) is float and math.isfinite(value) and 0 <= value <= _MOST_AMOUNT else None


def _between(low: float, high: float) -> Callable[[object], float | None]:
    def read(value: object) -> float | None:
        known = type(value) in (int, float) and low <= value <= high  # type: ignore[operator]
        return float(value) if known else None  # type: ignore[arg-type]

    return read


def _within(most: int) -> Callable[[object], int | None]:
    return lambda value: value if type(value) is int and 0 <= value <= most else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _workload(value: object) -> str | None:
    return value if isinstance(value, str) and value in WORKLOADS else None


_FIELDS: dict[str, Callable[[object], object]] = {
    "workload": _workload,
    "provider": clean,
    "model": clean,
    "route": clean,
    "input_tokens": count,
    "output_tokens": count,
    "cached_tokens": count,
    "cost_usd": amount,
    "status": _within(999),
    "error": clean,
    "latency_ms": amount,
    "attempt": count,
    "operation_id": clean,
    "fingerprint": clean,
    "tool": clean,
    "ip": clean,
    "country": clean,
    "city": clean,
    "lat": _between(-90.0, 90.0),
    "lon": _between(-180.0, 180.0),
    "accuracy_km": amount,
    "asn": _within(0xFFFFFFFF),
    "user_agent": clean,
    "streaming": _flag,
    "usage_missing": _flag,
}
"""What the event may carry beside the caller's names, and how each field is read; None leaves it out."""
