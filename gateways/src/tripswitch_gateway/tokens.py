"""Signed tokens of the kill-switch topic: what is in one, once its signature is known to be good."""

from dataclasses import dataclass
from typing import Any

from joserfc.jws import JWSRegistry

from tripswitch_gateway import fields
from tripswitch_gateway.fields import Refused
from tripswitch_gateway.keys import KeyFile

MAX_BYTES = 64 * 1024
_RS256 = JWSRegistry.algorithms["RS256"]
_MAX_HEADS = 64


@dataclass(frozen=True, slots=True)
class Token:
    """Claims that were signed by the key ``kid``, which has ``role``; ``token_id`` is their ``jti``."""

    claims: dict[str, Any]
    token_id: str
    kid: str
    role: str


class TokenVerifier:
    """Opens compact JWS tokens (RS256, ``typ`` secevent+jwt) that a key of ``keys`` signed.

    The checks come in the order of their cost, the signature last, so that a flood of garbage is cheap to refuse.
    """

    def __init__(self, keys: KeyFile) -> None:
        self.keys = keys
        # Every token of a signing key has the same first segment: it is read once. Whatever else comes is not kept.
        self._heads: dict[bytes, str] = {}

    def check_head(self, value: bytes | None) -> str:
        """The ``kid`` of a token that may be worth a look; raises `Refused` without the cost of a signature."""
        if value is None:
            # Access is given back by a command with a greater epoch, never by deleting the record.
            raise Refused("tombstone")
        if len(value) > MAX_BYTES:
            raise Refused("oversized")
        # Not `partition`: of a million records that wait to be verified, the rest would be copied a million times.
        dot = value.find(b".")
        head = value[:dot] if dot >= 0 else value
        kid = self._heads.get(head) if dot >= 0 else None
        if kid is None:
            kid = _read_head(head, dotted=dot >= 0)
            if kid not in self.keys:
                raise Refused("unknown-kid")
            if len(self._heads) < _MAX_HEADS:
                self._heads[head] = kid
        elif kid not in self.keys:
            raise Refused("unknown-kid")
        return kid

    def open(self, value: bytes | None) -> Token:
        """The claims of a token. Raises `Refused`, and nothing else, whatever the bytes are."""
        kid = self.check_head(value)
        assert value is not None
        signed, _, signature = value.rpartition(b".")
        head, dot, payload = signed.partition(b".")
        if not dot or b"." in payload or not head:
            raise Refused("malformed")
        key = self.keys.get(kid)
        if key is None:
            raise Refused("unknown-kid")
        if not is_signed(signed, fields.decode_segment(signature), key):
            raise Refused("signature")
        claims = fields.parse_object(fields.decode_segment(payload))
        token_id = claims.get("jti")
        if not isinstance(token_id, str) or not token_id:
            raise Refused("malformed")
        return Token(claims, token_id, kid, self.keys.role(kid))


def is_signed(signed: bytes, signature: bytes, key: object) -> bool:
    """Whether ``signature`` (RS256) is of ``signed`` and the RSA ``key``."""
    try:
        return bool(_RS256.verify(signed, signature, key))
    except ValueError:
        return False


def _read_head(head: bytes, *, dotted: bool) -> str:
    """The header's ``kid``. The key type can never follow from the header: RS256 it is, or nothing."""
    header = fields.parse_object(fields.decode_segment(head))
    if not dotted or "crit" in header or "b64" in header:
        raise Refused("malformed")
    if header.get("alg") != "RS256":
        raise Refused("algorithm")
    if header.get("typ") != "secevent+jwt":
        raise Refused("type")
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise Refused("unknown-kid")
    return kid
