"""The cases of a partition's tenants, the clock, and what falls due when."""

import heapq
from collections.abc import Iterable, Iterator

from responses.case import Case
from responses.config import Config
from responses.sweep import Key, Sweep


class Cases:
    """A case per identity. Each waits for one look at a time, and is asked now and then whether it is over."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._held: dict[Key, Case] = {}
        self._due: list[tuple[int, str, str]] = []
        self._farewells: list[tuple[int, str, str]] = []
        """When each case is next asked whether it is over."""
        self.sweep = Sweep()
        self.now = 0
        """The clock, in ms of event time."""

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, key: Key) -> Case:
        return self._held[key]

    def get(self, tenant: str, identity: str) -> Case | None:
        """The case of an identity, if there is one."""
        return self._held.get((tenant, identity))

    def of(self, tenant: str, identity: str) -> Case:
        """The case of an identity with which something is done now."""
        key = (tenant, identity)
        case = self._held.get(key)
        if case is None:
            case = self._held[key] = Case(tenant, identity, self._config)
            case.touched = self.now
            case.over(self.now)
            heapq.heappush(self._farewells, (case.next_farewell, tenant, identity))
        self.touch(case)
        return case

    def touch(self, case: Case) -> None:
        """Something is done with a case now."""
        case.touched = self.now
        self.sweep.change((case.tenant, case.identity))

    @property
    def due(self) -> int | None:
        """When (ms) the next case is to be looked at."""
        return self._due[0][0] if self._due else None

    def look_again(self, case: Case, moment: int) -> None:
        """Has a case looked at in `moment` (ms), unless that is so earlier."""
        moment = max(moment, self.now + 1)
        if case.next_look is None or moment < case.next_look:
            case.next_look = moment
            heapq.heappush(self._due, (moment, case.tenant, case.identity))

    def fall_due(self) -> Iterator[Case]:
        """The cases whose moment has come, each while it is looked at."""
        while self._due and self._due[0][0] <= self.now:
            _, tenant, identity = heapq.heappop(self._due)
            case = self._held[tenant, identity]
            case.next_look = None
            self.touch(case)
            yield case
            self._drop_replaced()

    def forget(self) -> None:
        """Forgets the cases that are over."""
        while self._farewells and self._farewells[0][0] <= self.now:
            self._ask_farewell()

    def restore(self, cases: Iterable[Case], again: set[Key]) -> None:
        """Takes saved cases as its own; `again` were written since the last round began."""
        self._held = {(case.tenant, case.identity): case for case in cases}
        for (tenant, identity), case in self._held.items():
            self._farewells.append((case.next_farewell, tenant, identity))
            if case.next_look is not None:
                self._due.append((case.next_look, tenant, identity))
        heapq.heapify(self._farewells)
        heapq.heapify(self._due)
        self.sweep.begin_round(key for key in self._held if key not in again)

    def begin_round(self) -> None:
        """From here on each case is written once more."""
        self.sweep.begin_round(self._held)

    def unsaved(self, rounds: int) -> list[Key]:
        """What the next checkpoint writes, or says to be gone; after `rounds` of them everything was written."""
        return self.sweep.unsaved(-(-len(self._held) // rounds))

    def _ask_farewell(self) -> None:
        """Forgets the case whose turn it is, if it is over."""
        _, tenant, identity = heapq.heappop(self._farewells)
        case = self._held[tenant, identity]
        self.sweep.change((tenant, identity))
        if case.over(self.now):
            del self._held[tenant, identity]
        else:
            heapq.heappush(self._farewells, (case.next_farewell, tenant, identity))

    def _drop_replaced(self) -> None:
        """A case waits for one look at a time: drops from the top what an earlier look has replaced."""
        while self._due:
            moment, tenant, identity = self._due[0]
            case = self._held.get((tenant, identity))
            if case is not None and case.next_look == moment:
                return
            heapq.heappop(self._due)
