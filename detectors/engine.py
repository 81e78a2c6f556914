"""One partition's detection: usage events in, findings and tenants' sums out."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from xxhash import xxh3_64_hexdigest

from detectors.buckets import BEHIND, BUCKET
from detectors.clock import Clock, Ticked
from detectors.identities import Identities, Standing
from detectors.kinds import Config, make_detectors
from detectors.saved import Saved
from detectors.tenants import Events, TenantSums
from detectors.view import Detector, Raised, View
from detectors.windows import Closings, Velocities, Windows
from schemas.batch import Batch, Flags, Ints, to_batch
from schemas.directory import Directory
from schemas.finding import Cause, Evidence, Finding, TenantBucket
from schemas.piece import Checkpoint
from schemas.times import format_millis
from schemas.usage import CLAIMED, UsageEvent

_FREE_EVERY = 3_600_000
"""Milliseconds of event time."""
_STAMPED_AHEAD = 5_000
"""Milliseconds by which a finding follows the stamp of the event that brought it, where the source's clock is fast."""


class Counts(Struct):
    """Deliveries taken in, and of these the second ones of an event and those whose bucket had closed."""

    events: int = 0
    duplicates: int = 0
    late: int = 0


Order = tuple[int, int, int, int]
"""Where a signal belongs: the position that brought it, closings before events, the closing, the detector."""


class Told(NamedTuple):
    """A signal and the position in the batch of the event that brought it."""

    at: int
    signal: Finding | TenantBucket


class Partition:
    """The detection of one partition. What it answers depends on the records in their order, on the policy and on
    the directory; never on how the records are cut into batches."""

    def __init__(self, number: int, config: Config, directory: Directory) -> None:
        self._number = number
        self._policy = config.version
        self._identities = Identities(directory)
        self._clock = Clock()
        self._windows = Windows()
        self._detectors = make_detectors(config, directory)
        self._saved = Saved(self._identities, self._clock, self._windows, self._detectors)
        self._tenants = TenantSums(number, self._identities)
        self._free_at = 0
        self._empty = to_batch([], [], [])
        self.counts = Counts()

    @property
    def identities(self) -> int:
        """How many identities are known."""
        return self._identities.known

    @property
    def watermark(self) -> int:
        """In ms since 1970; far in the past before the first records."""
        return self._clock.watermark

    @property
    def newest(self) -> int:
        """The greatest time of any record, in ms."""
        return self._clock.newest

    @property
    def due(self) -> int:
        """When (ms) the next open bucket can be closed, by later records or `idle_until`; far off without one."""
        return self._windows.due

    def take(self, batch: Batch) -> list[Told]:
        """Takes a batch in; returns what it tells, in order."""
        ticked = self._clock.tick(batch)
        row = self._identities.rows(batch)
        unsaid = np.flatnonzero(batch.declared < 0)
        # What a gateway does not report the directory may know.
        batch.workload[unsaid] = self._identities.assigned(row[unsaid])
        velocities, closings = self._windows.advance(batch, ticked, row, self._identities.tiebreak)
        self.counts.events += len(batch)
        self.counts.duplicates += int(ticked.duplicate.sum())
        self.counts.late += int((velocities.late & ~ticked.duplicate).sum())
        view = self._view(batch, ticked, row, velocities, closings)
        signals = self._signals(view, ticked.now)
        self._identities.remember(batch, row, self._speaks(view))
        self._saved.touch(row, closings.row)
        self._free_silent()
        return signals

    def idle_until(self, moment: int) -> list[Told]:
        """Closes what ended by `moment` (ms) though no record says so; returns what that tells."""
        now = self._clock.idle_until(moment)
        ticked = self._clock.tick(self._empty)
        rows = np.empty(0, np.int64)
        velocities, _ = self._windows.advance(self._empty, ticked, rows, self._identities.tiebreak)
        closings = self._windows.close_until(self._clock.watermark, self._identities.tiebreak)
        view = self._view(self._empty, ticked, rows, velocities, closings)
        signals = self._signals(view, np.array([now]))
        self._saved.touch(closings.row)
        return signals

    def close(self) -> list[Told]:
        """Closes every open bucket: there will be no more records."""
        if not self._windows.pending:
            return []
        return self.idle_until(max(self._clock.now, self._clock.newest + BUCKET) + BEHIND)

    def checkpoint(self) -> Checkpoint:
        """What changed since the last one, and a slice of everything else, to be saved."""
        return self._saved.checkpoint(self._free_at)

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Makes of a new partition the one whose checkpoints are in `pieces`, in their order.

        Raises:
            StateError: a piece can't be read, or not by this version.
        """
        self._free_at = self._saved.restore(pieces)

    def state_of(self, finding: Finding) -> dict[str, np.void]:
        """A copy of the row of a finding's identity in each component, by its name; nothing where it is not known."""
        row = self._identities.row_of((finding.tenant, finding.identity, finding.evidence.claimed))
        if row is None:
            return {}
        for detector in self._detectors:
            detector.settle()
        return {name: rows.array[row].copy() for name, rows in self._saved.components.items()}

    def _free_silent(self) -> None:
        """Frees the rows of identities that would be new ones if they came back. It shows in nothing but memory."""
        if self.watermark < self._free_at:
            return
        self._free_at = self.watermark + _FREE_EVERY
        gone = self._windows.silent(self.watermark, len(self._identities))
        if len(gone):
            for detector in self._detectors:
                detector.forget(gone)
            for rows in self._saved.components.values():
                rows.array[gone] = np.zeros((), rows.array.dtype)
            self._identities.free(gone.tolist())
            self._saved.touch(gone)

    def _view(self, batch: Batch, ticked: Ticked, row: Ints, velocities: Velocities, closings: Closings) -> View:
        names = self._identities
        return View(batch, ticked, row, len(names), names.tenant, names.tenant_key, velocities, closings)

    def _signals(self, view: View, now: Ints) -> list[Told]:
        told: list[tuple[Order, Finding | TenantBucket]] = []
        for rank, detector in enumerate(self._detectors):
            for raised in detector.judge(view):
                order = (raised.at, int(raised.closing < 0), raised.closing, rank)
                told.append((order, self._finding(view, detector, raised, int(now[raised.at]))))
        events = Events(view.row, self._speaks(view), view.batch.workload)
        told += self._tenants.take(events, view.closings, now)
        told.sort(key=lambda pair: pair[0])
        return [Told(order[0], signal) for order, signal in told]

    def _finding(self, view: View, detector: Detector, raised: Raised, now: int) -> Finding:
        tenant, identity, claimed = self._identities.name(raised.row)
        standing = self._standing(view, raised)
        cause = None
        if raised.closing < 0:
            trigger = view.batch.events[raised.at]
            cause = Cause(trigger.source, trigger.id)
            told_by = f"{trigger.source}\0{trigger.id}"
            first = int(view.velocities.first[raised.at])
            # Nobody may read that it was told before it happened. A clock that is far off is not believed.
            ahead = int(view.batch.time[raised.at]) - now
            now += ahead if 0 < ahead <= _STAMPED_AHEAD else 0
        else:
            first = int(view.closings.first[raised.closing])
            told_by = str(int(view.closings.end[raised.closing])) + ("\0" + CLAIMED if claimed else "")
        offset = int(view.batch.offset[raised.at]) if raised.at < len(view.batch) else -1
        return Finding(
            finding_id="f-" + xxh3_64_hexdigest(f"{detector.name}\0{tenant}\0{identity}\0{told_by}".encode()),
            time=format_millis(now),
            tenant=tenant,
            identity=identity,
            kind=detector.kind,
            severity=raised.severity,
            score=raised.score,
            detector=f"{detector.name}@{detector.version}",
            window=raised.window,
            observed=raised.observed,
            baseline=raised.baseline,
            reason=raised.reason,
            evidence=Evidence(
                partition=self._number,
                offsets=(raised.since, offset),
                policy=self._policy,
                detector_version=detector.version,
                state_digest=raised.digest,
                cause=cause,
                usd_per_minute=raised.usd_per_minute,
                baseline_usd_per_minute=raised.baseline_usd_per_minute,
                age_seconds=max(0, now - first) / 1000,
                span_seconds=raised.span_seconds,
                deterministic=raised.deterministic,
                extreme=raised.extreme,
                workload=standing.workload or self._identities.class_of(raised.row),
                credential_id=standing.credential_id,
                session_id=view.batch.events[raised.at].data.session_id if raised.session else None,
                identity_trust=CLAIMED if claimed else standing.identity_trust,
                shared=raised.shared,
                details=raised.details,
            ),
        )

    def _standing(self, view: View, raised: Raised) -> Standing:
        """The identity's standing at the moment it was raised."""
        if raised.closing < 0:
            return _standing_in(view.batch.events[raised.at])
        before = np.flatnonzero((view.row[: raised.at] == raised.row) & self._speaks(view)[: raised.at])
        return _standing_in(view.batch.events[before[-1]]) if len(before) else self._identities.standing(raised.row)

    @staticmethod
    def _speaks(view: View) -> Flags:
        """Which events are evidence about the identity they name."""
        return ~(view.ticked.duplicate | view.batch.excluded)


def _standing_in(event: UsageEvent) -> Standing:
    return Standing(event.data.workload, event.data.credential_id, event.data.identity_trust)
