"""What a command says, read from its signed claims."""

import hashlib
import math
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from tripswitch_gateway import fields
from tripswitch_gateway.fields import Refused
from tripswitch_gateway.tokens import Token

# Weakest first: the position is the strictness.
ACTIONS = ("restore", "throttle", "downgrade", "suspend", "revoke")
SCOPES = ("identity", "credential", "session", "end_user", "tenant")

_SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
_EVENT_OF = {
    "revoke": _SESSION_REVOKED,
    "suspend": _SESSION_REVOKED,
    "downgrade": _SESSION_REVOKED,
    "throttle": "https://schemas.openid.net/secevent/caep/event-type/risk-level-change",
    "restore": "https://schemas.openid.net/secevent/risc/event-type/account-enabled",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a throttled or downgraded caller may still do: requests and tokens per minute, and the model to use."""

    rpm: float | None = None
    tpm: float | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One verified command. Times are Unix milliseconds; ``key`` is the record key, 64 lowercase hex digits."""

    key: str
    command_id: str
    incident_id: str
    action: str
    scope: str
    tenant: str
    identity: str | None
    subject: str
    epoch: int
    not_before: int
    expires_at: int | None
    on_expiry: str
    limits: Limits | None = None
    in_flight: str = "drain"
    http_status: int = 403
    reason_admin: str = ""
    reason_user: str = ""
    contact: str = ""
    finding_ids: tuple[str, ...] = ()
    evidence_sha256: str = ""
    policy: str = ""
    manual: bool = False
    break_glass: bool = False
    kid: str = field(default="", compare=False)
    """The key that signed it; another one after a rotation, and the command is the same."""
    partition: int = field(default=0, compare=False)
    # Derived once, because every call of a caught caller asks for them.
    strictness: int = field(init=False, repr=False, compare=False)
    """0 (restore) to 4 (revoke)."""
    ends_at: float = field(init=False, repr=False, compare=False)
    """Unix milliseconds at which the command stops by itself; infinity when it holds until it is restored."""

    def __post_init__(self) -> None:
        holds = self.expires_at is None or self.on_expiry == "hold"
        object.__setattr__(self, "strictness", ACTIONS.index(self.action))
        object.__setattr__(self, "ends_at", math.inf if holds else self.expires_at)

    @property
    def is_block(self) -> bool:
        """Whether it takes anything away, rather than gives it back."""
        return self.strictness > 0


def record_key(tenant: str, scope: str, subject: str) -> str:
    """SHA-256, in lowercase hex, over each part's UTF-8 length (4 bytes, big-endian) and its UTF-8 bytes."""
    digest = hashlib.sha256()
    for part in (tenant, scope, subject):
        raw = part.encode()
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.hexdigest()


def glimpse_epoch(value: bytes) -> int:
    """The epoch that a token claims to have, which nobody has verified; -1 when there is none to be found."""
    try:
        _, event = fields.only_event(fields.parse_object(fields.decode_segment(value.split(b".", 2)[1])))
        return fields.integer(fields.mapping(event, "ext"), "epoch")
    except (Refused, IndexError):
        return -1


def read_command(token: Token, partition: int) -> Command:
    """The command that ``token`` carries. Raises `Refused`."""
    claims, command_id = token.claims, token.token_id
    # Forbidden by SSF: with them a token could be meant for another kind of receiver.
    if "exp" in claims or "sub" in claims:
        raise Refused("malformed")
    uri, event = fields.only_event(claims)
    ext = fields.mapping(event, "ext")
    action = fields.choice(ext, "action", ACTIONS)
    if uri != _EVENT_OF[action]:
        raise Refused("event-mismatch")
    scope = fields.choice(ext, "scope", SCOPES)
    tenant, subject = fields.text(ext, "tenant"), fields.text(ext, "subject")
    identity = None if ext.get("identity") is None else fields.text(ext, "identity")
    _check_subject(fields.mapping(claims, "sub_id"), scope, tenant, identity, subject)
    return Command(
        key=record_key(tenant, scope, subject),
        command_id=command_id,
        incident_id=fields.text(claims, "txn", ""),
        action=action,
        scope=scope,
        # What many commands have in common is kept once: a million of them is a lot of text.
        tenant=intern(tenant),
        identity=subject if identity == subject else identity,
        subject=subject,
        epoch=fields.integer(ext, "epoch"),
        not_before=fields.integer(ext, "not_before"),
        expires_at=_expiry(ext),
        on_expiry=fields.choice(ext, "on_expiry", ("restore", "hold"), "hold" if action == "revoke" else "restore"),
        limits=_read_limits(ext, action),
        in_flight=fields.choice(ext, "in_flight", ("abort", "drain"), "drain"),
        http_status=_http_status(ext),
        reason_admin=fields.localised(event, "reason_admin"),
        reason_user=intern(fields.localised(event, "reason_user")),
        contact=intern(fields.text(ext, "contact", "")),
        finding_ids=fields.texts(ext, "finding_ids"),
        evidence_sha256=fields.text(ext, "evidence_sha256", ""),
        policy=intern(fields.text(ext, "policy", "")),
        manual=fields.flag(ext, "manual"),
        break_glass=fields.flag(ext, "break_glass"),
        kid=token.kid,
        partition=partition,
    )


def _check_subject(sub_id: dict[str, Any], scope: str, tenant: str, identity: str | None, subject: str) -> None:
    """The standard's subject and our own fields must name the same thing, or two receivers would obey differently."""
    if sub_id.get("format") != "complex":
        raise Refused("malformed")
    expected = {"tenant": tenant, "user": identity, "session": subject if scope == "session" else None}
    for member, name in expected.items():
        if member in sub_id and name is not None and fields.text(fields.mapping(sub_id, member), "id") != name:
            raise Refused("subject-mismatch")
    if (scope == "identity" and subject != identity) or (scope == "tenant" and subject != tenant):
        raise Refused("subject-mismatch")


def _read_limits(ext: dict[str, Any], action: str) -> Limits | None:
    if ext.get("limits") is None:
        limits = None
    else:
        raw = fields.mapping(ext, "limits")
        limits = Limits(
            fields.amount(raw, "rpm"),
            fields.amount(raw, "tpm"),
            None if raw.get("model") is None else fields.text(raw, "model"),
        )
    # A throttle without a rate, or a downgrade without a model, says to block and does not say how.
    if action == "throttle" and (limits is None or (limits.rpm is None and limits.tpm is None)):
        raise Refused("malformed")
    if action == "downgrade" and (limits is None or limits.model is None):
        raise Refused("malformed")
    return limits


def _expiry(ext: dict[str, Any]) -> int | None:
    # It may be null but not absent: an expiry lost on the way would make the block permanent.
    if "expires_at" not in ext:
        raise Refused("malformed")
    return None if ext["expires_at"] is None else fields.integer(ext, "expires_at")


def _http_status(ext: dict[str, Any]) -> int:
    if ext.get("http_status") is None:
        return 403
    status = fields.integer(ext, "http_status")
    if not 400 <= status <= 599:
        raise Refused("malformed")
    return status
