"""A chunk of usage events, each decoded when it is asked for: most are only ever looked at as columns."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from schemas.columns import Fields, read_fields
from schemas.decoding import Malformed
from schemas.scan import CREDENTIAL, SUBJECT, TENANT, Packed, pack, scan
from schemas.usage import UsageEvent, decode_usage

Caller = tuple[str | None, str]
"""The tenant (None: none is named) and the subject that an event names."""


class Events(Sequence[UsageEvent], ABC):
    """Events in their order, and their fields as columns."""

    @property
    @abstractmethod
    def fields(self) -> Fields:
        """Their fields."""

    @abstractmethod
    def callers(self, places: Iterable[int]) -> list[Caller]:
        """Whom the events at `places` name."""

    @abstractmethod
    def credentials(self, places: Iterable[int]) -> list[str | None]:
        """The credentials that the events at `places` name."""

    @abstractmethod
    def select(self, places: NDArray[np.int64]) -> "Events":
        """Those at `places`."""

    @overload
    def __getitem__(self, at: int) -> UsageEvent: ...
    @overload
    def __getitem__(self, at: slice) -> list[UsageEvent]: ...
    def __getitem__(self, at: int | slice) -> UsageEvent | list[UsageEvent]:
        return [self._at(k) for k in range(*at.indices(len(self)))] if isinstance(at, slice) else self._at(at)

    @abstractmethod
    def _at(self, at: int) -> UsageEvent: ...


class Decoded(Events):
    """Events that were decoded elsewhere."""

    def __init__(self, events: Sequence[UsageEvent]) -> None:
        self._events = events

    def __len__(self) -> int:
        return len(self._events)

    @property
    def fields(self) -> Fields:
        return read_fields(self._events)

    def callers(self, places: Iterable[int]) -> list[Caller]:
        events = self._events
        return [(events[at].data.tenant or None, events[at].subject) for at in places]

    def credentials(self, places: Iterable[int]) -> list[str | None]:
        return [self._events[at].data.credential_id or None for at in places]

    def select(self, places: NDArray[np.int64]) -> "Decoded":
        return Decoded([self._events[at] for at in places.tolist()])

    def _at(self, at: int) -> UsageEvent:
        return self._events[at]


class Undecoded(Events):
    """Records of which the fields are known."""

    def __init__(self, raw: bytes, places: NDArray[np.int64], fields: Fields, spans: NDArray[np.int64]) -> None:
        self._raw = raw
        self._places = places
        """Shape events by 2: where each begins and ends."""
        self._fields = fields
        self._spans = spans
        """Shape names by events by 2; where an event's are below 0, they are to be asked of the event."""
        self._decoded: dict[int, UsageEvent] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def fields(self) -> Fields:
        return self._fields

    def callers(self, places: Iterable[int]) -> list[Caller]:
        places = list(places)
        return list(zip(self._names(TENANT, places), map(str, self._names(SUBJECT, places)), strict=True))

    def credentials(self, places: Iterable[int]) -> list[str | None]:
        return self._names(CREDENTIAL, list(places))

    def select(self, places: NDArray[np.int64]) -> "Undecoded":
        return Undecoded(self._raw, self._places[places], self._fields.select(places), self._spans[:, places])

    def _at(self, at: int) -> UsageEvent:
        event = self._decoded.get(at)
        if event is None:
            begin, end = self._places[at]
            event = self._decoded[at] = decode_usage(self._raw[begin:end])
        return event

    def _names(self, which: int, places: list[int]) -> list[str | None]:
        raw, names = self._raw, list[str | None]()
        for place, (at, size) in zip(places, self._spans[which, places].tolist(), strict=True):
            if at >= 0:
                names.append(str(raw[at : at + size], "utf-8") if size else None)
                continue
            event = self._at(place)
            names.append((event.data.tenant, event.subject, event.data.credential_id)[which] or None)
        return names


def read_events(values: Sequence[bytes]) -> tuple[Undecoded, dict[int, str]]:
    """Reads records. What is wrong with each that is `Malformed`, by its place; the fields of such a one mean nothing,
    and it must not be asked for."""
    return read_packed(pack(values))


def read_packed(records: Packed) -> tuple[Undecoded, dict[int, str]]:
    """Like `read_events`."""
    scanned = scan(records)
    wrong: dict[int, str] = {}
    places, events = [], []
    for at in np.flatnonzero(~scanned.good).tolist():
        try:
            events.append(decode_usage(scanned.raw[records.begins[at] : records.ends[at]]))
            places.append(at)
        except Malformed as error:
            wrong[at] = str(error)
    if events:
        for column, said in zip(scanned.fields, read_fields(events), strict=True):
            column[..., places] = said
        scanned.spans[:, places] = -1
    where = np.stack([records.begins, records.ends], axis=1)
    return Undecoded(scanned.raw, where, scanned.fields, scanned.spans), wrong
