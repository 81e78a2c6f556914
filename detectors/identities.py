"""Which row of the state belongs to which identity. Each component keeps structured arrays over the same rows."""

from collections.abc import Iterable, Sequence
from mmap import mmap
from sys import intern
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from detectors.compiled import State
from detectors.index import Index
from detectors.memory import grown
from schemas.batch import TRUSTS, WORKLOADS, Batch, Codes, Flags, Hashes, Ints
from schemas.directory import Directory
from schemas.events import Caller
from schemas.usage import CLAIMED

_ROW = np.dtype(
    [
        ("tiebreak", "i8"), ("tenant", "i8"), ("credential", "u8"), ("slot", "i4"), ("declared", "i1"), ("trust", "i1"),
        ("assigned", "i1"), ("workload", "i1"),
    ],
    align=True,
)  # fmt: skip
"""`declared` is the workload class that the identity's events name, `assigned` the one that the directory does, plus
one; 0: none. `workload` is the class of the last event that was evidence."""


class Rows:
    """A component's state: a structured array that grows fourfold. A row of zeros is a blank one, so that memory which
    no identity has reached yet is never touched, and so never given."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        if dtype.itemsize % 8:
            raise ValueError(f"a row of {dtype.itemsize} bytes is no whole number of 64-bit words: {dtype}")
        self.array: State = np.zeros(0, dtype)
        self._memory: mmap | None = None

    def reach(self, count: int) -> State:
        """The array, grown so that it has at least `count` rows."""
        have = len(self.array)
        if count > have:
            count, dtype = max(count, 4 * have, 256), self.array.dtype
            # Memory that is looked at can't be moved.
            self.array = np.zeros(0, dtype)
            self._memory = grown(self._memory, count * dtype.itemsize)
            self.array = np.frombuffer(self._memory, dtype, count)
        return self.array

    def become(self, other: "Rows") -> None:
        """Takes over the rows of another, which is of no use from then on."""
        self._memory, self.array = other._memory, other.array  # noqa: SLF001

    @property
    def words(self) -> NDArray[np.uint64]:
        """The same memory as words, shape rows by words."""
        return self.array.view(np.uint64).reshape(len(self.array), self.array.dtype.itemsize // 8)


class Standing(NamedTuple):
    """What an identity's last event said of it."""

    workload: str | None
    credential_id: str | None
    identity_trust: str | None


class Names(Struct, array_like=True):
    """What of some identities is no number, by column: their rows (int64), their names (both None: the row is free),
    whether those are claimed, and their credentials."""

    rows: bytes
    tenants: list[str | None]
    subjects: list[str | None]
    claimed: list[bool]
    credentials: list[str | None]


Name = tuple[str, str, bool]
"""Tenant, subject, and whether the callers merely claim to be that one. Those are an identity of their own: what they
do is neither the subject's habit nor its fault."""


class Identities:
    """Names to row numbers, dense from 0; the rows of identities that were freed are given out again."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._rows: dict[Name, int] = {}
        self._index = Index()
        self._names: list[Name | None] = []
        self._credentials: list[str | None] = []
        self._free: list[int] = []
        self.tenants: list[str] = []
        """Tenants by number, in order of first appearance."""
        self._tenant_numbers: dict[str, int] = {}
        self._tenant_keys: Hashes = np.zeros(0, np.uint64)
        self._columns = Rows(_ROW)
        self._renamed: set[int] = set()

    def __len__(self) -> int:
        return len(self._names)

    @property
    def known(self) -> int:
        """How many identities there are: rows that are not free."""
        return len(self._names) - len(self._free)

    def name(self, row: int) -> Name:
        """The name of a row that is not free."""
        name = self._names[row]
        if name is None:
            raise LookupError(f"row {row} is free")
        return name

    def rows(self, batch: Batch) -> Ints:
        """The row of each event's identity; new identities get free rows, or the next ones."""
        rows = self._index.find(batch.identity)
        unknown = np.flatnonzero(rows < 0)
        if len(unknown):
            rows[unknown] = self._admit(batch.events.callers(unknown.tolist()), batch.claimed[unknown].tolist())
            self._index.add(batch.identity[unknown], rows[unknown])
        return rows

    @property
    def tiebreak(self) -> Ints:
        """By row: a hash of the identity, which orders identities the same wherever they were admitted."""
        return self._columns.array["tiebreak"][: len(self._names)]

    @property
    def tenant(self) -> Ints:
        """By row: the tenant's number."""
        return self._columns.array["tenant"][: len(self._names)]

    @property
    def tenant_key(self) -> Hashes:
        """By tenant's number: a hash of its name, the same in every process."""
        have = len(self._tenant_keys)
        if have < len(self.tenants):
            more = [xxh3_64_intdigest(name.encode()) for name in self.tenants[have:]]
            self._tenant_keys = np.concatenate([self._tenant_keys, np.array(more, np.uint64)])
        return self._tenant_keys

    def assigned(self, rows: Ints) -> Codes:
        """Of some rows, the workload class that the directory names; interactive where it names none."""
        assigned: Codes = np.maximum(self._columns.array["assigned"][rows] - 1, 0)
        return assigned

    def class_of(self, row: int) -> str | None:
        """The workload class that the directory names for an identity."""
        assigned = int(self._columns.array["assigned"][row])
        return WORKLOADS[assigned - 1] if assigned else None

    def row_of(self, name: Name) -> int | None:
        """An identity's row; None where it is not known."""
        return self._rows.get(name)

    def standing(self, row: int) -> Standing:
        """What the row's last event that was evidence said."""
        columns = self._columns.array[row]
        declared = int(columns["declared"])
        workload = WORKLOADS[declared - 1] if declared else None
        return Standing(workload, self._credentials[row], TRUSTS[int(columns["trust"])])

    def remember(self, batch: Batch, row: Ints, speaks: Flags) -> None:
        """Takes note of what the last event of each identity said, of those that speak for it."""
        told = np.flatnonzero(speaks)
        if not len(told):
            return
        columns, who = self._columns.array, row[told]
        # Of events of one identity the last one wins: numpy assigns in order.
        columns["declared"][who] = batch.declared[told] + 1
        columns["trust"][who] = batch.trust[told]
        before = columns["credential"][who]
        columns["credential"][who] = batch.credential[told]
        changed = told[columns["credential"][who] != before]
        rows = row[changed].tolist()
        for number, credential in zip(rows, batch.events.credentials(changed.tolist()), strict=True):
            self._credentials[number] = credential
        self._renamed.update(rows)

    def free(self, rows: Iterable[int]) -> None:
        """Forgets whose these rows were."""
        for row in rows:
            del self._rows[self.name(row)]
            self._names[row] = None
            self._credentials[row] = None
            self._columns.array[row] = np.zeros((), _ROW)
            self._free.append(row)
            self._renamed.add(row)
        self._index.clear()

    # -- saved state ----------------------------------------------------------------------------------------------

    def renamed(self) -> Ints:
        """The rows whose names changed since this was last asked, in order."""
        rows, self._renamed = sorted(self._renamed), set()
        return np.array(rows, np.int64)

    def named(self, rows: Ints) -> Names:
        """The names of `rows`."""
        numbers = rows.tolist()
        names = [self._names[row] for row in numbers]
        return Names(
            rows.tobytes(),
            [name and name[0] for name in names],
            [name and name[1] for name in names],
            [bool(name and name[2]) for name in names],
            [self._credentials[row] for row in numbers],
        )

    def adopt(self, names: Names) -> None:
        """Takes saved names in; a later one of a row replaces it. `adopted` ends it."""
        rows = np.frombuffer(names.rows, np.int64)
        more = int(rows.max(initial=-1)) + 1 - len(self._names)
        self._names += [None] * more
        self._credentials += [None] * more
        columns = zip(rows.tolist(), names.tenants, names.subjects, names.claimed, names.credentials, strict=True)
        for row, tenant, subject, claimed, credential in columns:
            self._names[row] = None if tenant is None or subject is None else (intern(tenant), subject, claimed)
            self._credentials[row] = credential

    def adopted(self) -> None:
        """Saved names and columns are in: makes what follows from them. What is not named is free."""
        self._rows = {name: row for row, name in enumerate(self._names) if name is not None}
        self._free = [row for row, name in enumerate(self._names) if name is None]
        self._enter(list(self._rows.values()))

    @property
    def columns(self) -> Rows:
        """What of an identity is a number."""
        return self._columns

    def _admit(self, callers: Iterable[Caller], claimed: Iterable[bool]) -> list[int]:
        """The rows of callers, of whom some are new."""
        known, names, free, tenant_of = self._rows, self._names, self._free, self._directory.tenant_of
        rows, new = [], []
        for (tenant, subject), claims in zip(callers, claimed, strict=True):
            # One text for all of a tenant's identities.
            name = (intern(tenant or tenant_of(subject)), subject, claims)
            # The same identity with and without its tenant named is one row.
            row = known.get(name)
            if row is None:
                if free:
                    row = free.pop()
                    names[row] = name
                else:
                    row = len(names)
                    names.append(name)
                known[name] = row
                new.append(row)
            rows.append(row)
        self._credentials += [None] * (len(names) - len(self._credentials))
        self._renamed.update(new)
        self._enter(new)
        return rows

    def _enter(self, rows: Sequence[int]) -> None:
        """Fills in the columns of rows that have just been named."""
        if not rows:
            return
        columns = self._columns.reach(len(self._names))
        names = [self.name(row) for row in rows]
        numbers = self._tenant_numbers
        for tenant, _, _ in names:
            if tenant not in numbers:
                numbers[tenant] = len(numbers)
                self.tenants.append(tenant)
        which = np.asarray(rows)
        columns["tiebreak"][which] = (
            np.array([xxh3_64_intdigest(_text(name).encode()) for name in names], np.uint64) >> 1
        )
        columns["tenant"][which] = [numbers[tenant] for tenant, _, _ in names]
        columns["assigned"][which] = [self._assigned(tenant, subject) for tenant, subject, _ in names]

    def _assigned(self, tenant: str, subject: str) -> int:
        entry = self._directory.identities.get(subject)
        if entry is None or entry.tenant not in (None, tenant) or entry.workload not in WORKLOADS:
            return 0
        return WORKLOADS.index(entry.workload) + 1


def _text(name: Name) -> str:
    tenant, subject, claimed = name
    return "\0".join((tenant, subject, CLAIMED) if claimed else (tenant, subject))
