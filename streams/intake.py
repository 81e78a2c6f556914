"""Usage records of a file, in its order: what is a usage event, and what is a dead letter and why.

A file has no broker's timestamp to hold an event's time against. There a time is wrong when it lies more than five
minutes ahead of everything before it and the records that follow do not go there too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas.events import Undecoded, read_events
from schemas.times import format_millis
from schemas.usage import MAX_LINE, UsageEvent

AHEAD = 300_000
"""Milliseconds that an event may be ahead."""
_SETTLED = 3
"""Events before there is a watermark to be ahead of."""
_ACCEPT, _REJECT = 16, 3
"""So many later records that go there too accept an event at once; so many that do not, and are no fewer than those
that do, reject it: a burst from one wrong clock vouches for itself in vain."""


@dataclass(slots=True)
class Answer:
    """Lines' answer: the `events` admitted, in order, and of each line `rejected` its number (from 1) and why."""

    events: Sequence[UsageEvent] = ()
    rejected: list[tuple[int, str]] = field(default_factory=list)


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
        self._lines = 0
        self._newest = 0
        self._admitted = 0
        self._held: list[_Held] = []
        self.rejected = 0

    def admit(self, lines: Sequence[bytes]) -> Answer:
        """Takes the file's next lines in; blank ones only count. A held event is in a later answer, once those after
        it have told."""
        answer = Answer()
        first, self._lines = self._lines + 1, self._lines + len(lines)
        # The decoder skips white space faster than a copy without it is made.
        events, wrong = read_events([line if len(line) <= MAX_LINE else line.strip() for line in lines])
        good = np.ones(len(lines), np.bool_)
        good[list(wrong)] = False
        for at, reason in wrong.items():
            if lines[at].strip():
                self._reject(first + at, reason, answer)
        places = good.nonzero()[0]
        if wrong:
            events = events.select(places)
        if self._are_in_order(events):
            self._newest = int(events.fields.time.max(initial=self._newest))
            self._admitted += len(events)
            answer.events = events
        else:
            self._take_each(events, (places + first).tolist(), answer)
        return answer

    def finish(self) -> Answer:
        """Judges what is still held by those that did follow."""
        answer, accepted = Answer(), list[UsageEvent]()
        for held in self._held:
            accept = held.follow > held.stay or held.time - self._newest <= AHEAD
            self._judge(held, answer, accepted, accept=accept)
        self._held.clear()
        answer.events = accepted
        return answer

    def _are_in_order(self, events: Undecoded) -> bool:
        """Whether each of the events can be admitted by what came before it."""
        if self._held or self._admitted < _SETTLED:
            return False
        time = events.fields.time
        before = np.maximum.accumulate(np.concatenate([[self._newest], time]))[:-1]
        return bool((time - before <= AHEAD).all())

    def _take_each(self, events: Undecoded, numbers: Sequence[int], answer: Answer) -> None:
        """Admits, or holds, one event after the other, and lets each say what it does of those held."""
        accepted: list[UsageEvent] = []
        for number, event, time in zip(numbers, events, events.fields.time.tolist(), strict=True):
            if self._held:
                self._hear(event, time, answer, accepted)
            if time - self._newest <= AHEAD or self._admitted < _SETTLED:
                self._accept(event, time, accepted)
            else:
                self._held.append(_Held(number, event, time))
        answer.events = accepted

    def _hear(self, event: UsageEvent, time: int, answer: Answer, accepted: list[UsageEvent]) -> None:
        """What an event says of those held, and whom that decides."""
        for held in self._held:
            if (held.event.source, held.event.id) == (event.source, event.id):
                continue
            if held.time - time <= AHEAD:
                held.follow += 1
            else:
                held.stay += 1
        while self._held:
            held = self._held[0]
            accept = held.follow >= _ACCEPT or held.time - self._newest <= AHEAD
            if not accept and (held.stay < _REJECT or held.stay < held.follow):
                return
            self._judge(self._held.pop(0), answer, accepted, accept=accept)

    def _judge(self, held: _Held, answer: Answer, accepted: list[UsageEvent], *, accept: bool) -> None:
        if accept:
            self._accept(held.event, held.time, accepted)
            return
        reason = (
            f"time {format_millis(held.time)} is {(held.time - self._newest) / 1000:.0f} s ahead of the stream "
            f"({format_millis(self._newest)}) and what follows is not there"
        )
        self._reject(held.line, reason, answer)

    def _accept(self, event: UsageEvent, time: int, accepted: list[UsageEvent]) -> None:
        self._newest = max(self._newest, time)
        self._admitted += 1
        accepted.append(event)

    def _reject(self, line: int, reason: str, answer: Answer) -> None:
        self.rejected += 1
        answer.rejected.append((line, reason))
