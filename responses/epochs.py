"""Epochs: the numbers that order the commands about one subject."""

import heapq

from schemas.command import Scope

Subject = tuple[str, Scope, str]
"""Tenant, scope, subject."""


class Epochs:
    """Each command's epoch is the greater of its subject's last + 1 and the clock in ms.

    An epoch that the clock has passed is forgotten: the clock alone gives a greater one.
    """

    def __init__(self) -> None:
        self._last: dict[Subject, int] = {}
        self._passing: list[tuple[int, Subject]] = []

    def next(self, subject: Subject, now: int) -> int:
        """The epoch of a command about `subject` at `now` (ms)."""
        epoch = max(self._last.get(subject, 0) + 1, now)
        self.note(subject, epoch)
        return epoch

    def note(self, subject: Subject, epoch: int) -> None:
        """Takes note of an epoch that was given."""
        if epoch > self._last.get(subject, 0):
            self._last[subject] = epoch
            heapq.heappush(self._passing, (epoch, subject))

    def last(self, subject: Subject) -> int:
        """The last epoch of a command about `subject`; 0 where there is none, or the clock has passed it."""
        return self._last.get(subject, 0)

    def forget(self, now: int) -> None:
        """Forgets what `now` (ms) has passed; the clock never goes back."""
        while self._passing and self._passing[0][0] < now:
            epoch, subject = heapq.heappop(self._passing)
            if self._last[subject] == epoch:
                del self._last[subject]

    @property
    def held(self) -> list[tuple[Subject, int]]:
        """What is not forgotten."""
        return list(self._last.items())
