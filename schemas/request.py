"""A person's order, on `llm.requests`: signed by the command line, carried out by `decide`."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.command import Scope
from schemas.decoding import decode


class Planned(Struct, frozen=True, rename={"since": "from"}):
    """What is approved: up to `max_multiplier` times the identity's usual, from `since` until `until`."""

    since: Annotated[datetime, Meta(tz=True)]
    until: Annotated[datetime, Meta(tz=True)]
    max_multiplier: Annotated[float, Meta(gt=0)]


class Request(Struct, frozen=True, omit_defaults=True):
    """`by` asks for `action`, and says why. `time` is RFC 3339.

    The order is on an identity of a tenant; with another `scope` on its `subject`, where `identity` may be empty: the
    tenant as a whole, one credential, session or end user. `approves` names a request of another person, the same
    order, that waits for a second one. To `approve` is to expect what is `planned` of an identity.
    """

    request_id: str
    time: str
    tenant: str
    identity: str
    action: Literal["throttle", "suspend", "revoke", "restore", "approve"]
    reason: str
    by: str
    scope: Scope = "identity"
    subject: str | None = None
    approves: str | None = None
    planned: Planned | None = None

    @property
    def about(self) -> str:
        """The subject within the scope."""
        return self.identity if self.scope == "identity" else self.subject or ""

    def __post_init__(self) -> None:
        """Checks what must be named."""
        if not (self.tenant and self.about):
            raise ValueError(f"an order with the scope {self.scope} that does not say on what")
        if self.scope == "session" and not self.identity:
            raise ValueError("an order on a session without its identity: callers make the names of sessions up")
        if self.scope == "tenant" and self.subject != self.tenant:
            raise ValueError("an order on a tenant as a whole names the tenant as its subject")
        if (self.action == "approve") != (self.planned is not None):
            raise ValueError("what is planned is for an approval, and an approval needs it")
        if self.planned is not None and (self.scope != "identity" or self.planned.until <= self.planned.since):
            raise ValueError("an approval is of one identity, and ends after it begins")


_decoder = msgspec.json.Decoder(Request)


def decode_request(raw: bytes) -> Request:
    """The payload of a record of `llm.requests`.

    Raises:
        Malformed: it is none.
    """
    return decode(_decoder, raw)
