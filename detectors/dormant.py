"""Finds keys that slept for long and wake up busy."""

from typing import NamedTuple

import numpy as np
from msgspec import Struct

from detectors.compiled import Row, State, compiled
from detectors.identities import Rows
from detectors.seconds import seconds_of
from detectors.view import Detector, Raised, View, digest
from schemas.batch import WORKLOADS, Codes, Flags, Floats, Ints
from schemas.bounds import NotNegative, Positive
from schemas.finding import Kind, Severity

_ROW = np.dtype([
    ("last", "u4"), ("woke", "u4"), ("slept", "f4"), ("gap", "f4"), ("pace", "f4"), ("record", "f4"), ("told", "u4"),
    ("calls", "u2"), ("gravity", "u1"),
], align=True)  # fmt: skip
"""Times are seconds since 1970. `slept` is the silence (s) that ended at `woke`, 0 while it is none of note; `gap`
the greatest silence that is its own; `pace` a fading count of calls and `record` the greatest that it reached."""
_LOW, _MEDIUM, _HIGH = 1, 2, 3
_BATCH = WORKLOADS.index("batch")
_SEVERITY: tuple[Severity, ...] = ("info", "low", "medium", "high")
_SCORE = (0.0, 0.3, 0.6, 0.9)
_MOST = (1 << 16) - 1
_LEAST_RECORD = 1.5
"""Calls; who never called twice within minutes may do so."""
_SECOND, _HOUR, _DAY = 1000, 3600.0, 86_400.0


class _Calls(NamedTuple):
    row: Ints
    time: Ints
    returned: Flags
    skip: Flags
    workload: Codes


class _Told(NamedTuple):
    """What the kernel tells: where, how grave, and the identity's state then."""

    at: Ints
    gravity: Codes
    state: State


class _Limits(NamedTuple):
    """Times in seconds; `pace` by workload class."""

    history: float
    sleep: float
    gaps: float
    hint: float
    hint_pace: float
    busy: float
    pace: Floats
    high: float
    deep: float
    half_life: float
    watch: float
    fading: float
    again: float


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[dormant]` of policy.toml."""

    history_gap_hours: NotNegative
    sleep_hours: Positive
    gap_ratio: Positive
    hint_calls: Positive
    hint_pace_ratio: Positive
    busy_calls: Positive
    pace_ratio: Positive
    batch_pace_ratio: Positive
    high_ratio: Positive
    deep_ratio: Positive
    pace_half_life_minutes: Positive
    watch_minutes: Positive
    record_half_life_days: Positive
    repeat_finding_seconds: NotNegative

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if self.busy_calls < self.hint_calls:
            raise ValueError("what alerts must not be less than what hints: `busy_calls`, `hint_calls`")


class Dormant(Detector):
    """A key that slept far longer than it ever did, and wakes up busier than it ever was.

    What it detects:
        *Sleep*: a silence of `sleep_hours` or more and of `gap_ratio` times the greatest silence that is the identity's
        own. *Busy*: a count of calls that fades with a half-life of minutes, beyond `busy_calls` and beyond
        `pace_ratio` times the greatest that the identity reached. Both together, within `watch_minutes` after it woke:
        medium; both `high_ratio` times as much: high. After a sleep `deep_ratio` times as long as needed its earlier
        pace is no excuse. The first calls after the sleep, and whatever an identity does that never came back from a
        silence of `history_gap_hours`, are weak evidence. What was no attack becomes the identity's own.

    Why it matters:
        Forgotten keys are nobody's: their theft is noticed on the bill.

    False positives:
        An owner who takes a project up again with a script. Nights, weekends, sparse keys and monthly jobs sleep as
        they did before, or wake at their usual pace.

    Runbook:
        Ask the owner whether the key is still in use; rotate it, and let unused keys expire.
    """

    name = "dormant"
    kind: Kind = "dormant"
    version = 1

    def __init__(self, config: Config) -> None:
        self._config = config
        self.rows = Rows(_ROW)
        pace = [config.batch_pace_ratio if name == "batch" else config.pace_ratio for name in WORKLOADS]
        self._limits = _Limits(
            config.history_gap_hours * _HOUR, config.sleep_hours * _HOUR, config.gap_ratio, config.hint_calls,
            config.hint_pace_ratio, config.busy_calls, np.array(pace), config.high_ratio, config.deep_ratio,
            config.pace_half_life_minutes * 60, config.watch_minutes * 60, config.record_half_life_days * _DAY,
            config.repeat_finding_seconds,
        )  # fmt: skip

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """A finding when an awakening is told, one when it gets graver, then one a minute while it is watched."""
        batch, n = view.batch, len(view.batch)
        # A retry is an attempt, no operation.
        skip = view.ticked.duplicate | batch.excluded | batch.retry
        calls = _Calls(view.row, view.ticked.time, view.velocities.returned, skip, batch.workload)
        told = _Told(np.empty(n, np.int64), np.empty(n, np.int8), np.empty(n, _ROW))
        count = _judge(self.rows.reach(view.identities), calls, self._limits, told)
        return [self._raised(view, told, k) for k in range(count)]

    def _raised(self, view: View, told: _Told, k: int) -> Raised:
        at, row, gravity = int(told.at[k]), told.state[k], int(told.gravity[k])
        slept, gap, pace, record = (float(row[name]) for name in ("slept", "gap", "pace", "record"))
        since = (int(view.ticked.time[at]) - int(row["woke"]) * _SECOND) / _SECOND
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(view.batch.offset[at]),
            severity=_SEVERITY[gravity],
            score=_SCORE[gravity],
            window=f"{self._config.pace_half_life_minutes:g}m half-life",
            observed=round(pace, 3),
            baseline=round(record, 3),
            reason=(
                f"woke up after {slept / _HOUR:.0f} h of silence, its longest before was {gap / _HOUR:.1f} h "
                f"in {int(row['calls'])} calls; {pace:.0f} calls at once, at most {record:.0f} before"
            ),
            digest=digest(told.state[k : k + 1]),
            span_seconds=max(since, 0.0),
            usd_per_minute=round(float(view.velocities.minute[at, 2]), 6),
            details={"slept_hours": round(slept / _HOUR, 2), "longest_gap_hours": round(gap / _HOUR, 2)},
        )


@compiled
def _wake(row: Row, now: int, silence: float, limits: _Limits) -> None:
    """What a silence that has ended means: the identity sleeps, or the silence is its own."""
    if silence >= max(limits.sleep, limits.gaps * row.gap):
        row.woke = now
        row.slept = silence
        row.gravity = 0
        row.told = 0
    else:
        row.gap = max(row.gap, silence)


@compiled
def _gravity(row: Row, workload: int, limits: _Limits) -> int:
    """How grave it is that the identity woke up at its present pace; 0 where it is not."""
    record = max(row.record, _LEAST_RECORD)
    depth = row.slept / max(limits.sleep, limits.gaps * row.gap)
    # After so long a sleep nobody's pace is usual, but that of a job that runs once a month.
    usual = record if depth < limits.deep or workload == _BATCH else _LEAST_RECORD
    if row.pace < limits.hint or row.pace < limits.hint_pace * usual:
        return 0
    busy = row.pace / max(limits.busy, limits.pace[workload] * usual)
    if busy < 1.0 or row.gap < limits.history:
        return _LOW
    return _HIGH if busy >= limits.high and depth >= limits.high else _MEDIUM


@compiled
def _judge(rows: State, calls: _Calls, limits: _Limits, told: _Told) -> int:
    count = 0
    blank = np.zeros(1, _ROW)
    for i in range(len(calls.row)):
        if calls.returned[i]:
            rows[calls.row[i]] = blank[0]
        if calls.skip[i]:
            continue
        row = rows[calls.row[i]]
        now = seconds_of(calls.time[i])
        silence = max(float(now) - float(row.last), 0.0) if row.calls > 0 else 0.0
        if silence > 0.0:
            row.pace *= 0.5 ** (silence / limits.half_life)
            # A silence, however long, lets a record fade by a day: what comes once a month is remembered.
            kept = 0.5 ** (min(silence, _DAY) / limits.fading)
            if row.slept > 0.0 and now - float(row.woke) > limits.watch:
                row.gap = max(row.gap, row.slept)
                row.slept = 0.0
            if row.slept == 0.0:
                _wake(row, now, silence, limits)
                row.gap *= kept
                row.record *= kept
        row.pace += 1.0
        # The history is what was before: it grows no more while an awakening is watched.
        if row.slept == 0.0:
            row.calls += 1 if row.calls < _MOST else 0
            row.record = max(row.record, row.pace)
        row.last = max(row.last, now)
        gravity = _gravity(row, calls.workload[i], limits) if row.slept > 0.0 else 0
        if gravity == 0 or (gravity <= row.gravity and (gravity == _LOW or now - float(row.told) < limits.again)):
            continue
        row.told = now
        row.gravity = gravity
        told.at[count] = i
        told.gravity[count] = gravity
        told.state[count] = row
        count += 1
    return count
