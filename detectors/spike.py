"""Finds identities that use far more than they ever did."""

from typing import NamedTuple

import numpy as np
from msgspec import Struct

from detectors.compiled import Row, State, compiled
from detectors.identities import Rows
from detectors.models import CohortModel, VelocityModel
from detectors.view import Raised, View, amount, digest
from detectors.windows import BUCKET
from schemas.batch import WORKLOADS, Codes, Flags, Floats, Ints
from schemas.bounds import Count, NotNegative, Positive, Share
from schemas.finding import Kind

_ROW = np.dtype([
    ("record", "f4", (2, 3)), ("usual", "f4", (3,)), ("before", "f4", (3,)),
    ("learnt", "i8"), ("closings", "i8"), ("hours", "i4"), ("hour", "i8"), ("workload", "i1"),
    ("since", "i8"), ("since_offset", "i8"), ("last", "i8"), ("streak", "i4"), ("shown", "i8"),
])  # fmt: skip
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
    offset: Ints
    workload: Codes
    minute: Floats


class _Closed(NamedTuple):
    """Closed buckets, and what the kernel says of each: whether it lies in an excursion, and its workload class."""

    at: Ints
    row: Ints
    end: Ints
    calls: Ints
    minute: Floats
    tenmin: Floats
    excess: Flags
    workload: Codes


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


class Spike:
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
        self._told: dict[int, tuple[int, int]] = {}
        """By row: when it was last told, and how grave it was."""
        self._cohorts = [CohortModel(config.cohort_quantile) for _ in WORKLOADS]

    def judge(self, view: View) -> list[Raised]:
        """A finding when a spike is told, one when it becomes extreme and lasting, then one a minute."""
        n, m = len(view.batch), len(view.closings.row)
        velocities, k = view.velocities, view.closings
        skip = view.ticked.duplicate | view.batch.excluded | velocities.late
        calls = _Calls(view.row, view.ticked.time, skip, view.batch.offset, view.batch.workload, velocities.minute)
        closed = _Closed(k.at, k.row, k.end, k.calls, k.minute, k.tenmin, np.zeros(m, np.bool_), np.empty(m, np.int8))
        at, closing, channel = (np.empty(n + m, np.int64) for _ in range(3))
        found = _Candidates(at, closing, channel, np.empty(n + m), np.empty(n + m, np.bool_), np.empty(n + m, _ROW))
        count = _judge(self.rows.reach(view.identities), calls, closed, self._limits, found)
        out: list[Raised] = []
        learnt = 0
        for j in range(count):
            # The models answer as they stood then: after every bucket that had closed, before the one in question.
            until = int(closing[j]) if closing[j] >= 0 else int(np.searchsorted(closed.at, at[j], side="right"))
            self._learn(closed, learnt, until)
            learnt = max(learnt, until)
            raised = self._confirmed(view, found, j)
            if raised is not None:
                out.append(raised)
        self._learn(closed, learnt, m)
        return out

    def _learn(self, closed: _Closed, first: int, last: int) -> None:
        """Shows closed buckets `first` to `last` to the River models, but for those in excess."""
        requests = closed.minute[first:last, 1].tolist()
        for k, (row, made) in enumerate(zip(closed.row[first:last].tolist(), requests, strict=True), first):
            if closed.excess[k]:
                continue
            self._cohorts[closed.workload[k]].learn(made)
            model = self._models.get(row)
            if model is None and len(self._models) < self._config.model_identities:
                model = self._models[row] = VelocityModel()
            if model is not None:
                model.learn(made)

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
        model = self._models.get(number)
        known = model is not None and model.count >= c.model_warm_up
        deviations = model.score(requests, c.model_warm_up) if model is not None else 0.0
        if metric == _REQUESTS and span == 0 and known and deviations < c.deviations:
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
                "usual_requests_per_minute": round(model.usual, 3) if model is not None else 0.0,
            },
        )

    def _news(self, number: int, now: int, gravity: int) -> bool:
        """Whether an identity's excess is told again: after a while, or because it became graver."""
        told, before = self._told.get(number, (-_DAY, 0))
        if now - told < self._config.repeat_finding_seconds * 1000 and gravity <= before:
            return False
        self._told[number] = (now, gravity)
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
def _judge(rows: State, calls: _Calls, closed: _Closed, limits: _Limits, found: _Candidates) -> int:
    count, k, n = 0, 0, len(calls.row)
    sums = np.zeros((2, 3))
    for i in range(n + 1):
        while k < len(closed.row) and closed.at[k] == i:
            closed.excess[k] = True
            if closed.calls[k] == 0:
                # Refused calls are no history: neither hours nor zeros to be measured against.
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
            closed.excess[k] = inside
            closed.workload[k] = workload
            if excess:
                _excursion(row, end - BUCKET, calls.offset[i] if i < n else -1)
                row.streak += 1
                count = _tell(found, count, i, k, channel, ratio, warm, row)
            else:
                row.streak = 0
            k += 1
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
