"""What the archive in ClickHouse has of findings, incidents and commands, as they were published."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec

from schemas.command import Command, Limits
from schemas.finding import Evidence, Finding
from schemas.incident import Incident
from schemas.times import format_millis, to_millis
from sinks.clickhouse import ClickHouseSink
from sinks.errors import Reject, Retry, Unreachable
from streams.archive import make_sink
from streams.settings import read_settings

_FINDING = [field for field in Finding.__struct_fields__ if field != "evidence"]
_INCIDENT = [field for field in Incident.__struct_fields__ if field != "in_force"]
_LIMITS = [f"limit_{field}" for field in Limits.__struct_fields__]
# In the archive `time` is when it was published.
_COMMAND = ["decided", *(field for field in Command.__struct_fields__ if field not in ("time", "limits")), *_LIMITS]


@contextmanager
def archived() -> Iterator["Archived"]:
    """The ClickHouse of the settings.

    Raises:
        SettingsError: its address is none.
    """
    settings = read_settings()
    with make_sink(settings.clickhouse.url, settings.known()) as sink:
        yield Archived(sink)


class Archived:
    """Asks a ClickHouse. An incident's `in_force` it never had; a command's `time` has whole seconds."""

    def __init__(self, sink: ClickHouseSink) -> None:
        self._sink = sink

    def findings(self, **where: str) -> list[Finding]:
        """Findings whose columns have these values, in order of time.

        Raises:
            Unreachable, SchemaError: ClickHouse can't be asked.
        """
        columns = [*_FINDING, "evidence"]
        return [
            msgspec.convert(
                {**_named(columns, row), "evidence": msgspec.json.decode(str(row[-1]), type=Evidence)},
                Finding,
            )
            for row in self._rows("findings", columns, where, "time, finding_id")
        ]

    def incidents(self, incident_id: str | None = None) -> list[Incident]:
        """The incident with this id, or all, in the order in which they were opened.

        Raises:
            Unreachable, SchemaError: ClickHouse can't be asked.
        """
        where = {} if incident_id is None else {"incident_id": incident_id}
        rows = self._rows("incidents", _INCIDENT, where, "opened, incident_id")
        return [msgspec.convert(_named(_INCIDENT, row), Incident) for row in rows]

    def commands(self, tenant: str, identity: str) -> list[Command]:
        """An identity's commands, in order of time.

        Raises:
            Unreachable, SchemaError: ClickHouse can't be asked.
        """
        where = {"tenant": tenant, "identity": identity}
        return [_command(_named(_COMMAND, row)) for row in self._rows("commands", _COMMAND, where, "epoch, command_id")]

    def tokens(self, tenant: str, action: str) -> list[bytes]:
        """What people asked for of this sort, as it was signed, in order of time. Nobody has verified it.

        Raises:
            Unreachable, SchemaError: ClickHouse can't be asked.
        """
        rows = self._rows("requests", ["token"], {"tenant": tenant, "action": action}, "time, request_id")
        return [str(token).encode() for (token,) in rows]

    def _rows(self, table: str, columns: Sequence[str], where: dict[str, str], order: str) -> list[tuple[object, ...]]:
        asked = " AND ".join(f"{column} = {_quoted(value)}" for column, value in where.items())
        sql = f"SELECT {', '.join(columns)} FROM {table} FINAL WHERE {asked or '1'} ORDER BY {order}"  # noqa: S608
        try:
            return self._sink.query(sql)
        except (Retry, Reject) as error:
            raise Unreachable(f"{error}; start it, correct CLICKHOUSE_URL, or name a replay's folder") from error


def _command(named: dict[str, Any]) -> Command:
    limits = {name.removeprefix("limit_"): named.pop(name) or None for name in _LIMITS}
    return msgspec.convert(
        {**named, "time": named.pop("decided"), "limits": limits if any(limits.values()) else None}, Command
    )


def _named(columns: Sequence[str], row: Sequence[object]) -> dict[str, Any]:
    return {column: _plain(value) for column, value in zip(columns, row, strict=True)}


def _plain(value: object) -> object:
    """A value as it was on the wire."""
    if isinstance(value, datetime):
        return format_millis(to_millis(value))
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
