"""Finds identities that use far more than they ever did."""

import math
from itertools import repeat

import msgspec
import numpy as np
from msgspec import Struct

from detectors.excursions import BANK, SEASONS
from detectors.identities import Rows
from detectors.models import CohortModel, VelocityModel
from detectors.seconds import seconds_of
from detectors.spike_kernel import EXTREME, HIGH, TOLD, WEAK, Calls, Candidates, Closed, judge
from detectors.spike_records import (
    BANKED,
    CHANNELS,
    METRICS,
    REQUESTS,
    ROW,
    SPAN_MINUTES,
    SPANS,
    TOKENS,
    Limits,
    least_of,
)
from detectors.view import Detector, Raised, View, amount, digest
from schemas.batch import WORKLOADS, Ints
from schemas.bounds import Count, NotNegative, Positive, Share
from schemas.finding import Kind, Severity

_TOLD = np.dtype([
    ("mean", "f8"), ("variance", "f8"), ("told", "u4"), ("minutes", "u2"), ("gravity", "u1"),
], align=True)  # fmt: skip
"""The identity's velocity model; when it was last told (s), and how grave it was."""
_MOST_MINUTES = 65_535
_LONG = SPANS.index("10m")
"""The models know what a minute holds."""
_DAY = 86_400
_MOST_HOURS = 720
_NEARLY = 0.999
"""Records are kept in 32 bits."""
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SEVERITIES: dict[int, Severity] = {WEAK: "low", TOLD: "medium", HIGH: "high", EXTREME: "critical"}


class ClassConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[spike.interactive]`, `[spike.batch]`, `[spike.agent]`: what is a spike for a workload class.

    Floors are per minute; `cold_*` stand in for the record of an identity that has no history yet.
    """

    ratio: Positive
    extreme_ratio: Positive
    floor_tokens: Positive
    floor_requests: Positive
    floor_usd: Positive
    floor_output: Positive
    cold_tokens: Positive
    cold_requests: Positive
    cold_usd: Positive
    cold_output: Positive

    @property
    def floor(self) -> tuple[float, float, float, float]:
        """By metric."""
        return (self.floor_tokens, self.floor_requests, self.floor_usd, self.floor_output)

    @property
    def cold(self) -> tuple[float, float, float, float]:
        """By metric."""
        return (self.cold_tokens, self.cold_requests, self.cold_usd, self.cold_output)


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[spike]` of policy.toml."""

    warm_up_hours: Count
    unusual_ratio: Positive
    settled_hours: Positive
    usual_jump: Positive
    calls: Count
    large_calls: Count
    sustained_seconds: NotNegative
    excursion_score: Positive
    least_usd: NotNegative
    throttled_usd: NotNegative
    usd_per_million_tokens: NotNegative
    cheap_seconds: NotNegative
    cheap_throttled_seconds: NotNegative
    deviations: NotNegative
    model_warm_up: Count
    model_identities: Count
    cohort_quantile: Share
    cohort_warm_up: Count
    record_half_life_days: Positive
    adapt_hours: Positive
    learn_after_minutes: Positive
    repeat_finding_seconds: NotNegative
    repeat_unusual_seconds: NotNegative
    interactive: ClassConfig
    batch: ClassConfig
    agent: ClassConfig

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if self.warm_up_hours > _MOST_HOURS:
            raise ValueError(f"`warm_up_hours` must not exceed {_MOST_HOURS}")
        for one in (self.interactive, self.batch, self.agent):
            if not self.unusual_ratio <= one.ratio <= one.extreme_ratio:
                raise ValueError("`ratio` must lie between `unusual_ratio` and `extreme_ratio`")


class Spike(Detector):
    """Token, request, cost or output velocity far above the identity's own record.

    What it detects:
        Sums over 20 seconds, 1 and 10 minutes of tokens, requests, USD and output tokens, each against the greatest
        that the identity reached before (a *record* that relaxes over weeks). Beyond `ratio` records, above the
        class's floor, with several calls or for two closed buckets: a spike. Beyond `extreme_ratio` for
        `sustained_seconds`, or beyond less for longer, or once the burst cost `ratio` times the dearest ten minutes:
        extreme, which may throttle alone. What costs less than
        `least_usd` a minute (by how far it is beyond) must go on for `cheap_seconds`; of long prompts alone only the
        money counts. Beyond `unusual_ratio`: unusual, which counts only beside other evidence. Where a bank of record
        excursions over five minutes' tokens leaves its range, that is noted.
        As long as it has little history an identity is measured against its class's `cold_*` figures and what the
        class's busy minutes reach (a River quantile). Then its own record speaks, but the greatest of few hours is
        soon broken: before `settled_hours` it takes the root of `settled_hours` over its hours more to be extreme.
        Identities with a River velocity model must also lie
        `deviations` standard deviations above its mean. A sum becomes a record after `learn_after_minutes` without a
        spike; a spike within `adapt_hours`.

    Why it matters:
        Stolen keys burn 50 to 500 times the usual; $69 a minute is the published rate of an LLM-jacking.

    False positives:
        A launch, a first backfill, a load test. Approve them beforehand in the directory.

    Runbook:
        Compare the models, networks and sessions of the last minutes with the hour before; throttle first.
    """

    name = "spike"
    kind: Kind = "spike"
    version = 4

    def __init__(self, config: Config) -> None:
        self._config = config
        self.rows = Rows(ROW)
        self.banks = Rows(BANK)
        self.told = Rows(_TOLD)
        classes = (config.interactive, config.batch, config.agent)
        ratio = np.array([c.ratio for c in classes])
        floor, cold = np.array([c.floor for c in classes]), np.array([c.cold for c in classes])
        self._limits = Limits(
            ratio,
            least_of(ratio, floor, cold, config.warm_up_hours),
            unusual=config.unusual_ratio,
            settled=float(config.settled_hours),
            usual_jump=config.usual_jump,
            calls=float(config.calls),
            large_calls=float(config.large_calls),
            extreme=np.array([c.extreme_ratio for c in classes]),
            sustained=config.sustained_seconds,
            least_usd=config.least_usd,
            throttled_usd=config.throttled_usd,
            per_token=config.usd_per_million_tokens / 1e6,
            cheap=config.cheap_seconds,
            cheap_throttled=config.cheap_throttled_seconds,
            excursion=config.excursion_score,
            fading=math.log(2) / (config.record_half_life_days * _DAY),
            adapt=config.adapt_hours * 3600,
            learn_after=config.learn_after_minutes * 60,
            again=config.repeat_finding_seconds,
        )
        self._models: dict[int, VelocityModel] = {}
        """Those of the identities that were busy last; those of the others are in their rows alone."""
        self._unsettled: set[int] = set()
        self._cohorts = [CohortModel(config.cohort_quantile) for _ in WORKLOADS]
        self._seasons = np.zeros(len(WORKLOADS), SEASONS)
        """The hours' profiles, of each workload class."""

    @property
    def components(self) -> dict[str, Rows]:
        """The rows of records, of banks, and of models."""
        return {"records": self.rows, "banks": self.banks, "models": self.told}

    def judge(self, view: View) -> list[Raised]:
        """A finding when a spike is told, one each time it becomes graver, then one a minute."""
        n, m = len(view.batch), len(view.closings.row)
        batch, velocities, k = view.batch, view.velocities, view.closings
        calls = Calls(
            view.row, view.ticked.time, view.ticked.duplicate | batch.excluded | velocities.late, velocities.returned,
            batch.retry, batch.offset, batch.workload, batch.tokens, batch.cost, np.nan_to_num(batch.output),
            velocities.minute,
        )  # fmt: skip
        own, sample = np.zeros(m, np.bool_), np.zeros(m, np.bool_)
        closed = Closed(k.at, k.row, k.end, k.calls, k.sums, k.minute, k.tenmin, np.zeros(m, np.int8), own, sample)
        # A closed bucket may tell two things.
        most = n + 2 * m
        at, closing, level, channel = (np.empty(most, np.int64) for _ in range(4))
        ratio, total, usual = (np.empty(most) for _ in range(3))
        known = np.empty(most, np.bool_)
        found = Candidates(at, closing, level, channel, ratio, total, usual, known, np.empty(most, ROW))
        self.told.reach(view.identities)
        rows, banks = self.rows.reach(view.identities), self.banks.reach(view.identities)
        count = judge(rows, banks, self._seasons, calls, closed, self._limits, found)
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
    def _lessons(view: View, closed: Closed) -> list[tuple[int, int, int]]:
        """What the models are to learn, last things first: (position, 0, closed bucket), and (position, 1, 0) where
        an identity comes back as a new one."""
        which = np.flatnonzero(closed.own | closed.sample)[::-1]
        lessons = list(zip(closed.at[which].tolist(), repeat(0), which.tolist(), strict=False))
        if view.velocities.returned.any():
            lessons += [(at, 1, 0) for at in np.flatnonzero(view.velocities.returned).tolist()]
            lessons.sort(reverse=True)
        return lessons

    def _learn(self, closed: Closed, rows: Ints, lesson: tuple[int, int, int]) -> None:
        at, returned, k = lesson
        if returned:
            self.forget(rows[at : at + 1])
            return
        requests = float(closed.minute[k, REQUESTS])
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
            minutes, held["mean"], held["variance"] = model.scalars
            held["minutes"] = min(minutes, _MOST_MINUTES)

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
        """The cohorts' models and profiles."""
        return msgspec.msgpack.encode(([cohort.bins for cohort in self._cohorts], self._seasons.tobytes()))

    def restore_shared(self, saved: bytes) -> None:
        """Makes the cohorts' models and profiles again."""
        cohorts, seasons = msgspec.msgpack.decode(saved, type=tuple[list[list[tuple[float, float, float]]], bytes])
        self._cohorts = [CohortModel(self._config.cohort_quantile, bins) for bins in cohorts]
        self._seasons = np.frombuffer(seasons, SEASONS).copy()

    def _confirmed(self, view: View, found: Candidates, j: int) -> Raised | None:
        """What the models say of a candidate; None where they find it usual, or it was told a moment ago."""
        c, at, closing, row = self._config, int(found.at[j]), int(found.closing[j]), found.state[j]
        level, channel, ratio, known = int(found.level[j]), int(found.channel[j]), found.ratio[j], bool(found.known[j])
        span, metric = (SPANS.index("5m"), TOKENS) if channel == BANKED else CHANNELS[channel]
        if closing < 0:
            number, now, minute = int(view.row[at]), int(view.ticked.time[at]), view.velocities.minute[at]
        else:
            number, now, minute = (
                int(view.closings.row[closing]), int(view.closings.end[closing]), view.closings.minute[closing]
            )  # fmt: skip
        tokens, requests, spend = minute.tolist()
        if not self._news(number, now, level):
            return None
        model = self._model(number)
        deviations = model.score(requests, c.model_warm_up)
        if metric == REQUESTS and level <= TOLD and span < _LONG:
            if model.count >= c.model_warm_up and deviations < c.deviations:
                return None
            if not known and requests <= self._cohorts[int(row["workload"])].reach(c.cohort_warm_up):
                return None
        self.told.array[number]["told"], self.told.array[number]["gravity"] = seconds_of(now), level
        observed = float(found.total[j]) / SPAN_MINUTES[span]
        usual, unit = float(found.usual[j]), METRICS[metric]
        if channel == BANKED:
            record = usual
            what = f"{ratio:.0%} outside the range of all that it did before"
        else:
            record, own = observed / float(ratio), float(row["record"][channel]) / SPAN_MINUTES[span]
            if not known:
                than = f"what is let pass with little history ({amount(record)})"
            elif own < record * _NEARLY:
                than = f"the least record of its class ({amount(record)}; its own is {amount(own)})"
            else:
                than = f"the most this identity ever reached ({amount(record)})"
            what = f"{ratio:.1f} times {than}, for {now // 1000 - int(row['since'])} s"
        hour = f"usual on {_hour(now)}: {amount(usual)} tokens/min; " if usual >= 1.0 else ""
        extreme = float(self._limits.extreme[int(row["workload"])])
        return Raised(
            at=at,
            closing=closing,
            row=number,
            since=int(row["since_offset"]),
            # Growth is common; it must not make two families of one.
            severity="info" if channel == BANKED else _SEVERITIES[level],
            score=round(min(1.0, float(ratio) / (2 * extreme)), 4),
            window=SPANS[span],
            observed=round(observed, 6),
            baseline=round(record, 6),
            reason=(
                f"{amount(observed)} {unit}/min over {SPANS[span]}, {what}; {hour}"
                f"{amount(tokens)} tokens, {amount(requests)} calls and ${spend:.2f} in the last minute"
            ),
            digest=digest(found.state[j : j + 1]),
            span_seconds=SPAN_MINUTES[span] * 60,
            extreme=level == EXTREME,
            usd_per_minute=round(spend, 6),
            baseline_usd_per_minute=round(float(row["usd_before"]), 6),
            details={
                "unit": f"{unit}/min",
                "ratio": round(float(ratio), 3),
                "deviations": round(deviations, 3),
                "warm": int(known),
                "usual_requests_per_minute": round(model.usual, 3),
            },
        )

    def _news(self, number: int, now: int, gravity: int) -> bool:
        """Whether an identity's excess may be told: again after a while, or because it became graver."""
        held, c = self.told.array[number], self._config
        again = c.repeat_unusual_seconds if gravity == WEAK else c.repeat_finding_seconds
        since = seconds_of(now) - int(held["told"])
        return bool(not held["gravity"] or since >= again or gravity > held["gravity"])


def _hour(moment: int) -> str:
    """The hour of the week of a moment (ms), as people say it."""
    # 1970 began on a Thursday.
    return f"{_WEEKDAYS[(moment // 86_400_000 + 3) % 7]} {moment // 3_600_000 % 24} h"
