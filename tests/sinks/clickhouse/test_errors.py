import errno
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sinks.clickhouse import ClickHouseSink, Record, Reject, Retry, SchemaError, Unreachable, Written

SECRET = "s3cr@et"


def told(error: BaseException) -> str:
    """All that a log would show of it, causes included."""
    return "".join(traceback.format_exception(error))


def assert_keeps_the_secret(error: BaseException) -> None:
    assert SECRET not in told(error)
    assert "s3cr%40et" not in told(error)


@pytest.fixture
def absent() -> str:
    """The address of a server that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return f"http://archive:s3cr%40et@127.0.0.1:{port}/llm"


def test_a_batch_over_http(server: Any, usage: Callable[..., Record]) -> None:
    with ClickHouseSink(server.url) as sink:
        assert sink.write("llm.usage", [usage(4), usage(5), usage(6)]) == Written(3, 0)
    ((query, body),) = server.inserts
    stamps = f"{usage(4).timestamp_ms}-{usage(6).timestamp_ms}"
    assert query["insert_deduplication_token"] == [f"llm.usage/3/4-6/{stamps}"]
    assert (query["database"], query["async_insert"], query["max_partitions_per_insert_block"]) == (
        ["llm"],
        ["0"],
        ["0"],
    )
    assert body.startswith(b"INSERT INTO usage_events (`kafka_partition`, `kafka_offset`,")


@pytest.mark.parametrize(
    ("answer", "least"),
    [
        ((500, 252, "Code: 252. DB::Exception: Too many parts. (TOO_MANY_PARTS)"), 1),
        ((500, 241, "Code: 241. DB::Exception: (MEMORY_LIMIT_EXCEEDED)"), 1),
        ((500, 202, "Code: 202. DB::Exception: (TOO_MANY_SIMULTANEOUS_QUERIES)"), 1),
        ((500, 243, "Code: 243. DB::Exception: Cannot reserve 1.00 MiB (NOT_ENOUGH_SPACE)"), 10),
        ((500, 75, "Code: 75. DB::ErrnoException: No space left on device"), 10),
        ((503, None, "Service Unavailable"), 1),
        ((502, None, "<html>Bad Gateway</html>"), 1),
        ((429, None, "slow down"), 1),
    ],
)
def test_what_passes_is_a_retry_and_then_goes_in(
    server: Any, usage: Callable[..., Record], answer: tuple[int, int | None, str], least: float
) -> None:
    server.answers = [answer]
    with ClickHouseSink(server.url) as sink:
        with pytest.raises(Retry) as caught:
            sink.write("llm.usage", [usage(0)])
        assert least <= caught.value.after <= 60
        assert "\n" not in str(caught.value)
        assert_keeps_the_secret(caught.value)
        assert sink.write("llm.usage", [usage(0)]) == Written(1, 0)
    (first, body), (second, again) = server.inserts
    assert first["insert_deduplication_token"] == second["insert_deduplication_token"]
    assert body == again


@pytest.mark.parametrize("code", [53, 117, 321, 469])
def test_rows_that_never_fit_are_rejected(server: Any, usage: Callable[..., Record], code: int) -> None:
    server.answers = [(500, code, f"Code: {code}. DB::Exception: no such value. (X)")]
    with ClickHouseSink(server.url) as sink, pytest.raises(Reject, match="no such value") as caught:
        sink.write("llm.usage", [usage(0)])
    assert caught.value.reason
    assert_keeps_the_secret(caught.value)


def test_anything_else_is_a_crash(server: Any, usage: Callable[..., Record]) -> None:
    server.answers = [(500, 49, "Code: 49. DB::Exception: Logical error. (LOGICAL_ERROR)")]
    with ClickHouseSink(server.url) as sink, pytest.raises(Exception, match="LOGICAL_ERROR") as caught:
        sink.write("llm.usage", [usage(0)])
    assert not isinstance(caught.value, Retry | Reject | Unreachable | SchemaError)
    assert_keeps_the_secret(caught.value)


@pytest.mark.parametrize("code", [60, 81])
def test_missing_tables_say_how_to_make_them(server: Any, usage: Callable[..., Record], code: int) -> None:
    server.answers = [(404, code, f"Code: {code}. DB::Exception: does not exist. (X)")]
    with ClickHouseSink(server.url) as sink, pytest.raises(SchemaError, match="tripswitch init"):
        sink.write("llm.usage", [usage(0)])


def test_an_absent_server_is_a_retry_from_write(absent: str, usage: Callable[..., Record]) -> None:
    with (
        ClickHouseSink(absent) as sink,
        pytest.raises(Retry, match=r"127\.0\.0\.1:\d+/llm does not answer.*refused") as caught,
    ):
        sink.write("llm.usage", [usage(0)])
    assert_keeps_the_secret(caught.value)


def test_an_absent_server_is_unreachable_from_setup(absent: str) -> None:
    with (
        ClickHouseSink(absent) as sink,
        pytest.raises(Unreachable, match=r"does not answer.*start it, or correct") as caught,
    ):
        sink.setup()
    assert "\n" not in str(caught.value)
    assert_keeps_the_secret(caught.value)


def test_a_server_that_comes_later_is_found(server: Any, usage: Callable[..., Record]) -> None:
    server.refuses = (503, None, "starting")
    with ClickHouseSink(server.url) as sink:
        with pytest.raises(Retry):
            sink.write("llm.usage", [usage(0)])
        server.refuses = None
        assert sink.write("llm.usage", [usage(0)]) == Written(1, 0)


@pytest.mark.parametrize("code", [516, 194, 497])
def test_a_wrong_password_is_for_an_operator(server: Any, usage: Callable[..., Record], code: int) -> None:
    server.refuses = (
        403,
        code,
        f"Code: {code}. DB::Exception: archive: Authentication failed. (AUTHENTICATION_FAILED)",
    )
    with ClickHouseSink(server.url) as sink:
        for act in (sink.setup, lambda: sink.write("llm.usage", [usage(0)])):
            with pytest.raises(Unreachable, match=r"refuses us.*CLICKHOUSE_URL") as caught:
                act()
            assert_keeps_the_secret(caught.value)


def test_what_is_no_clickhouse_is_unreachable(server: Any) -> None:
    server.refuses = (404, None, "<html>not here</html>")
    with ClickHouseSink(server.url) as sink, pytest.raises(Unreachable, match=r"HTTP 404.*CLICKHOUSE_URL"):
        sink.setup()


def test_setup_makes_a_database_that_is_missing(server: Any) -> None:
    server.refuses = (404, 81, "Code: 81. DB::Exception: Database llm does not exist. (UNKNOWN_DATABASE)")
    with ClickHouseSink(server.url) as sink, pytest.raises(SchemaError):
        sink.setup()
    reply = server.reply
    made: list[str] = []

    def until_made(query: dict[str, list[str]], body: bytes) -> tuple[int, int | None, bytes]:
        made.extend(["llm"] if b"CREATE DATABASE IF NOT EXISTS `llm`" in body else [])
        if query.get("database") == ["llm"] and not made:
            return 404, 81, b"Code: 81. DB::Exception: Database llm does not exist. (UNKNOWN_DATABASE)"
        return reply(query, body)

    server.refuses, server.reply = None, until_made
    with ClickHouseSink(server.url) as sink:
        assert len(sink.setup()) > 0
    assert made == ["llm"]


def test_a_full_disk_below_the_embedded_engine_is_a_retry(
    sink: ClickHouseSink, usage: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "NamedTemporaryFile", full)
        with pytest.raises(Retry, match="no space left"):
            sink.write("llm.usage", [usage(0)])
    assert sink.write("llm.usage", [usage(0)]) == Written(1, 0)


def test_the_embedded_engine_rejects_what_a_table_forbids(sink: ClickHouseSink, usage: Callable[..., Record]) -> None:
    sink._client().command("ALTER TABLE usage_events ADD CONSTRAINT tame CHECK status < 500")
    with pytest.raises(Reject, match="tame"):
        sink.write("llm.usage", [usage(0, status=503)])


def test_any_other_error_of_the_system_is_a_crash(
    sink: ClickHouseSink, usage: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", broken)
    with pytest.raises(OSError, match="Input/output"):
        sink.write("llm.usage", [usage(0)])


def test_a_directory_that_another_process_has_open(sink: ClickHouseSink, url: str) -> None:
    code = (
        "import sys\nfrom sinks.clickhouse import ClickHouseSink, Unreachable\n"
        "try: ClickHouseSink(sys.argv[1]).setup()\nexcept Unreachable as error: print(error)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, url], cwd=root, check=True, timeout=120, capture_output=True, text=True
    )
    assert "cannot be opened" in done.stdout
    assert "run a server" in done.stdout


def test_the_embedded_engine_may_not_be_installed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chdb", None)
    with ClickHouseSink(url) as sink, pytest.raises(Unreachable, match=r"pip install 'tripswitch\[embedded\]'"):
        sink.setup()
