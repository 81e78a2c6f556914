"""Token, request and cost velocity per identity, over 10 s, 1 min and 10 min of event time.

An event adds to its identity's rings at once; a 10 s bucket *closes* two seconds behind the watermark, in order of
(end, identity), and what closed is what baselines learn from and slow detectors judge.

What is more than a bucket ahead of the watermark waits in its bucket, which goes into the rings when they reach it: one
wrong clock must not push the present out of them.
"""

from typing import NamedTuple

import numpy as np

from detectors.buckets import BEHIND, BUCKET, NEVER, Pool, bucket_of, due, find_earliest, new_pool, release, with_room
from detectors.clock import Ticked
from detectors.compiled import Row, State, compiled
from detectors.identities import Rows
from schemas.batch import Batch, Flags, Floats, Ints

TOLERATED = 900_000
"""An event later than this (ms) is in no total."""
SILENCE = 45 * 86_400_000
"""An identity that was silent for so long (ms) is forgotten: if it comes back it is a new one."""
_NO_EVIDENCE = 3_600_000
"""One of which nothing but refused calls is known is forgotten after so long (ms): whoever is refused invents names."""

# The spans are 6 and 10 slots. When a bucket closes, the rings have reached two buckets beyond it, or less.
_TENS, _MINUTES = 8, 11
_OF_MINUTE = 6
"""Buckets in one slot of the ring of minutes."""

ROW = np.dtype([
    ("first", "i8"), ("last", "i8"), ("open", "i4"), ("newest", "i4"),
    ("ten", "f4", (_TENS, 3)), ("minute", "f4", (_MINUTES, 3)),
], align=True)  # fmt: skip
"""`first` is 0 while nothing but refused calls is known. `newest` is the bucket (time / 10 s) that the rings have
reached; each ring has the slots that end with the one of `newest`."""


class Velocities(NamedTuple):
    """Per event of a batch, after it was added: whether it came too `late` to count, whether its identity is
    `returned` after the silence that made it a new one, when the identity's `first` event was (ms), and its sums over
    the last minute (`minute`, shape n by 3: tokens, requests, USD)."""

    late: Flags
    returned: Flags
    first: Ints
    minute: Floats


class Closings(NamedTuple):
    """Closed buckets, in order. `at` is the position in the batch of the event that closed it (n: none did).

    `first` is when the identity's first event was (ms). `calls` are those that are evidence; a bucket may have refused
    calls alone. `minute` and `tenmin` are sums (n by 3: tokens, requests, USD) over the span that ends with the
    bucket.
    """

    at: Ints
    row: Ints
    end: Ints
    first: Ints
    sums: Floats
    calls: Ints
    failed: Ints
    denied: Ints
    minute: Floats
    tenmin: Floats


class _Events(NamedTuple):
    row: Ints
    time: Ints
    duplicate: Flags
    watermark: Ints
    tokens: Floats
    cost: Floats
    retry: Flags
    failed: Flags
    denied: Flags
    excluded: Flags


class Windows:
    """The velocity windows of one partition's identities."""

    def __init__(self) -> None:
        self.rows = Rows(ROW)
        self.pool = new_pool()

    @property
    def pending(self) -> int:
        """How many buckets are open."""
        return len(self.pool.slots) - int(self.pool.height[0])

    @property
    def due(self) -> int:
        """The watermark (ms) at which the next open bucket closes."""
        return min(int(self.pool.earliest[0]), NEVER - BEHIND) + BEHIND

    def advance(self, batch: Batch, ticked: Ticked, row: Ints, tiebreak: Ints) -> tuple[Velocities, Closings]:
        """Adds a batch's events and closes what is due. `row` has an entry per event; `tiebreak` has one per identity
        and orders those that close at the same end."""
        n = len(batch)
        self.pool = with_room(self.pool, n)
        events = _Events(
            row, ticked.time, ticked.duplicate, ticked.watermark, batch.tokens, batch.cost,
            batch.retry, batch.failed, batch.denied, batch.excluded,
        )  # fmt: skip
        velocities = Velocities(np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.int64), np.zeros((n, 3)))
        # Each open bucket may close, and each event may open one that closes before the batch ends.
        closings = _closings(self.pending + n)
        count = _advance(self.rows.reach(len(tiebreak)), self.pool, tiebreak, events, velocities, closings)
        return velocities, _first(closings, count)

    def close_until(self, watermark: int, tiebreak: Ints) -> Closings:
        """Closes what is due at `watermark` (ms) without a new event."""
        closings = _closings(self.pending)
        return _first(closings, _close_due(self.rows.array, self.pool, tiebreak, 0, 0, watermark, closings))

    def silent(self, watermark: int, count: int) -> Ints:
        """Which of the first `count` rows are to be forgotten at `watermark` (ms): silent since long, and none of
        their buckets is open."""
        rows = self.rows.array[:count]
        age = watermark - rows["last"]
        gone = (age > SILENCE) | ((rows["first"] == 0) & (age > _NO_EVIDENCE))
        return np.flatnonzero(gone & (rows["last"] > 0) & (rows["open"] == 0))


def _closings(n: int) -> Closings:
    at, row, end, first, calls, failed, denied = (np.empty(n, np.int64) for _ in range(7))
    sums, minute, tenmin = (np.empty((n, 3)) for _ in range(3))
    return Closings(at, row, end, first, sums, calls, failed, denied, minute, tenmin)


def _first(closings: Closings, count: int) -> Closings:
    c, n = closings, count
    return Closings(
        c.at[:n],
        c.row[:n],
        c.end[:n],
        c.first[:n],
        c.sums[:n],
        c.calls[:n],
        c.failed[:n],
        c.denied[:n],
        c.minute[:n],
        c.tenmin[:n],
    )


@compiled
def _clear(ring: Floats, newest: int, slot: int) -> None:
    """Blanks the slots of a ring that come after `newest`, up to `slot`."""
    for skipped in range(max(newest + 1, slot + 1 - len(ring)), slot + 1):
        ring[skipped % len(ring), :] = 0.0


@compiled
def _add(ring: Floats, newest: int, slot: int, tokens: float, requests: float, cost: float) -> None:
    """Adds to the ring's slot; what is older than the ring is left out."""
    if newest - slot < len(ring):
        at = slot % len(ring)
        ring[at, 0] += tokens
        ring[at, 1] += requests
        ring[at, 2] += cost


@compiled
def _reach(row: Row, pool: Pool, ten: int) -> None:
    """Moves the rings on to the bucket `ten`; what waited in open buckets up to there goes in."""
    newest = row.newest
    if ten <= newest:
        return
    _clear(row.ten, newest, ten)
    _clear(row.minute, newest // _OF_MINUTE, ten // _OF_MINUTE)
    row.newest = ten
    slot = row.open - 1
    while slot >= 0:
        bucket = pool.slots[slot]
        at = bucket.end // BUCKET - 1
        if newest < at <= ten:
            tokens, requests, cost = bucket.sums[0], bucket.sums[1], bucket.sums[2]
            _add(row.ten, ten, at, tokens, requests, cost)
            _add(row.minute, ten // _OF_MINUTE, at // _OF_MINUTE, tokens, requests, cost)
        slot = bucket.next - 1


@compiled
def _sum(ring: Floats, newest: int, last: int, span: int, out: Floats) -> None:
    """Sums the `span` slots that end with `last`, as far as the ring has them."""
    for m in range(3):
        out[m] = 0.0
    for slot in range(max(last - span, newest - len(ring)) + 1, min(last, newest) + 1):
        for m in range(3):
            out[m] += ring[slot % len(ring), m]


@compiled
def _minute(row: Row, pool: Pool, ten: int, out: Floats) -> None:
    """Sums the minute that ends with the bucket `ten`."""
    _sum(row.ten, row.newest, ten, _OF_MINUTE, out)
    slot = row.open - 1 if ten > row.newest else -1
    while slot >= 0:
        bucket = pool.slots[slot]
        at = bucket.end // BUCKET - 1
        if max(row.newest, ten - _OF_MINUTE) < at <= ten:
            for m in range(3):
                out[m] += bucket.sums[m]
        slot = bucket.next - 1


@compiled
def _close_due(
    rows: State, pool: Pool, tiebreak: Ints, position: int, closed: int, watermark: int, closings: Closings
) -> int:
    """Closes what is due, after `closed` others; returns how many have closed."""
    slots = pool.slots
    for slot in due(slots, tiebreak, watermark):
        bucket = slots[slot]
        row = rows[bucket.row]
        end = bucket.end
        closings.at[closed] = position
        closings.row[closed] = bucket.row
        closings.end[closed] = end
        closings.first[closed] = row.first
        for m in range(3):
            closings.sums[closed, m] = bucket.sums[m]
        closings.calls[closed] = bucket.calls
        closings.failed[closed] = bucket.failed
        closings.denied[closed] = bucket.denied
        ten = end // BUCKET - 1
        _reach(row, pool, ten)
        newest = row.newest
        _sum(row.ten, newest, ten, 6, closings.minute[closed])
        _sum(row.minute, newest // _OF_MINUTE, ten // _OF_MINUTE, 10, closings.tenmin[closed])
        closed += 1
        release(row, pool, slot)
    find_earliest(pool)
    return closed


@compiled
def _advance(
    rows: State, pool: Pool, tiebreak: Ints, events: _Events, velocities: Velocities, closings: Closings
) -> int:
    closed = 0
    blank = np.zeros(1, ROW)
    for i in range(len(events.row)):
        if events.duplicate[i]:
            continue
        mark = events.watermark[i]
        if pool.earliest[0] <= mark - BEHIND:
            closed = _close_due(rows, pool, tiebreak, i, closed, mark, closings)
        t = events.time[i]
        row = rows[events.row[i]]
        if row.last > 0 and row.open == 0 and max(t, mark) - row.last > SILENCE:
            velocities.returned[i] = True
            rows[events.row[i]] = blank[0]
        row.last = max(row.last, t)
        end = (t // BUCKET + 1) * BUCKET
        weight = 0.0 if events.excluded[i] else 1.0
        request = 0.0 if events.retry[i] else weight
        tokens = events.tokens[i] * weight
        cost = events.cost[i] * weight
        late = end + BEHIND <= mark
        velocities.late[i] = late
        ten = t // BUCKET
        if ten <= mark // BUCKET + 1 and mark - t <= TOLERATED:
            _reach(row, pool, ten)
            newest = row.newest
            _add(row.minute, newest // _OF_MINUTE, ten // _OF_MINUTE, tokens, request, cost)
            if not late:
                _add(row.ten, newest, ten, tokens, request, cost)
        if not late:
            bucket = bucket_of(row, events.row[i], pool, end)
            bucket.sums[0] += tokens
            bucket.sums[1] += request
            bucket.sums[2] += cost
            bucket.calls += 0 if events.excluded[i] else 1
            bucket.failed += 1 if events.failed[i] and not events.excluded[i] else 0
            bucket.denied += 1 if events.denied[i] else 0
        if row.first == 0 and not events.excluded[i]:
            row.first = t
        velocities.first[i] = row.first
        _minute(row, pool, ten, velocities.minute[i])
    return closed
