"""What was archived is read back as it was published."""

from typing import Any

import msgspec
import pytest

from schemas import topics
from schemas.command import Limits, decode_command
from schemas.finding import Finding, decode_signal
from schemas.incident import decode_incident
from sinks.clickhouse import ClickHouseSink
from sinks.errors import Unreachable
from streams.archived import Archived


def test_findings_come_back(sink: ClickHouseSink, samples: Any) -> None:
    first = decode_signal(samples.signal().value)
    assert isinstance(first, Finding)
    evidence = msgspec.structs.replace(first.evidence, deterministic=True, session_id="s", offsets=(7, -1))
    second = msgspec.structs.replace(first, finding_id="f-'2\\", time="2026-03-02T11:59:59.123Z", evidence=evidence)
    other = msgspec.structs.replace(first, finding_id="f-3", tenant="other")
    sink.write(topics.SIGNALS, [samples.signal(n, one) for n, one in enumerate((first, second, other))])
    archived = Archived(sink)
    assert archived.findings(tenant="acme") == [second, first]
    assert archived.findings(finding_id=second.finding_id) == [second]
    assert archived.findings(finding_id="' OR 1 = 1 --") == []


def test_incidents_come_back_but_for_what_is_in_force(sink: ClickHouseSink, samples: Any) -> None:
    records = [
        samples.incident(0),
        samples.incident(1, incident_id="i-2", identity=None, opened="2026-03-02T11:00:00.000Z"),
        samples.incident(2, incident_id="i-3", state="closed", closed="2026-03-02T13:00:00.000Z"),
    ]
    sink.write(topics.INCIDENTS, records)
    published = {i.incident_id: i for i in (decode_incident(record.value) for record in records)}
    archived = Archived(sink)
    assert archived.incidents() == [published["i-2"], published["i-1"], published["i-3"]]
    assert archived.incidents("i-3") == [published["i-3"]]
    assert archived.incidents("none") == []


def test_commands_come_back(sink: ClickHouseSink, samples: Any) -> None:
    sink.write(topics.AUDIT, [samples.command(0), samples.command(1, command_id="c-2", action="throttle", epoch=9,
                                                                   limits=Limits(rpm=6), expires_at=None)])  # fmt: skip
    throttle, suspend = Archived(sink).commands("acme", "key_7f3a")
    assert (throttle.action, throttle.limits, throttle.expires_at) == ("throttle", Limits(rpm=6), None)
    assert (suspend.command_id, suspend.time, suspend.limits) == ("c-1", "2026-03-02T12:00:02.000Z", None)
    assert (suspend.scope, suspend.subject, suspend.finding_ids, suspend.policy) == (
        "identity", "key_7f3a", ["f-1"], "p1",
    )  # fmt: skip
    assert decode_command(msgspec.json.encode(suspend)) == suspend
    assert Archived(sink).commands("acme", "nobody") == []


def test_orders_come_back_as_they_were_signed(sink: ClickHouseSink, samples: Any) -> None:
    sink.write(topics.REQUESTS, [samples.request(0)])
    [action] = {row[0] for row in sink.query("SELECT action FROM requests")}
    archived = Archived(sink)
    assert archived.tokens("acme", str(action)) == [samples.request(0).value]
    assert archived.tokens("acme", "approve") == []
    assert archived.tokens("globex", str(action)) == []


def test_a_clickhouse_that_is_away_is_said_in_a_line(server: Any) -> None:
    with ClickHouseSink(server.url) as sink:
        server.refuses = (503, None, "away")
        with pytest.raises(Unreachable, match="CLICKHOUSE_URL"):
            Archived(sink).incidents()
