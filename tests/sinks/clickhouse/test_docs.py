import re
from pathlib import Path
from typing import Any

import pytest

from schemas import topics
from sinks.clickhouse import ClickHouseSink
from sinks.clickhouse.rows import COLUMNS

PAGE = (Path(__file__).parents[3] / "docs" / "clickhouse.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def filled(sink: ClickHouseSink, usage: Any, samples: Any) -> ClickHouseSink:
    sink.write(topics.USAGE, [usage(number, cost_usd=0.5) for number in range(10)])
    sink.write(topics.SIGNALS, [samples.signal(0), samples.bucket(1)])
    sink.write(topics.INCIDENTS, [samples.incident(opened="2026-03-02T12:00:00.000Z")])
    sink.write(topics.AUDIT, [samples.command()])
    sink.write(topics.ACKS, [samples.acknowledgement(0), samples.acknowledgement(1, gateway="gw-us/pod-1", status=2)])
    return sink


def test_the_page_has_six_queries_and_each_finds_something(filled: ClickHouseSink) -> None:
    spent, responses, spans, gateways, commands, detectors = (filled.query(query) for query in QUERIES)
    assert [(*row[:4], str(row[4])) for row in spent] == [("acme", "key_7f3a", "gpt-5-mini", 10, "5.000000000000")]
    assert responses[0][6:] == (1, 1, 606.0, 606.0)
    assert [(row[0], row[2], row[3]) for row in spans] == [("i-1", 0.844, 0.5)]
    assert {row[0]: row[2] for row in gateways} == {"gw-eu/pod-3": 0, "gw-us/pod-1": 1}
    assert [(row[4], row[5], row[6], row[7]) for row in sorted(commands, key=lambda row: row[5])] == [
        ("c-1", "gw-eu/pod-3", 1, 606.0),
        ("c-1", "gw-us/pod-1", 0, 606.0),
    ]
    assert detectors == [("spike", "high", 1, 1, 1)]


def test_the_page_names_every_table_and_view(sink: ClickHouseSink) -> None:
    views = {row[0] for row in sink.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'"
    )}  # fmt: skip
    assert {name for name in {*COLUMNS, *views} if f"| `{name}` |" not in PAGE} == set()


def test_a_command_that_nobody_acknowledged_is_seen(sink: ClickHouseSink, samples: Any) -> None:
    sink.write(topics.AUDIT, [samples.command()])
    [row] = sink.query(QUERIES[4])
    assert (row[4], row[5], row[7]) == ("c-1", "", None)
