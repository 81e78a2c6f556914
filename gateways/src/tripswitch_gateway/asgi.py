"""Middleware for a gateway of one's own: denies what the kill switch denies, and cuts the streams that it stops.

```python
calls = LiveCalls()
blocks = RevocationList(kafka, verifier, gateway="my-gateway-1", on_change=calls.on_change)
usage = UsagePublisher(kafka)

app.add_middleware(
    TripswitchMiddleware, blocks=blocks, calls=calls, usage=usage, source="gateway/my-gateway", identify=identify
)
```
"""

import inspect
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from tripswitch_gateway import DENIED, Decision, RevocationList, UsagePublisher, denial_answer
from tripswitch_gateway.callers import Caller
from tripswitch_gateway.events import amount, count, usage_event
from tripswitch_gateway.live import LiveCall, LiveCalls, StreamCut

__all__ = ["Call", "Caller", "LiveCalls", "StreamCut", "TripswitchMiddleware"]

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Identify = Callable[[Scope], Caller | Awaitable[Caller | None] | None]

_POLICY_VIOLATION = 1008
_MOST_REASON = 123  # bytes of a WebSocket close frame


class Call:
    """One call, as ``scope["state"]["tripswitch"]`` (in Starlette: ``request.state.tripswitch``).

    ``decision.model``, when set, is the only model to use.
    """

    def __init__(
        self, caller: Caller, decision: Decision, blocks: RevocationList, usage: UsagePublisher | None, source: str
    ) -> None:
        self.caller = caller
        self.decision = decision
        self._blocks = blocks
        self._usage = usage
        self._source = source
        self._id = uuid.uuid4().hex
        self._attempts = 0
        self._started = time.monotonic()

    def publish(self, **data: object) -> None:
        """Tell what the call used; ``data`` are fields of the usage event: model, status, input_tokens, ….

        Who made the call is filled in, and ``latency_ms`` unless given. Called once for each attempt at a provider; the
        tokens count against the caller's rate. Never blocks, and never raises over a value: one that no reader would
        take is left out.
        """
        tokens = sum(amount(data.get(name)) or 0.0 for name in ("input_tokens", "output_tokens"))
        self._blocks.table.charge(self.decision, tokens)
        if self._usage is None:
            return
        attempt = count(data.get("attempt"))
        told: dict[str, object] = {
            "latency_ms": round((time.monotonic() - self._started) * 1000, 3),
            "operation_id": self._id,
            "attempt": self._attempts if attempt is None else attempt,
        }
        told.update({name: value for name, value in data.items() if value is not None})
        self._usage.publish(usage_event(self.caller, self._source, told, event_id=f"{self._id}-{self._attempts}"))
        self._attempts += 1


class TripswitchMiddleware:
    """Asks the kill switch before each call, and ends calls that it stops on the way.

    ``identify`` gives the `Caller` of an HTTP or WebSocket scope, or None for what needs no check (a health page, a key
    that the app will refuse); it may be a coroutine function. Whatever it names must be what the app's usage events
    name, which `Call.publish` sees to.

    A denied call never reaches the app: it gets `denial_answer`, and a usage event that says so (``source`` is this
    gateway's name in it). A call under way that a command aborts is cancelled, at the next chunk or while none comes.
    When the answer has begun, an event stream ends with an ``error`` event and any other body is left incomplete, so
    that no client takes it for whole. Without ``usage`` nothing is published.
    """

    def __init__(
        self,
        app: App,
        *,
        blocks: RevocationList,
        calls: LiveCalls,
        identify: Identify,
        usage: UsagePublisher | None = None,
        source: str = "gateway",
    ) -> None:
        self._app = app
        self._blocks = blocks
        self._calls = calls
        self._identify = identify
        self._usage = usage
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        caller = self._identify(scope)
        if inspect.isawaitable(caller):
            caller = await caller
        if caller is None:
            await self._app(scope, receive, send)
            return
        # In the registry before the check: no command may fall between the two.
        live = self._calls.enter(caller)
        try:
            await self._serve(live, scope, receive, send)
        finally:
            self._calls.leave(live)

    async def _serve(self, live: LiveCall, scope: Scope, receive: Receive, send: Send) -> None:
        caller = live.caller
        decision = self._blocks.check(
            caller.identity,
            credential=caller.credential,
            session=caller.session,
            end_user=caller.end_user,
            tenant=caller.tenant,
        )
        call = Call(caller, decision, self._blocks, self._usage, self._source)
        answer = _Answer(scope, send)
        if not decision.allowed:
            status, headers, body = denial_answer(decision)
            call.publish(status=status, error=DENIED, route=scope["path"])
            await answer.deny(status, headers, body)
            return
        scope.setdefault("state", {})["tripswitch"] = call
        try:
            async with live.interruptible():
                await self._app(scope, receive, answer.send)
        except StreamCut as cut:
            call.publish(
                status=cut.status_code,
                error=DENIED,
                route=scope["path"],
                streaming=answer.begun,
                usage_missing=True,
            )
            await answer.cut(cut)


class _Answer:
    """The app's answer: what has been sent of it, and how it is ended in its midst."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._socket = scope["type"] == "websocket"
        # Without this extension a server can only refuse a WebSocket by closing it.
        self._can_refuse = "websocket.http.response" in (scope.get("extensions") or {})
        self._send = send
        self._is_event_stream = False
        self._ended = False
        self.begun = False

    async def send(self, event: Event) -> None:
        """Pass on an event of the app's."""
        kind = event["type"]
        if kind == "http.response.start":
            self.begun = True
            self._is_event_stream = _content_type(event.get("headers", ())).startswith(b"text/event-stream")
        elif kind == "websocket.accept":
            self.begun = True
        elif (kind == "http.response.body" and not event.get("more_body", False)) or kind == "websocket.close":
            self._ended = True
        await self._send(event)

    async def deny(self, status: int, headers: Mapping[str, str], body: Mapping[str, object]) -> None:
        """Answer in the app's stead."""
        if self._socket and not self._can_refuse:
            # Before it was accepted, a close is a 403 to the client.
            await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        prefix = "websocket." if self._socket else ""
        raw = json.dumps(body).encode()
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        pairs += [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
        await self._send({"type": f"{prefix}http.response.start", "status": status, "headers": pairs})
        await self._send({"type": f"{prefix}http.response.body", "body": raw})

    async def cut(self, cut: StreamCut) -> None:
        """End what has begun; deny what has not. Raises ``cut`` for a body that can only be left incomplete."""
        if self._ended:
            return
        if not self.begun:
            await self.deny(cut.status_code, cut.headers, cut.body)
        elif self._socket:
            reason = cut.message.encode()[:_MOST_REASON].decode(errors="ignore")
            await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": reason})
        elif self._is_event_stream:
            last = b"\n\nevent: error\ndata: " + json.dumps(cut.body).encode() + b"\n\n"
            await self._send({"type": "http.response.body", "body": last, "more_body": False})
        else:
            raise cut


def _content_type(headers: Any) -> bytes:
    for name, value in headers:
        if bytes(name).lower() == b"content-type":
            return bytes(value).lower()
    return b""
