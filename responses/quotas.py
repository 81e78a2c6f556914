"""Finds tenants that use up what the directory allows all their identities together."""

from collections.abc import Iterator

import msgspec
from msgspec import Struct
from xxhash import xxh3_64_hexdigest

from schemas.directory import Directory
from schemas.finding import Evidence, Finding, Kind, TenantBucket
from schemas.quota import PERS, UNITS, Limit, limits_of, start_of, used, window_of
from schemas.times import format_millis

_EXACT = 1.0 + 1e-9
"""A sum of cents is not exact in binary: beyond a limit is beyond this share of it."""
_WINDOW = ("1m", "1h", "1d", "1 month")
_BUCKETS_A_MINUTE = 6


class Counted(Struct):
    """What is used of one limit in the window of this number, and whether it was `warned` of or told as `exceeded`."""

    window: int
    amount: float = 0.0
    warned: bool = False
    exceeded: bool = False


class Used(Struct):
    """What a tenant used of its limits, by what each is of, and the end (ms) of the last bucket of each partition."""

    limits: dict[int, Counted] = {}
    taken: dict[int, int] = {}


def _sort_of(limit: Limit) -> int:
    """A number for what is limited, and per what time."""
    return limit.per * len(UNITS) + limit.unit


class TenantQuotas:
    """Quotas of whole tenants, nested above those of their identities.

    The sums of a tenant's buckets, over all partitions, in the minute, hour, day or month of the calendar (UTC) that
    each bucket ended in. At `warn_share` of a limit, and beyond it, one finding each per window. What it keeps of a
    tenant is no more than a sum for each of its limits.
    """

    name = "quota"
    kind: Kind = "quota"
    version = 1

    def __init__(self, directory: Directory, warn_share: float, policy: str) -> None:
        self._limits = {name: limits_of(tenant.quotas) for name, tenant in directory.tenants.items()}
        self._warn_share = warn_share
        self._policy = policy

    def limits(self, tenant: str) -> list[Limit]:
        """A tenant's limits; none where the directory has none."""
        return self._limits.get(tenant, [])

    def take(self, used_up: Used, bucket: TenantBucket, end: int, now: int) -> Iterator[Finding]:
        """Adds a bucket that ended at `end` (ms) to what its tenant used; tells at `now` (ms) what it crosses."""
        limits = self.limits(bucket.tenant)
        if not limits or end <= used_up.taken.get(bucket.partition, 0):
            # Without a limit, or published once more after a crash.
            return
        used_up.taken[bucket.partition] = end
        kept = {_sort_of(limit) for limit in limits}
        used_up.limits = {sort: counted for sort, counted in used_up.limits.items() if sort in kept}
        amounts = (bucket.tokens, float(bucket.requests), bucket.cost_usd)
        for limit in limits:
            # Of the moment before its end: what ends at midnight is of the day before.
            window = window_of(limit.per, end - 1)
            counted = used_up.limits.setdefault(_sort_of(limit), Counted(window))
            if window > counted.window:
                counted = used_up.limits[_sort_of(limit)] = Counted(window)
            elif window < counted.window:
                # A partition that is behind tells of a window that is over.
                continue
            counted.amount += amounts[limit.unit]
            exceeded = counted.amount > limit.amount * _EXACT
            if exceeded and not counted.exceeded:
                counted.exceeded = counted.warned = True
                yield self._finding(bucket, limit, counted, end, now)
            elif counted.amount >= limit.amount * self._warn_share and not counted.warned:
                counted.warned = True
                yield self._finding(bucket, limit, counted, end, now)

    def _finding(self, bucket: TenantBucket, limit: Limit, counted: Counted, end: int, now: int) -> Finding:
        tenant, amount, exceeded = bucket.tenant, counted.amount, counted.exceeded
        share, spend = amount / limit.amount, bucket.cost_usd * _BUCKETS_A_MINUTE
        told_by = f"{end}\0{PERS[limit.per]}\0{UNITS[limit.unit]}\0{bucket.partition}"
        return Finding(
            finding_id="f-" + xxh3_64_hexdigest(f"{self.name}\0{tenant}\0\0{told_by}".encode()),
            time=format_millis(now),
            tenant=tenant,
            identity="",
            kind=self.kind,
            severity="high" if exceeded else "info",
            score=round(min(1.0, share / 2), 4),
            detector=f"{self.name}@{self.version}",
            window=_WINDOW[limit.per],
            observed=round(amount, 9),
            baseline=limit.amount,
            reason=(
                f"the whole tenant used {used(limit, amount)} by {format_millis(end)[11:16]} UTC"
                f"{'' if exceeded else f' ({share:.0%})'}; "
                f"{bucket.requests * _BUCKETS_A_MINUTE} calls and ${spend:.2f} a minute now"
            ),
            evidence=Evidence(
                partition=-1,
                offsets=(-1, -1),
                policy=self._policy,
                detector_version=self.version,
                state_digest=xxh3_64_hexdigest(msgspec.msgpack.encode(counted)),
                usd_per_minute=round(spend, 6),
                deterministic=exceeded,
                span_seconds=max(0, end - start_of(limit.per, end - 1)) / 1000,
                details={"per": PERS[limit.per], "unit": UNITS[limit.unit], "share": round(share, 4)},
            ),
        )
