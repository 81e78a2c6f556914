"""Token, request and cost velocity per identity, over 10 s, 1 min, 10 min and 1 h of event time.

An event adds to its identity's rings at once; a 10 s bucket *closes* two seconds behind the watermark, in order of
(end, identity), and what closed is what baselines learn from and slow detectors judge.
"""

import numpy as np
from msgspec import Struct
from numba import njit
from numpy.typing import NDArray

from detectors.clock import Ticked
from detectors.identities import Rows
from schemas.batch import Batch, Flags, Floats, Ints

BUCKET = 10_000
"""Milliseconds."""
BEHIND = 2_000
"""A bucket closes so many milliseconds behind the watermark."""
TOLERATED = 900_000
"""An event later than this (ms) is in no total."""
METRICS = ("tokens", "requests", "cost")

# One slot more than the span needs, so that an event just ahead of the bucket that closes does not push out its past.
_TENS, _MINUTES, _TEN_MINUTES = 8, 11, 7

ROW = np.dtype([
    ("first", "i8"), ("last", "i8"), ("events", "i8"), ("open", "i8"),
    ("ten_id", "i8", (_TENS,)), ("ten", "f4", (_TENS, 3)),
    ("minute_id", "i4", (_MINUTES,)), ("minute", "f4", (_MINUTES, 3)),
    ("tenmin_id", "i4", (_TEN_MINUTES,)), ("tenmin", "f4", (_TEN_MINUTES, 3)),
])  # fmt: skip
_NEVER = np.iinfo(np.int64).max
_OPEN = np.dtype([
    ("used", "?"), ("row", "i8"), ("end", "i8"), ("next", "i8"), ("sums", "f8", (3,)), ("failed", "i8"), ("denied", "i8"),
])  # fmt: skip


class Velocities(Struct, frozen=True):
    """Per event of a batch, after it was added: whether it counted (`late`: its bucket had closed), its identity's
    sums over the last minute (`minute`, shape n by 3: tokens, requests, USD), and how long (ms) and with how many
    events before this one the identity is known."""

    late: Flags
    minute: Floats
    age: Ints
    events: Ints


class Closings(Struct, frozen=True):
    """Closed buckets, in order. `at` is the position in the batch of the event that closed it (n: none did).

    `minute`, `tenmin`, `hour` are sums (n by 3: tokens, requests, USD) over the span that ends with the bucket.
    """

    at: Ints
    row: Ints
    end: Ints
    sums: Floats
    failed: Ints
    denied: Ints
    minute: Floats
    tenmin: Floats
    hour: Floats

    def __len__(self) -> int:
        return len(self.row)


def _blank(rows: NDArray[np.void]) -> None:
    rows["open"] = -1


class Windows:
    """The velocity windows of one partition's identities."""

    def __init__(self) -> None:
        self.rows = Rows(ROW, _blank)
        self._open = np.zeros(0, _OPEN)
        self._free = np.zeros(0, np.int64)
        self._free_count = 0
        self._earliest = np.full(1, _NEVER)

    @property
    def pending(self) -> int:
        """How many buckets are open."""
        return len(self._open) - self._free_count

    def first_seen(self, row: int) -> int:
        """The time (ms) of the identity's first event."""
        return int(self.rows.array["first"][row])

    def advance(self, batch: Batch, ticked: Ticked, row: Ints, identities: int, tiebreak: Ints) -> tuple[Velocities, Closings]:
        """Adds a batch's events and closes what is due. `row` has an entry per event; `tiebreak` orders rows that
        close at the same end."""
        n = len(batch)
        self._make_room(n)
        # Each open bucket may close, and each event may open one that closes before the batch ends.
        most = self.pending + n
        out = Velocities(np.zeros(n, np.bool_), np.zeros((n, 3)), np.zeros(n, np.int64), np.zeros(n, np.int64))
        closed = _closings(most)
        count, self._free_count = _advance(
            self.rows.reach(identities), self._open, self._free, self._free_count, self._earliest, tiebreak, row,
            ticked.time, ticked.duplicate, ticked.watermark, batch.tokens, batch.cost, batch.retry, batch.failed, batch.denied, batch.excluded,
            out.late, out.minute, out.age, out.events,
            closed.at, closed.row, closed.end, closed.sums, closed.failed, closed.denied, closed.minute, closed.tenmin, closed.hour,
        )  # fmt: skip
        return out, _first(closed, count)

    def close_until(self, watermark: int, tiebreak: Ints) -> Closings:
        """Closes what is due at `watermark` (ms) without a new event."""
        closed = _closings(self.pending)
        count, self._free_count = _close_due(
            self.rows.array, self._open, self._free, self._free_count, self._earliest, tiebreak, 0, 0, watermark,
            closed.at, closed.row, closed.end, closed.sums, closed.failed, closed.denied, closed.minute, closed.tenmin, closed.hour,
        )  # fmt: skip
        return _first(closed, count)

    def _make_room(self, coming: int) -> None:
        have = len(self._open)
        if self._free_count >= coming:
            return
        size = max(have + coming, 2 * have, 1024)
        grown = np.zeros(size, _OPEN)
        grown[:have] = self._open
        free = np.empty(size, np.int64)
        free[: self._free_count] = self._free[: self._free_count]
        free[self._free_count : self._free_count + size - have] = np.arange(size - 1, have - 1, -1)
        self._free_count += size - have
        self._open, self._free = grown, free


def _closings(n: int) -> Closings:
    return Closings(
        np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64), np.empty((n, 3)), np.empty(n, np.int64),
        np.empty(n, np.int64), np.empty((n, 3)), np.empty((n, 3)), np.empty((n, 3)),
    )  # fmt: skip


def _first(closed: Closings, count: int) -> Closings:
    return Closings(*(getattr(closed, name)[:count] for name in Closings.__struct_fields__))


@njit(cache=True)
def _add(ids, sums, slot_id, tokens, requests, cost):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    at = slot_id % len(ids)
    if ids[at] < slot_id:
        ids[at] = slot_id
        sums[at, :] = 0.0
    if ids[at] == slot_id:
        sums[at, 0] += tokens
        sums[at, 1] += requests
        sums[at, 2] += cost


@njit(cache=True)
def _sum(ids, sums, last_id, span, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    for m in range(3):
        out[m] = 0.0
    for at in range(len(ids)):
        if last_id - span < ids[at] <= last_id:
            for m in range(3):
                out[m] += sums[at, m]


@njit(cache=True)
def _close_due(rows, open_, free, free_count, earliest, tiebreak, position, closed, watermark, c_at, c_row, c_end, c_sums, c_failed, c_denied, c_minute, c_tenmin, c_hour):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Closes every open bucket that ended `BEHIND` before the watermark; returns counts of closed and free slots."""
    due = 0
    for slot in range(len(open_)):
        if open_[slot].used and open_[slot].end + BEHIND <= watermark:
            due += 1
    slots = np.empty(due, np.int64)
    ends = np.empty(due, np.int64)
    ties = np.empty(due, np.int64)
    due = 0
    for slot in range(len(open_)):
        if open_[slot].used and open_[slot].end + BEHIND <= watermark:
            slots[due] = slot
            ends[due] = open_[slot].end
            ties[due] = tiebreak[open_[slot].row]
            due += 1
    by_tie = np.argsort(ties, kind="mergesort")
    order = by_tie[np.argsort(ends[by_tie], kind="mergesort")]
    for k in order:
        slot = slots[k]
        bucket = open_[slot]
        row = rows[bucket.row]
        end = bucket.end
        c_at[closed] = position
        c_row[closed] = bucket.row
        c_end[closed] = end
        for m in range(3):
            c_sums[closed, m] = bucket.sums[m]
        c_failed[closed] = bucket.failed
        c_denied[closed] = bucket.denied
        _sum(row.ten_id, row.ten, end // BUCKET - 1, 6, c_minute[closed])
        _sum(row.minute_id, row.minute, (end - 1) // 60_000, 10, c_tenmin[closed])
        _sum(row.tenmin_id, row.tenmin, (end - 1) // 600_000, 6, c_hour[closed])
        closed += 1
        if row.open == slot:
            row.open = bucket.next
        else:
            before = row.open
            while open_[before].next != slot:
                before = open_[before].next
            open_[before].next = bucket.next
        bucket.used = False
        free[free_count] = slot
        free_count += 1
    earliest[0] = _NEVER
    for slot in range(len(open_)):
        if open_[slot].used:
            earliest[0] = min(earliest[0], open_[slot].end)
    return closed, free_count


@njit(cache=True)
def _advance(rows, open_, free, free_count, earliest, tiebreak, row_of, time, duplicate, watermark, tokens, cost, retry, failed, denied, excluded, late, minute, age, known, c_at, c_row, c_end, c_sums, c_failed, c_denied, c_minute, c_tenmin, c_hour):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    closed = 0
    for i in range(len(time)):
        if duplicate[i]:
            continue
        mark = watermark[i]
        if earliest[0] <= mark - BEHIND:
            closed, free_count = _close_due(
                rows, open_, free, free_count, earliest, tiebreak, i, closed, mark,
                c_at, c_row, c_end, c_sums, c_failed, c_denied, c_minute, c_tenmin, c_hour,
            )  # fmt: skip
        t = time[i]
        row = rows[row_of[i]]
        end = (t // BUCKET + 1) * BUCKET
        weight = 0.0 if excluded[i] else 1.0
        request = 0.0 if retry[i] else weight
        used = tokens[i] * weight
        paid = cost[i] * weight
        late[i] = end + BEHIND <= mark
        if late[i]:
            if mark - t <= TOLERATED:
                _add(row.minute_id, row.minute, t // 60_000, used, request, paid)
                _add(row.tenmin_id, row.tenmin, t // 600_000, used, request, paid)
        else:
            _add(row.ten_id, row.ten, t // BUCKET, used, request, paid)
            _add(row.minute_id, row.minute, t // 60_000, used, request, paid)
            _add(row.tenmin_id, row.tenmin, t // 600_000, used, request, paid)
            slot = row.open
            while slot >= 0 and open_[slot].end != end:
                slot = open_[slot].next
            if slot < 0:
                free_count -= 1
                slot = free[free_count]
                bucket = open_[slot]
                bucket.used = True
                bucket.row = row_of[i]
                bucket.end = end
                bucket.next = row.open
                bucket.failed = 0
                bucket.denied = 0
                for m in range(3):
                    bucket.sums[m] = 0.0
                row.open = slot
                earliest[0] = min(earliest[0], end)
            bucket = open_[slot]
            bucket.sums[0] += used
            bucket.sums[1] += request
            bucket.sums[2] += paid
            bucket.failed += 1 if failed[i] and not excluded[i] else 0
            bucket.denied += 1 if denied[i] else 0
        known[i] = row.events
        age[i] = t - row.first if row.events > 0 else 0
        if not excluded[i]:
            if row.events == 0:
                row.first = t
            row.events += 1
            row.last = max(row.last, t)
        _sum(row.ten_id, row.ten, t // BUCKET, 6, minute[i])
    return closed, free_count
