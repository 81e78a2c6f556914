"""What each detector needs of usage events and of the directory: without it, it is blind to a part of what it detects.

Once for all detectors: `tripswitch status` holds traffic against it, and the pages of docs/kinds name it.
"""

from typing import NamedTuple

from schemas.finding import Kind

METERED = frozenset({"input_tokens", "output_tokens", "cost_usd"})
"""Fields that only calls which were served can have."""


class Part(NamedTuple):
    """A part of what a detector sees. `fields` are those of `data` that it needs, all of them; `a|b` is either;
    `directory.x` a field of the identity's entry in the directory. None: what every event has is enough."""

    what: str
    fields: tuple[str, ...] = ()


_TOKENS = "input_tokens|output_tokens"
NEEDS: dict[Kind, tuple[Part, ...]] = {
    "spike": (Part("tokens", (_TOKENS,)), Part("spend", ("cost_usd",)), Part("calls")),
    "tenant_spike": (Part("a tenant's calls", ("tenant|directory.tenant",)),),
    "drift": (Part("sessions or calls by the hour"), Part("tokens by the day", (_TOKENS,))),
    "loop": (
        Part("repeated prompts", ("fingerprint",)),
        Part("calls of one size", ("session_id", "input_tokens")),
        Part("growing context", ("session_id", "input_tokens")),
        Part("spawned sessions", ("session_id", "workload")),
    ),
    "geo_shift": (Part("new places", ("country", "asn")), Part("impossible travel", ("country", "asn", "lat", "lon"))),
    "shared_credential": (
        Part("fan-out", ("country", "asn")),
        Part("two clients at once", ("country", "asn", "user_agent")),
    ),
    "model_shift": (Part("models never used"), Part("a dearer mix", ("cost_usd", _TOKENS))),
    "failure_burst": (
        Part("probing and own failures"),
        Part("retry storms", ("fingerprint|operation_id", "session_id")),
    ),
    "dormant": (Part("sleep and pace"),),
    "entitlement": (
        Part("models", ("directory.models",)),
        Part("routes", ("route", "directory.routes")),
    ),
    "quota": (Part("calls"), Part("tokens", (_TOKENS,)), Part("spend", ("cost_usd",))),
    "evasion": (Part("usage that never comes", ("output_tokens",)),),
}
