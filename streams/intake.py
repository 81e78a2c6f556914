"""Usage records of a file, in its order: what is a usage event, and what is a dead letter and why.

A file has no broker's timestamp to hold an event's time against. There a time is wrong when it lies more than five
minutes ahead of everything before it and the records that follow do not go there too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from schemas.decoding import Malformed
from schemas.times import format_millis, to_millis
from schemas.usage import UsageEvent, decode_usage

AHEAD = 300_000
"""Milliseconds that an event may be ahead."""
_SETTLED = 3
"""Events before there is a watermark to be ahead of."""
_ACCEPT, _REJECT = 16, 3
"""So many later records that go there too accept an event at once; so many that do not, and are no fewer than those
that do, reject it: a burst from one wrong clock vouches for itself in vain."""


@dataclass(slots=True)
class _Held:
    line: int
    event: UsageEvent
    time: int
    follow: int = 0
    stay: int = 0


class FileIntake:
    """Admits the lines of a file. `rejected` counts dead letters."""

    def __init__(self) -> None:
        self._newest = 0
        self._admitted = 0
        self._held: list[_Held] = []
        self.rejected = 0

    def admit(self, lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, UsageEvent | str]]:
        """(line number, event) for what is admitted, (line number, reason) for what is not; a held event comes
        later, once those after it have told."""
        for line, raw in lines:
            try:
                event = decode_usage(raw)
            except Malformed as error:
                self.rejected += 1
                yield line, str(error)
                continue
            time = to_millis(event.time)
            if self._held:
                yield from self._heard(event, time)
            if time <= self._newest + AHEAD or self._admitted < _SETTLED:
                self._newest = max(self._newest, time)
                self._admitted += 1
                yield line, event
            else:
                self._held.append(_Held(line, event, time))

    def finish(self) -> Iterator[tuple[int, UsageEvent | str]]:
        """Judges what is still held by those that did follow."""
        for held in self._held:
            accept = held.follow > held.stay or held.time <= self._newest + AHEAD
            yield self._judged(held, accept=accept)
        self._held.clear()

    def _heard(self, event: UsageEvent, time: int) -> Iterator[tuple[int, UsageEvent | str]]:
        for held in self._held:
            if (held.event.source, held.event.id) == (event.source, event.id):
                continue
            if time >= held.time - AHEAD:
                held.follow += 1
            else:
                held.stay += 1
        while self._held:
            held = self._held[0]
            accept = held.follow >= _ACCEPT or held.time <= self._newest + AHEAD
            if not accept and (held.stay < _REJECT or held.stay < held.follow):
                return
            yield self._judged(self._held.pop(0), accept=accept)

    def _judged(self, held: _Held, *, accept: bool) -> tuple[int, UsageEvent | str]:
        if accept:
            self._newest = max(self._newest, held.time)
            self._admitted += 1
            return held.line, held.event
        self.rejected += 1
        ahead = (held.time - self._newest) / 1000
        return held.line, (
            f"time {format_millis(held.time)} is {ahead:.0f} s ahead of the stream ({format_millis(self._newest)}) "
            "and what follows is not there"
        )
