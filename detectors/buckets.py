"""The open 10 s buckets of a partition's identities: a pool of slots that are given out and taken back.

An identity's row says in `open` which of its buckets was opened last (slot + 1, 0: none); each names the one before.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.compiled import Row, State, compiled
from schemas.batch import Ints

BUCKET = 10_000
"""Milliseconds."""
BEHIND = 2_000
"""A bucket closes so many milliseconds behind the watermark."""

NEVER = np.iinfo(np.int64).max
_SLOT = np.dtype([
    ("row", "i8"), ("end", "i8"), ("next", "i8"), ("sums", "f8", (3,)),
    ("calls", "i8"), ("failed", "i8"), ("denied", "i8"), ("used", "i8"),
])  # fmt: skip


class Pool(NamedTuple):
    """The slots, a stack of the free ones, its height, and when the earliest bucket ends (ms)."""

    slots: NDArray[np.void]
    free: Ints
    height: Ints
    earliest: Ints


def new_pool() -> Pool:
    """A pool without slots."""
    return Pool(np.zeros(0, _SLOT), np.zeros(0, np.int64), np.zeros(1, np.int64), np.full(1, NEVER))


def with_room(pool: Pool, coming: int) -> Pool:
    """The pool, grown so that `coming` more buckets can be opened."""
    slots, free, height, earliest = pool
    have, left = len(slots), int(height[0])
    if left >= coming:
        return pool
    size = max(have + coming, 2 * have, 1024)
    grown, stack = np.zeros(size, _SLOT), np.empty(size, np.int64)
    grown[:have] = slots
    stack[:left] = free[:left]
    stack[left : left + size - have] = np.arange(size - 1, have - 1, -1)
    return Pool(grown, stack, np.array([left + size - have]), earliest)


@compiled
def bucket_of(row: Row, number: int, pool: Pool, end: int) -> Row:
    """The open bucket of the identity `number` that ends at `end`; opens one where there is none."""
    slots = pool.slots
    slot = row.open - 1
    while slot >= 0 and slots[slot].end != end:
        slot = slots[slot].next - 1
    if slot < 0:
        pool.height[0] -= 1
        slot = pool.free[pool.height[0]]
        bucket = slots[slot]
        bucket.used = 1
        bucket.row = number
        bucket.end = end
        bucket.next = row.open
        bucket.calls = 0
        bucket.failed = 0
        bucket.denied = 0
        for m in range(3):
            bucket.sums[m] = 0.0
        row.open = slot + 1
        pool.earliest[0] = min(pool.earliest[0], end)
    return slots[slot]


@compiled
def release(row: Row, pool: Pool, slot: int) -> None:
    """Gives a bucket's slot back."""
    slots = pool.slots
    if row.open == slot + 1:
        row.open = slots[slot].next
    else:
        before = row.open - 1
        while slots[before].next != slot + 1:
            before = slots[before].next - 1
        slots[before].next = slots[slot].next
    slots[slot].used = 0
    pool.free[pool.height[0]] = slot
    pool.height[0] += 1


@compiled
def due(slots: State, tiebreak: Ints, watermark: int) -> Ints:
    """The buckets that ended `BEHIND` before the watermark (ms), in order of (end, tiebreak)."""
    at = np.flatnonzero((slots["used"] != 0) & (slots["end"] + BEHIND <= watermark))
    ends = np.empty(len(at), np.int64)
    ties = np.empty(len(at), np.int64)
    for k in range(len(at)):
        ends[k] = slots[at[k]].end
        ties[k] = tiebreak[slots[at[k]].row]
    by_tie = np.argsort(ties, kind="mergesort")
    return at[by_tie[np.argsort(ends[by_tie], kind="mergesort")]]


@compiled
def find_earliest(pool: Pool) -> None:
    """Looks anew for the bucket that ends first."""
    pool.earliest[0] = NEVER
    for slot in range(len(pool.slots)):
        if pool.slots[slot].used != 0:
            pool.earliest[0] = min(pool.earliest[0], pool.slots[slot].end)
