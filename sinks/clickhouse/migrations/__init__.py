"""The database's shape, as numbered steps that are only ever added to."""

from dataclasses import dataclass
from importlib import resources

from clickhouse_connect.driver.client import Client

_STEPS = (
    "0001_usage_events",
    "0002_detection",
    "0003_responses",
    "0004_dead_letters",
    "0005_views",
)

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (number UInt32, name String, applied DateTime64(3, 'UTC'))
ENGINE = ReplacingMergeTree ORDER BY number
"""


class SchemaError(Exception):
    """The database's tables are not those that this version writes; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: each statement may be run again after a crash in its middle."""

    number: int
    name: str
    statements: tuple[str, ...]


def _read(step: str) -> Migration:
    number, _, name = step.partition("_")
    text = resources.files(__name__).joinpath(f"{step}.sql").read_text(encoding="utf-8")
    return Migration(int(number), name, tuple(part.strip() for part in text.split(";\n") if part.strip()))


MIGRATIONS = tuple(_read(step) for step in _STEPS)


def migrate(client: Client) -> tuple[str, ...]:
    """Applies the missing steps in order to the client's database, and returns their names.

    Raises:
        SchemaError: the database has steps that this version does not know.
    """
    client.command(_LEDGER)
    applied = {row[0] for row in client.query("SELECT DISTINCT number FROM schema_migrations").result_rows}
    newest = max(applied, default=0)
    if newest > MIGRATIONS[-1].number:
        raise SchemaError(
            f"the database {client.database} is at migration {newest}, this tripswitch knows {MIGRATIONS[-1].number}: "
            "install the version that made it, or a later one"
        )
    missing = tuple(migration for migration in MIGRATIONS if migration.number not in applied)
    for migration in missing:
        # 1. the statements, 2. the note that they are done: a crash between repeats them, and they bear that.
        for statement in migration.statements:
            client.command(statement)
        client.command(
            "INSERT INTO schema_migrations SELECT {number:UInt32}, {name:String}, now64(3)",
            parameters={"number": migration.number, "name": migration.name},
        )
    return tuple(f"{migration.number:04} {migration.name}" for migration in missing)
