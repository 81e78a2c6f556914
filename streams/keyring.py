"""The keys of a worker: with which it signs, and whose signatures it trusts. Read again when their files change."""

import logging
from pathlib import Path

from sinks.keys import BadKey, KeyFile
from sinks.killswitch import Signer, Verifier
from streams.settings import Signing

_log = logging.getLogger(__name__)


class Keyring:
    """`commands` verifies what is on the kill switch, `requests` what people ask for, `signer` signs commands."""

    def __init__(self, signing: Signing, contact: str) -> None:
        """Reads the files that the settings name.

        Raises:
            BadKey: one can't be used.
        """
        self._signing = signing
        self._contact = contact
        self._private = Path(signing.key)
        self._stamp = _stamp(self._private)
        self.signer = self._read()
        self.commands = Verifier.read(Path(signing.jwks))
        self.requests = Verifier.read(Path(signing.operators)) if signing.operators else self.commands
        self._said = ""
        if self.signer.kid not in self.commands.keys:
            raise BadKey(
                f"signing key {signing.key}: its public half {self.signer.kid} is not in {signing.jwks}, so gateways "
                "would refuse what it signs; name the files that belong together"
            )

    def refresh(self) -> bool:
        """Reads again what has changed. Returns whether what is in force has to be signed anew: another key signs, or
        one that signed is trusted no more."""
        trusted = {key.kid for key in self.commands.keys}
        self._read_public(self.commands.keys)
        if self.requests is not self.commands:
            self._read_public(self.requests.keys)
        distrusted = not trusted <= {key.kid for key in self.commands.keys}
        return self._read_private() or distrusted

    def _read_public(self, keys: KeyFile) -> None:
        try:
            keys.refresh()
        except BadKey as error:
            self._say(f"{error}; the last good keys stay in use")

    def _read_private(self) -> bool:
        stamp = _stamp(self._private)
        if stamp == self._stamp:
            return False
        try:
            signer = self._read()
        except BadKey as error:
            self._say(f"{error}; the last good key goes on signing")
            return False
        if signer.kid not in self.commands.keys:
            self._say(
                f"the key {signer.kid} of {self._private} is not in {self._signing.jwks}: it will sign once it is"
            )
            return False
        self._stamp = stamp
        changed, self.signer = signer.kid != self.signer.kid, signer
        if changed:
            _log.warning("the key %s signs from now on", signer.kid)
        return changed

    def _read(self) -> Signer:
        return Signer.read(self._private, issuer=self._signing.issuer, contact=self._contact)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            _log.error(text)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Tells apart two states of a file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
