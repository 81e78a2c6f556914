"""A chunk of usage events as columns: what detectors read. One row per event, in the partition's record order."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from itertools import compress

import numpy as np
from msgspec import Struct
from numpy.typing import ArrayLike, NDArray
from xxhash import xxh3_64_intdigest

from schemas.usage import DENIED, UsageEvent

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int8]

WORKLOADS = ("interactive", "batch", "agent")
_WORKLOAD_CODE = {None: -1} | {name: code for code, name in enumerate(WORKLOADS)}
TRUSTS = (None, "authenticated", "mapped_header", "request_body")
_CUT = 499
"""The status of a call that its caller closed before the answer was complete, as nginx names it."""
_TRUST_CODE = {name: code for code, name in enumerate(TRUSTS)}


class Batch(Struct, frozen=True):
    """Columns of length n. Hashes are 64 bits of XXH3, the same in every process; 0 where the field is absent.

    `time` is the end of the call and `arrived` the broker's timestamp (0: unknown, as in a file), both in ms since
    1970. `identity` is of the tenant and the subject as the event names them, never 0. `input` is tokens, NaN where
    unknown, `output` likewise; `tokens` the known sum of both ways; `cost` is USD, 0 where unknown. `status` is HTTP's.
    `unmetered` is a call that was served, or cut off by its caller, and whose usage is unknown.
    `latitude`, `longitude` (degrees), `accuracy` (km) are NaN and `asn` -1 where unknown. `declared` indexes
    `WORKLOADS`, -1 where the event names none; `workload` has interactive there. `trust` indexes `TRUSTS`. `failed`
    is a status of 400 and above, `denied` a call refused on our own word. `excluded` calls are no evidence: the
    denied ones, and those answered 401, which tell of the caller and not of the subject it named.
    """

    events: Sequence[UsageEvent]
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
        return Batch(list(compress(self.events, keep)), *columns)


_COLUMNS = Batch.__struct_fields__[1:]


class _Known(dict[str | None, int]):
    """Hashes of names that recur, by name."""

    def __missing__(self, name: str | None) -> int:
        if len(self) >= 1 << 16:
            self.clear()
        self[name] = hashed = xxh3_64_intdigest(name.encode()) if name else 0
        return hashed


_known = _Known()


def to_batch(events: Sequence[UsageEvent], offsets: ArrayLike, arrived: ArrayLike) -> Batch:
    """Lays `events` out as columns. `offsets` and `arrived` (ms, 0: unknown) have an entry per event."""
    rows = [event.data for event in events]
    n = len(rows)
    hashed, known = xxh3_64_intdigest, _known.__getitem__

    def hashes(values: Iterable[int]) -> Hashes:
        return np.fromiter(values, np.uint64, n)

    # None becomes NaN.
    def floats(values: Iterable[float | None]) -> Floats:
        return np.fromiter(values, np.float64, n)

    seconds = floats([event.time.timestamp() for event in events])
    given_in, given_out = floats([d.input_tokens for d in rows]), floats([d.output_tokens for d in rows])
    source = list(map(known, [event.source for event in events]))
    status = np.fromiter([d.status for d in rows], np.int64, n)
    declared = np.fromiter([_WORKLOAD_CODE[d.workload] for d in rows], np.int8, n)
    missing = np.fromiter([d.usage_missing for d in rows], np.bool_, n)
    denied = np.fromiter([d.error == DENIED for d in rows], np.bool_, n)
    return Batch(
        events=events,
        offset=np.asarray(offsets, np.int64),
        # Microseconds first: 32.844 s times 1000 is a hair below 32844 in binary.
        time=np.rint(seconds * 1e6).astype(np.int64) // 1000,
        arrived=np.asarray(arrived, np.int64),
        unique=np.maximum(hashes(map(hashed, [event.id.encode() for event in events], source)), 1),
        source=hashes(source),
        identity=np.maximum(
            hashes(map(hashed, [event.subject.encode() for event in events], map(known, [d.tenant for d in rows]))), 1
        ),
        credential=hashes([hashed(d.credential_id.encode()) if d.credential_id else 0 for d in rows]),
        session=hashes([hashed(d.session_id.encode()) if d.session_id else 0 for d in rows]),
        fingerprint=hashes([hashed(d.fingerprint.encode()) if d.fingerprint else 0 for d in rows]),
        country=hashes(map(known, [d.country for d in rows])),
        model=hashes(map(known, [d.model for d in rows])),
        provider=hashes(map(known, [d.provider for d in rows])),
        route=hashes(map(known, [d.route for d in rows])),
        agent=hashes(map(known, [d.user_agent for d in rows])),
        input=given_in,
        output=given_out,
        tokens=np.nan_to_num(given_in) + np.nan_to_num(given_out),
        cost=np.nan_to_num(floats([d.cost_usd for d in rows])),
        latitude=floats([d.lat for d in rows]),
        longitude=floats([d.lon for d in rows]),
        accuracy=floats([d.accuracy_km for d in rows]),
        asn=np.nan_to_num(floats([d.asn for d in rows]), nan=-1).astype(np.int64),
        workload=np.maximum(declared, 0),
        declared=declared,
        trust=np.fromiter([_TRUST_CODE[d.identity_trust] for d in rows], np.int8, n),
        status=status,
        retry=np.fromiter([d.attempt for d in rows], np.bool_, n),
        failed=status >= HTTPStatus.BAD_REQUEST,
        unmetered=(np.isnan(given_out) | missing) & ((status < HTTPStatus.BAD_REQUEST) | (status == _CUT)),
        denied=denied,
        excluded=denied | (status == HTTPStatus.UNAUTHORIZED),
    )
