"""What is saved of a partition: what changed since the last checkpoint, and in turn everything else.

A round of checkpoints writes every row at least once: those that changed when they did, the others as the *sweep*
passes them. So the state follows from the last complete round and what came after it, and older records can go.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from detectors.clock import Clock, SavedClock
from detectors.duplicates import Ids
from detectors.identities import Identities, Names, Rows
from detectors.image import Layout, empty, layout_of, pack, unpack
from detectors.view import Detector
from detectors.windows import Windows
from schemas.batch import Flags, Hashes, Ints
from schemas.piece import Checkpoint, Piece, StateError, seal, unseal

_FORMATS = {"head": 3, "names": 2, "ids": 1, "rows": 1}
"""The version of each kind of piece; a change to what is in one is a new version."""
_REMEDY = "run the version that saved it, or delete the state topic's records and let the identities be learnt anew"
_ROUND = 300
"""Checkpoints in which a round ends, however little changes."""
_PIECE_ROWS = 512
_PIECE_NAMES = 4096
_PIECE_IDS = 1 << 16

_Body = TypeVar("_Body")
_Column = TypeVar("_Column", Ints, Hashes)


class _Head(Struct, array_like=True):
    """Begins a checkpoint. `cursor` is the row at which the sweep goes on; `due` when silent rows are next freed."""

    begins: bool
    layout: Layout
    cursor: int
    due: int
    clock: SavedClock
    shared: dict[str, bytes]


class _Ids(Struct, array_like=True):
    generation: int
    ids: bytes


class Saved:
    """Makes a partition's checkpoints, and puts a partition back from them."""

    def __init__(self, identities: Identities, clock: Clock, windows: Windows, detectors: Iterable[Detector]) -> None:
        self._identities = identities
        self._clock = clock
        self._windows = windows
        self._detectors = {detector.name: detector for detector in detectors}
        self._changed: Flags = np.zeros(0, np.bool_)
        self._written: Flags = np.zeros(0, np.bool_)
        """Rows that were written since the round began, and those whose names were."""
        self._named: Flags = np.zeros(0, np.bool_)
        self._cursor = 0
        self._begins = True

    @property
    def components(self) -> dict[str, Rows]:
        """Every structured array over the identities' rows. All have room for every identity."""
        count = len(self._identities)
        components = {"identities": self._identities.columns, "windows": self._windows.rows}
        for name, detector in self._detectors.items():
            components |= {f"{name}.{part}": rows for part, rows in detector.components.items()}
        for rows in components.values():
            rows.reach(count)
        return components

    def touch(self, *rows: Ints) -> None:
        """Notes which rows changed."""
        self._make_room(len(self._identities))
        for some in rows:
            self._changed[some] = True

    def checkpoint(self, due: int) -> Checkpoint:
        """What changed since the last one, and the next slice of the sweep."""
        begins, count = self._begins, len(self._identities)
        if begins:
            self._written[:] = self._named[:] = False
            self._cursor = 0
        changed = np.flatnonzero(self._changed)
        self._changed[changed] = False
        self._written[changed] = True
        first = self._cursor
        last = min(count, first + len(changed) // 2 + count // _ROUND + 1)
        slice_of = first + np.flatnonzero(~self._written[first:last])
        self._written[first:last] = True
        self._cursor, self._begins = last, last >= count
        rows = np.concatenate([changed, slice_of])
        for detector in self._detectors.values():
            detector.settle()
        components = self.components
        shared = {name: detector.save_shared() for name, detector in self._detectors.items()}
        head = _Head(begins, layout_of(components), self._cursor, due, self._clock.save(), shared)
        pieces = [_seal("head", head)]
        names = self._identities.renamed()
        self._named[names] = True
        names = np.concatenate([names, first + np.flatnonzero(~self._named[first:last])])
        self._named[first:last] = True
        pieces += [_seal("names", self._identities.named(some)) for some in _cut(names, _PIECE_NAMES)]
        for generation, ids in self._clock.news(everything=begins):
            pieces += [_seal("ids", _Ids(generation, some.tobytes())) for some in _cut(ids, _PIECE_IDS)]
        pieces += [
            seal("rows", _FORMATS["rows"], pack(components, some, self._windows.rows.array, self._windows.pool))
            for some in _cut(rows, _PIECE_ROWS)
        ]
        return Checkpoint(begins, pieces)

    def restore(self, pieces: Iterable[bytes]) -> int:
        """Takes up where the last of the checkpoints in `pieces` was, and returns its `due`.

        Raises:
            StateError: a piece can't be read, or not by this version.
        """
        head: _Head | None = None
        ids: list[Ids] = []
        ours = self.components
        saved: dict[str, Rows] = {}
        pool = self._windows.pool
        for raw in pieces:
            piece = unseal(raw)
            _check(piece)
            if piece.kind == "head":
                layout = head.layout if head else None
                head = _body(piece, _Head)
                if head.layout != layout:
                    saved = _converted(saved, head.layout, ours)
                if head.begins:
                    self._written[:] = self._named[:] = False
            elif piece.kind == "names":
                names = _body(piece, Names)
                self._identities.adopt(names)
                rows = np.frombuffer(names.rows, np.int64)
                self._make_room(int(rows.max(initial=-1)) + 1)
                self._named[rows] = True
            elif piece.kind == "ids":
                some = _body(piece, _Ids)
                ids.append(Ids(some.generation, np.frombuffer(some.ids, np.uint64)))
            elif head is not None:
                rows, pool = unpack(saved, piece.body, saved["windows"], pool)
                self._make_room(int(rows.max(initial=-1)) + 1)
                self._written[rows] = True
        if head is None:
            raise StateError("the saved state has no beginning")
        for name, component in _converted(saved, layout_of(ours), ours).items():
            ours[name].become(component)
        self._windows.pool = pool
        self._identities.adopted()
        self._clock.restore(head.clock, ids)
        for name, shared in head.shared.items():
            if name in self._detectors:
                self._detectors[name].restore_shared(shared)
        self._cursor = head.cursor
        # The round goes on even if rows are laid out otherwise now: whoever reads it converts what was written before.
        # To begin another would say that this one is complete, and what it has not written yet would be deleted.
        self._begins = head.cursor >= len(self._identities)
        return head.due

    def _make_room(self, count: int) -> None:
        more = max(count, 2 * len(self._changed), 256) - len(self._changed) if count > len(self._changed) else 0
        if more:
            blank = np.zeros(more, np.bool_)
            self._changed = np.concatenate([self._changed, blank])
            self._written = np.concatenate([self._written, blank])
            self._named = np.concatenate([self._named, blank])


def _converted(saved: dict[str, Rows], layout: Layout, ours: dict[str, Rows]) -> dict[str, Rows]:
    """`saved`, laid out as `layout` says: fields that are new are blank, fields that are gone are dropped.

    Raises:
        StateError: a field has become something else.
    """
    if saved and layout_of(saved) == layout:
        return saved
    out = empty(layout, ours)
    for name, rows in out.items():
        if name not in saved:
            continue
        old = saved[name].array
        rows.reach(len(old))
        for field in set(rows.array.dtype.names or ()) & set(old.dtype.names or ()):
            here, there = rows.array.dtype[field], old.dtype[field]
            if here != there:
                raise StateError(f"the saved state has {name}.{field} as {there}, this version as {here}: " + _REMEDY)
            rows.array[field][: len(old)] = old[field]
    return out


def _check(piece: Piece) -> None:
    known = _FORMATS.get(piece.kind)
    if piece.format != known:
        can = "does not know such pieces" if known is None else f"reads version {known}"
        raise StateError(
            f"the saved state has a piece {piece.kind!r} of version {piece.format}, this version {can}: {_REMEDY}"
        )


def _seal(kind: str, body: object) -> bytes:
    return seal(kind, _FORMATS[kind], msgspec.msgpack.encode(body))


def _body(piece: Piece, kind: type[_Body]) -> _Body:
    try:
        return msgspec.msgpack.decode(piece.body, type=kind)
    except msgspec.MsgspecError as error:
        raise StateError(f"a piece {piece.kind!r} of the saved state can't be read: {error}") from error


def _cut(things: _Column, size: int) -> Iterator[_Column]:
    for first in range(0, len(things), size):
        yield things[first : first + size]
