"""Clients of clickhouse-connect, and what its errors mean for whoever writes: wait, give up the rows, see to it."""

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from sinks.clickhouse.address import Address, Embedded
from sinks.clickhouse.migrations import SchemaError
from sinks.errors import Reject, Retry, Unreachable

# Its errors are raised as well; without a handler Python would print its log lines beside ours.
logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())

UNKNOWN_DATABASE = 81
_UNKNOWN_TABLE = 60
_MISSING_COLUMN = 16  # NO_SUCH_COLUMN_IN_TABLE

# ClickHouse's error codes (src/Common/ErrorCodes.cpp). Most come as HTTP 500, so the status alone says nothing.
_BUSY = frozenset({
    159,  # TIMEOUT_EXCEEDED
    202,  # TOO_MANY_SIMULTANEOUS_QUERIES
    203,  # NO_FREE_CONNECTION
    209,  # SOCKET_TIMEOUT
    210,  # NETWORK_ERROR
    225,  # NO_ZOOKEEPER
    236,  # ABORTED: shutting down
    241,  # MEMORY_LIMIT_EXCEEDED
    242,  # TABLE_IS_READ_ONLY
    252,  # TOO_MANY_PARTS: merges have to catch up
    279,  # ALL_CONNECTION_TRIES_FAILED
    285,  # TOO_FEW_LIVE_REPLICAS
    286,  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
    319,  # UNKNOWN_STATUS_OF_INSERT: the token makes the repetition safe
    394,  # QUERY_WAS_CANCELLED
    439,  # CANNOT_SCHEDULE_TASK
    473,  # DEADLOCK_AVOIDED
    499,  # S3_ERROR
    745,  # SERVER_OVERLOADED
    999,  # KEEPER_EXCEPTION
})  # fmt: skip
_DISK = frozenset({
    75,  # CANNOT_WRITE_TO_FILE_DESCRIPTOR
    243,  # NOT_ENOUGH_SPACE
})  # fmt: skip
_UNFIT = frozenset({
    6, 26, 27, 38, 41, 72,  # CANNOT_PARSE_TEXT, _QUOTED_STRING, _INPUT_ASSERTION_FAILED, _DATE, _DATETIME, _NUMBER
    33,  # CANNOT_READ_ALL_DATA
    53,  # TYPE_MISMATCH
    69,  # ARGUMENT_OUT_OF_BOUND
    70,  # CANNOT_CONVERT_TYPE
    117,  # INCORRECT_DATA
    131,  # TOO_LARGE_STRING_SIZE
    321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    469,  # VIOLATED_CONSTRAINT
})  # fmt: skip
_DENIED = frozenset({
    164,  # READONLY: the user may only read
    192,  # UNKNOWN_USER
    193,  # WRONG_PASSWORD
    194,  # REQUIRED_PASSWORD
    497,  # ACCESS_DENIED
    516,  # AUTHENTICATION_FAILED
})  # fmt: skip

_SECONDS_BUSY = 2.0
_SECONDS_ABSENT = 2.0
_SECONDS_DISK = 30.0

_STATUS = re.compile(r"HTTP status (\d{3})")
_SERVER_ERROR = 500


def connect(address: Address, database: str | None = None) -> Client:
    """A client of `address` for one thread. Raises clickhouse-connect's errors: call it inside `answered`.

    Raises:
        Unreachable: the embedded engine is not installed, or cannot be opened.
    """
    if isinstance(address, Embedded):
        try:
            import chdb  # noqa: F401 - 330 MB of memory, for those who name it in the address only
        except ModuleNotFoundError as error:
            raise Unreachable(
                f"{address} needs the embedded engine, which is not installed: pip install 'tripswitch[embedded]'"
            ) from error
        return clickhouse_connect.get_client(
            interface="chdb", path=address.directory, database=database, tz_mode="aware"
        )
    return clickhouse_connect.get_client(
        interface="https" if address.secure else "http",
        host=address.host,
        port=address.port,
        username=address.user,
        password=address.password,
        database=database,
        connect_timeout=5,
        send_receive_timeout=60,
        query_retries=0,  # the caller waits, and can do something else meanwhile
        autogenerate_session_id=False,
        tz_mode="aware",
    )


@contextmanager
def answered(address: Address) -> Iterator[None]:
    """Turns the client's errors into the sinks' own.

    Raises:
        Retry: the network, a server error, too many parts, a full disk.
        Reject: the rows do not fit their table.
        Unreachable: wrong user, password or rights; not a ClickHouse; an engine that another process has open.
        SchemaError: the tables are missing.
    """
    try:
        yield
    except ClickHouseError as error:
        answer = _answer(error, address)
        if answer is None:
            raise
        raise answer from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Retry(_SECONDS_DISK, f"no space left for {address}: {error.strerror}") from error


def _answer(error: ClickHouseError, address: Address) -> Exception | None:
    code: int | None = getattr(error, "code", None)
    text = _one_line(str(error))
    if code is None:
        return _without_code(error, text, address)
    if code in _DENIED:
        return Unreachable(f"{address} refuses us: {text}; check user, password and rights in CLICKHOUSE_URL")
    if code in (UNKNOWN_DATABASE, _UNKNOWN_TABLE, _MISSING_COLUMN):
        return SchemaError(f"{address} lacks a table or column of ours: {text}; run `tripswitch init`")
    if code in _UNFIT:
        return Reject(text)
    if code in _DISK:
        return Retry(_SECONDS_DISK, f"{address}: {text}")
    if code in _BUSY or isinstance(error, OperationalError):
        return Retry(_SECONDS_BUSY, f"{address}: {text}")
    return None


def _without_code(error: ClickHouseError, text: str, address: Address) -> Exception | None:
    """The network's errors, a proxy's in front of ClickHouse, and those of opening an embedded engine."""
    if "Unable to open the chdb engine" in text:
        return Unreachable(
            f"{address} cannot be opened: another process may have it, or this process another directory "
            f"(one process for each, one directory for a process); for several, run a server. {text}"
        )
    status = _STATUS.search(text)
    if status is not None and int(status[1]) < _SERVER_ERROR and not isinstance(error, OperationalError):
        return Unreachable(
            f"{address} answers with HTTP {status[1]}: is it ClickHouse's HTTP port? Check CLICKHOUSE_URL"
        )
    if status is not None:
        return Retry(_SECONDS_ABSENT, f"{address} answers with HTTP {status[1]}")
    if isinstance(error, OperationalError):
        return Retry(_SECONDS_ABSENT, f"{address} does not answer: {_root(error)}")
    return None


def _root(error: BaseException) -> str:
    """What began it: `Connection refused` rather than the four exceptions around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
