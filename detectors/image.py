"""Rows of the state as words to be saved, and back. Words that are zero, most of them, take a bit each.

The image of a row: its number and how many buckets of it are open (one word: number + buckets << 40), a bitmap of its
words, those that are not zero, and seven words for each bucket.
"""

import numpy as np
from numpy.typing import NDArray

from detectors.buckets import Pool, bucket_of, find_earliest, release, with_room
from detectors.compiled import State, compiled
from detectors.identities import Rows
from schemas.batch import Ints

Words = NDArray[np.uint64]

_BUCKET_WORDS = 7
_BUCKETS_AT = 40
_NUMBER = (1 << _BUCKETS_AT) - 1


Layout = dict[str, tuple[int, list[tuple[str, str, list[int], int]]]]
"""Where the rows' fields lie: by component, its row's size in bytes and its fields (name, type, shape, offset)."""


def layout_of(components: dict[str, Rows]) -> Layout:
    """The layout of `components`."""
    return {name: (rows.array.dtype.itemsize, _fields(rows.array.dtype)) for name, rows in components.items()}


def _fields(dtype: np.dtype[np.void]) -> list[tuple[str, str, list[int], int]]:
    out = []
    for name, (field, offset, *_) in (dtype.fields or {}).items():
        out.append((name, field.base.str, list(field.shape), offset))
    return out


def empty(layout: Layout, ours: dict[str, Rows]) -> dict[str, Rows]:
    """Components without rows, laid out as `layout` says; of our own types where they are the same."""
    known = layout_of(ours)
    return {name: Rows(ours[name].array.dtype if known.get(name) == of else _dtype(*of)) for name, of in layout.items()}


def _dtype(size: int, fields: list[tuple[str, str, list[int], int]]) -> np.dtype[np.void]:
    names, types, shapes, offsets = zip(*fields, strict=True)
    formats = [(kind, tuple(shape)) for kind, shape in zip(types, shapes, strict=True)]
    return np.dtype({"names": list(names), "formats": formats, "offsets": list(offsets), "itemsize": size})


def pack(components: dict[str, Rows], numbers: Ints, windows: State, pool: Pool) -> bytes:
    """The images of the rows `numbers`. `windows` is the component that says which buckets are open."""
    words = tuple(rows.words for rows in components.values())
    width = sum(part.shape[1] for part in words)
    out = np.empty(len(numbers) * (width + 2 + width // 64) + _BUCKET_WORDS * len(pool.slots), np.uint64)
    return out[: _pack(words, numbers, windows, pool, out)].tobytes()


def unpack(components: dict[str, Rows], image: bytes, windows: Rows, pool: Pool) -> tuple[Ints, Pool]:
    """Puts saved rows back, and their buckets into the pool; returns the rows' numbers and the pool, which may have
    grown."""
    words = np.frombuffer(image, np.uint64)
    width = sum(rows.words.shape[1] for rows in components.values())
    numbers, buckets = _measure(words, width)
    for rows in components.values():
        rows.reach(int(numbers.max(initial=-1)) + 1)
    pool = with_room(pool, buckets)
    _unpack(tuple(rows.words for rows in components.values()), words, windows.array, pool)
    return numbers, pool


@compiled
def _pack(parts: tuple[Words, ...], numbers: Ints, windows: State, pool: Pool, out: Words) -> int:
    one, at = np.uint64(1), 0
    for number in numbers:
        head = at
        width = 0
        for part in parts:
            width += part.shape[1]
        bitmap = head + 1
        at = bitmap + (width + 63) // 64
        bits, bit = np.uint64(0), 0
        for part in parts:
            for word in part[number]:
                if word != 0:
                    bits |= one << np.uint64(bit & 63)
                    out[at] = word
                    at += 1
                bit += 1
                if bit & 63 == 0:
                    out[bitmap] = bits
                    bitmap += 1
                    bits = np.uint64(0)
        if bit & 63:
            out[bitmap] = bits
        buckets = 0
        slot = windows[number].open - 1
        while slot >= 0:
            bucket = pool.slots[slot]
            out[at] = np.uint64(bucket.end)
            out[at + 1] = np.uint64(bucket.calls)
            out[at + 2] = np.uint64(bucket.failed)
            out[at + 3] = np.uint64(bucket.denied)
            sums = out[at + 4 : at + _BUCKET_WORDS].view(np.float64)
            for m in range(3):
                sums[m] = bucket.sums[m]
            at += _BUCKET_WORDS
            buckets += 1
            slot = bucket.next - 1
        out[head] = np.uint64(number) | (np.uint64(buckets) << np.uint64(_BUCKETS_AT))
    return at


@compiled
def _measure(words: Words, width: int) -> tuple[Ints, int]:
    """The numbers of the rows in an image, and how many buckets there are."""
    one, at, rows, total = np.uint64(1), 0, 0, 0
    numbers = np.empty(len(words), np.int64)
    while at < len(words):
        numbers[rows] = np.int64(words[at] & np.uint64(_NUMBER))
        rows += 1
        buckets = int(words[at] >> np.uint64(_BUCKETS_AT))
        total += buckets
        bitmap = at + 1
        at = bitmap + (width + 63) // 64
        for bit in range(width):
            if words[bitmap + bit // 64] & (one << np.uint64(bit % 64)):
                at += 1
        at += buckets * _BUCKET_WORDS
    return numbers[:rows], total


@compiled
def _unpack(parts: tuple[Words, ...], words: Words, windows: State, pool: Pool) -> None:
    one, at = np.uint64(1), 0
    while at < len(words):
        number = int(words[at] & np.uint64(_NUMBER))
        buckets = int(words[at] >> np.uint64(_BUCKETS_AT))
        row = windows[number]
        while row.open > 0:
            release(row, pool, row.open - 1)
        width = 0
        for part in parts:
            width += part.shape[1]
        bitmap = at + 1
        at = bitmap + (width + 63) // 64
        bit = 0
        for part in parts:
            for k in range(part.shape[1]):
                if words[bitmap + bit // 64] & (one << np.uint64(bit % 64)):
                    part[number, k] = words[at]
                    at += 1
                else:
                    part[number, k] = 0
                bit += 1
        row.open = 0
        for _ in range(buckets):
            bucket = bucket_of(row, number, pool, int(words[at]))
            bucket.calls = words[at + 1]
            bucket.failed = words[at + 2]
            bucket.denied = words[at + 3]
            sums = words[at + 4 : at + _BUCKET_WORDS].view(np.float64)
            for m in range(3):
                bucket.sums[m] = sums[m]
            at += _BUCKET_WORDS
    find_earliest(pool)
