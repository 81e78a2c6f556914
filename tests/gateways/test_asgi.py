import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tripswitch_gateway import Command, RevocationList
from tripswitch_gateway.asgi import Caller, LiveCalls, StreamCut, TripswitchMiddleware

ALICE = Caller("alice", "acme", "cred_1")
Sent = list[dict[str, Any]]
App = Callable[[Any, Any, Any], Awaitable[None]]


class Usage:
    """Takes events in a publisher's stead."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def publish(self, event: dict[str, Any]) -> None:
        self.events.append(event)


class Gateway:
    """The middleware before an app, with a list of blocks that follows no topic."""

    def __init__(self, verifier: Any, signer: Any, live_claims: Any) -> None:
        self.calls = LiveCalls()
        self.blocks = RevocationList({}, verifier, gateway="gw-1")
        self.usage = Usage()
        self._verifier, self._signer, self._claims = verifier, signer, live_claims

    def command(self, action: str = "suspend", **more: Any) -> Command:
        claims = self._claims(action, "identity", "alice", **({"identity": "alice"} | more))
        command: Command = self._verifier.verify(*self._signer.record(claims))
        self.blocks.table.apply(command, command.not_before)
        self.calls.on_change(command)
        return command

    async def serve(self, app: App, scope: dict[str, Any] | None = None, **more: Any) -> Sent:
        sent: Sent = []

        async def send(event: Any) -> None:
            sent.append(event)

        async def receive() -> Any:
            return {"type": "http.request"}

        options: dict[str, Any] = {"identify": lambda _: ALICE, "usage": self.usage, "source": "gateway/own"} | more
        middleware = TripswitchMiddleware(app, blocks=self.blocks, calls=self.calls, **options)
        await middleware(scope or {"type": "http", "path": "/v1/chat"}, receive, send)
        return sent


@pytest.fixture
def gateway(jwks: Any, claims: Any, signer: Any, live_claims: Any) -> Gateway:
    from tripswitch_gateway import CommandVerifier, KeyFile

    return Gateway(CommandVerifier(KeyFile(jwks), claims()["iss"]), signer, live_claims)


async def answer(scope: Any, _: Any, send: Any) -> None:
    call = scope.get("state", {}).get("tripswitch")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"" if call is None else call.caller.identity.encode()})


def stream(kind: bytes, gateway: Gateway, chunks: int = 2) -> App:
    """An app that streams until a command comes, and then waits for ever."""

    async def app(scope: Any, _: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", kind)]})
        for _ in range(chunks):
            await send({"type": "http.response.body", "body": b"data: x", "more_body": True})
        gateway.command()
        await asyncio.Event().wait()

    return app


async def test_who_is_not_blocked_is_served(gateway: Gateway) -> None:
    sent = await gateway.serve(answer)
    assert [event.get("body") for event in sent] == [None, b"alice"]
    assert len(gateway.calls) == 0
    assert gateway.usage.events == []


async def test_the_blocked_never_reach_the_app(gateway: Gateway) -> None:
    async def never(*_: Any) -> None:
        pytest.fail("reached")

    gateway.command("suspend", http_status=402)
    start, body = await gateway.serve(never)
    assert (start["type"], start["status"]) == ("http.response.start", 402)
    assert (b"x-tripswitch-incident", b"inc-1") in start["headers"]
    assert (b"content-length", str(len(body["body"])).encode()) in start["headers"]
    assert json.loads(body["body"])["error"]["type"] == "tripswitch_denied"
    [event] = gateway.usage.events
    assert (event["subject"], event["source"]) == ("alice", "gateway/own")
    told = event["data"]
    assert (told["tenant"], told["credential_id"], told["status"]) == ("acme", "cred_1", 402)
    assert (told["error"], told["route"]) == ("tripswitch_denied", "/v1/chat")

    gateway.command("restore")
    assert len(await gateway.serve(answer)) == 2


@pytest.mark.parametrize("kind", ["asynchronous", "nobody", "lifespan"])
async def test_who_is_asked(gateway: Gateway, kind: str) -> None:
    gateway.command()

    async def identify(_: Any) -> Caller | None:
        return ALICE if kind == "asynchronous" else None

    scope = {"type": "lifespan" if kind == "lifespan" else "http", "path": "/"}
    sent = await gateway.serve(answer, scope, identify=(lambda _: ALICE) if kind == "lifespan" else identify)
    assert sent[0].get("status") == (403 if kind == "asynchronous" else 200)


async def test_an_event_stream_ends_with_an_error_that_clients_can_read(gateway: Gateway) -> None:
    sent = await asyncio.wait_for(gateway.serve(stream(b"text/event-stream; charset=utf-8", gateway)), 20)
    assert len(sent) == 4
    assert sent[-1]["more_body"] is False
    name, data = sent[-1]["body"].decode().strip().split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["incident_id"] == "inc-1"
    [event] = gateway.usage.events
    told = event["data"]
    assert (told["error"], told["streaming"], told["usage_missing"]) == ("tripswitch_denied", True, True)


async def test_another_body_is_left_incomplete(gateway: Gateway) -> None:
    with pytest.raises(StreamCut):
        await asyncio.wait_for(gateway.serve(stream(b"application/x-ndjson", gateway)), 20)
    assert len(gateway.calls) == 0


async def test_what_has_not_begun_is_denied(gateway: Gateway) -> None:
    async def think(*_: Any) -> None:
        gateway.command()
        await asyncio.Event().wait()

    start, _ = await asyncio.wait_for(gateway.serve(think), 20)
    assert start["status"] == 403


async def test_what_has_ended_stays_as_it_is(gateway: Gateway) -> None:
    async def clean_up(scope: Any, receive: Any, send: Any) -> None:
        await answer(scope, receive, send)
        gateway.command()
        await asyncio.Event().wait()

    assert len(await asyncio.wait_for(gateway.serve(clean_up), 20)) == 2


async def test_a_stream_may_drain(gateway: Gateway) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        gateway.command("suspend", in_flight="drain")
        await asyncio.sleep(0)
        await answer(scope, receive, send)

    assert (await gateway.serve(app))[0]["status"] == 200
    assert (await gateway.serve(app))[0]["status"] == 403


@pytest.mark.parametrize("can_refuse", [True, False])
async def test_web_sockets_are_refused_and_closed(gateway: Gateway, can_refuse: bool) -> None:
    extensions = {"websocket.http.response": {}} if can_refuse else {}
    scope = {"type": "websocket", "path": "/v1/realtime", "extensions": extensions}

    async def talk(_: Any, __: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        gateway.command(reason_user={"en": "é" * 300})
        await asyncio.Event().wait()

    sent = await asyncio.wait_for(gateway.serve(talk, scope), 20)
    assert (sent[-1]["type"], sent[-1]["code"]) == ("websocket.close", 1008)
    assert len(sent[-1]["reason"].encode()) <= 123
    refused = await gateway.serve(talk, scope)
    assert refused[0]["type"] == ("websocket.http.response.start" if can_refuse else "websocket.close")


async def test_what_an_app_tells_of_its_calls(gateway: Gateway) -> None:
    gateway.command("throttle", limits={"tpm": 6000})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        call = scope["state"]["tripswitch"]
        call.publish(model="m-1", status=500, error="overloaded")
        call.publish(model="m-2", status=200, input_tokens=900, output_tokens=10**6, cost_usd=float("nan"))
        await answer(scope, receive, send)

    assert (await gateway.serve(app))[0]["status"] == 200
    first, second = gateway.usage.events
    assert [event["data"]["attempt"] for event in (first, second)] == [0, 1]
    assert first["data"]["operation_id"] == second["data"]["operation_id"]
    assert first["id"] != second["id"]
    assert (second["data"]["model"], second["data"]["input_tokens"]) == ("m-2", 900)
    assert "cost_usd" not in second["data"]
    assert second["data"]["latency_ms"] >= 0
    # The tokens were counted: ten seconds' worth is spent.
    denied = await gateway.serve(app)
    assert denied[0]["status"] == 429
    assert any(name == b"retry-after" for name, _ in denied[0]["headers"])
