# ruff: noqa: S608 - the names in these statements are the tests' own
from typing import Any

import pytest

from sinks.clickhouse import ClickHouseSink, SchemaError
from sinks.clickhouse.migrations import MIGRATIONS
from sinks.clickhouse.rows import COLUMNS


def names(sink: ClickHouseSink, what: str) -> set[object]:
    return {row[0] for row in sink.query(f"SELECT name FROM system.{what} WHERE database = currentDatabase()")}


def test_the_numbers_count_from_one() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_setup_makes_the_database_and_says_what_it_did(url: str) -> None:
    with ClickHouseSink(url) as sink:
        assert sink.setup() == tuple(f"{migration.number:04} {migration.name}" for migration in MIGRATIONS)
        assert names(sink, "tables") >= {*COLUMNS, "chargeback", "incident_responses", "schema_migrations"}


def test_setup_again_does_nothing(sink: ClickHouseSink) -> None:
    before = sink.query("SELECT * FROM schema_migrations ORDER BY number")
    assert sink.setup() == ()
    assert sink.query("SELECT * FROM schema_migrations ORDER BY number") == before


def test_every_step_bears_being_repeated_after_a_crash_in_its_middle(sink: ClickHouseSink) -> None:
    everything = names(sink, "tables")
    for migration in MIGRATIONS[1:]:
        sink._client().command(f"DELETE FROM schema_migrations WHERE number = {migration.number}")
    sink._client().command("DROP TABLE dead_letters")
    assert len(sink.setup()) == len(MIGRATIONS) - 1
    assert names(sink, "tables") == everything


def test_a_newer_database_is_refused(sink: ClickHouseSink) -> None:
    newer = MIGRATIONS[-1].number + 1
    sink._client().command(f"INSERT INTO schema_migrations VALUES ({newer}, 'of the future', now())")
    with pytest.raises(SchemaError, match=f"at migration {newer}.*knows {newer - 1}.*install"):
        sink.setup()


def test_writing_without_setup_says_what_to_do(url: str, sink: ClickHouseSink, usage: Any) -> None:
    sink._client().command("DROP TABLE usage_events")
    with pytest.raises(SchemaError, match=r"usage_events.*tripswitch init"):
        sink.write("llm.usage", [usage(0)])


@pytest.mark.parametrize("table", COLUMNS)
def test_every_column_is_written(sink: ClickHouseSink, table: str) -> None:
    there = sink.query(f"SELECT name FROM system.columns WHERE database = currentDatabase() AND table = '{table}'")
    assert {row[0] for row in there} == set(COLUMNS[table])
