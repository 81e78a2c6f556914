"""What `detectors.drift` counts: sessions that begin, and calls that name none.

Who works through one long conversation has not more to do than usual, however many calls it takes; who serves another
customer has.
"""

import numpy as np

from detectors.compiled import Row, compiled
from detectors.drift_usual import NAMED, RECENT

_MOST = np.iinfo(np.uint16).max
_MARKS = 255
"""Of sessions: one in so many is taken for another, and not counted, today as ever."""


@compiled
def count_start(row: Row, session: np.uint64) -> None:
    """Counts the call if it names no session, or one that is none of the last few."""
    if session == np.uint64(0):
        row.flags &= ~NAMED & 255
        row.fresh = min(row.fresh + 1, _MOST)
        return
    row.flags |= NAMED
    # 0 is no session's mark.
    mark = session % np.uint64(_MARKS) + np.uint64(1)
    for k in range(RECENT):
        if row.recent[k] == mark:
            return
    for k in range(RECENT - 1, 0, -1):
        row.recent[k] = row.recent[k - 1]
    row.recent[0] = mark
    row.fresh = min(row.fresh + 1, _MOST)
