"""The public keys that may sign commands, read from a JWKS file and read again when the file changes."""

import json
import logging
from pathlib import Path

from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

_log = logging.getLogger(__name__)

MIN_BITS = 2048


class KeysUnreadable(ValueError):
    """The JWKS file is missing, is not a JWKS, or holds no usable key; the message names the file and the fault."""


class KeyFile:
    """RSA signature keys of the JWKS file at ``path``, by ``kid``.

    Only RSA keys of at least 2048 bits that are meant for RS256 signatures are taken: a symmetric key in the file must
    never become a way to forge. ``generation`` goes up by one each time that changed keys were read.

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
        return self._keys.get(kid)

    def refresh(self) -> None:
        """Read the file again if it has changed."""
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._keys = _load(self._path)
        except KeysUnreadable as error:
            _log.warning("keeping the last good signing keys: %s", error)
        else:
            self.generation += 1

    def _read_stamp(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError as error:
            raise KeysUnreadable(f"{self._path}: {error.strerror}") from error
        # The inode and the size tell apart two writes within one tick of the file system's clock.
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _load(path: Path) -> dict[str, RSAKey]:
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
        if not usable or not isinstance(kid, str):
            continue
        try:
            # Only the public members: a private key left in the file is of no use here.
            key = RSAKey.import_key({"kty": "RSA", "n": entry["n"], "e": entry["e"]})
            bits = key.public_key.key_size
        except (JoseError, KeyError, TypeError, ValueError) as error:
            raise KeysUnreadable(f"{path}: key {kid!r} is not a valid RSA public key") from error
        if bits < MIN_BITS:
            raise KeysUnreadable(f"{path}: key {kid!r} has {bits} bits, at least {MIN_BITS} are needed")
        keys[kid] = key
    if not keys:
        raise KeysUnreadable(f"{path}: no RSA key for RS256 signatures in it")
    return keys
