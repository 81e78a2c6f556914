"""The demo's story: who is attacked, how, and when. Seconds count from the start of the live traffic."""

from dataclasses import dataclass
from typing import Literal

Name = Literal["theft", "loop", "spike"]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack on an identity of the sample.

    From `starts` on, `per_second` calls, until `persists` seconds after the first denial. Calls ask for `model` (None:
    the identity's own) with `tokens` (input, output; None: as the identity itself does). `address` is where they come
    from (None: from the identity's own place), `session` the one session that all of them name, `prompt` the one
    prompt that all of them send.
    """

    name: Name
    title: str
    told: str
    identity: str
    starts: float
    per_second: float
    persists: float
    model: str | None = None
    tokens: tuple[int, int] | None = None
    address: str | None = None
    session: str | None = None
    tool: str | None = None
    prompt: str | None = None


THIEF_NETWORK = {
    "cidr": "203.0.113.0/24",  # documentation addresses and a documentation AS number: nobody's
    "country": "RO",
    "city": "Bucharest",
    "lat": 44.43,
    "lon": 26.10,
    "accuracy_km": 50,
    "asn": 64500,
}

ATTACKS = (
    Attack(
        name="spike",
        title="a script runs wild",
        told="its own host, its own model, 15 calls a second instead of one a minute",
        identity="svc_2d561d6b35",
        starts=3.0,
        per_second=15.0,
        persists=6.0,
    ),
    Attack(
        name="theft",
        title="a key is stolen",
        told="used from a new network and country, on the dearest model",
        identity="key_cae14e2f31",
        starts=9.0,
        per_second=6.0,
        persists=10.0,
        model="claude-opus-4-5",
        tokens=(3200, 1500),
        address="203.0.113.66",
    ),
    Attack(
        name="loop",
        title="an agent loops",
        told="one session repeats the same tool call, three times a second",
        identity="agent_94d7ff10fc",
        starts=15.0,
        per_second=3.0,
        persists=5.0,
        session="run-4711",
        tool="search",
        prompt="Search the repository for the failing test, then search again.",
    ),
)
"""In the order in which they start. The spike goes first: the policy gives a lone excursion time to end by itself."""

RESTORED: Name = "loop"
"""Whose identity a person restores, once the agent's run was stopped."""
REASON = "the agent's run was stopped and its prompt fixed"

GIVE_UP_SECONDS = 60.0
"""After this long an attack that was not denied is missed."""

PRICES = {
    "gpt-5.1": (1.25, 10.0),
    "gpt-5-mini": (0.25, 2.0),
    "gpt-5-nano": (0.05, 0.4),
    "claude-opus-4-5": (5.0, 25.0),
    "claude-sonnet-4-5": (3.0, 15.0),
    "claude-haiku-4-5": (1.0, 5.0),
    "gemini-2.5-pro": (1.25, 10.0),
    "gemini-2.5-flash": (0.3, 2.5),
    "mistral-large": (2.0, 6.0),
}
"""USD per million input and output tokens, as in the sample."""


def cost(model: str, tokens_in: int, tokens_out: int) -> float:
    """USD."""
    price_in, price_out = PRICES[model]
    return (tokens_in * price_in + tokens_out * price_out) / 1e6
