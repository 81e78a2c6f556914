"""Moments in rows: seconds since 1970 in 32 bits, which last until 2106."""

from detectors.compiled import compiled

_LATEST = (1 << 32) - 1


@compiled
def seconds_of(millis: int) -> int:
    """The second of a moment in ms since 1970; the first or the last one that 32 bits hold where it lies beyond."""
    return min(max(millis // 1000, 0), _LATEST)
