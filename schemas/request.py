"""A person's order, on `llm.requests`: signed by the command line, carried out by `decide`."""

from typing import Literal

from msgspec import Struct


class Request(Struct, frozen=True):
    """`by` asks for `action` on an identity of a tenant, and says why. `time` is RFC 3339."""

    request_id: str
    time: str
    tenant: str
    identity: str
    action: Literal["throttle", "suspend", "revoke", "restore"]
    reason: str
    by: str
