"""What other identities of a partition see at the same time: is it one's own doing, or do all share it?

An identity has one voice in half a minute: what its first call then met with, well or ill, in some matter (a provider,
a gateway's route). So a single loud one is no crowd. The table is small, whatever names callers invent.
"""

import numpy as np

from detectors.compiled import Row, State, compiled
from detectors.view import Detector

SLOT = 30_000
"""Milliseconds. Voices are compared over two slots; how many they are, by the fullest of four."""
_SLOTS, _MATTERS, _KINDS = 4, 32, 3
_MATTER = np.dtype([
    ("key", "u8"), ("slot", "i8"), ("well", "i4", (_SLOTS,)), ("ill", "i4", (_SLOTS, _KINDS)),
])  # fmt: skip
FIELDS = [("slot", "u4"), ("well", "u1"), ("ill", "u1"), ("of", "u1")]
"""What an identity's row has for its own voices: a bit per slot, the last one lowest, and of which matter."""


class Listener(Detector):
    """A detector that asks what other identities see: the voices are what is shared."""

    def __init__(self) -> None:
        self.voices: State = np.zeros(_MATTERS, _MATTER)

    def save_shared(self) -> bytes:
        """What the partition's identities said lately."""
        return self.voices.tobytes()

    def restore_shared(self, saved: bytes) -> None:
        """Takes what `save_shared` gave."""
        if len(saved) == self.voices.nbytes:
            self.voices = np.frombuffer(saved, self.voices.dtype).copy()


@compiled
def _matter(voices: State, key: np.uint64, slot: int) -> Row:
    """The matter's entry; a new one takes the place of the one that was heard of longest ago."""
    oldest = 0
    for k in range(_MATTERS):
        if voices[k].key == key and voices[k].slot > 0:
            oldest = k
            break
        if voices[k].slot < voices[oldest].slot:
            oldest = k
    matter = voices[oldest]
    if matter.key != key or matter.slot == 0:
        matter.key = key
        matter.slot = 0
    if slot > matter.slot:
        for back in range(min(slot - matter.slot, _SLOTS)):
            matter.well[(slot - back) % _SLOTS] = 0
            matter.ill[(slot - back) % _SLOTS, :] = 0
        matter.slot = slot
    return matter


@compiled
def speak(voices: State, row: Row, key: np.uint64, t: int, kind: int) -> None:
    """Counts what an identity saw at `t` (ms): `kind` says which ill it was, -1 that it went well."""
    slot = t // SLOT
    if slot > row.slot:
        ahead = min(slot - np.int64(row.slot), 8)
        row.well = (row.well << ahead) & 15
        row.ill = (row.ill << ahead) & 15
        row.slot = slot
    # The first call of a slot speaks: who calls often must not seem worse than who calls rarely.
    if slot < row.slot or (row.well | row.ill) & 1 == 1:
        return
    matter = _matter(voices, key, slot)
    if kind < 0:
        row.well |= 1
        matter.well[slot % _SLOTS] += 1
    else:
        row.ill |= 1
        matter.ill[slot % _SLOTS, kind] += 1
    row.of = key & np.uint64(255)


@compiled
def listen(voices: State, row: Row, key: np.uint64, kind: int) -> tuple[int, int, int]:
    """How many other identities said in one slot that it goes ill; and of the voices of the last two slots, as of the
    identity's own last one, how many did, and how many that it goes well."""
    most, ill, well = 0, 0, 0
    mine = 1 if row.of == key & np.uint64(255) else 0
    for k in range(_MATTERS):
        if voices[k].key != key:
            continue
        for back in range(_SLOTS):
            slot = np.int64(row.slot) - back
            if slot <= voices[k].slot - _SLOTS or slot > voices[k].slot:
                continue
            told = max(voices[k].ill[slot % _SLOTS, kind] - mine * (row.ill >> back & 1), 0)
            most = max(most, told)
            if back < 2:
                ill += told
                well += max(voices[k].well[slot % _SLOTS] - mine * (row.well >> back & 1), 0)
    return most, ill, well


@compiled
def said_now(voices: State, row: Row, key: np.uint64) -> tuple[int, int]:
    """How many other identities said in the slot of the identity's last call that it goes ill, and how many well."""
    ill, well = 0, 0
    mine = 1 if row.of == key & np.uint64(255) else 0
    for k in range(_MATTERS):
        slot = np.int64(row.slot)
        if voices[k].key == key and slot <= voices[k].slot < slot + _SLOTS:
            for kind in range(_KINDS):
                ill += voices[k].ill[slot % _SLOTS, kind]
            ill -= mine * (row.ill & 1)
            well += voices[k].well[slot % _SLOTS] - mine * (row.well & 1)
    return ill, well
