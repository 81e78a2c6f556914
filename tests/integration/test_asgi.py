"""The middleware before a FastAPI app on a real server: a key is blocked, its streams end, and it is given back.

Claimed: also a stream that is silent ends at once, and no client takes a cut answer for a whole one.
"""

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from litellm_proxy import ROOT, Server
from schemas.command import Action, Command
from schemas.times import format_millis
from schemas.topics import KILLSWITCH
from schemas.usage import UsageEvent, decode_usage
from sinks.keys import new_keys
from sinks.killswitch import Signer

ISSUER = "https://tripswitch.example/ssf"
DEADLINE_S = 60.0


class Gateway:
    """The app as its clients and its operators see it."""

    def __init__(self, kafka: str, folder: Path, killswitch: str, usage: str) -> None:
        private, public = folder / "key.pem", folder / "jwks.json"
        new_keys(private, public)
        self._signer = Signer.read(private, issuer=ISSUER, contact="#ai-platform")
        self._producer = Producer({"bootstrap.servers": kafka, "linger.ms": 0})
        self._kafka, self._killswitch, self._usage, self._epoch = kafka, killswitch, usage, 0
        environment = {
            **os.environ, "KAFKA_BOOTSTRAP": kafka, "TRIPSWITCH_JWKS": str(public), "TRIPSWITCH_ISSUER": ISSUER,
            "TEST_KILLSWITCH": killswitch, "TEST_USAGE": usage,
        }  # fmt: skip
        where = ("--app-dir", str(ROOT / "tests" / "integration"), "--host", "127.0.0.1", "--port", "{port}")
        self.server = Server(folder, ("-m", "uvicorn", "own_gateway:app", *where), environment, "/ready")

    def close(self) -> None:
        self.server.close()

    def connect(self) -> http.client.HTTPConnection:
        address = urlsplit(self.server.url)
        return http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)

    def ask(self, key: str) -> tuple[int, dict[str, str], dict[str, Any]]:
        with closing(self.connect()) as connection:
            connection.request("POST", "/chat", headers={"Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), json.loads(response.read())

    def command(self, action: Action, subject: str) -> float:
        """Signs a command and writes it; the monotonic time at which it was sent."""
        now = time.time_ns() // 1_000_000
        self._epoch = max(self._epoch + 1, now)
        command = Command(
            command_id=f"cmd-{self._epoch}", time=format_millis(now), tenant="acme", identity=subject, scope="identity",
            subject=subject, action=action, epoch=self._epoch, expires_at=format_millis(now + 600_000), mode="enforce",
            reason="231 near-identical calls", incident_id="inc-7", finding_ids=["f-1"], policy="1",
        )  # fmt: skip
        record = next(record for record in self._signer.records(command, now) if record.topic == KILLSWITCH)
        sent = time.monotonic()
        self._producer.produce(self._killswitch, record.value, record.key)
        assert self._producer.flush(30) == 0
        return sent

    def becomes(self, key: str, status: int) -> tuple[dict[str, str], dict[str, Any]]:
        last: list[Any] = []

        def asked() -> bool:
            last[:] = self.ask(key)
            return bool(last[0] == status)

        self.wait_until(asked, f"{status} for {key}")
        return last[1], last[2]

    def wait_until(self, told: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not told():
            assert time.monotonic() < end, f"not within {DEADLINE_S:g} s: {what}\n{self.server.printed()}"
            time.sleep(0.01)

    def usage(self, enough: Callable[[list[UsageEvent]], bool]) -> list[UsageEvent]:
        """The usage events so far, once there are ``enough``."""
        consumer = Consumer({"bootstrap.servers": self._kafka, "group.id": "tests-asgi", "log_level": 0})
        with closing(consumer):
            consumer.assign([TopicPartition(self._usage, 0, OFFSET_BEGINNING)])
            found: list[UsageEvent] = []

            def read() -> bool:
                record = consumer.poll(0.1)
                if record is not None and record.error() is None:
                    found.append(decode_usage(record.value()))
                return enough(found)

            self.wait_until(read, "usage events")
        return found


class Stream(threading.Thread):
    """A stream that is read until it ends; ``broken`` when the last chunk, which is empty, never came."""

    def __init__(self, gateway: Gateway, key: str, path: str) -> None:
        super().__init__(daemon=True)
        self._gateway, self._key, self._path = gateway, key, path
        self.lines: list[str] = []
        self.broken = False
        self._hang_up = threading.Event()
        self.start()
        gateway.wait_until(lambda: len(self.lines) >= 3 or not self.is_alive(), f"a stream of {key}")

    def run(self) -> None:
        with closing(self._gateway.connect()) as connection:
            connection.request("POST", self._path, headers={"Authorization": f"Bearer {self._key}"})
            last = b""
            # The bytes themselves: http.client's own readline takes an incomplete body for a complete one.
            for line in connection.getresponse().fp:
                last = line.strip() or last
                if line.startswith((b"data:", b"event:")):
                    self.lines.append(line.decode().strip())
                if self._hang_up.is_set():
                    return
            self.broken = last != b"0"

    def hang_up(self) -> None:
        """Read no more of it."""
        self._hang_up.set()
        self.join(DEADLINE_S)


@pytest.fixture
def gateway(kafka: str, kafka_kind: str, new_topic: Callable[..., str], tmp_path: Path) -> Iterator[Gateway]:
    if kafka_kind == "mock":
        pytest.skip("librdkafka's mock cluster lives in this process, and makes topics only for who writes first")
    with closing(Gateway(kafka, tmp_path, new_topic(), new_topic())) as gateway:
        gateway.server.wait_ready()
        yield gateway


def test_a_key_is_blocked_and_restored_while_others_go_on(gateway: Gateway) -> None:
    assert [gateway.ask(key)[0] for key in ("alice", "bob")] == [200, 200]
    streams = [Stream(gateway, "alice", path) for path in ("/sse/stream", "/sse/stream?stall=true", "/lines/stream")]
    other = Stream(gateway, "bob", "/sse/stream")
    sent = gateway.command("suspend", "alice")
    headers, body = gateway.becomes("alice", 403)
    print(f"ASGI: denied {(time.monotonic() - sent) * 1000:.0f} ms after the command was sent")  # noqa: T201
    assert headers["x-tripswitch-incident"] == "inc-7"
    assert body["error"]["type"] == "tripswitch_denied"
    for stream in streams:
        stream.join(DEADLINE_S)
        assert not stream.is_alive()
    for stream in streams[:2]:
        assert stream.lines[-2] == "event: error"
        assert json.loads(stream.lines[-1].removeprefix("data: "))["error"]["incident_id"] == "inc-7"
    assert [stream.broken for stream in streams] == [False, False, True]
    seen = len(other.lines)
    gateway.wait_until(lambda: len(other.lines) > seen + 5, "the other's stream goes on")
    other.hang_up()
    assert gateway.ask("bob")[0] == 200

    gateway.command("restore", "alice")
    gateway.becomes("alice", 200)
    events = gateway.usage(lambda found: sum(event.data.usage_missing is True for event in found) == 3)
    served = [event for event in events if event.data.status == 200]
    assert {(event.subject, event.data.tenant, event.data.input_tokens) for event in served} >= {("alice", "acme", 3)}
    denied = [event for event in events if event.data.error == "tripswitch_denied"]
    assert {(event.subject, event.data.status) for event in denied} == {("alice", 403)}
    assert {event.data.error for event in events if event.data.usage_missing} == {"tripswitch_denied"}
