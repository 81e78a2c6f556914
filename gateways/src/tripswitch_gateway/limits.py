"""Token buckets, for callers that may go on more slowly."""

# A caller may spend ten seconds' worth at once: enough for an honest burst, too little to matter to a thief.
BURST_SECONDS = 10.0
MINUTE_MS = 60_000.0


class Bucket:
    """``per_minute`` units a minute, at most ten seconds' worth (never less than one unit) at once.

    The clock is the caller's, in milliseconds; a clock that goes backwards refills nothing. Not thread-safe.
    """

    __slots__ = ("_at_ms", "_capacity", "_level", "_per_ms")

    def __init__(self, per_minute: float, now_ms: float) -> None:
        self._capacity = self._level = 0.0
        self._at_ms = now_ms
        self.set_rate(per_minute)
        self._level = self._capacity

    def set_rate(self, per_minute: float) -> None:
        """Change the rate and keep the level: a renewed throttle is no fresh allowance."""
        self._per_ms = per_minute / MINUTE_MS
        self._capacity = max(1.0, per_minute * BURST_SECONDS / 60.0) if per_minute > 0 else 0.0
        self._level = min(self._level, self._capacity)

    def wait_ms(self, now_ms: float) -> float:
        """Milliseconds until one unit is there: 0 when it is there now, a minute when there will never be one."""
        if now_ms > self._at_ms:
            self._level = min(self._capacity, self._level + (now_ms - self._at_ms) * self._per_ms)
            self._at_ms = now_ms
        if self._level >= 1.0:
            return 0.0
        return (1.0 - self._level) / self._per_ms if self._per_ms > 0 else MINUTE_MS

    def take(self, units: float) -> None:
        """Take ``units``, into debt if need be: what a call cost is known only after it."""
        self._level -= units


class Allowance:
    """The buckets of one limited key; None where there is no such limit. Not thread-safe."""

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None

    def set_rates(self, rpm: float | None, tpm: float | None, now_ms: float) -> None:
        """Limit requests and tokens per minute; a level that is there already is kept."""
        self.requests = _at_rate(self.requests, rpm, now_ms)
        self.tokens = _at_rate(self.tokens, tpm, now_ms)

    def wait_ms(self, now_ms: float) -> float:
        """Milliseconds until the next call may go on."""
        requests = self.requests.wait_ms(now_ms) if self.requests else 0.0
        tokens = self.tokens.wait_ms(now_ms) if self.tokens else 0.0
        return max(requests, tokens)


def _at_rate(bucket: Bucket | None, per_minute: float | None, now_ms: float) -> Bucket | None:
    if per_minute is None:
        return None
    if bucket is None:
        return Bucket(per_minute, now_ms)
    bucket.set_rate(per_minute)
    return bucket
