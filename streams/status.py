"""Which fields a gateway's events lack, and so which detectors are blind to a part of what they detect, or to all."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Literal

from msgspec import Struct

from schemas.directory import Directory, Entry
from schemas.usage import UsageEvent
from streams.needs import METERED, NEEDS, Part

_BLIND, _SEES = 0.01, 0.9
"""Of the events: a part that can use fewer is blind, one that can use as many sees."""
Sight = Literal["sees", "half-blind", "blind"]
_FIELDS = sorted({one for parts in NEEDS.values() for part in parts for name in part.fields for one in name.split("|")})
_NAMES = {name: number for number, name in enumerate(_FIELDS)}


class PartSight(Struct, frozen=True):
    """A part of what a detector detects: the share of a gateway's events that it can use, and the share that has each
    field it needs."""

    what: str
    usable: float
    fields: dict[str, float]


class DetectorSight(Struct, frozen=True):
    """A detector at a gateway."""

    detector: str
    sight: Sight
    parts: list[PartSight]


class GatewayStatus(Struct, frozen=True):
    """A gateway's events, and what each detector can make of them."""

    gateway: str
    events: int
    identities: int
    first: str
    last: str
    detectors: list[DetectorSight]


class Status:
    """Counts events by gateway."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._masks: dict[str, Counter[tuple[bool, int]]] = defaultdict(Counter)
        """By gateway: how many events were served or not, and had which of `_FIELDS`."""
        self._identities: dict[str, set[tuple[str | None, str]]] = defaultdict(set)
        self._times: dict[str, tuple[str, str]] = {}
        self._known: dict[str, int] = {}

    def take(self, events: Iterable[UsageEvent]) -> None:
        """Counts some more."""
        for event in events:
            data, mask = event.data, 0
            for name, number in _NAMES.items():
                value = getattr(data, name, None)
                if value is not None and value != "":
                    mask |= 1 << number
            mask |= self._of_entry(event.subject)
            self._masks[event.source][data.status < HTTPStatus.BAD_REQUEST, mask] += 1
            self._identities[event.source].add((data.tenant, event.subject))
            time = event.time.isoformat(timespec="seconds")
            first, last = self._times.get(event.source, (time, time))
            self._times[event.source] = min(first, time), max(last, time)

    def gateways(self) -> list[GatewayStatus]:
        """The gateways by name."""
        return [
            GatewayStatus(
                gateway=name,
                events=sum(masks.values()),
                identities=len(self._identities[name]),
                first=self._times[name][0],
                last=self._times[name][1],
                detectors=[_detector(kind, parts, masks) for kind, parts in NEEDS.items()],
            )
            for name, masks in sorted(self._masks.items())
        ]

    def _of_entry(self, subject: str) -> int:
        """The bits of what the directory says of an identity."""
        mask = self._known.get(subject)
        if mask is None:
            entry = self._directory.identities.get(subject) or Entry()
            names = (name for name in _NAMES if name.startswith("directory."))
            mask = sum(1 << _NAMES[n] for n in names if getattr(entry, n.removeprefix("directory."), None) is not None)
            self._known[subject] = mask
        return mask


def missing(detector: DetectorSight) -> Iterator[str]:
    """What a detector lacks, in words."""
    for part in detector.parts:
        if part.usable < _SEES:
            lacks = ", ".join(f"{name} {_percent(share)}" for name, share in part.fields.items() if share < _SEES)
            yield f"{part.what}: {lacks or f'together {_percent(part.usable)}'}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if not 0 < share < 0.005 else "< 1%"


def _detector(kind: str, parts: Iterable[Part], masks: Counter[tuple[bool, int]]) -> DetectorSight:
    of_parts = [_part(part, masks) for part in parts]
    sees = [part.usable >= _SEES for part in of_parts]
    blind = [part.usable < _BLIND for part in of_parts]
    sight: Sight = "sees" if all(sees) else "blind" if all(blind) else "half-blind"
    return DetectorSight(kind, sight, of_parts)


def _part(part: Part, masks: Counter[tuple[bool, int]]) -> PartSight:
    metered = any(METERED & {*name.split("|")} for name in part.fields)
    of = [(mask, count) for (served, mask), count in masks.items() if served or not metered]
    total = sum(count for _, count in of)
    bits = {name: sum(1 << _NAMES[one] for one in name.split("|")) for name in part.fields}

    def share(*needed: int) -> float:
        have = sum(count for mask, count in of if all(mask & bit for bit in needed))
        return round(have / total, 4) if total else 0.0

    return PartSight(part.what, share(*bits.values()), {name: share(bit) for name, bit in bits.items()})
