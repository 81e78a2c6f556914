"""Which row of the state belongs to which identity. Each component keeps one structured array over the same rows."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from schemas.directory import Directory
from schemas.usage import UsageEvent


class Identities:
    """(tenant, subject) to row numbers, dense from 0 in order of first appearance."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._rows: dict[tuple[str | None, str], int] = {}
        self.names: list[tuple[str, str]] = []
        """(tenant, subject) by row."""
        self.tenants: list[str] = []
        """Tenants by number, in order of first appearance."""
        self._tenant_numbers: dict[str, int] = {}
        self._columns = Rows(np.dtype([("tiebreak", "i8"), ("tenant", "i8")]))

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, events: Sequence[UsageEvent]) -> NDArray[np.int64]:
        """The row of each event's identity; new identities get the next ones."""
        known = self._rows
        out = np.empty(len(events), np.int64)
        for i, event in enumerate(events):
            key = (event.data.tenant, event.subject)
            row = known.get(key)
            out[i] = self._admit(key) if row is None else row
        return out

    @property
    def tiebreak(self) -> NDArray[np.int64]:
        """By row: a hash of the identity, which orders identities the same wherever they were admitted."""
        return self._columns.array["tiebreak"][: len(self.names)]

    @property
    def tenant(self) -> NDArray[np.int64]:
        """By row: the tenant's number."""
        return self._columns.array["tenant"][: len(self.names)]

    def _admit(self, key: tuple[str | None, str]) -> int:
        tenant = key[0] or self._directory.tenant_of(key[1])
        full = (tenant, key[1])
        # The same identity with and without its tenant named is one row.
        row = self._rows.get(full)
        if row is None:
            row = len(self.names)
            self.names.append(full)
            self._rows[full] = row
            number = self._tenant_numbers.setdefault(tenant, len(self.tenants))
            if number == len(self.tenants):
                self.tenants.append(tenant)
            self._columns.reach(row + 1)[row] = (xxh3_64_intdigest("\0".join(full).encode()) >> 1, number)
        self._rows[key] = row
        return row


class Rows:
    """A component's state: a structured array that grows by doubling and starts each row as `blank` says."""

    def __init__(self, dtype: np.dtype[np.void], blank: Callable[[NDArray[np.void]], None] | None = None) -> None:
        self._blank = blank
        self.array = np.zeros(0, dtype)

    def reach(self, count: int) -> NDArray[np.void]:
        """The array, grown so that it has at least `count` rows."""
        have = len(self.array)
        if count > have:
            grown = np.zeros(max(count, 2 * have, 256), self.array.dtype)
            grown[:have] = self.array
            if self._blank is not None:
                self._blank(grown[have:])
            self.array = grown
        return self.array
