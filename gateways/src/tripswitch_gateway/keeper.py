"""Keeps a snapshot of the kill switch on disk, and starts a gateway from it."""

import logging
import time
from pathlib import Path
from threading import Thread

from tripswitch_gateway.commands import CommandVerifier
from tripswitch_gateway.enforcer import Enforcer
from tripswitch_gateway.reader import Reader
from tripswitch_gateway.snapshot import Origin, Unusable, read_snapshot, write_snapshot

_log = logging.getLogger(__name__)

_EVERY_S = 10.0
# Of the time at most: a large snapshot is written less often.
_SHARE = 0.02


class Keeper:
    """Writes the file at ``path`` when something has changed, beside the subscriber's thread, which uses the rest."""

    def __init__(self, path: Path, topic: str, verifier: CommandVerifier, reader: Reader, enforcer: Enforcer) -> None:
        self._path = path
        self._topic = topic
        self._verifier = verifier
        self._reader = reader
        self._enforcer = enforcer
        self._written = 0
        self._due_at = 0.0
        self._writing: Thread | None = None
        enforcer.tokens = {}

    def load(self) -> None:
        """Start from the snapshot, if there is one that is ours."""
        try:
            snapshot = read_snapshot(self._path)
        except Unusable as why:
            _log.warning("ignoring the snapshot %s: %s", self._path, why)
            return
        if snapshot is None:
            return
        ours = self._origin()
        if (snapshot.origin.issuer, snapshot.origin.topic) != (ours.issuer, ours.topic):
            _log.warning("ignoring the snapshot %s: it is of another issuer or topic", self._path)
            return
        offsets = snapshot.offsets
        if snapshot.origin.jwks_sha256 != ours.jwks_sha256:
            # A record that could not be verified then may be good now.
            _log.warning("the signing keys are others than in the snapshot: the topic is read from its beginning")
            offsets = {}
        self._reader.restore(offsets, snapshot.tokens)
        _log.info("%d commands from the snapshot %s", len(snapshot.tokens), self._path)

    def save_if_due(self) -> None:
        """Write what has changed since the last time, in a thread of its own; not more often than is good."""
        busy = self._writing is not None and self._writing.is_alive()
        if not busy and time.monotonic() >= self._due_at:
            self._save()

    def close(self, timeout: float) -> None:
        """Write what has changed since the last time, and wait for it."""
        if self._writing is not None:
            self._writing.join(timeout)
        self._save()
        if self._writing is not None:
            self._writing.join(timeout)

    def _save(self) -> None:
        tokens, changes = self._enforcer.tokens, self._enforcer.changes
        # What has been read and not verified yet is not among the tokens: these offsets would skip it.
        if tokens is None or changes == self._written or not self._reader.settled:
            return
        self._written = changes
        offsets = {one.number: one.position for one in self._reader.partitions.values() if not one.taken_over}
        copy = [(number, key, value) for key, (number, value) in tokens.items()]
        self._writing = Thread(target=self._write, args=(offsets, copy), name="tripswitch-snapshot", daemon=True)
        self._writing.start()

    def _write(self, offsets: dict[int, int], tokens: list[tuple[int, bytes, bytes]]) -> None:
        began = time.monotonic()
        try:
            write_snapshot(self._path, self._origin(), offsets, tokens)
        except OSError as error:
            _log.warning("the snapshot %s was not written: %s", self._path, error.strerror)
        self._due_at = time.monotonic() + max(_EVERY_S, (time.monotonic() - began) / _SHARE)

    def _origin(self) -> Origin:
        return Origin(self._verifier.issuer, self._topic, self._verifier.keys.sha256)
