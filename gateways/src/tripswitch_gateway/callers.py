"""Who makes a call: the names that are checked against the kill switch, and the same ones that usage events carry."""

from dataclasses import dataclass

NO_TENANT = "-"
MAX_NAME = 256
"""Characters; a longer name in a usage event would make it a dead letter, and the call unseen."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The names of one call's caller.

    They are cleaned once, here, so that the name that is checked is always the one that is published: cut to
    `MAX_NAME` characters, lone surrogates replaced, empty ones None. ``identity`` is what would be cut off, and
    ``trust`` says where it came from: authenticated, mapped_header or request_body. An identity that nothing vouches
    for must not be called authenticated: its owner would be blocked for what others do in its name.

    Raises ValueError when ``identity`` is empty.
    """

    identity: str
    tenant: str = NO_TENANT
    credential: str | None = None
    session: str | None = None
    end_user: str | None = None
    kind: str | None = None
    trust: str | None = "authenticated"

    def __post_init__(self) -> None:
        identity = clean(self.identity)
        if identity is None:
            raise ValueError("a caller needs an identity")
        object.__setattr__(self, "identity", identity)
        object.__setattr__(self, "tenant", clean(self.tenant) or NO_TENANT)
        for name in ("credential", "session", "end_user", "kind"):
            object.__setattr__(self, name, clean(getattr(self, name)))


def clean(name: object) -> str | None:
    """``name`` as usage events can carry it; None when it is empty or no text."""
    if not isinstance(name, str) or not name:
        return None
    return name[:MAX_NAME].encode(errors="replace").decode()
