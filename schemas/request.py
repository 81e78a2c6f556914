"""A person's order, on `llm.requests`: signed by the command line, carried out by `decide`."""

from typing import Literal

import msgspec
from msgspec import Struct

from schemas.decoding import decode


class Request(Struct, frozen=True):
    """`by` asks for `action` on an identity of a tenant, and says why. `time` is RFC 3339."""

    request_id: str
    time: str
    tenant: str
    identity: str
    action: Literal["throttle", "suspend", "revoke", "restore"]
    reason: str
    by: str


_decoder = msgspec.json.Decoder(Request)


def decode_request(raw: bytes) -> Request:
    """The payload of a record of `llm.requests`.

    Raises:
        Malformed: it is none.
    """
    return decode(_decoder, raw)
