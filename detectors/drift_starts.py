"""What `detectors.drift` counts: sessions that begin, and calls that name none.

Who works through one long conversation has not more to do than usual, however many calls it takes; who serves another
customer has.
"""

import numpy as np

from detectors.compiled import Row, compiled
from detectors.drift_usual import NAMED, RECENT


@compiled
def count_start(row: Row, session: np.uint64) -> None:
    """Counts the call if it names no session, or one that is none of the last few."""
    if session == np.uint64(0):
        row.flags &= ~NAMED & 255
        row.fresh += 1.0
        return
    row.flags |= NAMED
    # 0 is no session's mark.
    mark = np.uint16((session & np.uint64(0xFFFF)) | np.uint64(1))
    for k in range(RECENT):
        if row.recent[k] == mark:
            return
    for k in range(RECENT - 1, 0, -1):
        row.recent[k] = row.recent[k - 1]
    row.recent[0] = mark
    row.fresh += 1.0
