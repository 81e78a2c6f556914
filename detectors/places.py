"""Where calls come from: distances, and what the identities of a partition together know of places.

A *place* is a country and a network (AS number). Which places an identity may be new to depends on who else is there:
one that several identities of its tenant use is no stranger, and a country from which nobody calls is one.
"""

import math

import msgspec
import numpy as np

from detectors.compiled import State, compiled

_EARTH_KM = 6371.0
_UNKNOWN = -32_768
_WAYS = 8
_ENTRIES = 8192
_COUNTRIES = 512
_STALE = 30 * 86_400
"""Seconds after which what others did in a place says nothing any more."""
_ENTRY = np.dtype([("key", "u4"), ("seen", "u4"), ("who", "u4", (2,))])
_COUNTRY = np.dtype([("key", "u4"), ("identities", "u4")])


class Known:
    """What a partition's identities taken together know of places; bounded.

    `regular` has, by tenant and place and by tenant and country, two identities that are there regularly (sets of
    eight, the one seen longest ago goes). `countries` counts the identities per country.
    """

    def __init__(self) -> None:
        self.regular: State = np.zeros(_ENTRIES, _ENTRY)
        self.countries: State = np.zeros(_COUNTRIES, _COUNTRY)

    def save(self) -> bytes:
        """What is not blank, and where it stands."""
        parts = []
        for table in (self.regular, self.countries):
            used = np.flatnonzero(table["key"])
            parts += [used.astype(np.uint16).tobytes(), table[used].tobytes()]
        return msgspec.msgpack.encode(parts)

    def restore(self, saved: bytes) -> None:
        """Takes what `save` gave."""
        parts = msgspec.msgpack.decode(saved, type=list[bytes])
        for table, used, entries in zip((self.regular, self.countries), parts[::2], parts[1::2], strict=True):
            table[:] = np.zeros((), table.dtype)
            table[np.frombuffer(used, np.uint16)] = np.frombuffer(entries, table.dtype)


@compiled
def apart(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Great-circle distance in km (haversine); NaN where a coordinate is unknown."""
    p, q = math.radians(lat_a), math.radians(lat_b)
    h = math.sin((q - p) / 2) ** 2 + math.cos(p) * math.cos(q) * math.sin(math.radians(lon_b - lon_a) / 2) ** 2
    # `min` would make 1 of what is not a number.
    return np.nan if np.isnan(h) else 2 * _EARTH_KM * math.asin(math.sqrt(min(1.0, h)))


@compiled
def to_cell(degrees: float) -> int:
    """A coordinate in hundredths of a degree, in 16 bits."""
    return _UNKNOWN if np.isnan(degrees) else round(degrees * 100.0)


@compiled
def to_degrees(cell: int) -> float:
    """The coordinate of a cell; NaN where it is unknown."""
    return np.nan if cell == _UNKNOWN else cell / 100.0


@compiled
def mixed(a: np.uint64, b: np.uint64) -> np.uint64:
    """A hash of two words (the finalizer of splitmix64)."""
    x = a + b * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.uint64(x ^ (x >> np.uint64(31)))


@compiled
def count_bits(word: np.uint64) -> int:
    """How many bits are set."""
    count = 0
    while word != 0:
        word &= word - np.uint64(1)
        count += 1
    return count


@compiled
def name_of(hashed: np.uint64) -> np.int64:
    """31 bits of a hash, never 0."""
    return np.int64((hashed >> np.uint64(32)) | np.uint64(1))


@compiled
def add_regular(regular: State, key: np.uint64, who: np.int64, t: int) -> None:
    """Notes that `who` is regularly at `key`, as of `t` (s)."""
    name, first = name_of(key), int(np.int64(key % np.uint64(_ENTRIES // _WAYS))) * _WAYS
    at = first
    for k in range(first, first + _WAYS):
        if regular[k].key == name:
            at = k
            break
        if regular[k].seen < regular[at].seen:
            at = k
    entry = regular[at]
    if entry.key != name:
        entry.key = name
        entry.who[0] = 0
        entry.who[1] = 0
        entry.seen = 0
    entry.seen = max(entry.seen, t)
    if entry.who[0] == 0:
        entry.who[0] = who
    elif entry.who[0] != who and entry.who[1] == 0:
        entry.who[1] = who


@compiled
def others_are(regular: State, key: np.uint64, who: np.int64, t: int) -> bool:
    """Whether two others than `who` are regularly at `key`."""
    name, first = name_of(key), int(np.int64(key % np.uint64(_ENTRIES // _WAYS))) * _WAYS
    for k in range(first, first + _WAYS):
        entry = regular[k]
        if entry.key == name and t - entry.seen <= _STALE:
            return bool(min(entry.who[0], entry.who[1]) > 0 and entry.who[0] != who and entry.who[1] != who)
    return False


@compiled
def _country(countries: State, country: np.uint64) -> int:
    """Where a country is counted, -1 where there is no room left."""
    name, at = name_of(country), np.int64(country % np.uint64(_COUNTRIES))
    for _ in range(_COUNTRIES):
        if countries[at].key == 0 or countries[at].key == name:
            return int(at)
        at = (at + 1) % _COUNTRIES
    return -1


@compiled
def count_country(countries: State, country: np.uint64) -> None:
    """Counts one more identity that is regularly in `country`."""
    at = _country(countries, country)
    if at >= 0:
        countries[at].key = name_of(country)
        countries[at].identities += 1


@compiled
def share_of(countries: State, country: np.uint64) -> float:
    """The share of identities that one may expect in `country` (Laplace's rule)."""
    total = 0
    for k in range(_COUNTRIES):
        total += countries[k].identities
    at = _country(countries, country)
    there = countries[at].identities if at >= 0 else 0
    return (there + 1.0) / (total + 2.0)
