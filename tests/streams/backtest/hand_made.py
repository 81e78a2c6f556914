"""Labels, calls, incidents and commands made by hand. Times are seconds after `START`."""

from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import msgspec
from made_traffic import Traffic, as_lines, in_order

from schemas.command import Command
from schemas.directory import Directory
from schemas.finding import Evidence, Finding
from schemas.incident import Incident
from streams.backtest.calls import Calls, read_calls
from streams.backtest.corpus import Label
from streams.backtest.score import Scored, score

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = 86_400
WATCHED = ("key_1", "key_2", "key_3")


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def label(start: float, end: float, **changes: Any) -> Label:
    fields = {
        "identity": "key_1", "attack": "theft", "start": at(start), "end": at(end), "response": "revoke",
        "accept": ["spike", "geo_shift"],
    }  # fmt: skip
    return msgspec.convert(fields | changes, Label)


def incident(opened: float, identity: str | None = "key_1", **changes: Any) -> Incident:
    made = Incident(
        incident_id=f"inc-{identity}-{opened}", tenant="acme", identity=identity, opened=at(opened),
        updated=at(opened), closed=None, state="open", kinds=["spike"], risk=45.0, severity="high", usd_per_minute=1.0,
        baseline_usd_per_minute=0.1, headline="too much", response="alert", finding_ids=[], command_ids=[],
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def command(time: float, action: Any = "revoke", expires: float | None = None, **changes: Any) -> Command:
    made = Command(
        command_id=f"cmd-{time}", time=at(time), tenant="acme", identity="key_1", scope="identity", subject="key_1",
        action=action, epoch=int(time), expires_at=None if expires is None else at(expires), mode="enforce",
        reason="because", incident_id="inc-1", finding_ids=[], policy="p",
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def finding(time: float, kind: Any = "spike", identity: str = "key_1") -> Finding:
    return Finding(
        f"f-{time}", at(time), "acme", identity, kind, "high", 1.0, f"{kind}@1", "1m", 2.0, 1.0, "because",
        Evidence(0, (0, 0), "p", 1, "d"),
    )  # fmt: skip


def calls(*times: float, **data: Any) -> Calls:
    """Two days of one call an hour from each identity, and calls of key_1 at `times` that cost $1 each."""
    stories = [Traffic(name, cost_usd=0.0) for name in WATCHED]
    for story in stories:
        story.every(3600.0, 0, 2 * DAY)
    thief = Traffic("key_1", cost_usd=1.0, **data)
    for number, time in enumerate(times):
        thief.call(time, event_id=f"theft-{number}")
    stories[0].call(2 * DAY)
    return read_calls(BytesIO(as_lines(in_order(thief.events, *(s.events for s in stories)))), Directory())


def scored(labels: list[Label], times: Any = (), **found: Any) -> Scored:
    """The score of `findings`, `incidents` and `commands`; calls of key_1 at `times` cost $1."""
    tenants = dict.fromkeys(WATCHED, "acme") | {"key_other": "other"}
    parts = [found.get(name, []) for name in ("findings", "incidents", "commands")]
    return score(labels, calls(*times), tenants, len(WATCHED), *parts)
