"""Finds tenants whose identities rise together, each of them quietly."""

import math
from collections.abc import Iterator

import msgspec
from msgspec import Struct
from xxhash import xxh3_64_hexdigest

from schemas.bounds import Count, Positive
from schemas.finding import Evidence, Finding, Kind, TenantBucket
from schemas.times import format_millis

SLOT = 300_000
"""Milliseconds that are summed before they are judged."""
WAIT = 12_000
"""Milliseconds of the decider's clock that a slot waits for partitions that are behind."""
_SLOTS = 12
_HOUR, _DAY = 3_600_000, 86_400_000
_QUICK = 2
"""Slots of the short window."""
_LEAST_SPREAD = 0.2
"""Of the log of an hour: a relative error of a fifth is never called surprising."""
_FADING = 0.1
_FAR = 2.0
"""Standard deviations that the variance learns from at the most."""
_RAISED_MOST = 1.25
"""Times what was expected: as much of an excess is learnt in an hour, so that what lasts becomes the new usual."""
_PLUS = 10.0
"""Added to both sides of a ratio: twice of next to nothing is nothing."""

_Sums = tuple[float, float, float, float]
"""Identities at work (each once in 5 minutes), operations, tokens, USD."""
_BREADTH, _CALLS, _TOKENS, _USD = range(4)
_NOTHING: _Sums = (0.0, 0.0, 0.0, 0.0)


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[tenant_spike]` of policy.toml."""

    ratio: Positive
    quick_ratio: Positive
    deviations: Positive
    sustained_slots: Count
    least_calls: Positive
    warm_up_hours: Count
    repeat_finding_minutes: Positive


class Rhythm(Struct):
    """What a tenant is used to, and what it did in the last hour: the slots by number, the end of the last bucket (ms)
    that was taken of each partition, hours of the day (workdays, then weekends)
    as means of log1p of identities at work and of operations, how often each was learnt, and the
    variance of what came less what was expected."""

    slots: dict[int, _Sums] = {}
    taken: dict[int, int] = {}
    judged: int = 0
    level: list[tuple[float, float]] = []
    times: list[int] = []
    variance: float = 0.25
    streak: int = 0
    told: int = 0


class TenantSpike:
    """A tenant whose keys rise together, each too little to be a spike of its own.

    What it detects:
        How many identities of the tenant are at work (each counts once in five minutes, however busy) and how many
        operations they do, over an hour against the same hour of the day, workdays and weekends apart. Both
        beyond `ratio` times the expected, the first one by `deviations` standard deviations of the tenant's own
        residuals, for `sustained_slots` slots of 5 minutes in a row; or beyond `quick_ratio` within 10 minutes.

    Why it matters:
        A thief with two hundred keys takes a little of each; a leaked secret store looks like growth.

    False positives:
        A launch, an incident on the tenant's side, the first Monday after a holiday.

    Runbook:
        Compare the networks and clients of the identities that grew the most: do they share what they never shared?
    """

    name = "tenant_spike"
    kind: Kind = "tenant_spike"
    version = 1

    def __init__(self, config: Config, policy: str) -> None:
        self._config = config
        self._policy = policy

    def take(self, rhythm: Rhythm, bucket: TenantBucket, end: int, now: int) -> Iterator[Finding]:
        """Adds a bucket that ended at `end` and judges the slots that are complete at `now` (both ms)."""
        if end <= rhythm.taken.get(bucket.partition, 0):
            # Published once more after a crash.
            return
        rhythm.taken[bucket.partition] = end
        slot = (end - 1) // SLOT
        rhythm.judged = rhythm.judged or slot - 1
        while (rhythm.judged + 2) * SLOT + WAIT <= now:
            if now - rhythm.judged * SLOT > 2 * _DAY:
                # Nothing is known of so long a silence: it is no evidence of anything.
                rhythm.judged, rhythm.slots, rhythm.streak = now // SLOT - 1, {}, 0
                break
            rhythm.judged += 1
            yield from self._judge(rhythm, bucket.tenant, rhythm.judged, now)
        if slot > rhythm.judged - _SLOTS:
            held = rhythm.slots.get(slot, _NOTHING)
            more = (float(bucket.arrived), float(bucket.requests), bucket.tokens, bucket.cost_usd)
            rhythm.slots[slot] = _added(held, more)

    def _judge(self, rhythm: Rhythm, tenant: str, slot: int, now: int) -> Iterator[Finding]:
        c, end = self._config, (slot + 1) * SLOT
        for old in [number for number in rhythm.slots if number <= slot - _SLOTS]:
            del rhythm.slots[old]
        hour, quick = _over(rhythm, slot, _SLOTS), _over(rhythm, slot, _QUICK)
        usual = _expected(rhythm, end)
        ratio = quick_ratio = deviations = 0.0
        if usual is not None and sum(rhythm.times) >= c.warm_up_hours:
            share = _QUICK / _SLOTS
            ratio = min(_ratio(hour[m], usual[m]) for m in (_BREADTH, _CALLS))
            quick_ratio = min(_ratio(quick[m], usual[m] * share) for m in (_BREADTH, _CALLS))
            spread = math.sqrt(max(rhythm.variance, _LEAST_SPREAD**2))
            deviations = math.log(_ratio(hour[_BREADTH], usual[_BREADTH])) / spread
        fast = quick_ratio >= c.quick_ratio and quick[_CALLS] >= c.least_calls * _QUICK / _SLOTS
        slow = ratio >= c.ratio and deviations >= c.deviations and hour[_CALLS] >= c.least_calls
        rhythm.streak = rhythm.streak + 1 if fast or slow else 0
        if end % _HOUR == 0:
            _learn(rhythm, end, hour, usual, excess=rhythm.streak > 0)
        if rhythm.streak < (1 if fast else max(1, c.sustained_slots)) or usual is None:
            return
        if rhythm.told and end - rhythm.told < c.repeat_finding_minutes * 60_000:
            return
        rhythm.told = end
        if slow:
            yield self._finding(rhythm, tenant, end, now, _SLOTS, hour, usual, ratio, deviations)
        else:
            part = (usual[0] * share, usual[1] * share)
            yield self._finding(rhythm, tenant, end, now, _QUICK, quick, part, quick_ratio, deviations)

    def _finding(
        self, rhythm: Rhythm, tenant: str, end: int, now: int, slots: int, sums: _Sums,
        usual: tuple[float, float], ratio: float, deviations: float,
    ) -> Finding:  # fmt: skip
        minutes = slots * SLOT // 60_000
        calls, times = sums[_CALLS] / minutes, _ratio(sums[_CALLS], usual[_CALLS])
        return Finding(
            finding_id="f-" + xxh3_64_hexdigest(f"{self.name}\0{tenant}\0\0{end}".encode()),
            time=format_millis(now),
            tenant=tenant,
            identity="",
            kind=self.kind,
            severity="medium",
            score=round(min(1.0, ratio / (4 * self._config.ratio)), 4),
            detector=f"{self.name}@{self.version}",
            window=f"{minutes}m",
            observed=round(sums[_CALLS] / minutes, 6),
            baseline=round(usual[_CALLS] / minutes, 6),
            reason=(
                f"the whole tenant makes {calls:.3g} calls/min over {minutes} min, {times:.1f} times its usual "
                f"{usual[_CALLS] / minutes:.3g} at this hour, "
                f"and {_ratio(sums[_BREADTH], usual[_BREADTH]):.1f} times as many identities are at work at once: "
                f"{sums[_TOKENS] / minutes:,.0f} tokens and ${sums[_USD] / minutes:.2f} a minute"
            ),
            evidence=Evidence(
                partition=-1,
                offsets=(-1, -1),
                policy=self._policy,
                detector_version=self.version,
                state_digest=xxh3_64_hexdigest(msgspec.msgpack.encode(rhythm)),
                usd_per_minute=round(sums[_USD] / minutes, 6),
                span_seconds=minutes * 60.0,
                age_seconds=sum(rhythm.times) * 3600.0,
                details={"ratio": round(ratio, 3), "deviations": round(deviations, 3), "ended": format_millis(end)},
            ),
        )


def _added(a: _Sums, b: _Sums) -> _Sums:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


def _over(rhythm: Rhythm, last: int, slots: int) -> _Sums:
    """The sums of so many slots, of which `last` is the last."""
    total = _NOTHING
    for number in range(last - slots + 1, last + 1):
        total = _added(total, rhythm.slots.get(number, _NOTHING))
    return total


def _ratio(observed: float, usual: float) -> float:
    return (observed + _PLUS) / (usual + _PLUS)


def _hour_of(moment: int) -> int:
    """Of the hour that ends at `moment` (ms): 0 to 23, and 24 to 47 at weekends (1970-01-01 was a Thursday)."""
    days, within = divmod(moment - 1, _DAY)
    return within // _HOUR + (24 if (days + 3) % 7 >= 5 else 0)


def _usual_at(rhythm: Rhythm, hour: int, metric: int) -> float | None:
    """The usual sum of an hour, smoothed over its neighbours; that of the other sort of day where this one is new."""
    for base in (hour // 24 * 24, 24 - hour // 24 * 24):
        weight = total = 0.0
        for apart, share in ((-1, 0.25), (0, 0.5), (1, 0.25)):
            at = base + (hour + apart) % 24
            if rhythm.times and rhythm.times[at]:
                weight += share
                total += share * rhythm.level[at][metric]
        if weight:
            return math.expm1(total / weight)
    return None


def _expected(rhythm: Rhythm, end: int) -> tuple[float, float] | None:
    """Identities at work and operations that are usual in the hour that ends at `end`; None where nothing is known."""
    passed = end % _HOUR / _HOUR
    out = []
    for metric in (_BREADTH, _CALLS):
        before, now = (_usual_at(rhythm, _hour_of(moment), metric) for moment in (end - end % _HOUR, end))
        if before is None or now is None:
            return None
        out.append(before * (1 - passed) + now * passed if passed else now)
    return out[0], out[1]


def _learn(rhythm: Rhythm, end: int, hour: _Sums, usual: tuple[float, float] | None, *, excess: bool) -> None:
    """Takes a complete hour in, after it was judged."""
    if not rhythm.times:
        rhythm.times, rhythm.level = [0] * 48, [(0.0, 0.0)] * 48
    breadth, calls = hour[_BREADTH], hour[_CALLS]
    if usual is not None:
        if excess:
            breadth, calls = min(breadth, usual[_BREADTH] * _RAISED_MOST), min(calls, usual[_CALLS] * _RAISED_MOST)
        # What is far out must not widen what is called usual.
        most = _FAR * math.sqrt(rhythm.variance)
        apart = min(max(math.log(_ratio(breadth, usual[_BREADTH])), -most), most)
        rhythm.variance += _FADING * (apart * apart - rhythm.variance)
    at = _hour_of(end)
    rhythm.times[at] += 1
    weight = max(1.0 / rhythm.times[at], 3 * _FADING)
    held = rhythm.level[at]
    rhythm.level[at] = (
        held[0] + weight * (math.log1p(breadth) - held[0]),
        held[1] + weight * (math.log1p(calls) - held[1]),
    )
