"""Finds usage that grows slowly and stays."""

from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from detectors.drift_kernel import CEILING, HOURS, SOME_HOURS, Closed, Events, Told, judge
from detectors.drift_usual import BINS, COHORT, MOST_LEARNT, NAMED, ROW, WORKLOAD, Limits
from detectors.identities import Rows
from detectors.view import Detector, Raised, View, amount, digest
from schemas.batch import WORKLOADS
from schemas.bounds import NotNegative, Positive, Share, Some
from schemas.finding import Kind, Severity

_BY_CALLS = (10.0, 2.0), 3.0
_BY_SESSIONS = (3.0, 2.0), 1.0
"""How far starts of an hour and active slots scatter, and starts that come at once, before anything is known of a
workload class: without sessions, and with them."""


class _Said(NamedTuple):
    """What is said of a rise; `hours` is how far back it reaches."""

    severity: Severity
    score: float
    window: str
    hours: float
    observed: float
    usual: float
    unit: str
    reason: str


class ClassConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[drift.interactive]`, `[drift.batch]`, `[drift.agent]`."""

    threshold: Positive
    ceiling: Positive
    warm_up_hours: Some
    least_usd: NotNegative


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[drift]` of policy.toml."""

    growth: Positive
    ratio: Positive
    settled_hours: Positive
    nameless: Positive
    weak_share: Share
    hour_most: Positive
    least_hours: Some
    least_calls: NotNegative
    after_weekend: Positive
    day_slack: NotNegative
    day_threshold: Positive
    day_warm_up: Some
    least_noise: Positive
    base_days: Some
    interactive: ClassConfig
    batch: ClassConfig
    agent: ClassConfig

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if self.growth <= 1.0 or self.ratio < 1.0 or self.after_weekend < 1.0:
            raise ValueError("growth is by more than 1: `growth`, `ratio`, `after_weekend`")


class Drift(Detector):
    """Usage that grows so slowly, or so quietly, that no minute of it is a spike.

    What it detects:
        *Hours*: sessions, or calls that name none, and ten-minute slots with calls, against what this identity does at
        this time of day (eight bins of three hours, weekends apart); each hour adds its log-likelihood ratio for growth
        to a CUSUM, and several hours in a row with `ratio` times the usual are told while they last: a ramp, or work in
        hours in which it never worked. A long session is no rise, nor are some bursts more where calls come in bursts.
        None is judged before `warm_up_hours`, and before `settled_hours` it takes more. Told once, and again once it
        has doubled; what costs next to nothing is weak evidence until it costs more. *Days*: a CUSUM over the logarithm
        of each day's tokens finds a skim of a few tens of percent; it is weak evidence. *Ceiling*: the day's tokens
        beyond `ceiling` times the level of the identity's first `base_days` days, which nothing that came later has
        raised.

    Why it matters:
        Who knows that spikes are watched takes a little more each hour, or teaches the baseline for weeks.

    False positives:
        A launch that lasts, a new habit, a customer that grows. Approve a multiplier in the directory.

    Runbook:
        Ask the owner what grew; compare networks, clients and end users of these hours with those of last week.
    """

    name = "drift"
    kind: Kind = "drift"
    version = 3

    def __init__(self, config: Config) -> None:
        self.rows = Rows(ROW)
        self._cohorts = np.zeros(2 * len(WORKLOADS), COHORT)
        for some, (spread, at_once) in zip(np.split(self._cohorts, 2), (_BY_CALLS, _BY_SESSIONS), strict=True):
            some["spread"], some["at_once"] = spread, at_once
        c, classes = config, (config.interactive, config.batch, config.agent)
        self._limits = Limits(
            growth=c.growth,
            ratio=c.ratio,
            threshold=np.array([of.threshold for of in classes]),
            nameless=c.nameless,
            settled=c.settled_hours * BINS / 24,
            least_usd=np.array([of.least_usd for of in classes]),
            weak_share=c.weak_share,
            hour_most=c.hour_most,
            least_hours=c.least_hours,
            least_calls=c.least_calls,
            warm_up=np.array([min(-(-of.warm_up_hours * BINS // 24), MOST_LEARNT) for of in classes]),
            after_weekend=c.after_weekend,
            day_slack=c.day_slack,
            day_threshold=c.day_threshold,
            day_warm_up=c.day_warm_up,
            least_noise=c.least_noise,
            base_days=c.base_days,
            ceiling=np.array([of.ceiling for of in classes]),
        )

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def save_shared(self) -> bytes:
        """What is usual for each workload class, without sessions and with them."""
        return msgspec.msgpack.encode([cohort.tolist() for cohort in self._cohorts.view((np.float64, 3))])

    def restore_shared(self, saved: bytes) -> None:
        """Takes what `save_shared` gave."""
        cohorts = msgspec.msgpack.decode(saved, type=list[tuple[float, float, float]])
        if len(cohorts) == len(self._cohorts):
            # Else they are of a version that counted calls alone: what is usual is learnt anew.
            self._cohorts = np.array(cohorts).view(COHORT).reshape(-1)

    def judge(self, view: View) -> list[Raised]:
        """A finding when a rise is first told, and when it has doubled."""
        batch, k, m = view.batch, view.closings, len(view.closings.row)
        skip = view.ticked.duplicate | batch.excluded
        returned = view.velocities.returned
        events = Events(
            view.row,
            skip,
            returned,
            batch.offset,
            batch.workload,
            batch.session,
            batch.retry,
            view.ticked.time,
            view.velocities.late,
        )
        closed = Closed(k.at, k.row, k.end, k.calls, k.sums, k.tenmin)
        told = Told(np.empty(m, np.int64), np.empty(m, np.int8), np.empty((m, 4)), np.empty(m, ROW))
        count = judge(self.rows.reach(view.identities), self._cohorts, events, closed, self._limits, told)
        return [self._raised(view, told, j) for j in range(count)]

    def _raised(self, view: View, told: Told, j: int) -> Raised:
        closing, row = int(told.closing[j]), told.state[j]
        how = int(told.how[j])
        said = self._said(how, told.value[j].tolist(), row)
        spend = float(view.closings.minute[closing][2])
        return Raised(
            at=int(view.closings.at[closing]),
            closing=closing,
            row=int(view.closings.row[closing]),
            since=int(row["since"]),
            severity=said.severity,
            score=round(min(1.0, said.score), 4),
            window=said.window,
            observed=round(said.observed, 6),
            baseline=round(said.usual, 6),
            reason=f"{said.reason}; ${spend:.2f} in the last minute",
            digest=digest(told.state[j : j + 1]),
            span_seconds=said.hours * 3600.0,
            usd_per_minute=round(spend, 6),
            shared="more usage",
            details={"unit": said.unit, "excess": round(told.value[j, 3].item(), 3), "days": int(row["days"])},
        )

    def _said(self, how: int, value: list[float], row: np.void) -> _Said:
        """What is said of a rise that the kernel found."""
        observed, usual, span, excess = value
        if how == CEILING:
            return _Said(
                "medium", observed / (4 * excess), "1d", 24.0, observed, usual, "tokens/day",
                f"{amount(observed)} tokens today, {observed / usual:.1f} times the level of its first days "
                f"({amount(usual)}), which nobody has approved to grow beyond {amount(excess)}",
            )  # fmt: skip
        if how not in (SOME_HOURS, HOURS):
            return _Said(
                "low", excess / (4 * self._limits.day_threshold), "days", 24.0 * 7, observed, usual, "tokens/day",
                f"days of about {amount(observed)} tokens, more than usual day after day; "
                f"its first days had {amount(usual)}",
            )  # fmt: skip
        flags = int(row["flags"])
        threshold = float(self._limits.threshold[flags & WORKLOAD])
        starts = "sessions" if flags & NAMED else "calls"
        return _Said(
            "medium" if how == HOURS else "low", excess / (2 * threshold), f"{span:.0f}h", span,
            observed / span, usual / span, f"{starts}/h",
            f"at least {amount(observed / span)} {starts} an hour for {span:.0f} h, {observed / usual:.1f} times what "
            f"this identity does at these hours ({amount(usual / span)})",
        )  # fmt: skip
