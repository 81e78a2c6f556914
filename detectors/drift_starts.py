"""What `detectors.drift` counts: sessions that begin, and calls that name none.

Who works through one long conversation has not more to do than usual, however many calls it takes; who serves another
customer has.
"""

import numpy as np

from detectors.buckets import BUCKET
from detectors.compiled import Row, compiled
from detectors.drift_usual import NAMED, RECENT

_MARKS = 255
"""Of sessions: one in so many is taken for another, and not counted, today as ever."""
_MOST = 255


@compiled
def note_session(row: Row, session: np.uint64, time: int, late: bool) -> None:
    """Takes a call in that ended at `time` (ms); a `late` one is in no bucket."""
    if session == np.uint64(0):
        row.flags &= ~NAMED & 255
        return
    row.flags |= NAMED
    # 0 is no session's mark.
    mark = session % np.uint64(_MARKS) + np.uint64(1)
    for k in range(RECENT):
        if row.recent[k] == mark:
            if not late:
                place = time // BUCKET % 2
                row.continued[place] = min(row.continued[place] + 1, _MOST)
            return
    for k in range(RECENT - 1, 0, -1):
        row.recent[k] = row.recent[k - 1]
    row.recent[0] = mark


@compiled
def starts_of(row: Row, calls: float, end: int) -> float:
    """Of the calls of a bucket that closes, those that began a session, or named none."""
    place = (end // BUCKET - 1) % 2
    # Where few events come, more than two buckets are open: what was continued in a later one is not lost.
    continued = min(int(calls), row.continued[place])
    row.continued[place] -= continued
    return float(calls - continued)
