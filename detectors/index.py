"""Rows by the hash of the identity that an event names: asked for every event, so compiled."""

import numpy as np

from detectors.compiled import compiled
from schemas.batch import Hashes, Ints


@compiled
def _find(keys: Hashes, rows: Ints, wanted: Hashes, out: Ints) -> None:
    mask = np.uint64(len(keys) - 1)
    for i in range(len(wanted)):
        at = wanted[i] & mask
        while keys[at] != 0 and keys[at] != wanted[i]:
            at = (at + np.uint64(1)) & mask
        out[i] = rows[at] if keys[at] != 0 else -1


@compiled
def _add(keys: Hashes, rows: Ints, new: Hashes, of: Ints) -> int:
    """Returns how many were not there yet."""
    mask, added = np.uint64(len(keys) - 1), 0
    for i in range(len(new)):
        at = new[i] & mask
        while keys[at] != 0 and keys[at] != new[i]:
            at = (at + np.uint64(1)) & mask
        added += 1 if keys[at] == 0 else 0
        keys[at] = new[i]
        rows[at] = of[i]
    return added


class Index:
    """A hash table (open addressing, 0: free) from 64-bit hashes, none of them 0, to rows. It may forget."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._keys, self._rows, self._count = np.zeros(1 << 12, np.uint64), np.zeros(1 << 12, np.int64), 0

    def find(self, hashes: Hashes) -> Ints:
        """The row of each; -1 where it is not known."""
        rows = np.empty(len(hashes), np.int64)
        _find(self._keys, self._rows, hashes, rows)
        return rows

    def add(self, hashes: Hashes, rows: Ints) -> None:
        """Takes note of rows."""
        size = len(self._keys)
        while size < 2 * (self._count + len(hashes)):
            size *= 2
        if size > len(self._keys):
            used = self._keys != 0
            keys, held = self._keys[used], self._rows[used]
            self._keys, self._rows = np.zeros(size, np.uint64), np.zeros(size, np.int64)
            _add(self._keys, self._rows, keys, held)
        self._count += _add(self._keys, self._rows, hashes, rows)
