"""Where two policies' results on one corpus differ, and which is the better one there."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from streams.backtest.run import Result

_MORE_IS_BETTER = {"seen", "named", "contained", "precision", "right", "attacks_told"}
_NEITHER = {"alarms", "incidents", "events", "identity_days", "attacks"}


class Difference(Struct, frozen=True):
    """A measure, overall or of one attack or kind of finding (`of`), that differs; `better` says whether the other
    policy's figure is better, None where that can't be said."""

    of: str
    measure: str
    policy: float | None
    against: float | None
    better: bool | None


def differences(ours: Result, other: Result) -> list[Difference]:
    """All that differ."""
    out = [*_of("all", ours.score, other.score)]
    for name, a, b in (
        *_pairs("attack", ours.by_attack, other.by_attack),
        *_pairs("kind", ours.by_kind, other.by_kind),
    ):
        out += _of(name, a, b)
    return out


def better(measure: str, ours: float | None, other: float | None) -> bool | None:
    """Whether `other` is the better figure of a measure."""
    if measure in _NEITHER or ours is None or other is None or ours == other:
        return None
    return (other > ours) == (measure in _MORE_IS_BETTER)


def _pairs(sort: str, ours: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*ours, *other}):
        yield f"{sort} {name}", ours.get(name), other.get(name)


def _of(name: str, ours: Struct | None, other: Struct | None) -> Iterator[Difference]:
    a, b = (msgspec.structs.asdict(side) if side else {} for side in (ours, other))
    for measure in a or b:
        mine, theirs = a.get(measure), b.get(measure)
        if isinstance(mine or theirs, dict):
            for look_alike in sorted({*(mine or {}), *(theirs or {})}):
                x, y = (mine or {}).get(look_alike, 0), (theirs or {}).get(look_alike, 0)
                if x != y:
                    yield Difference(name, f"{measure} {look_alike}", x, y, better(measure, x, y))
        elif mine != theirs:
            yield Difference(name, measure, mine, theirs, better(measure, mine, theirs))
