"""What a JSON object of ours may hold, field by field, for the compiled reader: taken from the Struct that declares it,
so that it is said once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct, inspect
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

TEXT, CHOICE, COUNT, REAL, TRUTH, MOMENT, OBJECT = range(7)
"""What a field holds: any text, one of a few, a whole number from 0 on, a number, true or false, a time, an object."""
SLOTS = 128
LONGEST_KEY = 16
"""Bytes; so many are compared at once, as two words."""
_UNBOUNDED = 1e18
_MOST_CHOICES = 4
_MULTIPLIERS = 1 << 12


class Rules(NamedTuple):
    """Fields are numbered: the object's own ones, then those of the object it holds. `slots` finds a field by level and
    by a hash of its key, -1 where there is none; `first`, `second` and `size` are the key itself. By field: what it
    holds, whether it may be null or absent, its least and its most (text: in bytes), and the hashes of its choices.
    `required` has a bit for each field that must be there."""

    multiplier: np.uint64
    slots: NDArray[np.int64]
    keys: NDArray[np.uint64]
    levels: NDArray[np.int64]
    holds: NDArray[np.int64]
    bounds: NDArray[np.float64]
    choices: NDArray[np.uint64]
    required: np.uint64


class _Field(NamedTuple):
    level: int
    key: bytes
    holds: int
    optional: bool
    required: bool
    least: float
    most: float
    choices: Sequence[str]


def rules_of(struct: type[Struct]) -> tuple[list[str], Rules]:
    """The names of the fields of `struct` and of the Struct that one of them may hold, and their rules.

    Raises:
        TypeError: a field is of a type that the compiled reader does not know.
    """
    fields = list(_fields(struct, 0))
    if len(fields) > 64:
        raise TypeError(f"{struct.__name__} has {len(fields)} fields; 64 is the most")
    words = np.array([_words(field.key) for field in fields], np.uint64)
    sizes = np.array([len(field.key) for field in fields])
    multiplier, slots = _slots(fields, words, sizes)
    choices = np.zeros((len(fields), _MOST_CHOICES), np.uint64)
    for number, field in enumerate(fields):
        hashes = [xxh3_64_intdigest(choice.encode()) for choice in field.choices]
        choices[number, : len(hashes)] = hashes
    return [field.key.decode() for field in fields], Rules(
        multiplier,
        slots,
        np.column_stack([words, sizes.astype(np.uint64)]),
        np.array([field.level for field in fields]),
        np.array([field.holds for field in fields]),
        np.array([(field.least, field.most, field.optional) for field in fields]),
        choices,
        np.uint64(sum(1 << number for number, field in enumerate(fields) if field.required)),
    )


def _fields(struct: type[Struct], level: int) -> Iterator[_Field]:
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    inner: list[type[Struct]] = []
    for field in described.fields:
        holds: int | None = None
        least: float = 0.0
        most: float = _UNBOUNDED
        choices: Sequence[str] = ()
        kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
        [kind] = [kind for kind in kinds if not isinstance(kind, inspect.NoneType)]
        match kind:
            case inspect.StrType(min_length=shortest, max_length=longest, pattern=None):
                holds, least, most = TEXT, shortest or 0, longest or _UNBOUNDED
            case inspect.LiteralType(values=values) if len(values) <= _MOST_CHOICES:
                holds, choices = CHOICE, [str(value) for value in values]
            case inspect.IntType(ge=int() as low, le=int() as high, gt=None, lt=None, multiple_of=None) if low >= 0:
                holds, least, most = COUNT, low, high
            case inspect.FloatType(ge=float() | int() as low, le=float() | int() as high, gt=None, lt=None):
                holds, least, most = REAL, low, high
            case inspect.BoolType():
                holds = TRUTH
            case inspect.DateTimeType(tz=True):
                holds = MOMENT
            case inspect.StructType(cls=cls) if level == 0 and not inner:
                holds = OBJECT
                inner.append(cls)
        if holds is None or len(field.encode_name) > LONGEST_KEY:
            raise TypeError(f"{struct.__name__}.{field.name}: the compiled reader does not know {field.type}")
        key = field.encode_name.encode()
        yield _Field(level, key, holds, len(kinds) > 1, field.required, least, most, choices)
    for each in inner:
        yield from _fields(each, level + 1)


def _words(key: bytes) -> tuple[int, int]:
    padded = key.ljust(LONGEST_KEY, b"\0")
    return int.from_bytes(padded[:8], "little"), int.from_bytes(padded[8:], "little")


def _slots(
    fields: Sequence[_Field], words: NDArray[np.uint64], sizes: NDArray[np.int64]
) -> tuple[np.uint64, NDArray[np.int64]]:
    """A multiplier by which no two fields of a level share a slot, and the fields by level and slot."""
    levels = np.array([field.level for field in fields])
    for odd in range(1, _MULTIPLIERS, 2):
        multiplier = np.uint64(odd * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        mixed = (words[:, 0] ^ (words[:, 1] >> np.uint64(7)) ^ sizes.astype(np.uint64)) * multiplier
        where = (mixed >> np.uint64(57)).astype(np.int64)
        slots = np.full((2, SLOTS), -1)
        slots[levels, where] = np.arange(len(fields))
        if (slots >= 0).sum() == len(fields):
            return multiplier, slots
    raise TypeError("no two fields may share a slot")
