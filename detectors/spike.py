"""Finds identities that use far more than they ever did."""

import numpy as np
from msgspec import Struct
from numba import njit
from numpy.typing import NDArray

from detectors.identities import Rows
from detectors.models import CohortModel, VelocityModel
from detectors.view import Raised, View, amount, digest
from schemas.batch import WORKLOADS, Codes, Flags
from schemas.finding import Kind

_ROW = np.dtype([
    ("record", "f4", (2, 3)), ("usual", "f4", (3,)), ("learnt", "i8"), ("hours", "i4"), ("hour", "i8"), ("closings", "i8"),
    ("since", "i8"), ("since_offset", "i8"), ("last", "i8"), ("streak", "i4"), ("workload", "i1"),
    ("shown", "i8"), ("before", "f4", (3,)),
])  # fmt: skip
_SHOWN_EVERY = 5_000
"""Milliseconds between two looks of the models at an identity's events; its closed buckets are always looked at."""
_QUIET = 90_000
"""Milliseconds without an excess after which an excursion is over."""
_STEEPEST = 1.5
"""Times the record that one closed bucket may raise it."""
_DAY = 86_400_000
_UNITS = ("tokens", "requests", "USD")
_SPANS = ("1m", "10m")
_SPAN_MINUTES = (1.0, 10.0)


class ClassConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[spike.interactive]`, `[spike.batch]`, `[spike.agent]`: what is a spike for a workload class.

    Floors are per minute; `cold_*` stand in for the record of an identity that has no history yet.
    """

    ratio: float
    floor_tokens: float
    floor_requests: float
    floor_usd: float
    cold_tokens: float
    cold_requests: float
    cold_usd: float


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[spike]` of policy.toml."""

    warm_up_hours: int
    extreme_ratio: float
    sustained_seconds: float
    deviations: float
    model_warm_up: int
    model_identities: int
    cohort_quantile: float
    cohort_warm_up: int
    record_half_life_days: float
    adapt_hours: float
    repeat_finding_seconds: float
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
        A launch, a first backfill, a load test. Approve them beforehand: `tripswitch approve`.

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
        self._ratio = np.array([c.ratio for c in classes])
        self._floor = np.array([(c.floor_tokens, c.floor_requests, c.floor_usd) for c in classes])
        self._cold = np.array([(c.cold_tokens, c.cold_requests, c.cold_usd) for c in classes])
        self._models: dict[int, VelocityModel] = {}
        self._told: dict[int, tuple[int, int]] = {}
        """By row: when it was last told, and how grave it was."""
        self._cohorts = [CohortModel(config.cohort_quantile) for _ in WORKLOADS]

    def judge(self, view: View) -> list[Raised]:
        """A finding when a spike is told, one when it becomes extreme and lasting, then one a minute."""
        n, m, c = len(view.batch), len(view.closings), self._config
        size = n + m
        at, closing, channel, warm = (np.empty(size, np.int64) for _ in range(4))
        ratio, states, excess, classes = np.empty(size), np.empty(size, _ROW), np.zeros(m, np.bool_), np.empty(m, np.int8)
        v, k = view.velocities, view.closings
        told = _judge(
            self.rows.reach(view.identities), view.row, view.ticked.time, view.ticked.duplicate, view.batch.excluded, view.batch.offset,
            view.batch.workload, v.late, v.minute, k.at, k.row, k.end, k.minute, k.tenmin,
            self._ratio, self._floor, self._cold, c.warm_up_hours, c.extreme_ratio, c.record_half_life_days * _DAY,
            c.adapt_hours * 3_600_000, excess, classes, at, closing, channel, ratio, warm, states,
        )  # fmt: skip
        out: list[Raised] = []
        learnt = 0
        for j in range(told):
            until = int(closing[j]) if closing[j] >= 0 else _closed_before(view, int(at[j]), learnt)
            self._learn(view, learnt, until, excess, classes)
            learnt = until
            raised = self._confirmed(view, int(at[j]), int(closing[j]), int(channel[j]), float(ratio[j]), bool(warm[j]), states[j : j + 1])
            if raised is not None:
                out.append(raised)
        self._learn(view, learnt, m, excess, classes)
        return out

    def _learn(self, view: View, first: int, last: int, excess: Flags, classes: Codes) -> None:
        """Shows closed buckets `first` to `last` to the River models, but for those in excess."""
        rows, minute = view.closings.row[first:last].tolist(), view.closings.minute[first:last, 1].tolist()
        for k, (row, requests) in enumerate(zip(rows, minute, strict=True), first):
            if excess[k]:
                continue
            model = self._models.get(row)
            if model is None:
                if len(self._models) >= self._config.model_identities:
                    continue
                model = self._models[row] = VelocityModel()
            model.learn(requests)
            self._cohorts[classes[k]].learn(requests)

    def _confirmed(self, view: View, at: int, closing: int, channel: int, ratio: float, warm: bool, state: NDArray[np.void]) -> Raised | None:
        """What the models say of a candidate; None where they find it usual or it was told a moment ago."""
        c, row = self._config, state[0]
        number = int(view.row[at] if closing < 0 else view.closings.row[closing])
        minute = view.velocities.minute[at] if closing < 0 else view.closings.minute[closing]
        span, metric = divmod(channel, 3)
        model = self._models.get(number)
        deviations = model.score(float(minute[1]), c.model_warm_up) if model is not None else 0.0
        if metric == 1 and span == 0 and model is not None and model.count >= c.model_warm_up and deviations < c.deviations:
            return None
        if not warm and metric == 1 and minute[1] <= self._cohorts[int(row["workload"])].reach(c.cohort_warm_up):
            return None
        now = int(view.ticked.time[at]) if closing < 0 else int(view.closings.end[closing])
        lasted = (now - int(row["since"])) / 1000
        extreme = ratio >= c.extreme_ratio and lasted >= c.sustained_seconds
        if closing >= 0 and row["streak"] < 2 and ratio < c.extreme_ratio:  # noqa: PLR2004 - one bucket has little power
            return None
        rank = 2 if extreme else 1
        told, graver = self._told.get(number, (0, 0))
        if now - told < c.repeat_finding_seconds * 1000 and rank <= graver:
            return None
        self._told[number] = (now, rank)
        observed = float((minute if span == 0 else view.closings.tenmin[closing])[metric]) / _SPAN_MINUTES[span]
        record = observed / ratio
        unit = _UNITS[metric]
        than = "the most this identity ever reached" if warm else "what its class reaches without a history"
        reason = (
            f"{amount(observed)} {unit}/min over {_SPANS[span]}, {ratio:.1f} times {than} ({amount(record)}), for {lasted:.0f} s; "
            f"{amount(float(minute[0]))} tokens, {amount(float(minute[1]))} calls and ${float(minute[2]):.2f} in the last minute"
        )
        return Raised(
            at=at, closing=closing, row=number, since=int(row["since_offset"]), severity="critical" if extreme else "high" if ratio >= c.extreme_ratio else "medium",
            score=round(min(1.0, ratio / (2 * c.extreme_ratio)), 4), window=_SPANS[span], observed=round(observed, 6), baseline=round(record, 6), reason=reason,
            digest=digest(state), extreme=extreme, usd_per_minute=round(float(minute[2]), 6), baseline_usd_per_minute=round(float(row["before"][2]), 6),
            details={"unit": f"{unit}/min", "ratio": round(ratio, 3), "deviations": round(deviations, 3), "warm": int(warm), "usual_requests_per_minute": round(model.usual, 3) if model else 0.0},
        )  # fmt: skip


def _closed_before(view: View, at: int, first: int) -> int:
    """How many buckets had closed when the event at `at` came."""
    return first + int(np.searchsorted(view.closings.at[first:], at, side="right"))


@njit(cache=True)
def _compare(row, sums, spans, ratio_least, floor, cold, warm_hours):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """The greatest ratio of a sum to its record over `spans` windows, and its channel (span * 3 + metric)."""
    best, channel = 0.0, -1
    warm = row.hours >= warm_hours
    for s in range(spans):
        minutes = 1.0 if s == 0 else 10.0
        for m in range(3):
            value = sums[s, m]
            if value / minutes < floor[m]:
                continue
            record = row.record[s, m]
            # A floor under the record: twenty times nothing is still nothing.
            least = floor[m] * minutes / ratio_least
            if not warm:
                least = max(least, cold[m] * minutes / ratio_least)
            ratio = value / max(record, least)
            if ratio > best:
                best = ratio
                channel = s * 3 + m
    return best, channel, warm


@njit(cache=True)
def _excursion(row, moment, offset):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    if moment - row.last > _QUIET:
        row.since = moment
        row.since_offset = offset
        row.streak = 0
        for m in range(3):
            row.before[m] = row.usual[m]
    row.last = max(row.last, moment)


@njit(cache=True)
def _judge(rows, row_of, time, duplicate, excluded, offset, workload, late, minute, c_at, c_row, c_end, c_minute, c_tenmin, ratio_least, floors, colds, warm_hours, extreme, half_life, adapt, excess, classes, out_at, out_closing, out_channel, out_ratio, out_warm, out_state):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    told, k, n = 0, 0, len(time)
    sums = np.zeros((2, 3))
    for i in range(n + 1):
        while k < len(c_row) and (c_at[k] == i or i == n):
            row = rows[c_row[k]]
            end = c_end[k]
            for m in range(3):
                sums[0, m] = c_minute[k, m]
                sums[1, m] = c_tenmin[k, m]
            kind = row.workload
            classes[k] = kind
            ratio, channel, warm = _compare(row, sums, 2, ratio_least[kind], floors[kind], colds[kind], warm_hours)
            least = 1.0 / ratio_least[kind]
            since_learnt = min(end - row.learnt, _DAY) if row.learnt > 0 else 0
            row.learnt = max(row.learnt, end)
            row.closings += 1
            if row.hour != end // 3_600_000:
                row.hour = end // 3_600_000
                row.hours += 1
            inside = ratio >= ratio_least[kind]
            if inside or end - row.last <= _QUIET:
                # What lasts is let in slowly, so that a lasting change becomes the new usual.
                gain = np.exp(min(since_learnt, _QUIET) / adapt)
                for s in range(2):
                    for m in range(3):
                        base = max(row.record[s, m], floors[kind, m] * (1.0 if s == 0 else 10.0) * least)
                        row.record[s, m] = max(row.record[s, m], min(sums[s, m], base * gain))
                excess[k] = True
            else:
                fade = 0.5 ** (since_learnt / half_life)
                for s in range(2):
                    for m in range(3):
                        base = max(row.record[s, m], floors[kind, m] * (1.0 if s == 0 else 10.0) * least)
                        # The foot of a steep rise must not raise the record that its summit is held against.
                        row.record[s, m] = max(row.record[s, m] * fade, min(sums[s, m], _STEEPEST * base) if warm else sums[s, m])
                for m in range(3):
                    row.usual[m] += (sums[0, m] - row.usual[m]) * max(0.02, 1.0 / row.closings)
            if inside:
                _excursion(row, end - 10_000, offset[i] if i < n else -1)
                row.streak += 1
                out_at[told] = i
                out_closing[told] = k
                out_channel[told] = channel
                out_ratio[told] = ratio
                out_warm[told] = warm
                out_state[told] = row
                told += 1
            else:
                row.streak = 0
            k += 1
        if i == n or duplicate[i] or excluded[i] or late[i]:
            continue
        row = rows[row_of[i]]
        row.workload = workload[i]
        kind = workload[i]
        for m in range(3):
            sums[0, m] = minute[i, m]
        ratio, channel, warm = _compare(row, sums, 1, ratio_least[kind], floors[kind], colds[kind], warm_hours)
        if ratio >= extreme:
            _excursion(row, time[i], offset[i])
            if time[i] - row.shown >= _SHOWN_EVERY:
                row.shown = time[i]
                out_at[told] = i
                out_closing[told] = -1
                out_channel[told] = channel
                out_ratio[told] = ratio
                out_warm[told] = warm
                out_state[told] = row
                told += 1
    return told
