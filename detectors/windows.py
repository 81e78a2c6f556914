"""Token, request and cost velocity per identity, over 10 s, 1 min, 10 min and 1 h of event time.

An event adds to its identity's rings at once; a 10 s bucket *closes* two seconds behind the watermark, in order of
(end, identity), and what closed is what baselines learn from and slow detectors judge.
"""

from typing import NamedTuple

import numpy as np

from detectors.buckets import BEHIND, BUCKET, NEVER, Pool, bucket_of, due, find_earliest, new_pool, release, with_room
from detectors.clock import Ticked
from detectors.compiled import State, compiled
from detectors.identities import Rows
from schemas.batch import Batch, Flags, Floats, Ints

TOLERATED = 900_000
"""An event later than this (ms) is in no total."""
SILENCE = 45 * 86_400_000
"""An identity that was silent for so long (ms) is forgotten: if it comes back it is a new one."""
_NO_EVIDENCE = 3_600_000
"""One of which nothing but refused calls is known is forgotten after so long (ms): whoever is refused invents names."""

# One slot more than the span needs, so that an event just ahead of the bucket that closes does not push out its past.
_TENS, _MINUTES, _TEN_MINUTES = 8, 11, 7

ROW = np.dtype([
    ("first", "i8"), ("last", "i8"), ("events", "i8"), ("open", "i8"),
    ("ten_id", "i4", (_TENS,)), ("ten", "f4", (_TENS, 3)),
    ("minute_id", "i4", (_MINUTES,)), ("minute", "f4", (_MINUTES, 3)),
    ("tenmin_id", "i4", (_TEN_MINUTES,)), ("tenmin", "f4", (_TEN_MINUTES, 3)),
], align=True)  # fmt: skip


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
    calls alone. `minute`, `tenmin`, `hour` are sums (n by 3: tokens, requests, USD) over the span that ends with the
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
    hour: Floats


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
        gone = (age > SILENCE) | ((rows["events"] == 0) & (age > _NO_EVIDENCE))
        return np.flatnonzero(gone & (rows["last"] > 0) & (rows["open"] == 0))


def _closings(n: int) -> Closings:
    at, row, end, first, calls, failed, denied = (np.empty(n, np.int64) for _ in range(7))
    sums, minute, tenmin, hour = (np.empty((n, 3)) for _ in range(4))
    return Closings(at, row, end, first, sums, calls, failed, denied, minute, tenmin, hour)


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
        c.hour[:n],
    )


@compiled
def _add(ids: Ints, sums: Floats, slot_id: int, tokens: float, requests: float, cost: float) -> None:
    """Adds to the ring's slot of `slot_id`, which takes the place of an older one; what is older still is left out."""
    at = slot_id % len(ids)
    if ids[at] < slot_id:
        ids[at] = slot_id
        sums[at, :] = 0.0
    if ids[at] == slot_id:
        sums[at, 0] += tokens
        sums[at, 1] += requests
        sums[at, 2] += cost


@compiled
def _sum(ids: Ints, sums: Floats, last_id: int, span: int, out: Floats) -> None:
    """Sums the `span` slots that end with `last_id`."""
    for m in range(3):
        out[m] = 0.0
    for at in range(len(ids)):
        if last_id - span < ids[at] <= last_id:
            for m in range(3):
                out[m] += sums[at, m]


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
        _sum(row.ten_id, row.ten, end // BUCKET - 1, 6, closings.minute[closed])
        _sum(row.minute_id, row.minute, (end - 1) // 60_000, 10, closings.tenmin[closed])
        _sum(row.tenmin_id, row.tenmin, (end - 1) // 600_000, 6, closings.hour[closed])
        for m in range(3):
            # The event that ends a long silence comes before the buckets from before it close, and may have taken
            # their slots in the rings.
            closings.minute[closed, m] = max(closings.minute[closed, m], bucket.sums[m])
            closings.tenmin[closed, m] = max(closings.tenmin[closed, m], bucket.sums[m])
            closings.hour[closed, m] = max(closings.hour[closed, m], bucket.sums[m])
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
        if not late or mark - t <= TOLERATED:
            _add(row.minute_id, row.minute, t // 60_000, tokens, request, cost)
            _add(row.tenmin_id, row.tenmin, t // 600_000, tokens, request, cost)
        if not late:
            _add(row.ten_id, row.ten, t // BUCKET, tokens, request, cost)
            bucket = bucket_of(row, events.row[i], pool, end)
            bucket.sums[0] += tokens
            bucket.sums[1] += request
            bucket.sums[2] += cost
            bucket.calls += 0 if events.excluded[i] else 1
            bucket.failed += 1 if events.failed[i] and not events.excluded[i] else 0
            bucket.denied += 1 if events.denied[i] else 0
        if not events.excluded[i]:
            if row.events == 0:
                row.first = t
            row.events += 1
        velocities.first[i] = row.first
        _sum(row.ten_id, row.ten, t // BUCKET, 6, velocities.minute[i])
    return closed
