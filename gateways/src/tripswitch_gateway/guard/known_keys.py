"""Whose key is whose: a JSON file that maps hashes of credentials to identities."""

import json
import logging
import re
from pathlib import Path
from typing import NamedTuple

from tripswitch_gateway.settings import SettingsError

_log = logging.getLogger(__name__)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"identity", "tenant", "credential_id"}


class Known(NamedTuple):
    """The owner of a key, by the names that usage events give it."""

    identity: str
    tenant: str | None = None
    credential_id: str | None = None


class KnownKeys:
    """The file's entries: ``{"<SHA-256 of the key, hex>": {"identity": "key_7f3a", "tenant": "acme",
    "credential_id": "cred_1"}}``; the last two may be absent.

    Raises `SettingsError` when the file can't be used at the start; later the entries stay as they were.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._known: dict[str, Known] = {}
        self._read()

    def find(self, digest: str) -> Known | None:
        """The owner of the key with this SHA-256 (lowercase hex)."""
        return self._known.get(digest)

    def __len__(self) -> int:
        return len(self._known)

    def refresh(self) -> None:
        """Reads the file again if it changed. Never raises: a broken file is told in the log, once."""
        try:
            self._read()
        except SettingsError as error:
            _log.warning("%s; the keys stay as they were", error)

    def _read(self) -> None:
        try:
            status = self._path.stat()
            if self._seen == (status.st_mtime_ns, status.st_size):
                return
            self._seen = status.st_mtime_ns, status.st_size
            entries = json.loads(self._path.read_bytes())
        except OSError as error:
            if self._seen == (0, 0):
                return
            self._seen = 0, 0
            raise SettingsError(f"key table {self._path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"key table {self._path}: not JSON") from error
        if not isinstance(entries, dict):
            raise SettingsError(f"key table {self._path}: must be an object")
        # Replaced at once: checks in another thread see the old table or the new one.
        self._known = {digest: self._entry(number, digest, row) for number, (digest, row) in enumerate(entries.items())}

    def _entry(self, number: int, digest: str, row: object) -> Known:
        """The entry is named by its number: whoever wrote a key in place of its hash must not find it in the log."""
        if not _SHA256.fullmatch(digest):
            raise self._wrong(number, "not a SHA-256 in lowercase hex")
        if not isinstance(row, dict) or row.keys() - _FIELDS or not all(isinstance(text, str) for text in row.values()):
            raise self._wrong(number, "needs strings identity, tenant and credential_id, and nothing else")
        if not row.get("identity"):
            raise self._wrong(number, "identity is missing")
        return Known(**row)

    def _wrong(self, number: int, what: str) -> SettingsError:
        return SettingsError(f"key table {self._path}: entry {number}: {what}")
