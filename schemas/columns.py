"""Events' fields as arrays: asked for every field of every event, so compiled.

Asking Python objects for thirty fields, one by one, costs more than to decode the event. So a chunk's events are
written as MessagePack, which msgspec does in one go, and a compiled loop reads the fields from there.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from schemas.compiled import compiled
from schemas.usage import UsageData, UsageEvent
from schemas.xxh3 import LONGEST, Bytes, hashed, swapped, word

_AT_ONCE = 256
"""Events that are written at once: so few that what was written is still in a core's cache when it is read."""
_DATA = "data"
NAMES = (
    "source", "tenant", "credential_id", "session_id", "fingerprint", "country", "model", "provider", "route",
    "user_agent", "workload", "identity_trust", "error",
)  # fmt: skip
NUMBERS = (
    "status", "input_tokens", "output_tokens", "cost_usd", "attempt", "lat", "lon", "accuracy_km", "asn",
    "usage_missing",
)  # fmt: skip
_ID, _SUBJECT, _TIME = -2, -3, -4
_SOURCE, _TENANT = NAMES.index("source"), NAMES.index("tenant")
_encoder = msgspec.msgpack.Encoder()


class Fields(NamedTuple):
    """Of n events: `unique`, a hash of (source, id), and `identity`, one of (tenant, subject), neither ever 0; `time`
    in ms since 1970; by column a hash of each name, 0 where it is absent or empty, and each number, NaN where it is
    absent."""

    unique: NDArray[np.uint64]
    identity: NDArray[np.uint64]
    time: NDArray[np.int64]
    names: NDArray[np.uint64]
    numbers: NDArray[np.float64]

    @classmethod
    def of(cls, count: int) -> "Fields":
        """Room for `count` events, of which no name and no number is known yet."""
        return cls(
            np.empty(count, np.uint64),
            np.empty(count, np.uint64),
            np.empty(count, np.int64),
            np.zeros((len(NAMES), count), np.uint64),
            np.full((len(NUMBERS), count), np.nan),
        )

    def select(self, places: NDArray[np.int64]) -> "Fields":
        """Those of the events at `places`."""
        # Taken, each column lies in one piece as here; indexed, each event's fields would.
        return Fields(
            self.unique[places], self.identity[places], self.time[places], self.names.take(places, axis=1),
            self.numbers.take(places, axis=1),
        )  # fmt: skip

    def name(self, field: str) -> NDArray[np.uint64]:
        """The hashes of a field's names."""
        column: NDArray[np.uint64] = self.names[NAMES.index(field)]
        return column

    def number(self, field: str) -> NDArray[np.float64]:
        """A field's numbers."""
        column: NDArray[np.float64] = self.numbers[NUMBERS.index(field)]
        return column


def read_fields(events: Sequence[UsageEvent]) -> Fields:
    """The fields of `events`. Hashes are 64 bits of XXH3, the same in every process."""
    n = len(events)
    out = Fields.of(n)
    long = np.zeros(n, np.bool_)
    for first in range(0, n, _AT_ONCE):
        packed = np.frombuffer(_encoder.encode(events[first : first + _AT_ONCE]), np.uint8)
        _read(packed, _PLAN, first, min(first + _AT_ONCE, n), out, long)
    for at in np.flatnonzero(long).tolist():
        _hash_again(events[at], at, out)
    return out


def name_hash(name: str | None) -> int:
    """The hash of one name."""
    return xxh3_64_intdigest(name.encode()) if name else 0


def _hash_again(event: UsageEvent, at: int, out: Fields) -> None:
    """Hashes the names of an event of which one is longer than the compiled hash goes."""
    for column, field in enumerate(NAMES):
        out.names[column, at] = name_hash(event.source if column == _SOURCE else getattr(event.data, field))
    source, tenant = int(out.names[_SOURCE, at]), int(out.names[_TENANT, at])
    out.unique[at] = max(xxh3_64_intdigest(event.id.encode(), source), 1)
    out.identity[at] = max(xxh3_64_intdigest(event.subject.encode(), tenant), 1)


class _Plan(NamedTuple):
    """What becomes of the fields in the order in which they are written: how many come before the data's own and how
    many those are; by field the column of its name, or `_ID`, `_SUBJECT`, `_TIME`, and of its number; -1: none."""

    before: int
    within: int
    name: NDArray[np.int64]
    number: NDArray[np.int64]


def _plan(event: type[Struct], data: type[Struct]) -> _Plan:
    outer, inner = event.__struct_fields__, data.__struct_fields__
    before = outer.index(_DATA)
    order = (*outer[:before], *inner, *outer[before + 1 :])
    columns = {field: column for column, field in enumerate(NAMES)} | {"id": _ID, "subject": _SUBJECT, "time": _TIME}
    return _Plan(
        before,
        len(inner),
        np.array([columns.get(field, -1) for field in order]),
        np.array([NUMBERS.index(field) if field in NUMBERS else -1 for field in order]),
    )


_PLAN = _plan(UsageEvent, UsageData)

# MessagePack's tags. The least bits of the "fix" ones are a length or a value.
_FIX_MAP, _FIX_STR, _NIL, _FALSE, _TRUE = 0x80, 0xA0, 0xC0, 0xC2, 0xC3
_EXT_8, _FLOAT, _UINT_8, _UINT_64, _INT_8, _INT_64 = 0xC7, 0xCB, 0xCC, 0xCF, 0xD0, 0xD3
_FIX_EXT_4, _FIX_EXT_8, _STR_8, _STR_32, _ARRAY_16, _MAP_16 = 0xD6, 0xD7, 0xD9, 0xDB, 0xDC, 0xDE
_FIX_NEGATIVE = 0xE0
_ONE = np.uint64(1)


@compiled
def _big(raw: Bytes, at: np.uint64, size: int) -> np.uint64:
    """A number of `size` bytes, the greatest first."""
    value = np.uint64(0)
    for k in range(size):
        value = (value << np.uint64(8)) | np.uint64(raw[at + np.uint64(k)])
    return value


@compiled
def _time(raw: Bytes, at: np.uint64) -> tuple[np.int64, np.uint64]:
    """The moment at `at` in ms, and what comes after it."""
    tag = raw[at]
    if tag == _FIX_EXT_8:
        both = _big(raw, at + np.uint64(2), 8)
        second, nano = np.int64(both & np.uint64((1 << 34) - 1)), np.int64(both >> np.uint64(34))
        at += np.uint64(10)
    elif tag == _FIX_EXT_4:
        second, nano = np.int64(_big(raw, at + np.uint64(2), 4)), np.int64(0)
        at += np.uint64(6)
    elif tag == _EXT_8:
        second, nano = np.int64(_big(raw, at + np.uint64(7), 8)), np.int64(_big(raw, at + np.uint64(3), 4))
        at += np.uint64(15)
    else:
        raise ValueError("an event's time names no time zone")
    return second * 1000 + nano // 1_000_000, at


@compiled
def _text(raw: Bytes, at: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Where the text at `at` begins, and how many bytes it has."""
    tag = raw[at]
    if tag < _NIL:
        return at + _ONE, np.uint64(tag - _FIX_STR)
    wide = 1 << (tag - _STR_8)
    return at + np.uint64(1 + wide), _big(raw, at + _ONE, wide)


@compiled
def _number(raw: Bytes, at: np.uint64, double: NDArray[np.float64]) -> tuple[np.float64, np.uint64]:
    """The number at `at`, and what comes after it. `double` is room for one."""
    tag, at = raw[at], at + _ONE
    if tag < _FIX_MAP:
        return np.float64(tag), at
    if tag == _FLOAT:
        double.view(np.uint64)[0] = swapped(word(raw, at))
        return double[0], at + np.uint64(8)
    if _FALSE <= tag <= _TRUE:
        return np.float64(tag - _FALSE), at
    if _UINT_8 <= tag <= _UINT_64:
        size = 1 << (tag - _UINT_8)
        return np.float64(_big(raw, at, size)), at + np.uint64(size)
    if _INT_8 <= tag <= _INT_64:
        size = 1 << (tag - _INT_8)
        left = 64 - 8 * size
        return np.float64(np.int64(_big(raw, at, size) << np.uint64(left)) >> left), at + np.uint64(size)
    if tag >= _FIX_NEGATIVE:
        return np.float64(tag) - 256.0, at
    raise ValueError("an event has a field of an unknown kind")


@compiled
def _read(packed: Bytes, plan: _Plan, first: int, past: int, out: Fields, long: NDArray[np.bool_]) -> None:
    """Reads the events `first` to `past` of a chunk; notes which have names too long to be hashed here."""
    double = np.zeros(1)
    at = _ONE if packed[0] < _ARRAY_16 else np.uint64(3)
    for i in range(first, past):
        at += _ONE
        id_at = id_size = subject_at = subject_size = np.uint64(0)
        for k in range(len(plan.name)):
            if k == plan.before:
                # The key "data", and the size of what it holds.
                at += np.uint64(5)
                at += np.uint64(3) if packed[at] == _MAP_16 else _ONE
            at += np.uint64(packed[at] - _FIX_STR) + _ONE
            tag, name, number = packed[at], plan.name[k], plan.number[k]
            if name == _TIME:
                out.time[i], at = _time(packed, at)
            elif _FIX_STR <= tag < _NIL or _STR_8 <= tag <= _STR_32:
                at, size = _text(packed, at)
                if size > LONGEST and name != -1:
                    long[i] = True
                elif name == _ID:
                    id_at, id_size = at, size
                elif name == _SUBJECT:
                    subject_at, subject_size = at, size
                elif name >= 0 and size > 0:
                    out.names[name, i] = hashed(packed, at, size, np.uint64(0))
                at += size
            else:
                value = np.nan
                if tag == _NIL:
                    at += _ONE
                else:
                    value, at = _number(packed, at, double)
                if number >= 0:
                    out.numbers[number, i] = value
        out.unique[i] = max(hashed(packed, id_at, id_size, out.names[_SOURCE, i]), _ONE)
        out.identity[i] = max(hashed(packed, subject_at, subject_size, out.names[_TENANT, i]), _ONE)
