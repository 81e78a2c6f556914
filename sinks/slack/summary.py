"""A storm: so many new incidents of one tenant within a minute that they share one message."""

import hashlib
from dataclasses import dataclass, field

import msgspec

from schemas.finding import Severity
from schemas.incident import Incident
from schemas.times import parse_millis
from sinks.slack.message import DOTS, Payload, context, header, section, standing, subject
from sinks.slack.text import code, escape, local_time, money

# Members are kept in the message's metadata, whose size Slack bounds: at most about 6 KB.
CAPACITY = 150
_SHOWN = 8
_STANDINGS = ("open", "contained", "closed")
_SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")


class Member(msgspec.Struct, frozen=True, array_like=True):
    """What a summary remembers of an incident; after a restart, `name` is known of those that it shows."""

    standing: str
    severity: Severity
    usd_per_minute: float
    name: str = ""
    incident_id: str = ""


@dataclass
class Storm:
    """The incidents of a tenant that share a message. `opened` and `last` are RFC 3339 times of the first and last.

    `members` are keyed by the first 8 hex digits of the SHA-256 of the incident's id.
    """

    tenant: str
    opened: str
    last: str
    members: dict[str, Member] = field(default_factory=dict)
    ts: str | None = None
    digest: str = ""

    def holds(self, incident_id: str) -> bool:
        """Whether the incident is told by this message."""
        return member_key(incident_id) in self.members

    def has_room(self, incident: Incident, within_ms: int) -> bool:
        """Whether a new incident belongs here: the same tenant, `within_ms` of the last one, and there is room."""
        near = abs(parse_millis(incident.opened) - parse_millis(self.last)) < within_ms
        return incident.tenant == self.tenant and near and len(self.members) < CAPACITY

    def put(self, incident: Incident) -> None:
        """Adds an incident, or replaces its last state."""
        self.members[member_key(incident.incident_id)] = Member(
            standing(incident), incident.severity, round(incident.usd_per_minute, 2), subject(incident)[:80],
            incident.incident_id[:80],
        )  # fmt: skip
        self.last = max(self.last, incident.opened)

    def dearest(self) -> list[tuple[str, Member]]:
        """The members that the message names: open first, then contained; the gravest, then the dearest."""
        return sorted(
            self.members.items(),
            key=lambda item: (
                _STANDINGS.index(item[1].standing),
                -_SEVERITIES.index(item[1].severity),
                -item[1].usd_per_minute,
                item[0],
            ),
        )[:_SHOWN]

    def payload(self) -> dict[str, str]:
        """What the message's metadata carries, so that `restored` can build the storm again."""
        named = dict(self.dearest())
        members = {
            key: member if key in named else msgspec.structs.replace(member, name="", incident_id="")
            for key, member in self.members.items()
        }
        return {
            "tenant": self.tenant,
            "opened": self.opened,
            "last": self.last,
            "members": msgspec.json.encode(members).decode(),
        }


def restored(payload: dict[str, str], ts: str) -> Storm:
    """The storm that a message's metadata tells.

    Raises:
        KeyError, msgspec.ValidationError, msgspec.DecodeError: no metadata of ours.
    """
    members = msgspec.json.decode(payload["members"], type=dict[str, Member])
    return Storm(payload["tenant"], payload["opened"], payload["last"], members, ts)


def member_key(incident_id: str) -> str:
    """8 hex digits that stand for an incident within one summary."""
    return hashlib.sha256(incident_id.encode()).hexdigest()[:8]


def summary_message(storm: Storm) -> Payload:
    """The message of a storm: how many, how they stand, what they cost together, and the gravest by name."""
    members = list(storm.members.values())
    counts = {state: sum(m.standing == state for m in members) for state in _STANDINGS}
    quiet = counts["closed"] == len(members)
    gravest = max((m.severity for m in members if quiet or m.standing != "closed"), key=_SEVERITIES.index)
    noun = "identity" if len(members) == 1 else "identities"
    title = f"{'✅' if quiet else DOTS[gravest]} STORM · {len(members)} more {noun} of {escape(storm.tenant, 80)}"
    standings = ", ".join(
        f"{count} {state}"
        + (f" at {money(sum(m.usd_per_minute for m in members if m.standing == state))}/min" * (state != "closed"))
        for state, count in counts.items()
        if count
    )
    lines = [
        f"{DOTS[m.severity]} {code(m.name, 80)} {m.standing}, {money(m.usd_per_minute)}/min · {code(m.incident_id, 80)}"
        for _, m in storm.dearest()
        if m.name
    ]
    rest = len(members) - len(lines)
    if rest:
        lines.append(f"and {rest} more")
    return {
        "text": f"{title}: {standings}",
        "blocks": [
            header(title),
            section(f"*{standings}*, since {local_time(storm.opened)}"),
            section("\n".join(lines)),
            context("So many new incidents of one tenant within a minute share this message."),
        ],
    }
