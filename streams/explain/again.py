"""Computes findings again from the events of their partition, and looks at the state just before one of them."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from detectors import Partition
from schemas.batch import to_batch
from schemas.directory import Directory
from schemas.finding import Finding
from schemas.incident import Incident
from schemas.times import format_millis
from schemas.usage import UsageEvent
from streams.policy import Loaded

_CHUNK = 4096
_SHOWN = 8
"""Of a finding's events, so many first and last ones are kept."""
_AT_THE_END = -1
"""The offset of what no event brought: it was told when time had passed."""
_TIMES = range(1_000_000_000_000, 4_000_000_000_000)
"""Milliseconds since 1970 that are the years 2001 to 2096."""

State = dict[str, dict[str, Any]]
"""By component: a row's fields by name; hashes in hex, moments as times."""


class Item(NamedTuple):
    """An event of a partition, or, where there is none, time that passed: until `moment` (ms), or for good (None)."""

    offset: int
    arrived: int
    event: UsageEvent | None
    moment: int | None = None


class Seen(Struct, frozen=True):
    """The identity's events between a finding's offsets: how many, the first and the last (offset, event)."""

    count: int
    first: list[tuple[int, UsageEvent]]
    last: list[tuple[int, UsageEvent]]


class Again(Struct, frozen=True):
    """What came of it. `found` are findings with the ids asked for, by id; `before` is the state of the identity before
    the finding that is explained, `events` what that finding speaks of."""

    found: dict[str, Finding]
    before: State
    events: Seen


def compute_again(
    finding: Finding, others: Sequence[Finding], items: Iterable[Item], policy: Loaded, directory: Directory
) -> Again:
    """Runs a fresh partition over `items` until `finding` and `others`, which are of the same identity, have had their
    chance."""
    wanted = {f.finding_id for f in (finding, *others)}
    first, target = finding.evidence.offsets
    targets = [f.evidence.offsets[1] for f in (finding, *others)]
    end = max(targets) if min(targets) != _AT_THE_END else None
    partition = Partition(finding.evidence.partition, policy.for_detectors, directory)
    found: dict[str, Finding] = {}
    before: State = {}
    seen = _Between(finding, directory)
    held: list[Item] = []

    def note(told: Iterable[Any]) -> None:
        for one in told:
            if isinstance(one.signal, Finding) and one.signal.finding_id in wanted:
                found.setdefault(one.signal.finding_id, one.signal)

    def take() -> None:
        if held:
            events = [item.event for item in held if item.event]
            note(partition.take(to_batch(events, [i.offset for i in held], [i.arrived for i in held])))
            held.clear()

    for item in items:
        if item.event is None:
            take()
            if target == _AT_THE_END and finding.finding_id not in found:
                before = _readable(partition.state_of(finding))
            note(partition.close() if item.moment is None else partition.idle_until(item.moment))
        else:
            if item.offset == target:
                take()
                before = _readable(partition.state_of(finding))
            held.append(item)
            if item.offset >= first and (item.offset <= target or target == _AT_THE_END):
                seen.add(item.offset, item.event)
            if len(held) >= _CHUNK or item.offset == target:
                take()
        if end is not None and item.offset >= end:
            break
        if wanted <= found.keys():
            break
    take()
    return Again(found, before, seen.seen())


def changes(old: Finding | Incident, new: Finding | Incident) -> list[str]:
    """The fields in which what was published and what came out again differ, byte for byte: `path: old, now new`."""
    return list(_differ(msgspec.to_builtins(old), msgspec.to_builtins(new), ""))


def _differ(old: Any, new: Any, path: str) -> Iterable[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differ(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        yield f"{path}: {old!r}, now {new!r}"


class _Between:
    """Collects the events of a finding's identity."""

    def __init__(self, finding: Finding, directory: Directory) -> None:
        self._finding = finding
        self._directory = directory
        self._count = 0
        self._first: list[tuple[int, UsageEvent]] = []
        self._last: deque[tuple[int, UsageEvent]] = deque(maxlen=_SHOWN)

    def add(self, offset: int, event: UsageEvent) -> None:
        if event.subject != self._finding.identity:
            return
        if (event.data.tenant or self._directory.tenant_of(event.subject)) != self._finding.tenant:
            return
        self._count += 1
        (self._first if len(self._first) < _SHOWN else self._last).append((offset, event))

    def seen(self) -> Seen:
        return Seen(self._count, self._first, list(self._last))


def _readable(rows: dict[str, np.void]) -> State:
    return {component: {name: _value(row[name]) for name in row.dtype.names or ()} for component, row in rows.items()}


def _value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_value(one) for one in value]
    if isinstance(value, np.uint64):
        return f"{int(value):016x}" if value else 0
    if isinstance(value, np.integer):
        return format_millis(int(value)) if int(value) in _TIMES else int(value)
    return float(f"{float(value):.7g}")
