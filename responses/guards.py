"""What forbids a block, whatever the evidence."""

from responses.config import Response
from schemas.directory import Directory
from schemas.finding import Finding
from schemas.times import parse_millis


def forbidden(finding: Finding, directory: Directory, response: Response, arrived: int) -> str | None:
    """Why no block may follow from `finding`, or None. `arrived` is when it reached us in ms (0: unknown)."""
    entry = directory.identities.get(finding.identity)
    if entry is not None and entry.protected and entry.tenant in (None, finding.tenant):
        return "the directory protects this identity"
    if finding.evidence.claimed:
        return "the caller chose this name itself: its owner is not to blame"
    if arrived and arrived - parse_millis(finding.time) > response.backlog_seconds * 1000:
        return "found behind a backlog"
    if not finding.evidence.deterministic and finding.evidence.age_seconds < response.grace_minutes * 60:
        return "the identity is too new to judge"
    return None


class Caps:
    """How many identities were blocked within the window, per tenant and in all.

    The last `cap_all` + 1 of them are kept: while more were blocked within the window, no other may be anyway.
    """

    def __init__(self, response: Response) -> None:
        self._response = response
        self._last: dict[tuple[str, str], int] = {}
        """When (ms) each (tenant, identity) was blocked last; the latest comes last."""

    def reached(self, tenant: str, identity: str, moment: int) -> bool:
        """Whether one more identity may not be blocked at `moment` (ms)."""
        others = [at for at, _ in self.within(moment) if at != (tenant, identity)]
        of_tenant = sum(t == tenant for t, _ in others)
        return of_tenant >= self._response.cap_tenant or len(others) >= self._response.cap_all

    def count(self, tenant: str, identity: str, moment: int) -> None:
        """Takes note of a block."""
        self._last.pop((tenant, identity), None)
        self._last[tenant, identity] = moment
        if len(self._last) > self._response.cap_all + 1:
            del self._last[next(iter(self._last))]

    def within(self, moment: int) -> list[tuple[tuple[str, str], int]]:
        """Who was blocked within the window before `moment` (ms), and when (ms)."""
        since = moment - self._response.cap_window_minutes * 60_000
        return [(at, when) for at, when in self._last.items() if when >= since]
