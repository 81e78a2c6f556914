"""One identity's case: its risk, its incident, and the blocks in force."""

import msgspec
from msgspec import Struct, field

from responses.common import Shown, Together
from responses.config import Config
from responses.quotas import Used
from responses.risk import Standing
from responses.tenant_spike import Rhythm
from schemas.command import STRICTNESS, Action, Command, Limits, Scope
from schemas.finding import Finding, Kind, Severity
from schemas.incident import Incident
from schemas.times import format_millis, parse_millis

_KEPT = 100
"""Findings, commands and flare-ups of an incident that are named, the last ones."""
_DAY = 86_400_000
_FORGET_AFTER = _DAY
_FORGET_TENANT_AFTER = 45 * _DAY
_SESSIONS = 2
"""Blocked sessions of an identity from which on the next looping one blocks the identity."""
_SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")


class InForce(Struct):
    """A block that gateways obey now, unless it is a shadow. `expires` in ms; None: until a person ends it."""

    action: Action
    scope: Scope
    subject: str
    expires: int | None
    since: int
    command_id: str
    reason: str
    manual: bool
    limits: Limits | None
    shadow: bool = False


class Whole(Struct, omit_defaults=True):
    """What is known of a tenant as a whole."""

    rhythm: Rhythm = field(default_factory=Rhythm)
    shown: Shown = {}
    together: dict[str, Together] = {}
    used: Used = field(default_factory=Used)


class Case:
    """What is known of one identity, or, where `identity` is empty, of a tenant as a whole. Times are in ms of event
    time."""

    def __init__(self, tenant: str, identity: str, config: Config) -> None:
        self.tenant = tenant
        self.identity = identity
        self.risk = Standing(config)
        self.claims = Standing(config)
        """What those did who merely claim to be this identity: it is told, and never held against its owner."""
        self.blocks: dict[tuple[Scope, str], InForce] = {}
        self.block_starts: list[int] = []
        self.denied_at = 0
        self.cleared_at = 0
        """When a person last gave access back."""
        self.found_at = 0
        self.claimed_at = 0
        """`found_at` tells of the identity itself, this of who claims to be it."""
        self.findings: dict[Kind, Finding] = {}
        """The strongest finding of each kind in the open incident."""
        self.incident: Incident | None = None
        self.incident_id: str | None = None
        """Of the open incident, or of the last one."""
        self.next_look: int | None = None
        self.touched = 0
        """When something was last done with it."""
        self.next_farewell = 0
        """When it is next asked whether it is over."""
        self.whole = Whole()

    def note(self, finding: Finding, config: Config) -> Incident | None:
        """Adds a finding; returns the incident it opens or updates, None while the risk is too small."""
        moment = parse_millis(finding.time)
        standing = self.claims if finding.evidence.claimed else self.risk
        together = moment - int(config.response.together_minutes * 60_000)
        if self.incident is None:
            # What has faded, or was small hours ago, is no part of the next incident: that begins with what is found
            # together.
            faded = not (self.risk.total(moment) or self.claims.total(moment))
            held = {} if faded else self.findings
            self.findings = {kind: one for kind, one in held.items() if parse_millis(one.time) >= together}
        if not self.answered(finding, moment):
            standing.add(finding)
        last = max(self.found_at, self.claimed_at)
        silent = moment - last if last else 0
        # Weak evidence keeps up no block and no incident: the owner's own return may be just that.
        if finding.severity != "low":
            if finding.evidence.claimed:
                self.claimed_at = moment
            else:
                self.found_at = moment
        worse = finding.kind not in self.findings or _weight(finding) > max(map(_weight, self.findings.values()))
        strongest = self.findings.get(finding.kind)
        if strongest is None or _weight(finding) >= _weight(strongest):
            self.findings[finding.kind] = finding
        risk = standing.total(moment)
        old = self.incident
        # What only reminds opens nothing, though what it reminds of once did.
        if old is None and (finding.severity == "info" or standing.since(together).total(moment) < config.risk.open):
            return None
        ranked = sorted(self.findings.values(), key=_weight, reverse=True)
        graver = worse and _SEVERITIES.index(finding.severity) >= _SEVERITIES.index("medium")
        flared = old is not None and graver and silent >= config.risk.raise_again_minutes * 60_000
        self.incident = Incident(
            incident_id=old.incident_id if old else f"inc-{finding.finding_id[2:]}",
            tenant=self.tenant,
            identity=self.identity or None,
            opened=old.opened if old else finding.time,
            # Never back: whoever keeps the newest state of an incident goes by this.
            updated=max(finding.time, old.updated) if old else finding.time,
            closed=None,
            state="open",
            kinds=[f.kind for f in ranked],
            risk=round(max(risk, old.risk if old else 0.0), 2),
            severity=max((f.severity for f in ranked), key=_SEVERITIES.index),
            usd_per_minute=finding.evidence.usd_per_minute,
            baseline_usd_per_minute=finding.evidence.baseline_usd_per_minute,
            headline=ranked[0].reason,
            response=old.response if old else "alert",
            finding_ids=[*(old.finding_ids if old else []), finding.finding_id][-_KEPT:],
            command_ids=old.command_ids if old else [],
            in_force=old.in_force if old else None,
            raised=[*(old.raised if old else []), *([finding.time] if flared else [])][-_KEPT:],
        )
        self.incident_id = self.incident.incident_id
        return self.incident

    def forgive(self, moment: int, config: Config) -> None:
        """A person gave access back: what was held against the identity counts no more."""
        self.cleared_at = moment
        self.block_starts.clear()
        self.risk, self.claims = Standing(config), Standing(config)

    def answered(self, finding: Finding, moment: int) -> bool:
        """Whether what the finding speaks of reaches back to before a person gave access back, or to before another
        credential, since rotated, was blocked: that is answered already."""
        reaches = moment - int(finding.evidence.span_seconds * 1000)
        credential = finding.evidence.credential_id
        rotated = (b.since for b in self.blocks.values() if b.scope == "credential" and b.subject != credential)
        return reaches <= max((self.cleared_at, *rotated))

    def escapes(self, finding: Finding, before: int) -> bool:
        """Whether blocking sessions does not help: the finding's own has been blocked since `before` (ms), or others
        were blocked and it is one more."""
        sessions = {block.subject: block.since for block in self.blocks.values() if block.scope == "session"}
        session = finding.evidence.session_id
        return sessions.get(session or "", before) < before or len(sessions.keys() - {session}) >= _SESSIONS

    def close(self, moment: int) -> Incident | None:
        """Closes the incident; the next finding opens another."""
        if self.incident is None:
            return None
        time = format_millis(moment)
        updated = max(time, self.incident.updated)
        closed = msgspec.structs.replace(self.incident, state="closed", closed=time, updated=updated)
        self.incident = None
        self.findings.clear()
        return closed

    def responded(self, command: Command) -> Incident | None:
        """Writes a command into the incident: the strongest response yet, and what is in force after it. A shadow
        command blocks nobody and is not the incident's."""
        if self.incident is None or command.mode == "shadow":
            return None
        in_force = [block.action for block in self.blocks.values()]
        self.incident = msgspec.structs.replace(
            self.incident,
            response=max((self.incident.response, command.action), key=_strength),
            in_force=max(in_force, key=_strength, default=None),
            updated=max(command.time, self.incident.updated),
            command_ids=[*self.incident.command_ids, command.command_id][-_KEPT:],
        )
        return self.incident

    def blocks_within_day(self, moment: int) -> int:
        """How many blocks began within the last 24 hours."""
        self.block_starts = [start for start in self.block_starts if start > moment - _DAY]
        return len(self.block_starts)

    def over(self, now: int) -> bool:
        """Whether nothing of it matters any more at `now` (ms): a day after it was touched or its risk has faded,
        whichever was later. If not, `next_farewell` says when to ask again."""
        # An open incident always waits for a look.
        held = self.blocks or self.next_look is not None
        last = now if held else max(self.touched, self.risk.faded(), self.claims.faded())
        self.next_farewell = last + (_FORGET_AFTER if self.identity else _FORGET_TENANT_AFTER)
        return self.next_farewell <= now


def _weight(finding: Finding) -> tuple[bool, int, float]:
    return finding.evidence.deterministic, _SEVERITIES.index(finding.severity), finding.score


def _strength(response: str) -> int:
    return STRICTNESS.get(response, 0)  # type: ignore[call-overload, no-any-return]
