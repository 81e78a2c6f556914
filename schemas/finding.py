"""What `detect` publishes on `llm.signals`: findings, and each tenant's sums per closed bucket."""

from typing import Literal

import msgspec
from msgspec import Struct

from schemas.decoding import decode
from schemas.usage import CLAIMED

Kind = Literal[
    "spike", "tenant_spike", "drift", "loop", "geo_shift", "shared_credential",
    "model_shift", "failure_burst", "dormant", "entitlement", "quota", "evasion",
]  # fmt: skip
Severity = Literal["info", "low", "medium", "high", "critical"]


class Cause(Struct, frozen=True):
    """The usage event that triggered a finding."""

    source: str
    id: str


class Evidence(Struct, frozen=True, omit_defaults=True):
    """Enough to compute a finding again, and what a response has to know.

    `partition` and `offsets` (first, last) say where the events lie in `llm.usage` (in a replay: the line, from 0).
    `deterministic` marks a rule that needs no second family to block; `extreme` an excursion great and long enough
    to block alone. `span_seconds` is how far back the evidence reaches. USD figures are per minute. `shared` names what
    others would show too if it were not this identity's doing: a provider's outage, a network, a tenant's new model.
    """

    partition: int
    offsets: tuple[int, int]
    policy: str
    detector_version: int
    state_digest: str
    cause: Cause | None = None
    usd_per_minute: float = 0.0
    baseline_usd_per_minute: float = 0.0
    age_seconds: float = 0.0
    span_seconds: float = 0.0
    deterministic: bool = False
    extreme: bool = False
    workload: str | None = None
    credential_id: str | None = None
    session_id: str | None = None
    identity_trust: str | None = None
    shared: str | None = None
    details: dict[str, str | float | int] = {}

    @property
    def claimed(self) -> bool:
        """Whether the caller merely says that it is this identity: its owner is not to blame."""
        return self.identity_trust == CLAIMED


class Finding(Struct, frozen=True, tag_field="type", tag="llm.finding.v1"):
    """One detector's word on one identity. `time` is when it could be decided; `window` the span it judges.

    `observed` and `baseline` share the unit that `reason` names. `score` is 0 to 1: how far beyond the policy's
    threshold, saturating.
    """

    finding_id: str
    time: str
    tenant: str
    identity: str
    kind: Kind
    severity: Severity
    score: float
    detector: str
    window: str
    observed: float
    baseline: float
    reason: str
    evidence: Evidence


class TenantBucket(Struct, frozen=True, omit_defaults=True, tag_field="type", tag="llm.tenant_bucket.v1"):
    """The sums of a tenant's identities in one partition over one closed bucket of 10 s that ended at `end`.

    `denied` counts, per identity, the calls that gateways refused on our word: a block stays while they come.
    `arrived` are those of the `identities` that were served for the first time within the five minutes of the clock
    (UTC) that the bucket lies in. `interactive_arrived` and `interactive_requests` are the part of `arrived` and
    `requests` of those that are at work interactively: a batch job says nothing of how many people there are.
    """

    time: str
    tenant: str
    end: str
    partition: int
    identities: int
    requests: int
    failures: int
    tokens: float
    cost_usd: float
    denied: dict[str, int] = {}
    arrived: int = 0
    interactive_arrived: int = 0
    interactive_requests: int = 0


class Tick(Struct, frozen=True, tag_field="type", tag="llm.tick.v1"):
    """Moves the clock of an idle partition; written by the worker that owns it."""

    time: str


Signal = Finding | TenantBucket | Tick

encode = msgspec.json.Encoder(order="deterministic").encode
_decoder: msgspec.json.Decoder[Signal] = msgspec.json.Decoder(Signal)


def decode_signal(raw: bytes) -> Signal:
    """A record of `llm.signals`.

    Raises:
        Malformed: it is none.
    """
    return decode(_decoder, raw)
