"""What a signed record says, read without verifying it: the sink keeps the token for whoever wants to."""

import base64
import binascii
from typing import Literal

import msgspec
from msgspec import Struct

from schemas.command import Action, Limits, Scope


class Extension(Struct, frozen=True):
    """The event's `ext`: our own claims. `not_before` and `expires_at` are ms since 1970.

    A token that states no `mode` is one that gateways obey.
    """

    action: Action
    scope: Scope
    tenant: str
    subject: str
    epoch: int
    not_before: int
    identity: str | None = None
    expires_at: int | None = None
    on_expiry: str = ""
    limits: Limits | None = None
    in_flight: str = ""
    http_status: int = 0
    finding_ids: list[str] = []
    evidence_sha256: str = ""
    policy: str = ""
    manual: bool = False
    mode: Literal["enforce", "shadow"] = "enforce"


class SecurityEvent(Struct, frozen=True):
    """The one event of a token; `event_timestamp` is when it was decided, in s since 1970."""

    ext: Extension
    event_timestamp: int
    reason_admin: dict[str, str] = {}


class Claims(Struct, frozen=True):
    """A command's claims (RFC 8417)."""

    iss: str
    jti: str
    events: dict[str, SecurityEvent]
    txn: str = ""


class _Header(Struct, frozen=True):
    kid: str = ""


_header = msgspec.json.Decoder(_Header).decode
_claims = msgspec.json.Decoder(Claims).decode


def payload(token: bytes) -> bytes:
    """The payload of a compact JWS.

    Raises:
        ValueError: `token` is none.
    """
    return _part(token, 1)


def command_claims(token: bytes) -> tuple[str, Claims, SecurityEvent]:
    """The id of the key that a command claims to be signed with, its claims, and its one event.

    Raises:
        ValueError: not a compact JWS, or it has not exactly one event.
        msgspec.MsgspecError: the claims are not a command's.
    """
    claims = _claims(payload(token))
    if len(claims.events) != 1:
        raise ValueError(f"{len(claims.events)} events in a token; a command has one")
    return _header(_part(token, 0)).kid, claims, next(iter(claims.events.values()))


def _part(token: bytes, index: int) -> bytes:
    parts = token.split(b".")
    if len(parts) != 3:
        raise ValueError("not a compact JWS: header, payload and signature with dots between them")
    try:
        return base64.b64decode(parts[index] + b"=" * (-len(parts[index]) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(f"not a compact JWS: {error}") from error
