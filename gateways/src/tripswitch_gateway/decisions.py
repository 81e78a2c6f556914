"""The answer to the question that a gateway asks on every call."""

from typing import NamedTuple

from tripswitch_gateway.claims import Command

TOO_MANY_REQUESTS = 429
_STALE_RETRY_S = 5.0


class Decision(NamedTuple):
    """May this call go on?

    ``command`` is the strictest one that matches, None when nothing does; an allowed call may still have one, whose
    ``model`` (if any) is then the only one to use. ``status`` is what to answer: 200, the command's own, or 429 over a
    rate, with ``retry_after_s`` seconds to wait. ``matches`` are all live commands on the caller, strictest first.
    ``reason`` says why a call is denied that no command denies.
    """

    allowed: bool
    status: int
    command: Command | None = None
    retry_after_s: float | None = None
    model: str | None = None
    matches: tuple[Command, ...] = ()
    reason: str = ""


ALLOWED = Decision(allowed=True, status=200)
STALE = Decision(allowed=False, status=503, retry_after_s=_STALE_RETRY_S, reason="kill switch stale")
