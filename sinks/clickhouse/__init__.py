"""The ClickHouse sink: every usage event, finding, incident, command and acknowledgement, for people who write SQL."""

from sinks.clickhouse.migrations import SchemaError
from sinks.clickhouse.rows import Record
from sinks.clickhouse.sink import TOPICS, ClickHouseSink, Written
from sinks.errors import Reject, Retry, Unreachable

__all__ = ["TOPICS", "ClickHouseSink", "Record", "Reject", "Retry", "SchemaError", "Unreachable", "Written"]
