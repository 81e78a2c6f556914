"""Whether gateways ask the kill switch about the names that usage events have: a block of another name stops nobody."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from schemas.command import STRICTNESS, Command
from schemas.directory import Directory
from schemas.times import parse_millis, to_millis
from schemas.usage import DENIED, UsageEvent
from streams.acknowledged import Gateway
from streams.doctor.check import Check

_OBEYED_MS = 10_000
"""Calls that were admitted before a block may end after it."""
_MOST = 5


def _short(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


Call = tuple[str, str, UsageEvent]
"""Tenant, subject and the event."""


def calls(events: Iterable[UsageEvent], directory: Directory) -> list[Call]:
    """The events with the names under which `decide` knows their callers."""
    return [(e.data.tenant or directory.tenant_of(e.subject), e.subject, e) for e in events]


def check_served(recent: Sequence[Call], commands: Iterable[Command]) -> Iterator[Check]:
    """Calls that a gateway served after the caller was blocked. `commands` are in force."""
    blocked = {
        (c.tenant, c.identity): parse_millis(c.time)
        for c in commands
        if c.scope == "identity" and STRICTNESS[c.action] >= STRICTNESS["suspend"] and c.mode == "enforce"
    }
    served: Counter[tuple[str, str, str]] = Counter()
    for tenant, subject, event in recent:
        data = event.data
        since = blocked.get((tenant, subject))
        if since is None or data.status >= 400 or data.error == DENIED:
            continue
        began = to_millis(event.time) - (data.latency_ms or 0)
        if began > since + _OBEYED_MS:
            served[event.source, tenant, subject] += 1
    for (source, tenant, subject), count in served.most_common(_MOST):
        yield Check(
            "names",
            "failure",
            f"{source} served {count} calls of {tenant}/{subject} begun more than 10 s after it was blocked",
            "let it ask the kill switch about the tenant and the subject that it writes into usage events",
        )
    if blocked and not served:
        yield Check("names", "ok", f"none of {len(blocked)} blocked identities was served after its block")


def check_names(recent: Sequence[Call], gateways: Iterable[Gateway]) -> Iterator[Check]:
    """Names that a gateway asks about and that no event has, where an event has nearly the same."""
    callers = {(tenant, subject) for tenant, subject, _ in recent}
    exact = {_short(*caller) for caller in callers}
    subjects = {_short(subject): (tenant, subject) for tenant, subject in callers}
    hashed = {subject.lower().removeprefix("sha256:")[:16]: (tenant, subject) for tenant, subject in callers}
    credentials = {
        _short(event.data.credential_id): (tenant, subject)
        for tenant, subject, event in recent
        if event.data.credential_id
    }
    for gateway in gateways:
        others: Counter[str] = Counter()
        for both, name in gateway.checked:
            if both in exact:
                continue
            for near, fault in (
                (subjects.get(name), "under another tenant than events name"),
                (hashed.get(name), "by its name in clear, where events have its SHA-256"),
                (credentials.get(name), "by its credential's name, where events have the identity's"),
            ):
                if near is not None:
                    others[f"{near[0]}/{near[1]} {fault}"] += 1
                    break
        for said, _ in others.most_common(_MOST):
            yield Check(
                "names",
                "failure",
                f"gateway {gateway.name} asks about {said}: blocks of that identity stop nothing there",
                "let check() have the tenant and the subject that are in usage events",
            )
        if gateway.checked and not others:
            yield Check("names", "ok", f"gateway {gateway.name} asks about names that usage events have")
