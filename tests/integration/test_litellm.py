"""A LiteLLM proxy from PyPI obeys the kill switch and tells what its calls used.

Claimed: one line in its configuration does it. A blocked key is denied while others go on, its live streams end with an
error that clients understand, and a restore gives access back; every call is told of under the name that is checked.
"""

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer

from litellm_proxy import Provider, Server, proxy, serving
from schemas.command import Action, Command, Limits
from schemas.times import format_millis
from schemas.topics import KILLSWITCH, USAGE
from schemas.usage import DENIED, UsageEvent, decode_usage
from sinks.killswitch import Signer
from workers import DEADLINE_S, PARTITIONS, Road, wait_until

ISSUER = "https://tripswitch.example/ssf"
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
CAROL = hashlib.sha256(b"sk-carol").hexdigest()


class Gateway:
    """The proxy as its clients and its operators see it."""

    def __init__(self, road: Road, server: Server, provider: Provider) -> None:
        self.road = road
        self.server = server
        self.provider = provider
        self._signer = Signer.read(
            Path(road.environment["TRIPSWITCH_SIGNING_KEY"]), issuer=ISSUER, contact="#ai-platform"
        )
        self._producer = Producer({"bootstrap.servers": road.bootstrap, "linger.ms": 0})
        self.epoch = 0

    def ask(
        self, key: str, content: str = "Hello", route: str = CHAT, **body: Any
    ) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Status, headers and body of a call's answer."""
        with self._sent(key, content, route, body) as response:
            return response.status, dict(response.getheaders()), json.loads(response.read())

    @contextmanager
    def _sent(self, key: str, content: str, route: str, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
        address = urlsplit(self.server.url)
        messages = [{"role": "user", "content": content}]
        prompt = {"input": content} if route == RESPONSES else {"messages": messages, "max_tokens": 99}
        asked = {"model": "mocked", **prompt, **body}
        with closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)) as connection:
            headers = {"Authorization": f"Bearer sk-{key}", "Content-Type": "application/json", "User-Agent": "tests/1"}
            connection.request("POST", route, json.dumps(asked), headers)
            yield connection.getresponse()

    def command(self, action: Action, subject: str, tenant: str = "acme", limits: Limits | None = None) -> float:
        """Signs a command on an identity and writes it; the monotonic time at which it was sent."""
        now = time.time_ns() // 1_000_000
        self.epoch = max(self.epoch + 1, now)
        command = Command(
            command_id=f"cmd-{self.epoch}", time=format_millis(now), tenant=tenant, identity=subject, scope="identity",
            subject=subject, action=action, epoch=self.epoch, expires_at=format_millis(now + 600_000), mode="enforce",
            reason="231 near-identical calls", incident_id="inc-7", finding_ids=["f-1"], policy="1", limits=limits,
        )  # fmt: skip
        record = next(r for r in self._signer.records(command, now) if r.topic == KILLSWITCH)
        sent = time.monotonic()
        self._producer.produce(KILLSWITCH, record.value, record.key, sum(tenant.encode()) % PARTITIONS)
        assert self._producer.flush(30) == 0
        return sent

    def becomes(self, key: str, status: int) -> tuple[dict[str, str], dict[str, Any]]:
        """Asks until the answer has ``status``; returns the headers and the body of that one."""
        last: list[Any] = []

        def asked() -> bool:
            last[:] = self.ask(key)
            return bool(last[0] == status)

        wait_until(asked, f"{status} for {key}", self.road)
        return last[1], last[2]

    def usage(self, enough: Callable[[list[UsageEvent]], bool]) -> list[UsageEvent]:
        """The usage events, once there are ``enough``."""
        events: list[UsageEvent] = []

        def read() -> bool:
            events[:] = [decode_usage(record.value()) for record in self.road.read(USAGE)]
            return enough(events)

        wait_until(read, "usage events", self.road)
        return events

    def told(self, session: str, count: int = 1) -> list[UsageEvent]:
        """The ``count`` usage events of a session, in order."""

        def of_it(events: list[UsageEvent]) -> list[UsageEvent]:
            return sorted((e for e in events if e.data.session_id == session), key=lambda e: (e.time, e.id))

        found = of_it(self.usage(lambda events: len(of_it(events)) >= count))
        assert len(found) == count
        return found


class Stream(threading.Thread):
    """A streamed call that is read to its end, or given up after ``leave`` lines."""

    def __init__(
        self, gateway: Gateway, key: str, content: str, route: str = CHAT, model: str = "live", leave: int = 0
    ) -> None:
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self.status = 0
        self._hang_up = threading.Event()
        self._call = gateway._sent(key, content, route, {"model": model, "stream": True, "litellm_session_id": content})
        self._leave = leave
        self.start()

    def flowing(self, gateway: Gateway) -> "Stream":
        """Itself, once something of it has come."""
        wait_until(lambda: len(self.lines) >= 3 or not self.is_alive(), "a stream", gateway.road)
        return self

    def run(self) -> None:
        with self._call as response:
            self.status = response.status
            for line in response:
                if line.strip():
                    self.lines.append(line.decode().strip())
                if self._hang_up.is_set() or (self._leave and len(self.lines) >= self._leave):
                    return

    def hang_up(self) -> None:
        """Read no more of it."""
        self._hang_up.set()
        self.join(60)

    def last(self) -> dict[str, Any]:
        """The last event, once the stream has ended."""
        self.join(60)
        assert not self.is_alive()
        events = [line.removeprefix("data: ") for line in self.lines if line.startswith(("data: {", "{"))]
        found: dict[str, Any] = json.loads(events[-1])
        return found


@pytest.fixture(scope="module")
def gateway(road: Road) -> Iterator[Gateway]:
    road.cli("init")
    provider = Provider()
    with serving(provider) as address, closing(proxy(road.folder, road.environment, address)) as server:
        server.wait_ready()
        yield Gateway(road, server, provider)


def test_a_key_is_blocked_and_restored_while_others_go_on(gateway: Gateway) -> None:
    assert [gateway.ask(key)[0] for key in ("alice", "bob", "carol")] == [200, 200, 200]
    streams = [
        Stream(gateway, "alice", "go").flowing(gateway),
        Stream(gateway, "alice", "stall").flowing(gateway),
        Stream(gateway, "alice", "go", MESSAGES, "claude").flowing(gateway),
        Stream(gateway, "alice", "go", RESPONSES).flowing(gateway),
        Stream(gateway, "alice", "mute"),
    ]
    other = Stream(gateway, "bob", "go").flowing(gateway)
    wait_until(lambda: "mute" in gateway.provider.asked, "the provider is asked", gateway.road)
    gateway.command("suspend", "alice")
    headers, body = gateway.becomes("alice", 403)
    assert headers["x-tripswitch-incident"] == "inc-7"
    error = body["error"]
    assert (error["type"], error["code"]) == ("tripswitch_denied", "403")
    ours = error["provider_specific_fields"]["error"]
    assert (ours["action"], ours["incident_id"], ours["contact"]) == ("suspend", "inc-7", "#ai-platform")
    assert error["message"] == ours["message"]

    # In the way that clients of each route understand.
    for stream in (streams[0], streams[1], streams[4]):
        told = stream.last()["error"]
        assert (told["type"], told["message"]) == ("tripswitch_denied", ours["message"])
    assert [stream.status for stream in streams] == [200, 200, 200, 200, 403]
    assert streams[2].last()["error"]["message"] == ours["message"]
    failed = streams[3].last()
    assert (failed["type"], failed["response"]["error"]["message"]) == ("response.failed", ours["message"])
    wait_until(
        lambda: sorted(gateway.provider.hung_up) == ["anthropic go", "go", "mute", "responses go", "stall"],
        f"the provider is told that nobody reads, and knows it of {gateway.provider.hung_up}",
        gateway.road,
    )
    seen = len(other.lines)
    wait_until(lambda: len(other.lines) > seen + 5, "the other's stream goes on", gateway.road)
    other.hang_up()
    assert [gateway.ask(key)[0] for key in ("alice", "bob", "carol")] == [403, 200, 200]

    gateway.command("restore", "alice")
    gateway.becomes("alice", 200)
    denied = [event for event in gateway.usage(lambda events: True) if event.data.error == "tripswitch_denied"]
    assert {(event.subject, event.data.tenant, event.data.status) for event in denied} == {("alice", "acme", 403)}
    assert sum(event.data.usage_missing is True for event in denied) == 5


def test_a_key_without_an_alias_goes_by_its_hash(gateway: Gateway) -> None:
    gateway.command("revoke", CAROL, tenant="umbrella")
    gateway.becomes("carol", 403)
    assert gateway.ask("bob")[0] == 200
    gateway.command("restore", CAROL, tenant="umbrella")
    gateway.becomes("carol", 200)


def test_each_of_many_commands_is_obeyed(gateway: Gateway) -> None:
    took = []
    for _ in range(9):
        sent = gateway.command("suspend", "bob")
        while gateway.ask("bob")[0] != 403:
            assert time.monotonic() - sent < DEADLINE_S, gateway.server.printed()
        took.append((time.monotonic() - sent) * 1000)
        gateway.command("restore", "bob")
        while gateway.ask("bob")[0] != 200:
            assert time.monotonic() - sent < 2 * DEADLINE_S, gateway.server.printed()
    # A figure to read; it includes the call that is denied.
    print(f"LiteLLM: denied {sorted(took)[4]:.0f} ms after the command was sent, {max(took):.0f} ms at most")  # noqa: T201


def test_throttle_and_downgrade(gateway: Gateway) -> None:
    gateway.command("throttle", "bob", limits=Limits(rpm=6))
    headers, body = gateway.becomes("bob", 429)
    assert 1 <= int(headers["retry-after"]) <= 60
    assert body["error"]["type"] == "tripswitch_denied"

    gateway.command("downgrade", "bob", limits=Limits(model="small"))
    wait_until(
        lambda: gateway.ask("bob", litellm_session_id="down")[2].get("choices", [{}])[0]
        .get("message", {}).get("content") == "A small answer.",
        "the small model", gateway.road,
    )  # fmt: skip
    assert gateway.usage(lambda es: any(e.data.session_id == "down" and e.data.model == "gpt-4o-mini" for e in es))
    gateway.command("restore", "bob")
    wait_until(lambda: "made-up" in str(gateway.ask("bob")[2]), "the model that was asked for", gateway.road)


def test_what_is_told_of_a_call(gateway: Gateway) -> None:
    for session, content in (("s-1", "Who are  you?"), ("s-2", "who are you?")):
        gateway.ask("alice", content, model="live", user="u-1", litellm_session_id=session)
    gateway.ask("carol", "tool", model="live", litellm_session_id="s-3")
    [first], [second], [third] = gateway.told("s-1"), gateway.told("s-2"), gateway.told("s-3")
    assert (first.subject, first.source, first.type) == ("alice", "gateway/litellm-1", "llm.usage.v1")
    data = first.data
    assert (data.tenant, data.credential_id) == ("acme", hashlib.sha256(b"sk-alice").hexdigest())
    assert (data.end_user, data.kind, data.identity_trust) == ("u-1", "api_key", "authenticated")
    assert (data.model, data.provider, data.route) == ("gpt-5-mini", "openai", CHAT)
    assert (data.input_tokens, data.output_tokens, data.cached_tokens) == (50, 7, 20)
    assert data.cost_usd is not None
    assert 0 < data.cost_usd < 0.001
    assert (data.status, data.error, data.attempt, data.usage_missing) == (200, None, 0, False)
    assert (data.streaming, data.user_agent, data.ip, data.tool) == (False, "tests/1", "127.0.0.1", None)
    assert data.fingerprint == second.data.fingerprint != third.data.fingerprint
    assert (third.subject, third.data.tool) == (CAROL, "search")


def test_every_attempt_is_told_of_as_one_operation(gateway: Gateway) -> None:
    assert gateway.ask("alice", "fail once", model="live", litellm_session_id="retried")[0] == 200
    failed, served = gateway.told("retried", 2)
    assert (failed.data.status, failed.data.attempt, failed.data.error) == (500, 0, "InternalServerError")
    assert failed.data.input_tokens is None
    assert (served.data.status, served.data.attempt, served.data.input_tokens) == (200, 1, 50)
    assert (failed.data.model, failed.data.operation_id) == (served.data.model, served.data.operation_id)


def test_a_client_that_hangs_up_is_told_of(gateway: Gateway) -> None:
    Stream(gateway, "alice", "hang up go", leave=4).join(60)
    [told] = gateway.told("hang up go")
    assert (told.data.status, told.data.streaming, told.data.usage_missing) == (499, True, True)


def test_who_is_turned_away_at_the_door_is_nobody(gateway: Gateway) -> None:
    assert gateway.ask("mallory", litellm_session_id="mallory")[0] == 401
    gateway.ask("alice", litellm_session_id="after")
    gateway.told("after")
    assert not [event for event in gateway.usage(lambda events: True) if event.data.session_id == "mallory"]


def test_what_waits_is_told_of_before_the_proxy_ends(gateway: Gateway) -> None:
    gateway.ask("alice", litellm_session_id="last")
    gateway.server.close()
    gateway.told("last")


def test_each_worker_process_of_a_proxy_obeys_and_acknowledges(road: Road, tmp_path: Path) -> None:
    """LiteLLM's own --num_workers: whichever process takes a call knows the blocks."""
    road.cli("init")
    environment = {**road.environment, "TRIPSWITCH_GATEWAY": "many"}
    # Without it uvicorn ends a process that takes longer than five seconds to load.
    more = ("--num_workers", "2", "--timeout_worker_healthcheck", "120")

    def acknowledged(what: Callable[[dict[str, Any]], bool]) -> set[str]:
        """The processes that say so."""
        told = [json.loads(record.value()) for record in road.read("llm.killswitch.acks")]
        names = {one["metadata"]["product"]["vendor_name"] for one in told if what(one)}
        return {name for name in names if name.startswith("many/")}

    provider = Provider()
    with serving(provider) as address, closing(proxy(tmp_path, environment, address, *more)) as server:
        server.wait_ready()
        many = Gateway(road, server, provider)
        wait_until(lambda: len(acknowledged(lambda _: True)) == 2, "two processes that follow the kill switch", road)
        assert many.ask("bob")[0] == 200
        many.command("suspend", "bob")
        blocked = f"cmd-{many.epoch}"
        wait_until(lambda: len(acknowledged(lambda one: one["command_uid"] == blocked)) == 2, "both obey", road)
        with ThreadPoolExecutor(16) as callers:
            statuses = list(callers.map(lambda _: many.ask("bob")[0], range(64)))
        assert statuses == [403] * 64
        # And each tells of its calls.
        many.usage(lambda events: sum(event.data.error == DENIED for event in events) >= 64)
        many.command("restore", "bob")
        many.becomes("bob", 200)
