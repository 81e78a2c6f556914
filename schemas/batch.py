"""A chunk of usage events as columns: what detectors read. One row per event, in the partition's record order."""

from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from schemas.times import EPOCH
from schemas.usage import DENIED, UsageEvent

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int8]

WORKLOADS = ("interactive", "batch", "agent")
_WORKLOAD_CODE = {None: 0, "interactive": 0, "batch": 1, "agent": 2}
_EPOCH_SECONDS = EPOCH.timestamp()


class Batch(Struct, frozen=True):
    """Columns of length n. Hashes are 64 bits of XXH3, the same in every process; 0 where the field is absent.

    `time` is the end of the call and `arrived` the broker's timestamp (0: unknown, as in a file), both in ms since
    1970. `input`, `output` are tokens, NaN where unknown; `tokens` their known sum; `cost` is USD, 0 where unknown.
    `latitude`, `longitude` (degrees), `accuracy` (km) are NaN and `asn` -1 where unknown. `workload` indexes
    `WORKLOADS`. `failed` is a status of 400 and above, `denied` a call refused on our own word. `excluded` calls are
    no evidence: the denied ones, and those answered 401, which tell of the caller and not of the subject it named.
    """

    events: Sequence[UsageEvent]
    offset: Ints
    time: Ints
    arrived: Ints
    unique: Hashes
    source: Hashes
    session: Hashes
    fingerprint: Hashes
    country: Hashes
    model: Hashes
    tool: Hashes
    input: Floats
    output: Floats
    tokens: Floats
    cost: Floats
    latitude: Floats
    longitude: Floats
    accuracy: Floats
    asn: Ints
    workload: Codes
    retry: Flags
    failed: Flags
    denied: Flags
    excluded: Flags

    def __len__(self) -> int:
        return len(self.time)


@lru_cache(maxsize=1 << 16)
def _known(text: str | None) -> int:
    """The hash of a name that recurs."""
    return xxh3_64_intdigest(text.encode()) if text else 0


def to_batch(events: Sequence[UsageEvent], offsets: Sequence[int], arrived: Sequence[int]) -> Batch:
    """Lays `events` out as columns. `offsets` and `arrived` (ms, 0: unknown) have an entry per event."""
    rows = [event.data for event in events]
    n = len(rows)
    hashed = xxh3_64_intdigest
    seconds = np.fromiter((event.time.timestamp() for event in events), np.float64, n) - _EPOCH_SECONDS
    given_in = np.array([d.input_tokens for d in rows], np.float64)
    given_out = np.array([d.output_tokens for d in rows], np.float64)
    status = np.fromiter((d.status for d in rows), np.int64, n)
    denied = np.fromiter((d.error == DENIED for d in rows), np.bool_, n)
    return Batch(
        events=events,
        offset=np.asarray(offsets, np.int64),
        # Microseconds first: 32.844 s times 1000 is a hair below 32844 in binary.
        time=np.rint(seconds * 1e6).astype(np.int64) // 1000,
        arrived=np.asarray(arrived, np.int64),
        unique=np.fromiter((hashed(f"{event.source}\0{event.id}".encode()) or 1 for event in events), np.uint64, n),
        source=np.fromiter((_known(event.source) for event in events), np.uint64, n),
        session=np.fromiter((hashed(d.session_id.encode()) if d.session_id else 0 for d in rows), np.uint64, n),
        fingerprint=np.fromiter((hashed(d.fingerprint.encode()) if d.fingerprint else 0 for d in rows), np.uint64, n),
        country=np.fromiter((_known(d.country) for d in rows), np.uint64, n),
        model=np.fromiter((_known(d.model) for d in rows), np.uint64, n),
        tool=np.fromiter((_known(d.tool) for d in rows), np.uint64, n),
        input=given_in,
        output=given_out,
        tokens=np.nan_to_num(given_in) + np.nan_to_num(given_out),
        cost=np.nan_to_num(np.array([d.cost_usd for d in rows], np.float64)),
        latitude=np.array([d.lat for d in rows], np.float64),
        longitude=np.array([d.lon for d in rows], np.float64),
        accuracy=np.array([d.accuracy_km for d in rows], np.float64),
        asn=np.fromiter((-1 if d.asn is None else d.asn for d in rows), np.int64, n),
        workload=np.fromiter((_WORKLOAD_CODE[d.workload] for d in rows), np.int8, n),
        retry=np.fromiter((bool(d.attempt) for d in rows), np.bool_, n),
        failed=status >= HTTPStatus.BAD_REQUEST,
        denied=denied,
        excluded=denied | (status == HTTPStatus.UNAUTHORIZED),
    )
