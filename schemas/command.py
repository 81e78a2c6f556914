"""The command: what a gateway obeys. Here decoded, and as the claims of a Security Event Token (RFC 8417)."""

import hashlib
import struct
from typing import Any, Literal

import msgspec
from msgspec import Struct
from xxhash import xxh3_64_hexdigest

from schemas.decoding import Malformed, decode
from schemas.times import format_millis, parse_millis

Action = Literal["throttle", "downgrade", "suspend", "revoke", "restore"]
Scope = Literal["identity", "credential", "session", "end_user", "tenant"]

STRICTNESS: dict[Action, int] = {"restore": 0, "throttle": 1, "downgrade": 2, "suspend": 3, "revoke": 4}

TOKEN_TYPE = "secevent+jwt"  # noqa: S105 - a media type, no secret
AUDIENCE = "tripswitch-gateways"
_IN_EXT = (
    "action", "scope", "tenant", "identity", "subject", "epoch", "limits", "finding_ids", "policy", "manual", "mode",
)  # fmt: skip
_claims = msgspec.json.Decoder(dict[str, Any])
_CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
_RISC = "https://schemas.openid.net/secevent/risc/event-type/"
_SESSION_REVOKED = _CAEP + "session-revoked"
_EVENT_OF: dict[Action, str] = {
    "throttle": _CAEP + "risk-level-change",
    "downgrade": _SESSION_REVOKED,
    "suspend": _SESSION_REVOKED,
    "revoke": _SESSION_REVOKED,
    "restore": _RISC + "account-enabled",
}


class Limits(Struct, frozen=True, omit_defaults=True):
    """What a throttle leaves: requests and tokens per minute, or the only model allowed."""

    rpm: int | None = None
    tpm: int | None = None
    model: str | None = None


class Command(Struct, frozen=True):
    """One line of `commands.jsonl`: an order to every gateway about one subject.

    `epoch` orders the commands of a (tenant, scope, subject): the greater one holds. `expires_at` null holds until
    a restore. `mode` shadow is written to the audit topic only.
    """

    command_id: str
    time: str
    tenant: str
    identity: str | None
    scope: Scope
    subject: str
    action: Action
    epoch: int
    expires_at: str | None
    mode: Literal["enforce", "shadow"]
    reason: str
    incident_id: str
    finding_ids: list[str]
    policy: str
    manual: bool = False
    limits: Limits | None = None


def command_id(tenant: str, scope: Scope, subject: str, action: Action, cause: str) -> str:
    """The id of a command, by which what caused it (a finding, a person's request) can be told."""
    return "cmd-" + xxh3_64_hexdigest(f"{tenant}\0{scope}\0{subject}\0{action}\0{cause}".encode())


decode_command = msgspec.json.Decoder(Command).decode
"""A line of `commands.jsonl`."""


def record_key(tenant: str, scope: str, subject: str) -> str:
    """The Kafka key: hex SHA-256 over the length-prefixed (4 bytes, big-endian) tenant, scope and subject."""
    digest = hashlib.sha256()
    for part in (tenant, scope, subject):
        raw = part.encode()
        digest.update(struct.pack(">I", len(raw)) + raw)
    return digest.hexdigest()


def claims(command: Command, *, issuer: str, issued: int, contact: str, break_glass: bool = False) -> dict[str, Any]:
    """The claims of the command's token. `issued` is the publication's time in ms; `contact` whom the caller asks.
    `break_glass` says that a person wrote it without decide.

    An expiry counts from publication: a command that waited in a backlog holds as long as the policy said.
    """
    decided = parse_millis(command.time)
    expires = None if command.expires_at is None else issued + parse_millis(command.expires_at) - decided
    subjects: dict[str, Any] = {"format": "complex", "tenant": {"format": "opaque", "id": command.tenant}}
    if command.identity is not None:
        subjects["user"] = {"format": "opaque", "id": command.identity}
    if command.scope == "session":
        subjects["session"] = {"format": "opaque", "id": command.subject}
    event: dict[str, Any] = {
        "event_timestamp": decided // 1000,
        "initiating_entity": "admin" if command.manual else "policy",
        "reason_admin": {"en": command.reason},
        "reason_user": {"en": _told_to_caller(command, contact)},
        "ext": {
            "action": command.action,
            "scope": command.scope,
            "tenant": command.tenant,
            "identity": command.identity,
            "subject": command.subject,
            "epoch": command.epoch,
            "not_before": issued,
            "expires_at": expires,
            "on_expiry": "hold" if command.action == "revoke" else "restore",
            "limits": None if command.limits is None else msgspec.to_builtins(command.limits),
            "in_flight": "drain" if command.action in ("throttle", "restore") else "abort",
            "http_status": 429 if command.action == "throttle" else 403,
            "finding_ids": command.finding_ids,
            "evidence_sha256": hashlib.sha256("\n".join(command.finding_ids).encode()).hexdigest(),
            "policy": command.policy,
            "manual": command.manual,
            "mode": command.mode,
            "contact": contact,
            **({"break_glass": True} if break_glass else {}),
        },
    }
    if command.action == "throttle":
        event |= {"principal": "ROBOT", "current_level": "HIGH"}
    return {
        "iss": issuer,
        "jti": command.command_id,
        "iat": issued // 1000,
        "aud": [AUDIENCE],
        "txn": command.incident_id,
        "sub_id": subjects,
        "events": {_EVENT_OF[command.action]: event},
    }


def from_claims(payload: bytes) -> Command:
    """The command that a token's payload states; its time is that of publication.

    Raises:
        Malformed: it states none.
    """
    token = decode(_claims, payload)
    try:
        [event] = token["events"].values()
        ext = event["ext"]
        expires = ext["expires_at"]
        fields = {
            **{name: ext[name] for name in _IN_EXT},
            "command_id": token["jti"],
            "time": format_millis(ext["not_before"]),
            "expires_at": None if expires is None else format_millis(expires),
            "reason": event["reason_admin"]["en"],
            "incident_id": token["txn"],
        }
        return msgspec.convert(fields, Command)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise Malformed(f"no command: {error}") from error


def headers(command: Command, *, issuer: str, issued: int) -> list[tuple[str, bytes]]:
    """CloudEvents binary headers of the record, for routing; a receiver trusts the signed claims alone."""
    fields = {
        "ce_specversion": "1.0",
        "ce_id": command.command_id,
        "ce_source": issuer,
        "ce_type": "llm.command.v1",
        "ce_subject": f"{command.tenant}/{command.scope}/{command.subject}",
        "ce_time": format_millis(issued),
        "content-type": f"application/{TOKEN_TYPE}",
    }
    return [(name, value.encode()) for name, value in fields.items()]


def _told_to_caller(command: Command, contact: str) -> str:
    how = "by an administrator" if command.manual else "automatically"
    done = {
        "throttle": f"This key was slowed down {how}",
        "downgrade": f"This key was limited to cheaper models {how}",
        "suspend": f"This key was paused {how}",
        "revoke": f"This key was revoked {how}",
        "restore": "This key has access again",
    }[command.action]
    return f"{done}. If that is wrong, ask {contact}."
