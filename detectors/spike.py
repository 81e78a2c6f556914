"""Finds identities that use far more than they ever did."""

from itertools import repeat
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from detectors.buckets import BUCKET
from detectors.compiled import Row, State, compiled
from detectors.identities import Rows
from detectors.models import CohortModel, VelocityModel
from detectors.view import Detector, Raised, View, amount, digest
from schemas.batch import WORKLOADS, Codes, Flags, Floats, Ints
from schemas.bounds import Count, NotNegative, Positive, Share
from schemas.finding import Kind

_ROW = np.dtype([
    ("learnt", "i8"), ("since", "i8"), ("since_offset", "i8"), ("last", "i8"), ("shown", "i8"),
    ("record", "f4", (2, 3)), ("usual", "f4", (3,)), ("before", "f4", (3,)),
    ("closings", "i4"), ("hours", "i4"), ("hour", "i4"), ("streak", "i4"), ("workload", "i1"),
], align=True)  # fmt: skip
_TOLD = np.dtype([
    ("mean", "f8"), ("variance", "f8"), ("told", "i8"), ("minutes", "i4"), ("gravity", "i4"),
])  # fmt: skip
"""The identity's velocity model; when it was last told, and how grave it was."""
_MODELLED_FROM = 10
"""Closed buckets from which on an identity is busy enough for a model of its own."""
_SAMPLE = 32
"""Closed buckets of one end that cohorts learn from; every so many of more, in turn."""
_SHOWN_EVERY = 5_000
"""Milliseconds between two looks of the models at an identity's events; its closed buckets are always looked at."""
_QUIET = 90_000
"""Milliseconds without an excess after which an excursion is over."""
_STEEPEST = 1.5
"""Times the record that a minute of closed buckets may raise it."""
_MINUTE = 60_000
_DAY = 86_400_000
_UNITS = ("tokens", "requests", "USD")
_REQUESTS = 1
_SPANS = ("1m", "10m")
_SPAN_MINUTES = (1.0, 10.0)


class _Calls(NamedTuple):
    row: Ints
    time: Ints
    skip: Flags
    returned: Flags
    offset: Ints
    workload: Codes
    minute: Floats


class _Closed(NamedTuple):
    """Closed buckets, and what the kernel says of each: its workload class, and whether the identity's model, and
    the cohort's, are to learn from it."""

    at: Ints
    row: Ints
    end: Ints
    calls: Ints
    minute: Floats
    tenmin: Floats
    workload: Codes
    own: Flags
    sample: Flags


class _Candidates(NamedTuple):
    """In order: where, which closed bucket (-1: the event itself), the channel (span * 3 + metric) with the greatest
    ratio, whether the identity's own record was the measure, and its state then."""

    at: Ints
    closing: Ints
    channel: Ints
    ratio: Floats
    warm: Flags
    state: State


class _Limits(NamedTuple):
    """Per workload class where an array; times in ms."""

    ratio: Floats
    floor: Floats
    cold: Floats
    warm_hours: float
    extreme: float
    half_life: float
    adapt: float


class ClassConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[spike.interactive]`, `[spike.batch]`, `[spike.agent]`: what is a spike for a workload class.

    Floors are per minute; `cold_*` stand in for the record of an identity that has no history yet.
    """

    ratio: Positive
    floor_tokens: Positive
    floor_requests: Positive
    floor_usd: Positive
    cold_tokens: Positive
    cold_requests: Positive
    cold_usd: Positive


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[spike]` of policy.toml."""

    warm_up_hours: Count
    extreme_ratio: Positive
    sustained_seconds: NotNegative
    deviations: NotNegative
    model_warm_up: Count
    model_identities: Count
    cohort_quantile: Share
    cohort_warm_up: Count
    record_half_life_days: Positive
    adapt_hours: Positive
    repeat_finding_seconds: NotNegative
    interactive: ClassConfig
    batch: ClassConfig
    agent: ClassConfig


class Spike(Detector):
    """Token, request or cost velocity far above the identity's own record.

    What it detects:
        Sums over 1 and 10 minutes of tokens, requests and USD, each against the greatest that the identity reached
        before (a *record* that relaxes over weeks). Beyond `ratio` records, above the class's floor, for two closed
        buckets in a row: a spike. Beyond `extreme_ratio`: at once, with the event that crossed it. An identity
        without history is measured against the class's `cold_*` figures and against what its cohort's busy minutes
        reach (a River P² quantile). Identities with a River velocity model must also lie `deviations` standard
        deviations above its mean. An excess is not learnt at once: the record follows it within `adapt_hours`.

    Why it matters:
        Stolen keys burn 50 to 500 times the usual; $69 a minute is the published rate of an LLM-jacking.

    False positives:
        A launch, a first backfill, a load test. Approve them beforehand in the directory.

    Runbook:
        Compare the models, networks and sessions of the last minutes with the hour before; throttle first.
    """

    name = "spike"
    kind: Kind = "spike"
    version = 1

    def __init__(self, config: Config) -> None:
        self._config = config
        self.rows = Rows(_ROW)
        self.told = Rows(_TOLD)
        classes = (config.interactive, config.batch, config.agent)
        self._limits = _Limits(
            ratio=np.array([c.ratio for c in classes]),
            floor=np.array([(c.floor_tokens, c.floor_requests, c.floor_usd) for c in classes]),
            cold=np.array([(c.cold_tokens, c.cold_requests, c.cold_usd) for c in classes]),
            warm_hours=float(config.warm_up_hours),
            extreme=config.extreme_ratio,
            half_life=config.record_half_life_days * _DAY,
            adapt=config.adapt_hours * 3_600_000,
        )
        self._models: dict[int, VelocityModel] = {}
        """Those of the identities that were busy last; those of the others are in their rows alone."""
        self._unsettled: set[int] = set()
        self._cohorts = [CohortModel(config.cohort_quantile) for _ in WORKLOADS]

    @property
    def components(self) -> dict[str, Rows]:
        """The rows of records, and those of models."""
        return {"records": self.rows, "models": self.told}

    def judge(self, view: View) -> list[Raised]:
        """A finding when a spike is told, one when it becomes extreme and lasting, then one a minute."""
        n, m = len(view.batch), len(view.closings.row)
        velocities, k = view.velocities, view.closings
        skip = view.ticked.duplicate | view.batch.excluded | velocities.late
        calls = _Calls(
            view.row, view.ticked.time, skip, velocities.returned, view.batch.offset, view.batch.workload,
            velocities.minute,
        )  # fmt: skip
        own, sample = np.zeros(m, np.bool_), np.zeros(m, np.bool_)
        closed = _Closed(k.at, k.row, k.end, k.calls, k.minute, k.tenmin, np.zeros(m, np.int8), own, sample)
        at, closing, channel = (np.empty(n + m, np.int64) for _ in range(3))
        found = _Candidates(at, closing, channel, np.empty(n + m), np.empty(n + m, np.bool_), np.empty(n + m, _ROW))
        self.told.reach(view.identities)
        count = _judge(self.rows.reach(view.identities), calls, closed, self._limits, found)
        lessons = self._lessons(view, closed)
        out: list[Raised] = []
        for j in range(count):
            # The models answer as they stood then: after every bucket that had closed, before the one in question.
            before = (int(at[j]), 0, int(closing[j])) if closing[j] >= 0 else (int(at[j]), 2, 0)
            while lessons and lessons[-1] < before:
                self._learn(closed, view.row, lessons.pop())
            raised = self._confirmed(view, found, j)
            if raised is not None:
                out.append(raised)
        while lessons:
            self._learn(closed, view.row, lessons.pop())
        return out

    @staticmethod
    def _lessons(view: View, closed: _Closed) -> list[tuple[int, int, int]]:
        """What the models are to learn, last things first: (position, 0, closed bucket), and (position, 1, 0) where
        an identity comes back as a new one."""
        which = np.flatnonzero(closed.own | closed.sample)[::-1]
        lessons = list(zip(closed.at[which].tolist(), repeat(0), which.tolist(), strict=False))
        if view.velocities.returned.any():
            lessons += [(at, 1, 0) for at in np.flatnonzero(view.velocities.returned).tolist()]
            lessons.sort(reverse=True)
        return lessons

    def _learn(self, closed: _Closed, rows: Ints, lesson: tuple[int, int, int]) -> None:
        at, returned, k = lesson
        if returned:
            self.forget(rows[at : at + 1])
            return
        requests = float(closed.minute[k, _REQUESTS])
        if closed.sample[k]:
            self._cohorts[closed.workload[k]].learn(requests)
        if closed.own[k]:
            row = int(closed.row[k])
            self._model(row).learn(requests)
            self._unsettled.add(row)

    def _model(self, row: int) -> VelocityModel:
        """The model of a row's identity. The one that was made first goes back to its row when they are too many."""
        model = self._models.get(row)
        if model is None:
            held = self.told.array[row]
            model = VelocityModel(int(held["minutes"]), float(held["mean"]), float(held["variance"]))
            self._models[row] = model
            if len(self._models) > self._config.model_identities:
                self._settle(next(iter(self._models)))
                del self._models[next(iter(self._models))]
        return model

    def _settle(self, row: int) -> None:
        model = self._models.get(row)
        if model is not None:
            held = self.told.array[row]
            held["minutes"], held["mean"], held["variance"] = model.scalars

    def settle(self) -> None:
        """Writes the models that learnt since this was last asked into their rows."""
        for row in self._unsettled:
            self._settle(row)
        self._unsettled.clear()

    def forget(self, rows: Ints) -> None:
        """Forgets the models of `rows`."""
        for row in rows.tolist():
            self._models.pop(row, None)
        self.told.array[rows] = np.zeros((), _TOLD)

    def save_shared(self) -> bytes:
        """The cohorts' models."""
        return msgspec.msgpack.encode([cohort.bins for cohort in self._cohorts])

    def restore_shared(self, saved: bytes) -> None:
        """Makes the cohorts' models again."""
        cohorts = msgspec.msgpack.decode(saved, type=list[list[tuple[float, float, float]]])
        self._cohorts = [CohortModel(self._config.cohort_quantile, bins) for bins in cohorts]

    def _confirmed(self, view: View, found: _Candidates, j: int) -> Raised | None:
        """What the models say of a candidate; None where they find it usual, or it was told a moment ago."""
        c, at, closing, row = self._config, int(found.at[j]), int(found.closing[j]), found.state[j]
        ratio, warm = float(found.ratio[j]), bool(found.warm[j])
        span, metric = divmod(int(found.channel[j]), 3)
        if closing < 0:
            number, now, sums = int(view.row[at]), int(view.ticked.time[at]), [view.velocities.minute[at]]
        else:
            number, now = int(view.closings.row[closing]), int(view.closings.end[closing])
            sums = [view.closings.minute[closing], view.closings.tenmin[closing]]
        tokens, requests, spend = sums[0].tolist()
        model = self._model(number)
        deviations = model.score(requests, c.model_warm_up)
        if metric == _REQUESTS and span == 0 and model.count >= c.model_warm_up and deviations < c.deviations:
            return None
        if metric == _REQUESTS and not warm and requests <= self._cohorts[int(row["workload"])].reach(c.cohort_warm_up):
            return None
        # One bucket has little power; two in a row have it.
        if closing >= 0 and row["streak"] < 2 and ratio < c.extreme_ratio:
            return None
        lasted = (now - int(row["since"])) / 1000
        extreme = ratio >= c.extreme_ratio and lasted >= c.sustained_seconds
        if not self._news(number, now, 2 if extreme else 1):
            return None
        observed = float(sums[span][metric]) / _SPAN_MINUTES[span]
        record, unit = observed / ratio, _UNITS[metric]
        than = "the most this identity ever reached" if warm else "what is let pass without a history"
        return Raised(
            at=at,
            closing=closing,
            row=number,
            since=int(row["since_offset"]),
            severity="critical" if extreme else "high" if ratio >= c.extreme_ratio else "medium",
            score=round(min(1.0, ratio / (2 * c.extreme_ratio)), 4),
            window=_SPANS[span],
            observed=round(observed, 6),
            baseline=round(record, 6),
            reason=(
                f"{amount(observed)} {unit}/min over {_SPANS[span]}, {ratio:.1f} times {than} ({amount(record)}), "
                f"for {lasted:.0f} s; "
                f"{amount(tokens)} tokens, {amount(requests)} calls and ${spend:.2f} in the last minute"
            ),
            digest=digest(found.state[j : j + 1]),
            span_seconds=_SPAN_MINUTES[span] * 60,
            extreme=extreme,
            usd_per_minute=round(spend, 6),
            baseline_usd_per_minute=round(float(row["before"][2]), 6),
            details={
                "unit": f"{unit}/min",
                "ratio": round(ratio, 3),
                "deviations": round(deviations, 3),
                "warm": int(warm),
                "usual_requests_per_minute": round(model.usual, 3),
            },
        )

    def _news(self, number: int, now: int, gravity: int) -> bool:
        """Whether an identity's excess is told again: after a while, or because it became graver."""
        held = self.told.array[number]
        again = self._config.repeat_finding_seconds * 1000
        if held["gravity"] and now - held["told"] < again and gravity <= held["gravity"]:
            return False
        held["told"], held["gravity"] = now, gravity
        return True


@compiled
def _least(limits: _Limits, workload: int, warm: bool, span: int, metric: int) -> float:
    """A floor under the record, as a sum over the span: twenty times nothing is still nothing."""
    minutes = 1.0 if span == 0 else 10.0
    floor = (
        limits.floor[workload, metric] if warm else max(limits.floor[workload, metric], limits.cold[workload, metric])
    )
    return float(floor * minutes / limits.ratio[workload])


@compiled
def _compare(row: Row, sums: Floats, spans: int, workload: int, limits: _Limits) -> tuple[float, int, bool]:
    """The greatest ratio of a sum to its record over `spans` windows, its channel, and whether the record is own."""
    best, channel = 0.0, 0
    warm = row.hours >= limits.warm_hours
    for span in range(spans):
        minutes = 1.0 if span == 0 else 10.0
        for metric in range(3):
            if sums[span, metric] / minutes < limits.floor[workload, metric]:
                continue
            ratio = sums[span, metric] / max(row.record[span, metric], _least(limits, workload, warm, span, metric))
            if ratio > best:
                best = ratio
                channel = span * 3 + metric
    return best, channel, warm


@compiled
def _excursion(row: Row, moment: int, offset: int) -> None:
    """Notes an excess at `moment`: it starts an excursion, or goes on with one."""
    if moment - row.last > _QUIET:
        row.since = moment
        row.since_offset = offset
        row.streak = 0
        for metric in range(3):
            row.before[metric] = row.usual[metric]
    row.last = max(row.last, moment)


@compiled
def _learn_record(row: Row, sums: Floats, workload: int, warm: bool, inside: bool, since: int, limits: _Limits) -> None:
    """Raises the records to what closed. An excess is let in slowly, so that what lasts becomes the new usual; and
    the foot of a steep rise must not raise the record that its summit is held against."""
    fade = 1.0 if inside else 0.5 ** (since / limits.half_life)
    steepest = np.exp(min(since, _QUIET) / limits.adapt) if inside else _STEEPEST ** (min(since, _MINUTE) / _MINUTE)
    for span in range(2):
        for metric in range(3):
            base = max(row.record[span, metric], _least(limits, workload, warm, span, metric))
            row.record[span, metric] = max(row.record[span, metric] * fade, min(sums[span, metric], base * steepest))


@compiled
def _tell(
    found: _Candidates, count: int, at: int, closing: int, channel: int, ratio: float, warm: bool, row: Row
) -> int:
    found.at[count] = at
    found.closing[count] = closing
    found.channel[count] = channel
    found.ratio[count] = ratio
    found.warm[count] = warm
    found.state[count] = row
    return count + 1


@compiled
def _sample(closed: _Closed) -> None:
    """Chooses the closed buckets that cohorts learn from: `_SAMPLE` or so of each end."""
    first = 0
    for k in range(1, len(closed.end) + 1):
        if k == len(closed.end) or closed.end[k] != closed.end[first]:
            stride = (k - first) // _SAMPLE + 1
            turn = (closed.end[first] // BUCKET) % stride
            for j in range(first, k):
                closed.sample[j] = (j - first) % stride == turn
            first = k


@compiled
def _judge(rows: State, calls: _Calls, closed: _Closed, limits: _Limits, found: _Candidates) -> int:
    count, k, n = 0, 0, len(calls.row)
    _sample(closed)
    sums = np.zeros((2, 3))
    blank = np.zeros(1, _ROW)
    for i in range(n + 1):
        while k < len(closed.row) and closed.at[k] == i:
            if closed.calls[k] == 0:
                # Refused calls are no history: neither hours nor zeros to be measured against.
                closed.sample[k] = False
                k += 1
                continue
            row = rows[closed.row[k]]
            end, workload = closed.end[k], row.workload
            for metric in range(3):
                sums[0, metric] = closed.minute[k, metric]
                sums[1, metric] = closed.tenmin[k, metric]
            ratio, channel, warm = _compare(row, sums, 2, workload, limits)
            since = min(end - row.learnt, _DAY) if row.learnt > 0 else 0
            row.learnt = max(row.learnt, end)
            row.closings += 1
            if row.hour != end // 3_600_000:
                row.hour = end // 3_600_000
                row.hours += 1
            excess = ratio >= limits.ratio[workload]
            inside = excess or end - row.last <= _QUIET
            _learn_record(row, sums, workload, warm, inside, since, limits)
            if not inside:
                for metric in range(3):
                    row.usual[metric] += (sums[0, metric] - row.usual[metric]) * max(0.02, 1.0 / row.closings)
            closed.workload[k] = workload
            closed.own[k] = not inside and row.closings >= _MODELLED_FROM
            closed.sample[k] = closed.sample[k] and not inside
            if excess:
                _excursion(row, end - BUCKET, calls.offset[i] if i < n else -1)
                row.streak += 1
                count = _tell(found, count, i, k, channel, ratio, warm, row)
            else:
                row.streak = 0
            k += 1
        if i < n and calls.returned[i]:
            rows[calls.row[i]] = blank[0]
        if i == n or calls.skip[i]:
            continue
        row = rows[calls.row[i]]
        row.workload = calls.workload[i]
        for metric in range(3):
            sums[0, metric] = calls.minute[i, metric]
        ratio, channel, warm = _compare(row, sums, 1, row.workload, limits)
        if ratio >= limits.extreme:
            _excursion(row, calls.time[i], calls.offset[i])
            if calls.time[i] - row.shown >= _SHOWN_EVERY:
                row.shown = calls.time[i]
                count = _tell(found, count, i, -1, channel, ratio, warm, row)
    return count
