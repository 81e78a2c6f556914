"""Who calls: read from the headers of a request that a gateway asks about."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from tripswitch_gateway.guard.config import GuardConfig
from tripswitch_gateway.guard.known_keys import KnownKeys

MAX_NAME = 1024
MAX_CREDENTIAL = 16 * 1024
_NAMES = ("identity", "tenant", "credential", "session", "end_user")
_CREDENTIAL = "a credential"


class Caller(NamedTuple):
    """The names that commands may be about."""

    identity: str
    tenant: str
    credential: str | None = None
    session: str | None = None
    end_user: str | None = None


class BadCaller(ValueError):
    """A request that can't be judged; the message is for the caller and never repeats what it sent."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class CallerReader:
    """Reads headers as ``config`` says; ``keys`` None hashes credentials."""

    def __init__(self, config: GuardConfig, keys: KnownKeys | None) -> None:
        self._keys = keys
        self._prefix = config.credential_prefix
        self._tenant = config.tenant
        self._wanted = {name.encode(): _CREDENTIAL for name in config.credential_headers}
        # After the credentials: a header that the gateway sets is never read as a secret.
        self._wanted |= {
            header.encode(): name for name in _NAMES if (header := getattr(config.headers, name)) is not None
        }

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller | None:
        """The caller; None for one who brings neither a name nor a credential. Raises `BadCaller`.

        ``headers`` have lowercase names, as in ASGI.
        """
        named: dict[str, str] = {}
        secret: bytes | None = None
        for header, value in headers:
            name = self._wanted.get(header)
            if name is None or not value:
                continue
            if name is not _CREDENTIAL:
                if name in named:
                    # One of them is the caller's own, and nobody can tell which.
                    raise BadCaller(400, "ambiguous_caller", f"{header.decode()} was given twice.")
                named[name] = _name(header, value)
                continue
            given = _credential(header, value)
            if secret is not None and given != secret:
                # The gateway may go by the one, and we by the other.
                raise BadCaller(400, "ambiguous_caller", "Two different credentials were given: send one.")
            secret = given
        # Whom the gateway has authenticated needs no second look.
        if secret is not None and not ("identity" in named and "credential" in named):
            self._identify(secret, named)
        if "identity" not in named and "credential" not in named:
            return None
        return Caller(
            named.get("identity", ""), named.get("tenant", self._tenant), named.get("credential"),
            named.get("session"), named.get("end_user"),
        )  # fmt: skip

    def _identify(self, secret: bytes, named: dict[str, str]) -> None:
        digest = hashlib.sha256(secret).hexdigest()
        known = None if self._keys is None else self._keys.find(digest)
        if known is None:
            hashed = self._prefix + digest
            named.setdefault("identity", hashed)
            named.setdefault("credential", hashed)
            return
        named.setdefault("identity", known.identity)
        if known.tenant is not None:
            named.setdefault("tenant", known.tenant)
        if known.credential_id is not None:
            named.setdefault("credential", known.credential_id)


def _name(header: bytes, value: bytes) -> str:
    if len(value) > MAX_NAME:
        raise BadCaller(431, "header_too_large", f"{header.decode()} is longer than {MAX_NAME} bytes.")
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        raise BadCaller(400, "malformed_header", f"{header.decode()} is not UTF-8.") from None


def _credential(header: bytes, value: bytes) -> bytes:
    """The credential itself, without the scheme before it. A list may hold another than the one that we would read."""
    if len(value) > MAX_CREDENTIAL:
        raise BadCaller(431, "header_too_large", f"{header.decode()} is longer than {MAX_CREDENTIAL} bytes.")
    words = value.split()
    if not words or len(words) > 2 or b"," in value:
        raise BadCaller(400, "malformed_header", f"{header.decode()} must hold one credential.")
    return words[-1]
