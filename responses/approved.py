"""Unusual use that people have approved by an order, beside what the directory says."""

from collections.abc import Iterable

from msgspec import Struct

from responses.config import FAMILY
from schemas.directory import Approval
from schemas.finding import Finding
from schemas.request import Request
from schemas.times import parse_millis, to_millis

_MOST = 1000
"""Approvals that are kept, the last ones."""
_KEPT = 86_400_000
"""Milliseconds after its end: what looks back over hours still sees what was approved."""


def approval_of(finding: Finding, approvals: Iterable[Approval]) -> Approval | None:
    """The approval that covers a finding of the velocity family, or the beginning of what it speaks of: planned
    activity within its multiplier, which what looks back over minutes still sees when it has ended."""
    moment = parse_millis(finding.time)
    began = moment - int(finding.evidence.span_seconds * 1000)
    for approval in approvals:
        if excuses(approval, finding) and (approval.covers(moment) or approval.covers(began)):
            return approval
    return None


def excuses(approval: Approval, finding: Finding) -> bool:
    """Whether a finding is of what was approved, whenever that was."""
    if FAMILY[finding.kind] != "velocity" or approval.identity != finding.identity:
        return False
    if approval.tenant is not None and approval.tenant != finding.tenant:
        return False
    return finding.baseline <= 0 or finding.observed <= approval.max_multiplier * finding.baseline


class Ordered(Struct, frozen=True):
    """An approval that a person ordered at the moment `at` (ms)."""

    at: int
    approval: Approval


def ordered_by(request: Request) -> Ordered:
    """The approval that a request to approve asks for."""
    planned = request.planned
    assert planned is not None
    made = Approval(
        request.identity, planned.since, planned.until, planned.max_multiplier, request.by, request.reason,
        request.tenant,
    )  # fmt: skip
    return Ordered(parse_millis(request.time), made)


def last_ordered(ordered: Iterable[Ordered], finding: Finding) -> list[Approval]:
    """The approval of a finding's identity that was the last one ordered when it was found; none where there is none.
    `ordered` come in the order of their moments."""
    moment, about = parse_millis(finding.time), (finding.tenant, finding.identity)
    held = [one.approval for one in ordered if one.at <= moment]
    return [one for one in held if (one.tenant, one.identity) == about][-1:]


class Approved:
    """The approvals that were ordered."""

    def __init__(self) -> None:
        self._held: list[Approval] = []

    def add(self, request: Request) -> Approval:
        """Takes the approval that a request asks for; it replaces the one on the same identity, if there is one."""
        made = ordered_by(request).approval
        about = (made.tenant, made.identity)
        others = [one for one in self._held if (one.tenant, one.identity) != about]
        self._held = [*others[1 - _MOST :], made]
        return made

    def of(self, tenant: str, identity: str) -> list[Approval]:
        """The approvals on an identity."""
        return [one for one in self._held if one.identity == identity and one.tenant == tenant]

    def forget(self, now: int) -> None:
        """Forgets what ended long before `now` (ms)."""
        if any(to_millis(one.until) + _KEPT < now for one in self._held):
            self._held = [one for one in self._held if to_millis(one.until) + _KEPT >= now]

    @property
    def held(self) -> list[Approval]:
        """All of them, the oldest first."""
        return self._held

    def restore(self, saved: Iterable[Approval]) -> None:
        """Takes saved approvals as its own."""
        self._held = list(saved)
