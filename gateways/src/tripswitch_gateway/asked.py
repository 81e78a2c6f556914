"""Which callers the table is asked about: `tripswitch doctor` compares them with those of usage events."""

import hashlib

_MOST = 64
_DIGITS = 16


class Asked:
    """A sample of the callers asked about since it was last taken. Safe in any thread."""

    def __init__(self) -> None:
        self._names: set[tuple[str, str]] = set()
        self.wanted = True
        """More callers are. To be looked at first: a call of nothing costs as much as the check itself."""

    def note(self, tenant: str, identity: str) -> None:
        """Somebody asks about a caller."""
        if len(self._names) < _MOST:
            self._names.add((tenant, identity))
        else:
            self.wanted = False

    def take(self) -> list[list[str]]:
        """For each caller, hashes of tenant and name together and of the name alone: a gateway that asks about API
        keys by mistake must not publish them."""
        names, self._names, self.wanted = self._names, set(), True
        return [[_short(f"{tenant}\0{identity}"), _short(identity)] for tenant, identity in sorted(names.copy())]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_DIGITS]
