"""What time it is by the writers of the kill switch, whatever this machine's own clock says."""

import time
from collections.abc import Callable
from statistics import median_low

from tripswitch_gateway.commands import MAX_AHEAD_MS, wall_clock_ms
from tripswitch_gateway.fields import Refused

# How far this machine's clock may be off: the bound on heartbeats while there is no other clock to judge them by.
MAX_OFF_MS = 2 * MAX_AHEAD_MS


class HeartbeatClock:
    """Unix milliseconds: the last heartbeats' times and a monotonic clock; this machine's clock before the first.

    Each partition's last heartbeat says how far the writer's clock is from our monotonic one, and the median of them is
    believed: one writer with a wrong clock, or some partitions held back by a broker, move nobody.
    """

    def __init__(
        self, wall_ms: Callable[[], int] = wall_clock_ms, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall_ms = wall_ms
        self._monotonic = monotonic
        self._offsets: dict[int, int] = {}
        self._offset: int | None = None
        self._floor = 0

    def now_ms(self) -> int:
        """The time now."""
        if self._offset is None:
            return max(self._wall_ms(), self._floor)
        return int(self._monotonic() * 1000) + self._offset

    def check(self, at: int) -> None:
        """Raise `Refused` when a heartbeat that comes in now can't have been written at ``at``."""
        now = self.now_ms()
        if at > now + (MAX_OFF_MS if self._offset is None else MAX_AHEAD_MS):
            raise Refused("from-the-future")
        if at < now - MAX_OFF_MS:
            raise Refused("from-the-past")

    def heard(self, partition: int, at: int) -> None:
        """A heartbeat of ``partition`` came in this moment that was written at ``at``."""
        self._offsets[partition] = at - int(self._monotonic() * 1000)
        self._offset = median_low(self._offsets.values())

    def not_before(self, at: int) -> None:
        """It is not earlier than ``at``: a heartbeat says so that was written some time ago."""
        if at <= self._wall_ms() + MAX_OFF_MS:
            self._floor = max(self._floor, at)

    @property
    def wall_offset_ms(self) -> int | None:
        """How far this machine's clock is ahead of the writers'; None before the first heartbeat."""
        return None if self._offset is None else self._wall_ms() - self.now_ms()
