"""Orders that one person alone can't give: those on a whole tenant wait for another person's word."""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from schemas.request import Request

_MOST = 100
"""Orders that wait, the last ones."""


class Refused(ValueError):
    """An order that can't be carried out: says why."""


class Waiting(Struct, frozen=True):
    """An order that waits for a second person until `until` (ms)."""

    request: Request
    until: int


class SecondPerson:
    """Keeps the orders that wait. Who gave an order is known by the key that signed it, not by what it says."""

    def __init__(self, minutes: float) -> None:
        self._patience = int(minutes * 60_000)
        self._waiting: dict[str, Waiting] = {}

    def agreed(self, request: Request, person: str | None, now: int) -> Request | None:
        """The order to carry out, now that `person` (None: the key names nobody) has sent `request`; None: it waits.

        Raises:
            Refused: this person can't order that. Nothing has changed.
        """
        if request.approves is None and request.scope != "tenant":
            return request
        if person is None:
            raise Refused(
                "an order on a whole tenant takes two persons, and the key that signed this one names nobody; "
                "`tripswitch keys new --person NAME` makes one that does"
            )
        if request.approves is None:
            self._waiting[request.request_id] = Waiting(request, now + self._patience)
            while len(self._waiting) > _MOST:
                del self._waiting[next(iter(self._waiting))]
            return None
        asked = self._waiting.get(request.approves)
        if asked is None or asked.until <= now:
            raise Refused(f"no order {request.approves} waits for approval; it may have waited too long")
        first = asked.request
        if first.by == person:
            raise Refused(f"{person} asked for {request.approves}: another person has to approve it")
        if _what(first) != _what(request):
            raise Refused(f"{request.approves} asks for something else: {' '.join(_what(first))}")
        del self._waiting[request.approves]
        return replace(first, by=f"{first.by}, approved by {person}")

    def forget(self, now: int) -> None:
        """Forgets what has waited too long at `now` (ms)."""
        for name in [name for name, one in self._waiting.items() if one.until <= now]:
            del self._waiting[name]

    @property
    def waiting(self) -> list[Waiting]:
        """The orders that wait, the oldest first."""
        return list(self._waiting.values())

    def restore(self, waiting: Iterable[Waiting]) -> None:
        """Takes saved orders as its own."""
        self._waiting = {one.request.request_id: one for one in waiting}


def _what(request: Request) -> tuple[str, str, str, str]:
    return request.action, request.tenant, request.scope, request.about
