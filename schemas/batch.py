"""A chunk of usage events as columns: what detectors read. One row per event, in the partition's record order."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray

from schemas.columns import name_hash
from schemas.events import Decoded, Events
from schemas.usage import CLAIMED, DENIED, UsageEvent

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int8]

WORKLOADS = ("interactive", "batch", "agent")
TRUSTS = (None, "authenticated", "mapped_header", CLAIMED)
_STRANGER = np.uint64(0x9E3779B97F4A7C15)
_CUT = 499
"""The status of a call that its caller closed before the answer was complete, as nginx names it."""


class Batch(Struct, frozen=True):
    """Columns of length n. Hashes are 64 bits of XXH3, the same in every process; 0 where the field is absent.

    `time` is the end of the call and `arrived` the broker's timestamp (0: unknown, as in a file), both in ms since
    1970. `identity` is of the tenant and the subject as the event names them, and another one where the call is
    `claimed`: its caller chose the name, and its owner must not be blamed for what it did. `input` is tokens, NaN where
    unknown, `output` likewise; `tokens` the known sum of both ways; `cost` is USD, 0 where unknown. `status` is HTTP's.
    `unmetered` is a call that was served, or cut off by its caller, and whose usage is unknown.
    `latitude`, `longitude` (degrees), `accuracy` (km) are NaN and `asn` -1 where unknown. `declared` indexes
    `WORKLOADS`, -1 where the event names none; `workload` has interactive there. `trust` indexes `TRUSTS`. `failed`
    is a status of 400 and above, `denied` a call refused on our own word. `excluded` calls are no evidence: the
    denied ones, and those answered 401, which tell of the caller and not of the subject it named.
    """

    events: Events
    offset: Ints
    time: Ints
    arrived: Ints
    unique: Hashes
    source: Hashes
    identity: Hashes
    credential: Hashes
    session: Hashes
    fingerprint: Hashes
    country: Hashes
    model: Hashes
    provider: Hashes
    route: Hashes
    agent: Hashes
    input: Floats
    output: Floats
    tokens: Floats
    cost: Floats
    latitude: Floats
    longitude: Floats
    accuracy: Floats
    asn: Ints
    workload: Codes
    declared: Codes
    trust: Codes
    claimed: Flags
    status: Ints
    retry: Flags
    failed: Flags
    unmetered: Flags
    denied: Flags
    excluded: Flags

    def __len__(self) -> int:
        return len(self.time)

    def without(self, which: Flags) -> "Batch":
        """The batch less the rows that `which` flags."""
        keep = ~which
        columns = [getattr(self, name)[keep] for name in _COLUMNS]
        return Batch(self.events.select(keep.nonzero()[0]), *columns)


_COLUMNS = Batch.__struct_fields__[1:]


def _codes(hashes: Hashes, names: Iterable[str | None]) -> Codes:
    """The number in `names` of each name, -1 where it is none of them."""
    codes = np.full(len(hashes), -1, np.int8)
    for code, name in enumerate(names):
        codes[hashes == name_hash(name)] = code
    return codes


def _or(numbers: Floats, absent: float) -> Floats:
    """The numbers, and `absent` where there is none."""
    return np.where(np.isnan(numbers), absent, numbers)


def to_batch(events: Sequence[UsageEvent], offsets: ArrayLike, arrived: ArrayLike) -> Batch:
    """Lays `events` out as columns. `offsets` and `arrived` (ms, 0: unknown) have an entry per event."""
    events = events if isinstance(events, Events) else Decoded(events)
    fields = events.fields
    name, number = fields.name, fields.number
    status, given_in, given_out = number("status").astype(np.int64), number("input_tokens"), number("output_tokens")
    declared, denied = _codes(name("workload"), WORKLOADS), name("error") == name_hash(DENIED)
    retry, missing = number("attempt") > 0, number("usage_missing") == 1
    claimed = name("identity_trust") == name_hash(CLAIMED)
    return Batch(
        events=events,
        offset=np.asarray(offsets, np.int64),
        time=fields.time,
        arrived=np.asarray(arrived, np.int64),
        unique=fields.unique,
        source=name("source"),
        identity=np.where(claimed, fields.identity ^ _STRANGER, fields.identity),
        credential=name("credential_id"),
        session=name("session_id"),
        fingerprint=name("fingerprint"),
        country=name("country"),
        model=name("model"),
        provider=name("provider"),
        route=name("route"),
        agent=name("user_agent"),
        input=given_in,
        output=given_out,
        tokens=_or(given_in, 0) + _or(given_out, 0),
        cost=_or(number("cost_usd"), 0),
        latitude=number("lat"),
        longitude=number("lon"),
        accuracy=number("accuracy_km"),
        asn=_or(number("asn"), -1).astype(np.int64),
        workload=np.maximum(declared, 0),
        declared=declared,
        trust=_codes(name("identity_trust"), TRUSTS),
        claimed=claimed,
        status=status,
        retry=retry,
        failed=status >= HTTPStatus.BAD_REQUEST,
        unmetered=(np.isnan(given_out) | missing) & ((status < HTTPStatus.BAD_REQUEST) | (status == _CUT)),
        denied=denied,
        excluded=denied | (status == HTTPStatus.UNAUTHORIZED),
    )
