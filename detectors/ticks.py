"""Moments in 32 bits: ticks of 16 ms that wrap after two years."""

import numpy as np

from detectors.compiled import compiled

TICK = 16
"""Milliseconds."""
WRAP = 1 << 32


@compiled
def ticks_since(earlier: int, now: int) -> int:
    """Ticks from `earlier` to `now`, both wrapped; negative where `now` is before it."""
    # As signed numbers: unsigned ones would become floats.
    ticks = int((np.int64(now) - np.int64(earlier)) % WRAP)
    return ticks - WRAP if ticks >= WRAP // 2 else ticks
