"""Commands on the kill-switch topic: what one says, and how to tell that it is genuine."""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from joserfc import jws
from joserfc.errors import BadSignatureError, JoseError

from tripswitch_gateway import fields
from tripswitch_gateway.fields import Refused
from tripswitch_gateway.keys import KeyFile

AUDIENCE = "tripswitch-gateways"
MAX_BYTES = 64 * 1024
MAX_AHEAD_MS = 5 * 60 * 1000

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
    # Derived once, because every call of a caught caller asks for them.
    strictness: int = field(init=False, repr=False, compare=False)
    """0 (restore) to 4 (revoke)."""
    ends_at: float = field(init=False, repr=False, compare=False)
    """Unix milliseconds at which the command stops by itself; infinity when it holds until it is restored."""

    def __post_init__(self) -> None:
        holds = self.expires_at is None or self.on_expiry == "hold"
        object.__setattr__(self, "strictness", ACTIONS.index(self.action))
        object.__setattr__(self, "ends_at", math.inf if holds else self.expires_at)


def record_key(tenant: str, scope: str, subject: str) -> str:
    """SHA-256, in lowercase hex, over each part's UTF-8 length (4 bytes, big-endian) and its UTF-8 bytes."""
    digest = hashlib.sha256()
    for part in (tenant, scope, subject):
        raw = part.encode()
        digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.hexdigest()


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


class CommandVerifier:
    """Turns a record of the kill-switch topic into a `Command`, or raises `Refused`.

    Nothing outside the signature is believed: the record key is derived again from the signed claims, and headers of
    the record are not looked at.
    """

    def __init__(
        self, keys: KeyFile, issuer: str, audience: str = AUDIENCE, clock_ms: Callable[[], int] = _clock_ms
    ) -> None:
        self.keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock_ms = clock_ms

    def verify(self, key: bytes | None, value: bytes | None) -> Command:
        """Verify one record. Raises `Refused`, and nothing else, whatever the bytes are."""
        if value is None:
            # Access is given back by a command with a greater epoch, never by deleting the record.
            raise Refused("tombstone")
        if len(value) > MAX_BYTES:
            raise Refused("oversized")
        claims = fields.parse_object(self._verify_signature(value))
        command_id = claims.get("jti")
        if not isinstance(command_id, str) or not command_id:
            raise Refused("malformed")
        try:
            self._check_addressing(claims)
            command = _read_command(claims, command_id)
            _check_key(key, command)
            self._check_time(claims, command)
        except Refused as refusal:
            refusal.command_id = command_id
            raise
        return command

    def _verify_signature(self, value: bytes) -> bytes:
        """The signed payload. Header checks come first, so that the key type can never follow from the header."""
        head, dot, _ = value.partition(b".")
        header = fields.parse_object(fields.decode_segment(head))
        if not dot or "crit" in header or "b64" in header:
            raise Refused("malformed")
        if header.get("alg") != "RS256":
            raise Refused("algorithm")
        if header.get("typ") != "secevent+jwt":
            raise Refused("type")
        kid = header.get("kid")
        key = self.keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise Refused("unknown-kid")
        try:
            return bytes(jws.deserialize_compact(value, key, algorithms=["RS256"]).payload)
        except BadSignatureError:
            raise Refused("signature") from None
        except (JoseError, ValueError):
            raise Refused("malformed") from None

    def _check_addressing(self, claims: dict[str, Any]) -> None:
        if claims.get("iss") != self._issuer:
            raise Refused("issuer")
        audience = claims.get("aud")
        if audience != self._audience and not (isinstance(audience, list) and self._audience in audience):
            raise Refused("audience")

    def _check_time(self, claims: dict[str, Any], command: Command) -> None:
        # Old is normal, a compacted topic is read from its beginning; the future means that a clock is wrong, and an
        # epoch taken from that clock would fence off every later command.
        latest = self._clock_ms() + MAX_AHEAD_MS
        if fields.integer(claims, "iat") * 1000 > latest or command.not_before > latest:
            raise Refused("from-the-future")


def _check_key(key: bytes | None, command: Command) -> None:
    # A command under another's key would compact that other one away.
    if key != command.key.encode():
        raise Refused("key-mismatch")


def _read_command(claims: dict[str, Any], command_id: str) -> Command:
    # Forbidden by SSF: with them a token could be meant for another kind of receiver.
    if "exp" in claims or "sub" in claims:
        raise Refused("malformed")
    events = fields.mapping(claims, "events")
    if len(events) != 1:
        raise Refused("malformed")
    [(uri, event)] = events.items()
    if not isinstance(event, dict):
        raise Refused("malformed")
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
        tenant=tenant,
        identity=identity,
        subject=subject,
        epoch=fields.integer(ext, "epoch"),
        not_before=fields.integer(ext, "not_before"),
        expires_at=_expiry(ext),
        on_expiry=fields.choice(ext, "on_expiry", ("restore", "hold"), "hold" if action == "revoke" else "restore"),
        limits=_read_limits(ext, action),
        in_flight=fields.choice(ext, "in_flight", ("abort", "drain"), "drain"),
        http_status=_http_status(ext),
        reason_admin=fields.localised(event, "reason_admin"),
        reason_user=fields.localised(event, "reason_user"),
        contact=fields.text(ext, "contact", ""),
        finding_ids=fields.texts(ext, "finding_ids"),
        evidence_sha256=fields.text(ext, "evidence_sha256", ""),
        policy=fields.text(ext, "policy", ""),
        manual=fields.flag(ext, "manual"),
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
