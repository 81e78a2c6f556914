"""Commands as signed records of the kill-switch topic."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from msgspec import Struct

from schemas.command import TOKEN_TYPE, Command, claims, headers, record_key
from schemas.heartbeat import Heartbeat, heartbeat_claims, heartbeat_key
from schemas.topics import AUDIT, KILLSWITCH
from sinks.keys import KeyFile, PublicKey, read_private_key

REQUEST_TYPE = "tripswitch-request+jwt"
"""`typ` of a person's request: a request can never pass for a command."""


class SignedRecord(Struct, frozen=True):
    """A record for `topic`; every command of a tenant goes to the tenant's partition."""

    topic: str
    key: str
    value: bytes
    headers: Sequence[tuple[str, bytes]]


class Signer:
    """Signs with one private key (RS256); its public half is in the JWKS file that gateways have."""

    def __init__(self, key: RSAKey, *, issuer: str, contact: str) -> None:
        self._key = key
        self.kid: str = key.thumbprint()
        self._issuer = issuer
        self._contact = contact

    @classmethod
    def read(cls, path: Path, *, issuer: str, contact: str) -> "Signer":
        """The signer of a PEM file.

        Raises:
            BadKey: the file is absent, unreadable, or no RSA private key.
        """
        return cls(read_private_key(path), issuer=issuer, contact=contact)

    def token(self, payload: dict[str, Any], kind: str) -> bytes:
        """The compact JWS of `payload`, `typ` as given."""
        header = {"alg": "RS256", "typ": kind, "kid": self.kid}
        token: str = jws.serialize_compact(
            header, json.dumps(payload, separators=(",", ":")).encode(), self._key, ["RS256"]
        )
        return token.encode()

    def records(self, command: Command, issued: int, *, break_glass: bool = False) -> list[SignedRecord]:
        """The command's records, published at `issued` (ms): for the gateways and for the audit. A shadow command
        is for the audit alone: a receiver that knows no shadow must never see it. `break_glass` says that a person
        wrote it without decide."""
        said = claims(command, issuer=self._issuer, issued=issued, contact=self._contact, break_glass=break_glass)
        token = self.token(said, TOKEN_TYPE)
        key = record_key(command.tenant, command.scope, command.subject)
        topics = (AUDIT,) if command.mode == "shadow" else (KILLSWITCH, AUDIT)
        fields = headers(command, issuer=self._issuer, issued=issued)
        return [SignedRecord(topic, key, token, fields) for topic in topics]

    def again(self, command: Command, claims: dict[str, Any], issued: int) -> SignedRecord:
        """The record of a command that was published before with these `claims`, signed anew. It is the same command:
        a gateway that has it takes it for a repetition."""
        token = self.token({**claims, "iat": issued // 1000}, TOKEN_TYPE)
        key = record_key(command.tenant, command.scope, command.subject)
        return SignedRecord(KILLSWITCH, key, token, headers(command, issuer=self._issuer, issued=issued))

    def heartbeat(self, beat: Heartbeat) -> SignedRecord:
        """The heartbeat's record, for the gateways alone."""
        token = self.token(heartbeat_claims(beat, issuer=self._issuer), TOKEN_TYPE)
        return SignedRecord(KILLSWITCH, heartbeat_key(beat.partition), token, ())


class Signed(NamedTuple):
    """What a token says, and whose key signed it."""

    payload: bytes
    key: PublicKey


class Verifier:
    """Checks tokens against a JWKS file."""

    def __init__(self, keys: KeyFile) -> None:
        self.keys = keys

    @classmethod
    def read(cls, path: Path) -> "Verifier":
        """The verifier of a JWKS file.

        Raises:
            BadKey: the file is absent or is no JWKS.
        """
        return cls(KeyFile(path))

    def payload(self, token: bytes, kind: str) -> bytes:
        """The payload of a token of type `kind` that one of the keys signed.

        Raises:
            ValueError: it is not that; says why, without its content.
        """
        return self.signed(token, kind).payload

    def signed(self, token: bytes, kind: str) -> Signed:
        """What a token of type `kind` that one of the keys signed says, and which key that was.

        Raises:
            ValueError: it is not that; says why, without its content.
        """
        try:
            header = _header(token)
            key = self.keys.get(header.get("kid"))
            if key is None:
                raise ValueError("not signed by a key that is trusted: unknown kid")
            read = jws.deserialize_compact(token, key.key, ["RS256"])
        except JoseError as error:
            raise ValueError(f"not signed by a key that is trusted: {type(error).__name__}") from error
        if header.get("typ") != kind:
            raise ValueError("signed, but for another purpose")
        return Signed(read.payload, key)


def kid_of(token: bytes) -> str | None:
    """The `kid` of the key that a token claims to be signed with; None where it claims none."""
    try:
        kid = _header(token).get("kid")
    except ValueError:
        return None
    return kid if isinstance(kid, str) else None


def _header(token: bytes) -> dict[str, Any]:
    """The header of a compact JWS, which only its signature makes true."""
    try:
        head = token.partition(b".")[0]
        header = json.loads(base64.b64decode(head + b"=" * (-len(head) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not signed by a key that is trusted: {type(error).__name__}") from error
    if not isinstance(header, dict):
        raise ValueError("not signed by a key that is trusted: no header")  # noqa: TRY004 - a record's fault
    return header
