"""What a gateway has seen of the kill switch, counted for its metrics and its acknowledgements."""

from bisect import bisect_left
from collections import Counter

from tripswitch_gateway.asked import Asked

PROPAGATION_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Histogram:
    """How often a value was at most each bound; not thread-safe for its writer, of which there is one."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count ``value``."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counts:
    """All of it since the start of the process. Written by the subscriber's thread, but for ``asked``."""

    def __init__(self) -> None:
        self.asked = Asked()
        self.refused: Counter[str] = Counter()
        """Records that were no command to obey, by reason."""
        self.applied: Counter[str] = Counter()
        """Commands that took force, by action."""
        self.break_glass = 0
        """Commands signed by a break-glass key."""
        self.disagreements = 0
        """How often the table began to disagree with a heartbeat."""
        self.heartbeats = 0
        self.acks_dropped = 0
        self.callback_errors = 0
        self.propagation = Histogram(PROPAGATION_BUCKETS_S)
        """Seconds from a live command's ``not_before`` until it was in force."""
