"""The ids of findings and requests that were taken, so that none is answered twice."""

from collections import deque
from itertools import islice

from msgspec import Struct

REMEMBERED = 100_000
_PART = 1_000


class Ids(Struct):
    """Ids taken one after the other; `first` is the first one's number, counted from 0."""

    first: int
    ids: list[str]


class Taken:
    """The last 100,000 ids. Those not yet saved, and a slice of the others, are what the next checkpoint writes."""

    def __init__(self) -> None:
        self._order: deque[str] = deque()
        self._ids: set[str] = set()
        self.count = 0
        """Ids ever taken: the number of the next one."""
        self._saved = 0
        self.slice_at = self.slice_end = 0
        """Numbers between which this round's slices still lie."""

    def add(self, cause: str) -> bool:
        """Takes an id; returns whether it is new."""
        if cause in self._ids:
            return False
        self._ids.add(cause)
        self._order.append(cause)
        self.count += 1
        if len(self._order) > REMEMBERED:
            self._ids.remove(self._order.popleft())
        return True

    def __contains__(self, cause: str) -> bool:
        return cause in self._ids

    @property
    def swept(self) -> bool:
        """Whether a round has written every id."""
        return max(self.slice_at, self.first) >= self.slice_end

    def begin_round(self) -> None:
        """From here on every id is written once more."""
        self.slice_at, self.slice_end = self.first, self._saved

    def unsaved(self, slices: int) -> list[Ids]:
        """The ids taken since the last call, and the next of the `slices` that all of them are cut into."""
        start = max(self.slice_at, self.first)
        share = -(-len(self._order) // slices)
        self.slice_at = max(start, min(self.slice_end, start + share))
        parts = self._between(start, self.slice_at) + self._between(max(self._saved, self.first), self.count)
        self._saved = self.count
        return parts

    def restore(self, ids: dict[int, str], first: int, count: int, slice_at: int, slice_end: int) -> bool:
        """Takes saved ids, by number, as its own. Returns whether none from `first` on is missing."""
        numbers = range(max(first, count - REMEMBERED), count)
        if any(number not in ids for number in numbers):
            return False
        self._order = deque(ids[number] for number in numbers)
        self._ids = set(self._order)
        self.count = self._saved = count
        self.slice_at, self.slice_end = slice_at, slice_end
        return True

    @property
    def first(self) -> int:
        """The number of the first id that is kept."""
        return self.count - len(self._order)

    def _between(self, start: int, end: int) -> list[Ids]:
        ids = list(islice(self._order, start - self.first, max(start, end) - self.first))
        return [Ids(start + at, ids[at : at + _PART]) for at in range(0, len(ids), _PART)]
