from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from schemas.incident import Incident
from sinks.slack.fake import FakeSlack
from sinks.slack.sink import SlackSink

TOKEN = "xoxb-not-a-secret"
CHANNEL = "C0ALERTS"

INCIDENT = Incident(
    incident_id="inc_9f2c41d07b",
    tenant="acme",
    identity="key_7f3a",
    opened="2026-03-02T00:01:32.844Z",
    updated="2026-03-02T00:01:40.000Z",
    closed=None,
    state="open",
    kinds=["loop", "shared_credential"],
    risk=92.4,
    severity="critical",
    usd_per_minute=69.12,
    baseline_usd_per_minute=0.4,
    headline="120 identical calls in 10 s, from 2 networks never seen before",
    response="suspend",
    finding_ids=["fnd_1"],
    command_ids=["cmd_1a2b"],
)


@pytest.fixture
def incident() -> Callable[..., Incident]:
    def make(**changes: Any) -> Incident:
        """The incident with changes; what was done is in force unless they say otherwise."""
        made = replace(INCIDENT, **changes)
        in_force = made.response if made.command_ids and made.response != "alert" else None
        return replace(made, in_force=changes.get("in_force", in_force))

    return make


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack(token=TOKEN, channel=CHANNEL) as server:
        yield server


@pytest.fixture
def sink(slack: FakeSlack) -> Callable[..., SlackSink]:
    def make(token: str = TOKEN, channel: str = CHANNEL, **options: Any) -> SlackSink:
        return SlackSink(token, channel, api_url=slack.url, **options)

    return make
