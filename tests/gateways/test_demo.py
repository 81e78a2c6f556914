import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer, unused_port

from tripswitch_gateway import Settings
from tripswitch_gateway.demo.app import BLOCKS, make_app
from tripswitch_gateway.demo.calls import BadRequest, read_call
from tripswitch_gateway.demo.config import ConfigError, read_config
from tripswitch_gateway.prompts import fingerprint

TOPICS = ("llm.killswitch", "llm.killswitch.acks", "llm.usage")
AUTHORIZATION = {"Authorization": "Bearer sk-1", "X-Forwarded-For": "203.0.113.9, 10.0.0.1"}
BODY = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello, you"}]}
CONFIG = {
    "name": "demo-1",
    "keys": {
        "sk-1": {
            "identity": "key_7f3a",
            "tenant": "acme",
            "credential_id": "cred_1",
            "kind": "api_key",
            "workload": "interactive",
        },
        "sk-2": {"identity": "key_2"},
    },
    "networks": [
        {"cidr": "203.0.0.0/16", "country": "US"},
        {"cidr": "203.0.113.0/24", "country": "RO", "city": "Cluj", "lat": 46.77, "lon": 23.6, "asn": 9009},
    ],
    "prices": {"gpt-5-mini": {"input": 0.25, "output": 2.0}},
}
Claims = Callable[..., dict[str, Any]]
Post = Callable[..., Any]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    return path


@pytest.fixture
async def client(
    broker: Any, jwks: Path, claims: Claims, config: Path, beating: None
) -> AsyncIterator[TestClient[Any, Any]]:
    broker.create(*TOPICS)
    app = make_app(read_config(config), Settings(broker.kafka, jwks, claims()["iss"]))
    async with TestClient(TestServer(app)) as client:
        yield client


async def becomes(client: TestClient[Any, Any], path: str, status: int) -> None:
    deadline = time.monotonic() + 20
    while (await client.get(path)).status != status:
        assert time.monotonic() < deadline, f"{path} never answered {status}"
        await asyncio.sleep(0.01)


async def ask(client: TestClient[Any, Any], body: object = BODY, **headers: str) -> ClientResponse:
    return await client.post("/v1/chat/completions", json=body, headers=AUTHORIZATION | headers)


async def ask_until(client: TestClient[Any, Any], status: int) -> ClientResponse:
    deadline = time.monotonic() + 20
    while (response := await ask(client)).status != status:
        assert time.monotonic() < deadline, f"never answered {status}"
        await asyncio.sleep(0.01)
    return response


def usage(broker: Any, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    records = broker.read("llm.usage", lambda records: enough([json.loads(record.value()) for record in records]))
    return [json.loads(record.value()) for record in records]


async def test_a_key_is_served_cut_off_and_given_back(
    client: TestClient[Any, Any], broker: Any, signer: Any, live_claims: Claims
) -> None:
    await becomes(client, "/readyz", 200)
    served = await ask(client, BODY | {"demo": {"input_tokens": 1000, "output_tokens": 500, "session_id": "s1"}})
    assert served.status == 200
    assert (await served.json())["usage"] == {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}

    block = live_claims(command_id="block")
    broker.send("llm.killswitch", *signer.record(block))
    denied = await ask_until(client, 403)
    assert denied.headers["X-Tripswitch-Incident"] == "inc-1"
    error = (await denied.json())["error"]
    assert error["type"] == "tripswitch_denied"
    assert (error["action"], error["command_id"], error["contact"]) == ("suspend", "block", "#ai-platform")
    assert (error["message"], error["reason"]) == (
        "This key was paused automatically.",
        "231 near-identical calls in 10 minutes",
    )
    [listed] = await (await client.get("/v1/blocks")).json()
    assert (listed["command_id"], listed["subject"], listed["expires_at"]) == ("block", "key_7f3a", error["expires_at"])
    assert (await ask(client, Authorization="Bearer sk-2")).status == 200

    broker.send("llm.killswitch", *signer.record(live_claims("restore", command_id="back")))
    await ask_until(client, 200)
    assert await (await client.get("/v1/blocks")).json() == []

    def enough(events: list[dict[str, Any]]) -> bool:
        return any(event["data"]["error"] for event in events) and any(
            event["data"].get("session_id") == "s1" for event in events
        )

    events = usage(broker, enough)
    [first] = [event for event in events if event["data"].get("session_id") == "s1"]
    assert (first["specversion"], first["type"], first["subject"]) == ("1.0", "llm.usage.v1", "key_7f3a")
    assert first["source"] == "gateway/demo-1"
    sent = first["data"]
    assert (sent["input_tokens"], sent["output_tokens"], sent["cost_usd"]) == (1000, 500, 0.00125)
    assert (sent["status"], sent["error"], sent["ip"], sent["country"]) == (200, None, "203.0.113.9", "RO")
    assert (sent["asn"], sent["lat"], sent["fingerprint"]) == (9009, 46.77, fingerprint("Hello, you"))
    assert (sent["tenant"], sent["credential_id"], sent["kind"]) == ("acme", "cred_1", "api_key")
    refused = next(event["data"] for event in events if event["data"]["error"])
    assert (refused["error"], refused["status"]) == ("tripswitch_denied", 403)
    assert "input_tokens" not in refused


async def test_nothing_is_served_before_the_blocks_are_known(
    broker: Any, jwks: Path, claims: Claims, config: Path, request: pytest.FixtureRequest
) -> None:
    app = make_app(read_config(config), Settings(broker.kafka, jwks, claims()["iss"]))
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/readyz")).status == 503
        assert (await client.get("/healthz")).status == 200
        assert (await ask(client)).status == 503
        await asyncio.to_thread(broker.create, *TOPICS)
        request.getfixturevalue("beating")
        await becomes(client, "/readyz", 200)
        assert (await ask(client)).status == 200


async def test_throttle_and_downgrade(
    client: TestClient[Any, Any], broker: Any, signer: Any, live_claims: Claims, wait_until: Any
) -> None:
    await becomes(client, "/readyz", 200)
    blocks = client.app[BLOCKS] if client.app else None
    assert blocks is not None
    limits = {"rpm": None, "tpm": None, "model": "small"}
    broker.send("llm.killswitch", *signer.record(live_claims("downgrade", limits=limits)))
    await asyncio.to_thread(wait_until, lambda: len(blocks.table) == 1, "downgrade")
    assert (await (await ask(client)).json())["model"] == "small"
    limits = {"rpm": 6, "tpm": None, "model": None}
    broker.send("llm.killswitch", *signer.record(live_claims("throttle", limits=limits)))
    slowed = await ask_until(client, 429)
    assert 1 <= int(slowed.headers["Retry-After"]) <= 10
    assert (await slowed.json())["error"]["action"] == "throttle"


async def test_an_unknown_key_names_nobody(client: TestClient[Any, Any]) -> None:
    await becomes(client, "/readyz", 200)
    assert (await ask(client, Authorization="Bearer sk-unknown")).status == 401
    assert (await ask(client, Authorization="")).status == 401


async def test_a_wrong_body_is_told_and_published(client: TestClient[Any, Any], broker: Any) -> None:
    await becomes(client, "/readyz", 200)
    response = await ask(client, {"messages": []})
    assert response.status == 400
    assert "model" in (await response.json())["error"]["message"]
    [event] = usage(broker, lambda events: len(events) == 1)
    assert (event["data"]["status"], event["data"]["error"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        b"{}",
        b'{"model": 7}',
        b'{"model": "m", "messages": 1}',
        b'{"model": "m", "user": []}',
        b'{"model": "m", "demo": 1}',
        b'{"model": "m", "demo": {"input_tokens": -1}}',
        b'{"model": "m", "demo": {"output_tokens": true}}',
        b'{"model": "m", "demo": {"latency_ms": NaN}}',
    ],
)
def test_wrong_bodies(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read_call(body, {})


def test_long_names_are_cut_so_that_the_call_stays_visible() -> None:
    call = read_call(json.dumps({"model": "m", "user": "x" * 10**6}).encode(), {"X-Session-Id": "s"})
    assert (len(call.end_user or ""), call.session_id) == (256, "s")


def test_content_parts_are_prompt() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}, "odd", {"content": "c"}]})
    assert read_call(body.encode(), {}).prompt == "a\nb\nc"


def test_the_narrowest_network_places_an_address(config: Path) -> None:
    place = read_config(config).place
    assert place("203.0.113.9")["country"] == "RO"
    assert place("203.0.1.1") == {"ip": "203.0.1.1", "country": "US"}
    assert place("2001:db8::1") == {"ip": "2001:db8::1"}
    assert place("not an address") == place(None) == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"keys": {"a": {}}}',
        '{"keys": {"a": {"identity": "i", "b": 1}}}',
        '{"keys": {}, "networks": [{"cidr": "x"}]}',
        '{"keys": {}, "networks": [{"cidr": "10.0.0.0/8", "land": "RO"}]}',
        '{"keys": {}, "prices": {"m": 1}}',
    ],
)
def test_a_wrong_config_names_its_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "gateway.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"gateway\.json"):
        read_config(path)


def run_demo(config: Path, port: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tripswitch_gateway.demo", "--port", str(port), "--config", str(config)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "TRIPSWITCH_"))}
    return subprocess.Popen(command, env=inherited | environment, cwd=config.parent, stderr=subprocess.PIPE, text=True)


def test_the_process_serves_and_ends_on_sigterm(
    broker: Any, jwks: Path, claims: Claims, config: Path, wait_until: Any, beating: None
) -> None:
    broker.create(*TOPICS)
    port = unused_port()
    environment = {
        "KAFKA_BOOTSTRAP": broker.bootstrap,
        "TRIPSWITCH_JWKS": str(jwks),
        "TRIPSWITCH_ISSUER": claims()["iss"],
    }

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
                return response.status == 200
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    with run_demo(config, port, environment) as process:
        try:
            wait_until(ready, "ready")
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(BODY).encode(), AUTHORIZATION
            )
            with urllib.request.urlopen(request, timeout=5) as response:
                assert response.status == 200
        finally:
            process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0, log
    # The call was published before the end.
    assert len(usage(broker, lambda events: len(events) == 1)) == 1


def test_missing_settings_are_the_users_mistake(config: Path) -> None:
    with run_demo(config, 1, {}) as process:
        _, log = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "KAFKA_BOOTSTRAP" in log
