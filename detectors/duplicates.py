"""Which deliveries are second ones: the ids of the last ten to twenty minutes, in two generations of hashes."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from detectors.compiled import State, compiled
from schemas.batch import Hashes
from schemas.piece import StateError

DUPLICATE_HORIZON = 600_000
"""Milliseconds of event time within which a second delivery is dropped."""

_STATE = np.dtype([("active", "i8"), ("number", "i8", (2,)), ("since", "i8", (2,)), ("count", "i8", (2,))])


class Table(NamedTuple):
    """Two generations of ids, of which the `active` one takes new ids in: its number, when it began (ms), how many
    ids it has, its hash table (open addressing, 0: free) and its ids in the order in which they came."""

    state: State
    slots: Hashes
    ids: Hashes


@compiled
def seen_before(table: Table, key: np.uint64) -> bool:
    """Looks `key` up in both generations and adds it to the active one."""
    me = table.state[0]
    mask = np.uint64(table.slots.shape[1] - 1)
    for which in (1 - me.active, me.active):
        at = key & mask
        while table.slots[which, at] != 0:
            if table.slots[which, at] == key:
                return True
            at = (at + np.uint64(1)) & mask
        if which == me.active:
            table.slots[which, at] = key
            table.ids[which, me.count[which]] = key
            me.count[which] += 1
    return False


@compiled
def turn(table: Table, watermark: int) -> None:
    """Begins a generation at `watermark` (ms) once the active one is old enough, and forgets the one before it."""
    me = table.state[0]
    if watermark - me.since[me.active] >= DUPLICATE_HORIZON:
        me.active = 1 - me.active
        me.number[me.active] = me.number[1 - me.active] + 1
        me.since[me.active] = watermark
        me.count[me.active] = 0
        table.slots[me.active, :] = 0


@compiled
def _enter(slots: Hashes, keys: Hashes) -> None:
    mask = np.uint64(len(slots) - 1)
    for key in keys:
        at = key & mask
        while slots[at] != 0 and slots[at] != key:
            at = (at + np.uint64(1)) & mask
        slots[at] = key


class Ids(NamedTuple):
    """Some of the ids of the generation `number`."""

    number: int
    ids: Hashes


class Duplicates:
    """The ids of a partition's last records."""

    def __init__(self) -> None:
        state = np.zeros(1, _STATE)
        state["number"] = (0, -1)
        self.table = Table(state, np.zeros((2, 1 << 12), np.uint64), np.zeros((2, 1 << 11), np.uint64))
        self._saved: dict[int, int] = {}
        """How many ids of each generation have been saved, by its number."""

    def make_room(self, coming: int) -> None:
        """Keeps both generations' tables at most half full, whatever the next `coming` records hold."""
        state, slots, ids = self.table
        size = slots.shape[1]
        needed = 2 * (int(state["count"].max()) + coming)
        if needed <= size:
            return
        while size < needed:
            size *= 2
        grown, more = np.zeros((2, size), np.uint64), np.zeros((2, size // 2), np.uint64)
        for which, count in enumerate(state["count"][0].tolist()):
            more[which, :count] = ids[which, :count]
            _enter(grown[which], more[which, :count])
        self.table = Table(state, grown, more)

    @property
    def state(self) -> bytes:
        """When the generations began and how many ids they have: what `restore` needs beside the ids."""
        return self.table.state.tobytes()

    def news(self, *, everything: bool = False) -> list[Ids]:
        """The ids that came since this was last asked, or all."""
        state, _, ids = self.table
        out, saved = [], {}
        for which in (1 - int(state["active"][0]), int(state["active"][0])):
            number, count = int(state["number"][0, which]), int(state["count"][0, which])
            first = 0 if everything else self._saved.get(number, 0)
            if count > first:
                out.append(Ids(number, ids[which, first:count]))
            saved[number] = count
        self._saved = saved
        return out

    def restore(self, state: bytes, saved: Iterable[Ids]) -> None:
        """Takes up where `state` was, with the ids that were saved; repeated ones are left out.

        Raises:
            StateError: ids are missing.
        """
        held = np.frombuffer(state, _STATE).copy()
        self.make_room(int(held["count"].max()))
        self.table = Table(held, *self.table[1:])
        generations: dict[int, list[Hashes]] = defaultdict(list)
        for number, ids in saved:
            generations[number].append(ids)
        self._saved = dict(zip(held["number"][0].tolist(), held["count"][0].tolist(), strict=True))
        for which, number in enumerate(held["number"][0].tolist()):
            together = np.concatenate(generations.get(number, [np.zeros(0, np.uint64)]))
            _, first = np.unique(together, return_index=True)
            ids = together[np.sort(first)]
            if len(ids) != held["count"][0, which]:
                raise StateError(f"{len(ids)} of {held['count'][0, which]} ids of a generation were saved")
            self.table.ids[which, : len(ids)] = ids
            _enter(self.table.slots[which], ids)
