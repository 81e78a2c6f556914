"""Usage records of a file, in its order: what is a usage event, and what is a dead letter and why.

A file has no broker's timestamp to hold an event's time against. There a time is wrong when it lies more than five
minutes ahead of everything before it and the records that follow do not go there too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from schemas.decoding import Malformed
from schemas.times import EPOCH, format_millis, to_millis
from schemas.usage import MAX_LINE, UsageEvent, decode_usage

AHEAD = 300_000
"""Milliseconds that an event may be ahead."""
_AHEAD = timedelta(milliseconds=AHEAD)
_SETTLED = 3
"""Events before there is a watermark to be ahead of."""
_ACCEPT, _REJECT = 16, 3
"""So many later records that go there too accept an event at once; so many that do not, and are no fewer than those
that do, reject it: a burst from one wrong clock vouches for itself in vain."""


@dataclass(slots=True)
class Answer:
    """Lines' answer: the `events` admitted, in order, and of each line `rejected` its number (from 1) and why."""

    events: list[UsageEvent] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Held:
    line: int
    event: UsageEvent
    follow: int = 0
    stay: int = 0


class FileIntake:
    """Admits the lines of a file. `rejected` counts dead letters."""

    def __init__(self) -> None:
        self._lines = 0
        self._newest = EPOCH
        self._admitted = 0
        self._held: list[_Held] = []
        self.rejected = 0

    def admit(self, lines: Sequence[bytes]) -> Answer:
        """Takes the file's next lines in; blank ones only count. A held event is in a later answer, once those after
        it have told."""
        answer = Answer()
        for number, line in enumerate(lines, self._lines + 1):
            try:
                # The decoder skips white space faster than a copy without it is made.
                event = decode_usage(line if len(line) <= MAX_LINE else line.strip())
            except Malformed as error:
                if line.strip():
                    self._reject(number, str(error), answer)
                continue
            if self._held:
                self._hear(event, answer)
            if event.time - self._newest <= _AHEAD or self._admitted < _SETTLED:
                self._accept(event, answer)
            else:
                self._held.append(_Held(number, event))
        self._lines += len(lines)
        return answer

    def finish(self) -> Answer:
        """Judges what is still held by those that did follow."""
        answer = Answer()
        for held in self._held:
            self._judge(held, answer, accept=held.follow > held.stay or held.event.time - self._newest <= _AHEAD)
        self._held.clear()
        return answer

    def _hear(self, event: UsageEvent, answer: Answer) -> None:
        """What an event says of those held, and whom that decides."""
        for held in self._held:
            if (held.event.source, held.event.id) == (event.source, event.id):
                continue
            if held.event.time - event.time <= _AHEAD:
                held.follow += 1
            else:
                held.stay += 1
        while self._held:
            held = self._held[0]
            accept = held.follow >= _ACCEPT or held.event.time - self._newest <= _AHEAD
            if not accept and (held.stay < _REJECT or held.stay < held.follow):
                return
            self._judge(self._held.pop(0), answer, accept=accept)

    def _judge(self, held: _Held, answer: Answer, *, accept: bool) -> None:
        if accept:
            self._accept(held.event, answer)
            return
        time, newest = to_millis(held.event.time), to_millis(self._newest)
        reason = (
            f"time {format_millis(time)} is {(time - newest) / 1000:.0f} s ahead of the stream "
            f"({format_millis(newest)}) and what follows is not there"
        )
        self._reject(held.line, reason, answer)

    def _accept(self, event: UsageEvent, answer: Answer) -> None:
        if event.time > self._newest:  # noqa: PLR1730 - `max` costs more than all else that a good line needs here
            self._newest = event.time
        self._admitted += 1
        answer.events.append(event)

    def _reject(self, line: int, reason: str, answer: Answer) -> None:
        self.rejected += 1
        answer.rejected.append((line, reason))
