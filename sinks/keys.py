"""Key files: private keys in PEM form that only their owner reads, public ones in a JWKS file (RFC 7517).

A JWKS file is shared out and replaced as a whole, so whoever reads it sees the old file or the new one. An entry has
two members of our own: `tripswitch_role`, `commands` (the default) or `break-glass`, and `tripswitch_person`, whose key
it is.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey
from msgspec import Struct

_BITS = 3072
_ROLE, _PERSON = "tripswitch_role", "tripswitch_person"
_SHARED = 0o644

Role = Literal["commands", "break-glass"]
Entry = dict[str, Any]


class BadKey(ValueError):
    """A key file that can't be used: says which, and what to do."""


class PublicKey(Struct, frozen=True):
    """A key of a JWKS file. `person` is whose it is, None where it does not say."""

    kid: str
    key: RSAKey
    role: Role = "commands"
    person: str | None = None


class KeyFile:
    """The RSA keys of a JWKS file, by `kid`; read again when the file has changed."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            BadKey: the file is absent or is no JWKS.
        """
        self.path = path
        self._stamp = _stamp(path)
        self._keys = {key.kid: key for key in public_keys(path)}

    def refresh(self) -> bool:
        """Reads the file again if it has changed; returns whether other keys are in it now.

        Raises:
            BadKey: the file is absent or is no JWKS; the last good keys stay.
        """
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return False
        keys = {key.kid: key for key in public_keys(self.path)}
        changed, self._stamp, self._keys = _named(keys) != _named(self._keys), stamp, keys
        return changed

    def get(self, kid: object) -> PublicKey | None:
        """The key with this `kid`."""
        return self._keys.get(kid) if isinstance(kid, str) else None

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self._keys.values())

    def __contains__(self, kid: str) -> bool:
        return kid in self._keys

    @property
    def sha256(self) -> str:
        """Names the keys that may sign, whatever else the file says."""
        return keys_sha256(self._keys)


def keys_sha256(kids: Iterable[str]) -> str:
    """The hex SHA-256 of the sorted `kids`, joined by line feeds: what gateways acknowledge."""
    return hashlib.sha256("\n".join(sorted(kids)).encode()).hexdigest()


def public_keys(path: Path) -> list[PublicKey]:
    """The keys of a JWKS file that are meant for RS256 signatures; gateways pass over the same others.

    Raises:
        BadKey: the file is absent, is no JWKS, or has no such key.
    """
    keys = [_public(path, entry) for entry in read_jwks(path) if _usable(entry)]
    if not keys:
        raise BadKey(f"JWKS {path}: not a JWKS file with an RSA key for RS256 signatures")
    return keys


def read_jwks(path: Path) -> list[Entry]:
    """The entries of a JWKS file, as they stand there.

    Raises:
        BadKey: the file is absent or is no JWKS.
    """
    try:
        entries = json.loads(path.read_bytes())["keys"]
    except OSError as error:
        raise BadKey(f"JWKS {path}: {error.strerror}; `tripswitch keys new` makes one") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadKey(f"JWKS {path}: not a JWKS file") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadKey(f"JWKS {path}: not a JWKS file")
    return entries


def write_jwks(path: Path, entries: Sequence[Entry]) -> None:
    """Replaces a JWKS file, or makes it. Whoever reads it meanwhile reads the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, (json.dumps({"keys": list(entries)}, indent=1) + "\n").encode(), _SHARED)


def retire_key(jwks: Path, kid: str) -> None:
    """Takes a key out of a JWKS file. It is kept in the file of retired keys beside it: old records of the audit can be
    verified with them, and nothing else trusts them.

    Raises:
        BadKey: a file can't be used.
    """
    retired, entries = retired_file(jwks), read_jwks(jwks)
    gone = [entry for entry in entries if entry.get("kid") == kid]
    write_jwks(retired, [*(read_jwks(retired) if retired.exists() else []), *gone])
    write_jwks(jwks, [entry for entry in entries if entry.get("kid") != kid])


def retired_file(jwks: Path) -> Path:
    """Where the keys are that a JWKS file had once."""
    return jwks.with_name(f"{jwks.stem}.retired{jwks.suffix}")


def retired_kids(jwks: Path) -> set[str]:
    """The `kid`s of the keys that a JWKS file had once.

    Raises:
        BadKey: the file of retired keys can't be used.
    """
    retired = retired_file(jwks)
    return {str(entry.get("kid")) for entry in read_jwks(retired)} if retired.exists() else set()


def new_keys(private: Path, public: Path, *, role: Role = "commands", person: str | None = None) -> str:
    """Makes a key pair: a PEM file that only its owner reads, and a JWKS file with it alone. Returns the `kid`.

    Raises:
        FileExistsError: one of the files is there already; nothing is overwritten.
    """
    if public.exists():
        raise FileExistsError(f"{public} is there already; keys are never overwritten")
    entry = new_private_key(private, role=role, person=person)
    write_jwks(public, [entry])
    kid: str = entry["kid"]
    return kid


def new_private_key(path: Path, *, role: Role = "commands", person: str | None = None) -> Entry:
    """Makes a private key in a PEM file that only its owner reads; returns what a JWKS file says of it.

    Raises:
        FileExistsError: the file is there already; nothing is overwritten.
    """
    made = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise FileExistsError(f"{path} is there already; keys are never overwritten") from error
    with os.fdopen(number, "wb") as file:
        file.write(pem)
    return entry_of(RSAKey.import_key(pem), role=role, person=person)


def entry_of(key: RSAKey, *, role: Role = "commands", person: str | None = None) -> Entry:
    """What a JWKS file says of a key: its public half."""
    entry: Entry = {**key.as_dict(private=False), "kid": key.thumbprint(), "alg": "RS256", "use": "sig"}
    if role != "commands":
        entry[_ROLE] = role
    if person is not None:
        entry[_PERSON] = person
    return entry


def read_private_key(path: Path) -> RSAKey:
    """The private key of a PEM file.

    Raises:
        BadKey: the file is absent, unreadable, or no RSA private key; says nothing of what is in it.
    """
    try:
        key = RSAKey.import_key(path.read_bytes(), {"alg": "RS256", "use": "sig"})
    except OSError as error:
        raise BadKey(f"signing key {path}: {error.strerror}; `tripswitch keys new` makes one") from error
    except (JoseError, ValueError) as error:
        raise BadKey(f"signing key {path}: no RSA private key in PEM form") from error
    if not key.is_private:
        raise BadKey(f"signing key {path}: a public key can't sign; give the private one")
    return key


def replace_private_key(path: Path, pem: bytes) -> None:
    """Puts another private key into a PEM file; whoever reads it meanwhile reads the old one."""
    _replace(path, pem, 0o600)


def _usable(entry: Entry) -> bool:
    meant = entry.get("alg", "RS256") == "RS256" and entry.get("use", "sig") == "sig"
    return meant and entry.get("kty") == "RSA" and isinstance(entry.get("kid"), str)


def _public(path: Path, entry: Entry) -> PublicKey:
    try:
        # The public members alone: a private key left in the file is of no use here.
        key = RSAKey.import_key({"kty": entry["kty"], "n": entry["n"], "e": entry["e"]})
        kid, role, person = entry["kid"], entry.get(_ROLE, "commands"), entry.get(_PERSON)
    except (JoseError, KeyError, TypeError, ValueError) as error:
        raise BadKey(f"JWKS {path}: not a JWKS file of RSA keys") from error
    if role not in ("commands", "break-glass") or not isinstance(person, str | None):
        raise BadKey(f"JWKS {path}: key {kid!r}: {_ROLE} is commands or break-glass, {_PERSON} a name")
    return PublicKey(kid, key, role, person)


def _named(keys: dict[str, PublicKey]) -> dict[str, tuple[Role, str | None]]:
    return {kid: (key.role, key.person) for kid, key in keys.items()}


def _stamp(path: Path) -> tuple[int, int, int]:
    """Tells apart two states of a file; the inode and the size those within one tick of the file system's clock."""
    try:
        stat = path.stat()
    except OSError as error:
        raise BadKey(f"JWKS {path}: {error.strerror}; `tripswitch keys new` makes one") from error
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _replace(path: Path, content: bytes, mode: int) -> None:
    number, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(made).chmod(mode)
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
