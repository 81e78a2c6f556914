"""The incident: what an analyst sees. One is open per identity; it is updated, not repeated."""

from typing import Literal

import msgspec
from msgspec import Struct

from schemas.decoding import decode
from schemas.finding import Kind, Severity


class Incident(Struct, frozen=True):
    """An identity's (or, where `identity` is null, a tenant's) open or closed case.

    `kinds` has the strongest first, `risk` is the greatest while it is open. `response` is the strongest yet and
    `in_force` what blocks now. `raised` are the later times at which it flared up again. USD figures are per minute:
    what the identity spends now, and what it usually does.
    """

    incident_id: str
    tenant: str
    identity: str | None
    opened: str
    updated: str
    closed: str | None
    state: Literal["open", "closed"]
    kinds: list[Kind]
    risk: float
    severity: Severity
    usd_per_minute: float
    baseline_usd_per_minute: float
    headline: str
    response: Literal["alert", "throttle", "downgrade", "suspend", "revoke"]
    finding_ids: list[str]
    command_ids: list[str]
    raised: list[str] = []
    in_force: Literal["throttle", "downgrade", "suspend", "revoke"] | None = None


_decoder = msgspec.json.Decoder(Incident)


def decode_incident(raw: bytes) -> Incident:
    """A record of `llm.incidents`.

    Raises:
        Malformed: it is none.
    """
    return decode(_decoder, raw)
