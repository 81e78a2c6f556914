"""The public keys that may sign commands, read from a JWKS file and read again when the file changes."""

import hashlib
import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

_log = logging.getLogger(__name__)

MIN_BITS = 2048
COMMANDS, BREAK_GLASS = "commands", "break-glass"
_ROLE = "tripswitch_role"


class KeysUnreadable(ValueError):
    """The JWKS file is missing, is not a JWKS, or holds no usable key; the message names the file and the fault."""


class _Key(NamedTuple):
    key: RSAKey
    role: str


class KeyFile:
    """RSA signature keys of the JWKS file at ``path``, by ``kid``.

    Only RSA keys of at least 2048 bits that are meant for RS256 signatures are taken: a symmetric key in the file must
    never become a way to forge. A key's role is ``commands`` or ``break-glass``; one of a role that this version does
    not know is not taken. ``generation`` goes up by one each time that other keys were read.

    Raises `KeysUnreadable` when the file cannot be used at first. Later on, a file that has gone bad (half written, in
    the middle of a rotation) leaves the last good keys in force and is tried again at its next change.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._read_stamp()
        self._keys = _load(path)
        self.generation = 1

    def get(self, kid: str) -> RSAKey | None:
        """The key named ``kid``, or None. Costs one stat of the file."""
        self.refresh()
        found = self._keys.get(kid)
        return None if found is None else found.key

    def __contains__(self, kid: str) -> bool:
        """Whether ``kid`` was among the keys when the file was last read."""
        if kid not in self._keys:
            self.refresh()
        return kid in self._keys

    def role(self, kid: str) -> str:
        """What the key ``kid`` may sign. Raises KeyError when there is no such key."""
        return self._keys[kid].role

    @property
    def kids(self) -> Collection[str]:
        """The names of all keys."""
        return self._keys.keys()

    @property
    def sha256(self) -> str:
        """Names the keys that may sign, however the file is written: SHA-256 over their sorted ``kid``, in hex."""
        return hashlib.sha256("\n".join(sorted(self._keys)).encode()).hexdigest()

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            keys = _load(self._path)
        except KeysUnreadable as error:
            _log.warning("keeping the last good signing keys: %s", error)
            return
        if _named(keys) != _named(self._keys):
            self.generation += 1
        self._keys = keys

    def _read_stamp(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError as error:
            raise KeysUnreadable(f"{self._path}: {error.strerror}") from error
        # The inode and the size tell apart two writes within one tick of the file system's clock.
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _named(keys: dict[str, _Key]) -> dict[str, tuple[str, str]]:
    return {kid: (key.role, key.key.thumbprint()) for kid, key in keys.items()}


def _load(path: Path) -> dict[str, _Key]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise KeysUnreadable(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise KeysUnreadable(f"{path}: not JSON") from error
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeysUnreadable(f'{path}: not a JWKS, expected {{"keys": [...]}}')
    keys = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise KeysUnreadable(f"{path}: a key is not an object")
        kid = entry.get("kid")
        usable = entry.get("kty") == "RSA" and entry.get("alg", "RS256") == "RS256" and entry.get("use", "sig") == "sig"
        role = entry.get(_ROLE, COMMANDS)
        if not usable or not isinstance(kid, str) or role not in (COMMANDS, BREAK_GLASS):
            continue
        try:
            # Only the public members: a private key left in the file is of no use here.
            key = RSAKey.import_key({"kty": "RSA", "n": entry["n"], "e": entry["e"]})
            bits = key.public_key.key_size
        except (JoseError, KeyError, TypeError, ValueError) as error:
            raise KeysUnreadable(f"{path}: key {kid!r} is not a valid RSA public key") from error
        if bits < MIN_BITS:
            raise KeysUnreadable(f"{path}: key {kid!r} has {bits} bits, at least {MIN_BITS} are needed")
        keys[kid] = _Key(key, role)
    if not keys:
        raise KeysUnreadable(f"{path}: no RSA key for RS256 signatures in it")
    return keys
