"""What a data team asks ClickHouse after the demo."""

from collections.abc import Sequence
from dataclasses import dataclass

from sinks.clickhouse import ClickHouseSink
from streams.demo.story import ATTACKS

_VICTIMS = ", ".join(f"'{attack.identity}'" for attack in ATTACKS)

QUESTIONS = (
    (
        "What did each victim spend, and how many of its calls were refused?",
        ("identity", "calls", "usd", "refused"),
        f"""
        SELECT identity, countIf(error != 'tripswitch_denied'), round(sum(ifNull(cost_usd, 0)), 2),
               countIf(error = 'tripswitch_denied')
        FROM usage_events FINAL
        WHERE source = 'gateway/demo-1' AND identity IN ({_VICTIMS})
        GROUP BY identity ORDER BY 3 DESC
        """,  # noqa: S608 - the names are constants
    ),
    (
        "What happened, what was done about it, and how long did it take to reach the gateway?",
        ("identity", "kinds", "commands", "acknowledged", "p99 ms"),
        """
        SELECT identity, arrayStringConcat(kinds, '+'),
               arrayStringConcat(arrayMap(c -> c.3 || ' ' || c.4, commands), ', '), acknowledged, propagation_p99_ms
        FROM incident_responses ORDER BY opened
        """,
    ),
    (
        "Who pays? The five dearest tenants of the chargeback, which counts each event once",
        ("tenant", "requests", "tokens", "usd"),
        """
        SELECT tenant, sum(requests), sum(input_tokens + output_tokens), round(toFloat64(sum(cost_usd)), 2) AS usd
        FROM chargeback GROUP BY tenant ORDER BY usd DESC LIMIT 5
        """,
    ),
)


@dataclass(frozen=True, slots=True)
class Answered:
    """A question and the rows of its answer."""

    question: str
    columns: Sequence[str]
    rows: Sequence[tuple[object, ...]]


def ask(sink: ClickHouseSink) -> tuple[int, list[Answered]]:
    """How many usage events there are, and the three answers."""
    ((count,),) = sink.query("SELECT count() FROM usage_events FINAL")
    answers = [Answered(question, columns, sink.query(sql)) for question, columns, sql in QUESTIONS]
    assert isinstance(count, int)
    return count, answers
