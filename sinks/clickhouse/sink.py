"""Writes the topics into ClickHouse: each batch of a partition once, however often it is written."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas import topics
from sinks.clickhouse.address import parse_address
from sinks.clickhouse.connection import UNKNOWN_DATABASE, answered, connect
from sinks.clickhouse.migrations import migrate
from sinks.clickhouse.rows import READERS, Record, TenantOf, batch, usage_batch
from sinks.errors import Retry, Unreachable

TOPICS = (topics.USAGE, *READERS)
"""What `ClickHouseSink.write` takes."""

# The token is worth nothing on an asynchronous insert, which some servers' profiles make the default; and a batch with
# events of more than a hundred months (a gateway's broken clock) is otherwise refused as "too many parts" for ever.
_INSERT = {"async_insert": 0, "insert_deduplicate": 1, "max_partitions_per_insert_block": 0}


@dataclass(frozen=True, slots=True)
class Written:
    """`rows` that ClickHouse has, dead letters included; `unreadable` records among those given."""

    rows: int
    unreadable: int


def _unknown_tenant(_identity: str) -> str:
    return "-"


class ClickHouseSink:
    """A ClickHouse server, or an engine inside this process (`chdb:///dir`). Any thread may use it: each has a client.

    `tenant_of` is the directory's answer for events that name no tenant; without one it is `-`.

    Raises:
        ValueError: `url` is no address; it says what a good one looks like.
    """

    def __init__(self, url: str, *, tenant_of: TenantOf = _unknown_tenant) -> None:
        self._address = parse_address(url)
        self._tenant_of = tenant_of
        self._clients: dict[int, Client] = {}
        self._lock = threading.Lock()

    def setup(self) -> tuple[str, ...]:
        """Makes the database and applies the migrations it lacks, whose names it returns. May be called again.

        Raises:
            Unreachable: nothing answers there, or it refuses us.
            SchemaError: the database was made by a newer version.
        """
        try:
            with answered(self._address):
                self._ensure_database()
                return migrate(self._client())
        except Retry as error:
            raise Unreachable(f"{error}; start it, or correct CLICKHOUSE_URL") from error

    def write(self, topic: str, records: Sequence[Record]) -> Written:
        """Writes the records of one partition of `topic`, in order of offset. Again the same ones: nothing changes.

        Raises:
            Retry: not now; give the same records again after `after` seconds. Nothing is lost.
            Reject: ClickHouse will never take them.
            Unreachable: it refuses us.
            SchemaError: `setup` was not called.
            ValueError: a topic that has no table.
        """
        if topic not in TOPICS:
            raise ValueError(f"no table for the topic {topic!r}; there are tables for {', '.join(TOPICS)}")
        if not records:
            return Written(0, 0)
        made = usage_batch(records, self._tenant_of) if topic == topics.USAGE else batch(topic, records)
        settings = _INSERT | {"insert_deduplication_token": _token(topic, records)}
        with answered(self._address):
            client = self._client()
            # Tables are not atomic together: after an error the caller repeats all, and the token skips what is there.
            for block in made.blocks:
                client.raw_insert(block.table, block.columns, block.body, settings=settings, fmt="MsgPack")
        return Written(sum(block.rows for block in made.blocks), made.unreadable)

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """The rows of a SELECT; times are aware datetimes.

        Raises:
            Retry, Unreachable, SchemaError: as `write`; a mistake in `sql` is clickhouse-connect's DatabaseError.
        """
        with answered(self._address):
            return [tuple(row) for row in self._client().query(sql).result_rows]

    def close(self) -> None:
        """Closes all threads' clients; an embedded engine lets go of its directory. No thread may be writing."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _client(self) -> Client:
        """This thread's client: the embedded engine allows one for each."""
        thread = threading.get_ident()
        client = self._clients.get(thread)
        if client is None:
            client = connect(self._address, self._address.database)
            with self._lock:
                self._clients[thread] = client
        return client

    def _ensure_database(self) -> None:
        try:
            self._client()
        except DatabaseError as error:
            if error.code != UNKNOWN_DATABASE:
                raise
            client = connect(self._address)
            try:
                client.command(f"CREATE DATABASE IF NOT EXISTS `{self._address.database}`")
            finally:
                client.close()


def _token(topic: str, records: Sequence[Record]) -> str:
    """Names a batch. The times tell it from one with the same offsets of a topic that was made anew."""
    first, last = records[0], records[-1]
    return f"{topic}/{first.partition}/{first.offset}-{last.offset}/{first.timestamp_ms}-{last.timestamp_ms}"
