"""How far one partition of the kill-switch topic has been read, and whether its writer's heartbeats agree."""

from tripswitch_gateway.revocations import RevocationTable

Record = tuple[int, bytes | None, bytes]
"""Offset, key and value."""

MAX_KEPT = 8
BEFORE = -1
"""The offset of a record that comes from a snapshot."""


class Backlog:
    """Records that were read but not verified yet: those before the end that the reading began with.

    Only the newest of a key matters, and a signature costs far more than reading. All are kept, because the last record
    of a key may be garbage that somebody wrote over a live block. Safe for one that adds while others take.
    """

    def __init__(self) -> None:
        # A list only for keys that have several: a million lists would be looked through by each garbage collection.
        self._records: dict[bytes, Record | list[Record]] = {}
        self.size = 0
        """Bytes of the values, about: what was taken out in the middle of an addition may still be counted."""

    def add(self, key: bytes, record: Record) -> int:
        """Keep a record; returns how many there are of its key."""
        self.size += len(record[2])
        held = self._records.setdefault(key, record)
        if held is record:
            return 1
        # A new list: somebody may take the old one this moment, and what he has is verified twice rather than never.
        records = [*held, record] if isinstance(held, list) else [held, record]
        self._records[key] = records
        return len(records)

    def take(self, key: bytes | None) -> list[Record]:
        """Take out the records of ``key`` (of some key when None), oldest first."""
        if not self._records:
            return []
        held = self._records.popitem()[1] if key is None else self._records.pop(key, [])
        records = held if isinstance(held, list) else [held]
        self.size -= sum(len(value) for _, _, value in records)
        return records

    def __len__(self) -> int:
        return len(self._records)


class Partition:
    """One partition, as the reader knows it. ``live_from`` is the first offset that was not there when it began."""

    __slots__ = (
        "agreed_at",
        "backlog",
        "disagrees",
        "heartbeat",
        "live_from",
        "number",
        "position",
        "read_again",
        "reading",
        "sequence",
        "shadow",
        "taken_over",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.reading = True
        """Records from before ``live_from`` are still to come."""
        self.live_from: int | None = None
        self.position = 0
        self.backlog = Backlog()
        self.heartbeat: Record | None = None
        """The last one of the backlog."""
        self.sequence = -1
        self.agreed_at: float | None = None
        """Monotonic seconds of the moment for which the table was last known to be right."""
        self.disagrees = False
        self.read_again = False
        """The partition has been read a second time because of the disagreement there is."""
        self.shadow: RevocationTable | None = None
        """What a second reading found, by itself."""
        self.taken_over = False
        """The table holds what a second reading found."""

    @property
    def resume_at(self) -> int | None:
        """Where to read on after an interruption; None: from the beginning."""
        reading_again = self.reading and self.live_from is not None
        return None if reading_again or self.position == 0 else self.position
