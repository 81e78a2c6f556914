"""Reads the kill-switch topic's records in the order in which they come, and knows when the table is proven right.

Knows nothing of Kafka.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Event

from tripswitch_gateway.clock import HeartbeatClock
from tripswitch_gateway.commands import CommandVerifier
from tripswitch_gateway.counts import Counts
from tripswitch_gateway.enforcer import Enforcer
from tripswitch_gateway.fields import Refused
from tripswitch_gateway.heartbeats import Heartbeat, is_heartbeat
from tripswitch_gateway.partitions import BEFORE, Partition
from tripswitch_gateway.reports import Reporter
from tripswitch_gateway.revocations import RevocationTable

_log = logging.getLogger(__name__)

_SLICE_S = 0.02
_SLICE_WHEN_SERVING_S = 0.001
_ALIVE_S = 60.0


class Reader:
    """Keeps ``table`` as the topic has it. Used by one thread, but for `settle` and what only tells.

    Records that were there before are collected first and verified then, the newest of each key; those that come later
    are verified as they come. ``ready`` is set when every partition has been read to its end and agrees with a
    heartbeat that came after that; or else after ``patience_s`` seconds, and then the table is stale.

    ``read_again`` has a partition read from its beginning once more.
    """

    def __init__(
        self,
        table: RevocationTable,
        verifier: CommandVerifier,
        clock: HeartbeatClock,
        enforcer: Enforcer,
        reporter: Reporter,
        counts: Counts,
        *,
        patience_s: float,
        read_again: Callable[[int], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready = Event()
        self.partitions: dict[int, Partition] = {}
        self.fresh_until = -math.inf
        """Monotonic seconds until which the table counts as right, unless a heartbeat says otherwise."""
        self.unsettled = False
        """There is a backlog: who is asked about a caller looks there too."""
        self._table = table
        self._verifier = verifier
        self._clock = clock
        self._enforcer = enforcer
        self._reporter = reporter
        self._counts = counts
        self._patience_s = patience_s
        self._read_again = read_again
        self._monotonic = monotonic
        self._began_at = self._alive_at = monotonic()
        self._restored = False
        self._writer_keys: str | None = None
        self._keys_seen = verifier.keys.generation

    def restore(self, offsets: Mapping[int, int], tokens: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Begin with what a snapshot holds: tokens by partition and key, to read on from ``offsets``."""
        partitions = {number: Partition(number) for number in offsets}
        for number, key, value in tokens:
            partitions.setdefault(number, Partition(number)).backlog.add(key, (BEFORE, key, value))
        for number, offset in offsets.items():
            partitions[number].position = offset
        self.partitions = partitions
        self.unsettled = self._restored = bool(partitions)
        self._began_at = self._monotonic()

    def begin(self, numbers: Iterable[int]) -> None:
        """Read these partitions, which are all there are."""
        if not self.partitions:
            self._began_at = self._monotonic()
        # A new dictionary, because other threads may be looking at the old one.
        self.partitions = {number: self.partitions.get(number) or Partition(number) for number in numbers}
        self._reckon_freshness()

    def receive(self, number: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Take one record."""
        partition = self.partitions[number]
        partition.position = max(partition.position, offset + 1)
        live = partition.live_from is not None and offset >= partition.live_from
        if is_heartbeat(key):
            if live:
                self._hear(partition, offset, key, value)
            elif value is not None:
                partition.heartbeat = (offset, key, value)
        elif live:
            self._enforcer.obey(partition, offset, key, value)
        else:
            self._enforcer.keep(partition, offset, key, value)
            # Calls are served from a snapshot while the topic is read.
            self.unsettled = self.unsettled or self.ready.is_set()

    def reach_end(self, number: int, offset: int) -> None:
        """There is nothing in the partition at ``offset`` yet."""
        partition = self.partitions[number]
        if partition.live_from is None:
            partition.live_from = partition.position = offset
        if not partition.reading:
            return
        partition.reading = False
        if partition.heartbeat is not None:
            self._recall(partition)
        self.unsettled = any(one.backlog for one in self.partitions.values())
        self._consider_ready()

    def work(self) -> bool:
        """Verify some of the backlog; returns whether there is more to do."""
        self._enforcer.tell_changes()
        # Reading first: the newest record of a key may be the last of all.
        if not self.unsettled or (self.cold and not self.ready.is_set()):
            return False
        until = self._monotonic() + (_SLICE_WHEN_SERVING_S if self.ready.is_set() else _SLICE_S)
        for partition in self.partitions.values():
            while self._enforcer.settle(partition, None):
                if self._monotonic() > until:
                    return True
        self.unsettled = any(one.backlog for one in self.partitions.values())
        return False

    def settle(self, keys: Iterable[str]) -> None:
        """Verify what the backlog has under these record keys, now: somebody asks for them. Safe in any thread."""
        for key in keys:
            for partition in self.partitions.values():
                self._enforcer.settle(partition, key.encode())

    def tick(self) -> None:
        """What is due from time to time, a few times a second."""
        keys = self._verifier.keys
        keys.refresh()
        if keys.generation != self._keys_seen:
            self._keys_seen = keys.generation
            self._take_keys()
        self._consider_ready()
        if self.ready.is_set() and self._monotonic() - self._alive_at >= _ALIVE_S:
            self._alive_at = self._monotonic()
            self._reporter.alive({**self.state(), "checked": self._counts.asked.take()})

    def staleness_seconds(self) -> dict[int, float]:
        """Seconds since the moment for which each partition was last known to be right; since the start when never."""
        now = self._monotonic()
        agreed = {one.number: one.agreed_at for one in self.partitions.values()}
        return {number: now - (self._began_at if at is None else at) for number, at in agreed.items()}

    @property
    def settled(self) -> bool:
        """Whether the table knows all that was read."""
        return all(self._enforcer.is_settled(one) for one in self.partitions.values())

    @property
    def cold(self) -> bool:
        """Whether the end of some partition has never been reached."""
        return any(one.live_from is None for one in self.partitions.values())

    @property
    def stale(self) -> bool:
        """Whether some partition disagrees with its heartbeats, or has had none for too long."""
        return self._monotonic() > self.fresh_until

    @property
    def keys_differ(self) -> bool:
        """Whether the last heartbeat's writer has other signing keys in its JWKS file than there are here."""
        return self._writer_keys not in (None, self._verifier.keys.sha256)

    def state(self) -> dict[str, object]:
        """What an acknowledgement says of the gateway."""
        return {
            "jwks_sha256": self._verifier.keys.sha256,
            "live": self._table.live_by_action().total(),
            "stale": self.stale,
            "ready": self.ready.is_set(),
            "refused": dict(self._counts.refused),
            "applied": self._counts.applied.total(),
        }

    def _recall(self, partition: Partition) -> None:
        """Learn from the last heartbeat before the start what the next ones must come after."""
        record, partition.heartbeat = partition.heartbeat, None
        if record is None:
            return
        try:
            beat = self._verifier.verify_heartbeat(record[1], record[2], partition.number)
        except Refused as refusal:
            self._reporter.refused(refusal, partition.number, record[0], live=False)
            return
        partition.sequence = max(partition.sequence, beat.sequence)
        self._clock.not_before(beat.at)

    def _hear(self, partition: Partition, offset: int, key: bytes | None, value: bytes | None) -> None:
        try:
            beat = self._verifier.verify_heartbeat(key, value, partition.number)
            if beat.sequence <= partition.sequence:
                raise Refused("heartbeat-replayed")  # noqa: TRY301
            self._clock.check(beat.at)
        except Refused as refusal:
            self._reporter.refused(refusal, partition.number, offset, live=True)
            return
        partition.sequence = beat.sequence
        self._writer_keys = beat.jwks_sha256
        self._counts.heartbeats += 1
        self._clock.heard(partition.number, beat.at)
        # What has been read and not verified yet is not in the table: the next heartbeat will tell.
        if self._enforcer.is_settled(partition):
            self._compare(partition, beat)
            self._reckon_freshness()
            self._consider_ready()

    def _compare(self, partition: Partition, beat: Heartbeat) -> None:
        if partition.shadow is not None and partition.shadow.agrees(beat):
            trusted = self._verifier.keys.kids
            for command in self._table.take_over(partition.number, partition.shadow, trusted, self._clock.now_ms()):
                self._enforcer.tell(command)
            partition.taken_over = True
            self._enforcer.forget_tokens(partition.number)
        partition.shadow = None
        if self._table.agrees(beat):
            if partition.disagrees:
                self._reporter.agrees_again(partition.number)
            partition.disagrees = partition.read_again = False
            # A heartbeat that a broker held back speaks of a moment that is past.
            late_s = max(0, self._clock.now_ms() - beat.at) / 1000
            partition.agreed_at = self._monotonic() - late_s
            return
        if not partition.disagrees:
            partition.disagrees = True
            held, _ = self._table.tally(partition.number, beat.at)
            self._reporter.disagrees(
                partition.number, {"partition": partition.number, "expected": beat.count, "held": held}
            )
        if not partition.read_again:
            self._read_once_more(partition)

    def _read_once_more(self, partition: Partition) -> None:
        """From the beginning, beside the table: what a heartbeat then agrees with replaces what is held."""
        if partition.reading or partition.live_from is None:
            return
        partition.read_again = partition.reading = True
        partition.live_from = partition.position
        partition.shadow = RevocationTable()
        self._read_again(partition.number)

    def _take_keys(self) -> None:
        keys = self._verifier.keys
        self._reporter.keys_taken(keys.sha256)
        self._enforcer.retry(self.partitions)
        # What a key signed that is trusted no more stays until a heartbeat proves what is right: a block too many can
        # be lifted, a restore too many is a thief let in.
        suspect = {held.partition for held in self._table.commands().values() if held.kid not in keys.kids}
        for number in suspect & self.partitions.keys():
            self._read_once_more(self.partitions[number])

    def _reckon_freshness(self) -> None:
        agreed = [-math.inf if one.disagrees else one.agreed_at for one in self.partitions.values()]
        known = [at for at in agreed if at is not None]
        self.fresh_until = min(known) + self._patience_s if known and len(known) == len(agreed) else -math.inf

    def _consider_ready(self) -> None:
        if self.ready.is_set() or not self.partitions:
            return
        took_s = self._monotonic() - self._began_at
        # With a snapshot and no broker the last known blocks are better than no gateway.
        unread = not self._restored and any(one.reading for one in self.partitions.values())
        if unread or (self.stale and took_s < self._patience_s):
            return
        self.ready.set()
        if self.stale:
            _log.warning("ready without proof: no heartbeat agrees yet")
        self._reporter.cold_start(
            {
                "partitions": len(self.partitions),
                "commands": self._counts.applied.total(),
                "unverified": sum(len(one.backlog) for one in self.partitions.values()),
                "took_ms": round(took_s * 1000),
                **{name: value for name, value in self.state().items() if name not in ("applied", "ready")},
            }
        )
        self._reporter.keys_taken(self._verifier.keys.sha256)
