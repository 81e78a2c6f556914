"""Takes the records of commands into the table: verified, counted, told of and acknowledged."""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from threading import Lock

from tripswitch_gateway.claims import Command, glimpse_epoch
from tripswitch_gateway.clock import HeartbeatClock
from tripswitch_gateway.commands import CommandVerifier
from tripswitch_gateway.counts import Counts
from tripswitch_gateway.fields import Refused
from tripswitch_gateway.partitions import MAX_KEPT, Partition, Record
from tripswitch_gateway.reports import Reporter
from tripswitch_gateway.revocations import Outcome, RevocationTable

_log = logging.getLogger(__name__)

_MAX_PARKED = 256
# Of a partition. What comes above it is verified while it is read, which is slow and takes no more memory.
_MAX_BACKLOG_BYTES = 2 << 30


class Enforcer:
    """Puts commands into ``table``. Used by one thread, but for `settle`.

    ``on_change`` is called after each command that took force, in the thread of `obey` and `tell_changes`.
    """

    def __init__(
        self,
        table: RevocationTable,
        verifier: CommandVerifier,
        clock: HeartbeatClock,
        reporter: Reporter,
        counts: Counts,
        on_change: Callable[[Command], None] | None = None,
    ) -> None:
        self._table = table
        self._verifier = verifier
        self._clock = clock
        self._reporter = reporter
        self._counts = counts
        self._on_change = on_change
        self._settling = Lock()
        self._changed: deque[Command] = deque()
        # Signed with a key that is not in the file yet: tried again when the file changes.
        self._parked: deque[tuple[int, Record]] = deque(maxlen=_MAX_PARKED)
        self.tokens: dict[bytes, tuple[int, bytes]] | None = None
        """Partition and value of the last command by record key, for a snapshot; None when nobody wants them."""
        self.changes = 0
        """How often ``tokens`` was changed."""

    def forget_tokens(self, partition: int) -> None:
        """Drop the tokens of a partition, because the table holds others of it now."""
        if self.tokens is not None:
            self.tokens = {key: token for key, token in self.tokens.items() if token[0] != partition}
            self.changes += 1

    def is_settled(self, partition: Partition) -> bool:
        """Whether the table knows every record of the partition that was read."""
        with self._settling:
            return not partition.reading and not partition.backlog

    def keep(self, partition: Partition, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Collect a record that was there before; what can never be a command is refused at once."""
        try:
            self._verifier.glance(key, value)
        except Refused as refusal:
            # What is read again was counted before.
            if partition.shadow is None:
                self._refuse(partition, (offset, key, value or b""), refusal, live=False)
            return
        assert key is not None
        assert value is not None
        kept = partition.backlog.add(key, (offset, key, value))
        # Nobody may fill the memory by writing over one key again and again, nor with many large records.
        if kept >= MAX_KEPT or partition.backlog.size > _MAX_BACKLOG_BYTES:
            self.settle(partition, key)

    def settle(self, partition: Partition, key: bytes | None) -> bool:
        """Verify what is collected under ``key`` (of some key when None).

        The greatest epoch comes first, until one is genuine. Returns whether there was anything. Safe in any thread.
        """
        with self._settling:
            records = partition.backlog.take(key)
            if len(records) > 1:
                records.sort(key=_epoch_of, reverse=True)
            best = -1
            for record in records:
                if best >= 0 and best > _epoch_of(record):
                    break
                try:
                    command = self._verify(partition, record)
                except Refused as refusal:
                    self._refuse(partition, record, refusal, live=False)
                    continue
                best = command.epoch
                self._apply(partition, command, record, live=False)
        return bool(records)

    def obey(self, partition: Partition, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Take a record that came in while the gateway ran."""
        if key is not None and partition.backlog:
            self.settle(partition, key)
        record = (offset, key, value or b"")
        try:
            if value is None:
                raise Refused("tombstone")  # noqa: TRY301
            command = self._verify(partition, record)
        except Refused as refusal:
            self._refuse(partition, record, refusal, live=True)
            return
        self._apply(partition, command, record, live=True)

    def retry(self, partitions: Mapping[int, Partition]) -> None:
        """Try again what was signed with keys that were unknown."""
        parked, self._parked = self._parked, deque(maxlen=_MAX_PARKED)
        for number, (offset, key, value) in parked:
            self.obey(partitions[number], offset, key, value)

    def tell_changes(self) -> None:
        """Tell of the commands of the backlog that took force, in the thread that calls."""
        while self._changed:
            self.tell(self._changed.popleft())

    def _verify(self, partition: Partition, record: Record) -> Command:
        _, key, value = record
        return self._verifier.verify(key, value, self._clock.now_ms(), partition.number)

    def _apply(self, partition: Partition, command: Command, record: Record, *, live: bool) -> None:
        # Streams are cut before the acknowledgement, so that it never says more than is true.
        # 1. The table: new calls are refused from here on.
        now_ms = self._clock.now_ms()
        conflicts = self._table.conflicts
        outcome = self._table.apply(command, now_ms)
        if partition.shadow is not None:
            partition.shadow.apply(command, now_ms)
        if self._table.conflicts > conflicts:
            self._reporter.two_writers(command, record[0])
        if outcome in (Outcome.SUPERSEDED, Outcome.CONFLICT) and live:
            reason = "older-epoch" if outcome is Outcome.SUPERSEDED else "same-epoch"
            self._reporter.refused(Refused(reason), partition.number, record[0], live=True)
        if outcome not in (Outcome.SUPERSEDED, Outcome.CONFLICT) and self.tokens is not None:
            self.tokens[command.key.encode()] = (partition.number, record[2])
            self.changes += 1
        if outcome not in (Outcome.APPLIED, Outcome.EXPIRED):
            return
        # 2. Calls already under way.
        if outcome is Outcome.APPLIED:
            if live:
                self.tell(command)
            else:
                self._changed.append(command)
        # 3. The acknowledgement; those of a cold start are summed up in one.
        self._reporter.applied(command, record[0], now_ms, expired=outcome is Outcome.EXPIRED, live=live)

    def tell(self, command: Command) -> None:
        """Call ``on_change``."""
        if self._on_change is None:
            return
        try:
            self._on_change(command)
        except Exception:  # noqa: BLE001
            # The listener is the gateway's own code: its fault must not keep the next block from taking force.
            self._counts.callback_errors += 1
            _log.exception("on_change failed for command %s", command.command_id)

    def _refuse(self, partition: Partition, record: Record, refusal: Refused, *, live: bool) -> None:
        if refusal.reason == "unknown-kid":
            self._parked.append((partition.number, record))
        self._reporter.refused(refusal, partition.number, record[0], live=live)


def _epoch_of(record: Record) -> int:
    return glimpse_epoch(record[2])
