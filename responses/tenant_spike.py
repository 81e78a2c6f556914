"""Finds tenants whose identities rise together, each of them quietly."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from msgspec import Struct, field
from xxhash import xxh3_64_hexdigest

from responses.rhythm import BREADTH, CALLS, DAY, HOUR, Habit, Work, deviations, expected, learn, ratio
from schemas.bounds import Count, Positive
from schemas.finding import Evidence, Finding, Kind, TenantBucket
from schemas.times import format_millis

SLOT = 300_000
"""Milliseconds that are summed before they are judged."""
WAIT = 12_000
"""Milliseconds of the decider's clock that a slot waits for partitions that are behind."""
_SLOTS = 12
_QUICK = 2
"""Slots of the short window."""

_Sums = tuple[float, float, float, float]
"""Identities at work (each once in 5 minutes), operations, tokens, USD."""
_TOKENS, _USD = 2, 3
_NOTHING: _Sums = (0.0, 0.0, 0.0, 0.0)


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[tenant_spike]` of policy.toml."""

    ratio: Positive
    quick_ratio: Positive
    deviations: Positive
    sustained_slots: Count
    least_calls: Positive
    least_identities: Positive
    warm_up_hours: Count
    repeat_finding_minutes: Positive


class Rhythm(Habit):
    """What a tenant is used to, and what it did in the last hour: the slots by number, the end of the last bucket (ms)
    that was taken of each partition, the slot that was judged last, and when it was last told (ms). What is interactive
    is held apart too: since the first of it, for not everybody says what is."""

    slots: dict[int, _Sums] = field(default_factory=dict)
    taken: dict[int, int] = field(default_factory=dict)
    judged: int = 0
    told: int = 0
    interactive: Habit = field(default_factory=Habit)
    interactive_slots: dict[int, Work] = field(default_factory=dict)


class _Rise(NamedTuple):
    """A rise that is told: over so many slots, how much was done, how much is usual, and how far that is apart."""

    whose: str
    slots: int
    work: Work
    usual: Work
    ratio: float
    deviations: float

    @property
    def more(self) -> float:
        """How many more identities than usual are at work at once."""
        return (self.work[BREADTH] - self.usual[BREADTH]) / self.slots


class TenantSpike:
    """A tenant whose keys rise together, each too little to be a spike of its own.

    What it detects:
        How many identities of the tenant are at work (each counts once in five minutes, however busy) and how many
        operations they do, over an hour against the same hour of the day, workdays and weekends apart. Both
        beyond `ratio` times the expected, the first one by `deviations` standard deviations of the tenant's own
        residuals, for `sustained_slots` slots of 5 minutes in a row; or beyond `quick_ratio` within 10 minutes.
        At least `least_identities` more than usual must be at work at once. Interactive identities are judged apart
        too, so that a batch job's volume does not hide them. An hour that was seen on a single day is less certain,
        and one that was seen at a weekend alone tells nothing of a workday.

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
            if now - rhythm.judged * SLOT > 2 * DAY:
                # Nothing is known of so long a silence: it is no evidence of anything.
                rhythm.judged, rhythm.slots, rhythm.interactive_slots = now // SLOT - 1, {}, {}
                rhythm.first = rhythm.streak = rhythm.interactive.first = rhythm.interactive.streak = 0
                break
            rhythm.judged += 1
            yield from self._judge(rhythm, bucket.tenant, rhythm.judged, now)
        rhythm.first = rhythm.first or slot
        if bucket.interactive_arrived:
            rhythm.interactive.first = rhythm.interactive.first or slot
        if slot > rhythm.judged - _SLOTS:
            held = rhythm.slots.get(slot, _NOTHING)
            more = (float(bucket.arrived), float(bucket.requests), bucket.tokens, bucket.cost_usd)
            rhythm.slots[slot] = (held[0] + more[0], held[1] + more[1], held[2] + more[2], held[3] + more[3])
            people, asked = rhythm.interactive_slots.get(slot, (0.0, 0.0))
            rhythm.interactive_slots[slot] = (people + bucket.interactive_arrived, asked + bucket.interactive_requests)

    def _judge(self, rhythm: Rhythm, tenant: str, slot: int, now: int) -> Iterator[Finding]:
        for old in [number for number in rhythm.slots if number <= slot - _SLOTS]:
            del rhythm.slots[old]
            rhythm.interactive_slots.pop(old, None)
        work: dict[int, Work] = {number: (sums[BREADTH], sums[CALLS]) for number, sums in rhythm.slots.items()}
        whole = self._rise("the whole tenant makes", rhythm, work, slot)
        users = "the tenant's interactive users make"
        rise = self._rise(users, rhythm.interactive, rhythm.interactive_slots, slot)
        rise, end = whole or rise, (slot + 1) * SLOT
        if rise is None or (rhythm.told and end - rhythm.told < self._config.repeat_finding_minutes * 60_000):
            return
        rhythm.told = end
        yield self._finding(rhythm, tenant, end, now, rise)

    def _rise(self, whose: str, habit: Habit, work: dict[int, Work], slot: int) -> _Rise | None:
        """Judges the slots up to `slot` and learns an hour that is complete; what is to be told."""
        c, end = self._config, (slot + 1) * SLOT
        hour, quick = _over(work, slot, _SLOTS), _over(work, slot, _QUICK)
        usual = expected(habit, end)
        slow, fast, far = None, None, False
        if usual is not None and usual.days >= 1 and sum(habit.times) >= c.warm_up_hours:
            share = _QUICK / _SLOTS
            part = (usual.breadth * share, usual.calls * share)
            apart = deviations(habit, hour[BREADTH], usual)
            times = [ratio(hour[m], usual[m]) for m in (BREADTH, CALLS)]
            quick_times = min(ratio(quick[m], part[m]) for m in (BREADTH, CALLS))
            far = times[BREADTH] >= c.ratio and apart >= c.deviations
            if far and times[CALLS] >= c.ratio and hour[CALLS] >= c.least_calls:
                slow = _Rise(whose, _SLOTS, hour, (usual.breadth, usual.calls), min(times), apart)
            if quick_times >= c.quick_ratio and quick[CALLS] >= c.least_calls * share:
                fast = _Rise(whose, _QUICK, quick, part, quick_times, apart)
        habit.streak = habit.streak + 1 if fast or slow else 0
        if end % HOUR == 0 and habit.first and slot - habit.first >= _SLOTS - 1:
            learn(habit, end, hour, usual, excess=far or habit.streak > 0)
        rises = [slow if habit.streak >= c.sustained_slots else None, fast]
        return next((rise for rise in rises if rise and rise.more >= c.least_identities), None)

    def _finding(self, rhythm: Rhythm, tenant: str, end: int, now: int, rise: _Rise) -> Finding:
        minutes = rise.slots * SLOT // 60_000
        calls, usual = rise.work[CALLS] / minutes, rise.usual[CALLS] / minutes
        sums = [rhythm.slots.get(end // SLOT - 1 - back, _NOTHING) for back in range(rise.slots)]
        tokens, spent = (sum(of[m] for of in sums) / minutes for m in (_TOKENS, _USD))
        return Finding(
            finding_id="f-" + xxh3_64_hexdigest(f"{self.name}\0{tenant}\0\0{end}".encode()),
            time=format_millis(now),
            tenant=tenant,
            identity="",
            kind=self.kind,
            severity="medium",
            score=round(min(1.0, rise.ratio / (4 * self._config.ratio)), 4),
            detector=f"{self.name}@{self.version}",
            window=f"{minutes}m",
            observed=round(calls, 6),
            baseline=round(usual, 6),
            reason=(
                f"{rise.whose} {calls:.3g} calls/min over {minutes} min, "
                f"{ratio(rise.work[CALLS], rise.usual[CALLS]):.1f} times the usual {usual:.3g} at this hour, "
                f"and {ratio(rise.work[BREADTH], rise.usual[BREADTH]):.1f} times as many identities are at work at "
                f"once: {tokens:,.0f} tokens and ${spent:.2f} a minute"
            ),
            evidence=Evidence(
                partition=-1,
                offsets=(-1, -1),
                policy=self._policy,
                detector_version=self.version,
                state_digest=xxh3_64_hexdigest(msgspec.msgpack.encode(rhythm)),
                usd_per_minute=round(spent, 6),
                span_seconds=minutes * 60.0,
                age_seconds=sum(rhythm.times) * 3600.0,
                details={
                    "ratio": round(rise.ratio, 3),
                    "deviations": round(rise.deviations, 3),
                    "ended": format_millis(end),
                },
            ),
        )


def _over(work: dict[int, Work], last: int, slots: int) -> Work:
    """The sums of so many slots, of which `last` is the last."""
    some = [work.get(number, (0.0, 0.0)) for number in range(last - slots + 1, last + 1)]
    return sum(of[BREADTH] for of in some), sum(of[CALLS] for of in some)
