"""Commands as signed records of the kill-switch topic."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey
from msgspec import Struct

from schemas.command import TOKEN_TYPE, Command, claims, headers, record_key
from schemas.topics import AUDIT, KILLSWITCH

_BITS = 3072
REQUEST_TYPE = "tripswitch-request+jwt"
"""`typ` of a person's request: a request can never pass for a command."""


class BadKey(ValueError):
    """A key file that can't be used: says which, and what to do."""


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
        self._issuer = issuer
        self._contact = contact

    @classmethod
    def read(cls, path: Path, *, issuer: str, contact: str) -> "Signer":
        """The signer of a PEM file.

        Raises:
            BadKey: the file is absent, unreadable, or no RSA private key.
        """
        try:
            key = RSAKey.import_key(path.read_bytes(), {"alg": "RS256", "use": "sig"})
        except OSError as error:
            raise BadKey(f"signing key {path}: {error.strerror}; `tripswitch keys new` makes one") from error
        except (JoseError, ValueError) as error:
            raise BadKey(f"signing key {path}: no RSA private key in PEM form") from error
        if not key.is_private:
            raise BadKey(f"signing key {path}: a public key can't sign; give the private one")
        return cls(key, issuer=issuer, contact=contact)

    def token(self, payload: dict[str, Any], kind: str) -> bytes:
        """The compact JWS of `payload`, `typ` as given."""
        header = {"alg": "RS256", "typ": kind, "kid": self._key.thumbprint()}
        token: str = jws.serialize_compact(
            header, json.dumps(payload, separators=(",", ":")).encode(), self._key, ["RS256"]
        )
        return token.encode()

    def records(self, command: Command, issued: int) -> list[SignedRecord]:
        """The command's records, published at `issued` (ms): for the gateways and for the audit. A shadow command
        is for the audit alone: a receiver that knows no shadow must never see it."""
        token = self.token(claims(command, issuer=self._issuer, issued=issued, contact=self._contact), TOKEN_TYPE)
        key = record_key(command.tenant, command.scope, command.subject)
        topics = (AUDIT,) if command.mode == "shadow" else (KILLSWITCH, AUDIT)
        fields = headers(command, issuer=self._issuer, issued=issued)
        return [SignedRecord(topic, key, token, fields) for topic in topics]


class Verifier:
    """Checks requests against the JWKS file."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    @classmethod
    def read(cls, path: Path) -> "Verifier":
        """The verifier of a JWKS file.

        Raises:
            BadKey: the file is absent or is no JWKS.
        """
        try:
            return cls(KeySet.import_key_set(json.loads(path.read_bytes())))
        except OSError as error:
            raise BadKey(f"JWKS {path}: {error.strerror}; `tripswitch keys new` makes one") from error
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise BadKey(f"JWKS {path}: not a JWKS file") from error

    def payload(self, token: bytes, kind: str) -> bytes:
        """The payload of a token of type `kind` that one of the keys signed.

        Raises:
            ValueError: it is not that; says why, without its content.
        """
        try:
            signed = jws.deserialize_compact(token, self._keys, ["RS256"])
        except (JoseError, ValueError) as error:
            raise ValueError(f"not signed by a key that is trusted: {type(error).__name__}") from error
        if signed.headers().get("typ") != kind:
            raise ValueError("signed, but for another purpose")
        payload: bytes = signed.payload
        return payload


def new_keys(private: Path, public: Path) -> str:
    """Makes a key pair: a PEM file that only its owner reads, and a JWKS file. Returns the `kid`.

    Raises:
        FileExistsError: one of the files is there already; nothing is overwritten.
    """
    for path in (private, public):
        if path.exists():
            raise FileExistsError(f"{path} is there already; keys are never overwritten")
        path.parent.mkdir(parents=True, exist_ok=True)
    made = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    private.touch(mode=0o600)
    private.write_bytes(pem)
    key = RSAKey.import_key(pem)
    kid: str = key.thumbprint()
    entry = {**key.as_dict(private=False), "kid": kid, "alg": "RS256", "use": "sig"}
    public.write_text(json.dumps({"keys": [entry]}, indent=1) + "\n")
    return kid
