"""What a checkpoint writes of many cases: those that changed, and some of the others in turn."""

from collections import OrderedDict
from collections.abc import Iterable

Key = tuple[str, str]
"""Tenant and identity."""


class Sweep:
    """Rounds over all cases, so that the records before a complete round are no longer needed."""

    def __init__(self) -> None:
        # In the order of the signals: what is written depends on no hash.
        self._changed: dict[Key, None] = {}
        self._waiting: OrderedDict[Key, None] = OrderedDict()

    @property
    def swept(self) -> bool:
        """Whether the round has written every case that there was at its beginning."""
        return not self._waiting

    def change(self, key: Key) -> None:
        """A case has changed, or is no more."""
        self._changed[key] = None

    def begin_round(self, keys: Iterable[Key]) -> None:
        """From here on each of `keys` is written once more."""
        self._waiting = OrderedDict.fromkeys(keys)

    def unsaved(self, share: int) -> list[Key]:
        """What to write: the cases that changed since the last call, and as many of the others, at least `share`."""
        keys = list(self._changed)
        self._changed.clear()
        for key in keys:
            self._waiting.pop(key, None)
        others = min(len(self._waiting), max(len(keys), share))
        return keys + [self._waiting.popitem(last=False)[0] for _ in range(others)]
