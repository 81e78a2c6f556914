"""Sinks on the real engine, embedded; records of every topic; and a server that answers as it is told."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from schemas.command import Command, claims
from schemas.finding import Evidence, Finding, Signal, TenantBucket, Tick, encode
from schemas.incident import Incident
from schemas.times import format_millis, parse_millis
from sinks.clickhouse import ClickHouseSink, Record

NOON = parse_millis("2026-03-02T12:00:00.844Z")
_numbers = count()


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one directory that this process's engine works on."""
    pytest.importorskip("chdb")
    return tmp_path_factory.mktemp("clickhouse")


@pytest.fixture
def url(directory: Path) -> str:
    """The address of a database of the test's own, still to be made."""
    return f"chdb://{directory}?database=test_{next(_numbers)}"


@pytest.fixture
def sink(url: str) -> Iterator[ClickHouseSink]:
    with ClickHouseSink(url) as made:
        made.setup()
        yield made
        made._client().command(f"DROP DATABASE {made._address.database}")  # the next engine would load it


def _usage(offset: int, *, subject: str = "key_7f3a", time: int | None = None, **data: Any) -> Record:
    at = NOON + offset * 1000 if time is None else time
    event = {
        "specversion": "1.0", "type": "llm.usage.v1", "id": f"e-{offset}", "source": "gateway/eu-1",
        "subject": subject, "time": format_millis(at),
        "data": {"tenant": "acme", "model": "gpt-5-mini", "status": 200} | data,
    }  # fmt: skip
    return Record(3, offset, at + 20, subject.encode(), json.dumps(event).encode())


@pytest.fixture
def usage() -> Callable[..., Record]:
    """`usage(offset, subject=…, time=ms, **data)`: a record of partition 3 whose event is `e-<offset>`."""
    return _usage


def record(offset: int, value: bytes | None, *, time: int = NOON) -> Record:
    return Record(3, offset, time, b"acme", value)


def _jws(payload: bytes) -> bytes:
    header = b'{"alg":"RS256","typ":"secevent+jwt","kid":"2026-03"}'
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload, b"not a signature"))


@pytest.fixture
def jws() -> Callable[[bytes], bytes]:
    return _jws


FINDING = Finding(
    finding_id="f-1", time="2026-03-02T12:00:01.000Z", tenant="acme", identity="key_7f3a", kind="spike",
    severity="high", score=0.9, detector="spike", window="10s", observed=1.8e6, baseline=4e4,
    reason="1.8 M tokens a minute, usually 40 k",
    evidence=Evidence(
        partition=3, offsets=(4, 9), policy="p1", detector_version=2, state_digest="ab", usd_per_minute=69.0,
        extreme=True, details={"channel": 'rate "fast"'},
    ),
)  # fmt: skip
BUCKET = TenantBucket(
    time="2026-03-02T12:00:12.000Z", tenant="acme", end="2026-03-02T12:00:10.000Z", partition=3, identities=2,
    requests=40, failures=1, tokens=1234.0, cost_usd=0.5, denied={"key_7f3a": 7},
)  # fmt: skip
INCIDENT = Incident(
    incident_id="i-1", tenant="acme", identity="key_7f3a", opened="2026-03-02T12:00:01.000Z",
    updated="2026-03-02T12:00:02.000Z", closed=None, state="open", kinds=["spike", "loop"], risk=0.8,
    severity="high", usd_per_minute=69.0, baseline_usd_per_minute=1.0, headline="key_7f3a spends 69 × the usual",
    response="suspend", finding_ids=["f-1"], command_ids=["c-1"], raised=["2026-03-02T12:00:02.000Z"],
)  # fmt: skip
COMMAND = Command(
    command_id="c-1", time="2026-03-02T12:00:02.000Z", tenant="acme", identity="key_7f3a", scope="identity",
    subject="key_7f3a", action="suspend", epoch=1772452802000, expires_at="2026-03-02T13:00:02.000Z", mode="enforce",
    reason="a loop", incident_id="i-1", finding_ids=["f-1"], policy="p1",
)  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """Records of our own topics, one sort a method; `of` changes fields of the sample."""

    def signal(self, offset: int = 0, signal: Signal = FINDING) -> Record:
        return record(offset, encode(signal))

    def tick(self, offset: int = 0) -> Record:
        return self.signal(offset, Tick(time="2026-03-02T12:00:00.000Z"))

    def bucket(self, offset: int = 0) -> Record:
        return self.signal(offset, BUCKET)

    def incident(self, offset: int = 0, **of: Any) -> Record:
        return record(offset, msgspec.json.encode(msgspec.structs.replace(INCIDENT, **of)))

    def command(self, offset: int = 0, **of: Any) -> Record:
        command = msgspec.structs.replace(COMMAND, **of)
        payload = claims(command, issuer="https://tripswitch.example", issued=NOON, contact="on-call")
        return record(offset, _jws(json.dumps(payload).encode()))

    def request(self, offset: int = 0) -> Record:
        order = {
            "request_id": "r-1", "time": "2026-03-02T12:05:00.000Z", "tenant": "acme", "identity": "key_7f3a",
            "action": "restore", "reason": "it was a load test", "by": "kim",
        }  # fmt: skip
        return record(offset, _jws(json.dumps(order).encode()))

    def acknowledgement(
        self, offset: int = 0, gateway: str = "gw-eu/pod-3", ms: float = 606, status: int = 1
    ) -> Record:
        ack = {
            "category_uid": 7, "class_uid": 7001, "activity_id": 2, "type_uid": 700102, "time": NOON + offset,
            "severity_id": 1, "status_id": status, "command_uid": "c-1",
            "metadata": {"version": "1.8.0", "product": {"name": "litellm", "vendor_name": gateway}},
            "unmapped": {"epoch": 17, "applied_at": NOON, "propagation_ms": ms, "streams_aborted": 2},
        }  # fmt: skip
        return record(offset, json.dumps(ack).encode())

    def dead_letter(self, offset: int = 0, raw: bytes = bytes(range(256))) -> Record:
        letter = {
            "time": "2026-03-02T12:00:00.000Z", "topic": "llm.usage", "partition": 3, "offset": 17,
            "reason": "not UTF-8", "raw": base64.b64encode(raw).decode(),
        }  # fmt: skip
        return record(offset, json.dumps(letter).encode())

    def raw(self, value: bytes | None, offset: int = 0) -> Record:
        return record(offset, value)


@pytest.fixture
def samples() -> Samples:
    return Samples()


def _native(columns: list[tuple[str, str, list[bytes]]]) -> bytes:
    """A block in ClickHouse's Native format; for short names, and fewer than 128 rows."""
    body = bytes([len(columns), len(columns[0][2])])
    for name, kind, cells in columns:
        body += bytes([len(name)]) + name.encode() + bytes([len(kind)]) + kind.encode() + b"".join(cells)
    return body


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


_SETTINGS = ["async_insert", "insert_deduplicate", "insert_deduplication_token", "max_partitions_per_insert_block"]


@dataclass
class FakeServer:
    """Shakes hands as ClickHouse does; answers inserts as `answers` says, one after the other, then well.

    An answer is (status, ClickHouse's error code or None, text). `refuses` answers the handshake too.
    """

    port: int = 0
    answers: list[tuple[int, int | None, str]] = field(default_factory=list)
    refuses: tuple[int, int | None, str] | None = None
    inserts: list[tuple[dict[str, list[str]], bytes]] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://archive:s3cr%40et@127.0.0.1:{self.port}/llm"

    def reply(self, query: dict[str, list[str]], body: bytes) -> tuple[int, int | None, bytes]:
        statement = (query.get("query", [""])[0].encode() or body).split(b"FORMAT MsgPack")[0].decode()
        self.statements.append(statement.strip())
        if self.refuses is not None:
            status, code, text = self.refuses
            return status, code, text.encode()
        if statement.startswith("INSERT"):
            self.inserts.append((query, body))
            if self.answers:
                status, code, text = self.answers.pop(0)
                return status, code, text.encode()
            return 200, None, b""
        if "version()" in statement:
            return 200, None, b"26.9.2.1\tUTC\n"
        if "system.settings" in statement:
            size = len(_SETTINGS)
            return 200, None, _native([
                ("name", "String", [_text(name) for name in _SETTINGS]),
                ("value", "String", [_text("1")] * size),
                ("readonly", "UInt8", [b"\x00"] * size),
            ])  # fmt: skip
        return 200, None, b""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            status, code, body = fake.reply(query, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(status)
            if code is not None:
                self.send_header("X-ClickHouse-Exception-Code", str(code))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        fake.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield fake
        listening.shutdown()
        thread.join()
