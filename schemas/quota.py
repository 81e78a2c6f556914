"""Quotas: how much an identity, or a whole tenant, may use in a minute, hour, day or month of the calendar (UTC)."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple, get_args

from msgspec import Struct

from schemas.bounds import Positive

Per = Literal["minute", "hour", "day", "month"]
Unit = Literal["tokens", "requests", "usd"]
PERS: tuple[Per, ...] = get_args(Per)
UNITS: tuple[Unit, ...] = get_args(Unit)
MOST = 5
"""Limits of one identity."""
_LATEST = 253_402_300_799_000
"""The last moment (ms) that a calendar here knows."""
_MILLIS = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}


class Quota(Struct, frozen=True, forbid_unknown_fields=True):
    """What may be used `per` minute, hour, day or month: any of tokens, requests that were served, and USD."""

    per: Per
    tokens: Positive | None = None
    requests: Positive | None = None
    usd: Positive | None = None

    def __post_init__(self) -> None:
        """Checks that it limits something."""
        if all(getattr(self, unit) is None for unit in UNITS):
            raise ValueError("a quota limits something: give `tokens`, `requests` or `usd`")


class Limit(NamedTuple):
    """One limit of a quota. `per` indexes `PERS`, `unit` `UNITS`."""

    per: int
    unit: int
    amount: float


def limits_of(quotas: Sequence[Quota]) -> list[Limit]:
    """The limits of some quotas, those of the longest time first.

    Raises:
        ValueError: one thing has two limits for the same time.
    """
    limits = [
        Limit(PERS.index(quota.per), unit, float(amount))
        for quota in quotas
        for unit, name in enumerate(UNITS)
        if (amount := getattr(quota, name)) is not None
    ]
    twice = [at for at, count in Counter((limit.per, limit.unit) for limit in limits).items() if count > 1]
    if twice:
        raise ValueError(", ".join(f"two limits of {UNITS[unit]} per {PERS[per]}" for per, unit in twice))
    return sorted(limits, reverse=True)


def _date(moment: int) -> datetime:
    return datetime.fromtimestamp(min(max(moment, 0), _LATEST) / 1000, UTC)


def window_of(per: int, moment: int) -> int:
    """The number of the minute, hour, day or month (since 1970) that `moment` (ms) lies in."""
    if per < len(_MILLIS):
        return moment // _MILLIS[PERS[per]]
    date = _date(moment)
    return (date.year - 1970) * 12 + date.month - 1


def start_of(per: int, moment: int) -> int:
    """When (ms) the minute, hour, day or month that `moment` (ms) lies in began."""
    if per < len(_MILLIS):
        size = _MILLIS[PERS[per]]
        return moment // size * size
    date = _date(moment)
    return int(datetime(date.year, date.month, 1, tzinfo=UTC).timestamp()) * 1000


def used(limit: Limit, amount: float) -> str:
    """How much of a limit is used, for a sentence."""
    per, unit = PERS[limit.per], UNITS[limit.unit]
    if unit == "usd":
        return f"${amount:,.2f} of ${limit.amount:,.2f} a {per}"
    return f"{amount:,.0f} of {limit.amount:,.0f} {unit} a {per}"
