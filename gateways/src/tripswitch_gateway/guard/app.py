"""The guard as an ASGI application: the question that a proxy asks before each call, and its own health."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tripswitch_gateway.decisions import ALLOWED
from tripswitch_gateway.guard.answers import Answer, allowed, bad_caller, denied, for_auth_request, unavailable
from tripswitch_gateway.guard.callers import BadCaller, CallerReader
from tripswitch_gateway.guard.config import GuardConfig
from tripswitch_gateway.guard.known_keys import KnownKeys
from tripswitch_gateway.guard.metrics import render_guard
from tripswitch_gateway.metrics import render_metrics
from tripswitch_gateway.settings import OnStale
from tripswitch_gateway.subscriber import RevocationList

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

AUTH = "/auth"
AUTH_REQUEST = "/nginx"
METRICS = "/metrics"
_REFRESH_S = 1.0
_NOT_FOUND = Answer(404, [(b"content-type", b"text/plain")], b"ask /auth, or /nginx for auth_request\n")


class Guard:
    """Answers with what ``blocks`` know. Keeps nothing of a request; follows the kill switch while the server runs.

    ``on_stale`` is what ``blocks`` was given: who may not be judged by a stale list is not by an unread one either.
    """

    def __init__(
        self,
        config: GuardConfig,
        blocks: RevocationList,
        keys: KnownKeys | None = None,
        on_stale: OnStale = "last_known",
    ) -> None:
        self._config = config
        self._on_stale = on_stale
        self._blocks = blocks
        self._keys = keys
        self._reader = CallerReader(config, keys)
        self._answered: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        path, asked = scope["path"], scope["headers"]
        # Metrics count all that is in force, which may take a while: checks must not wait for it.
        answer = await asyncio.to_thread(self.answer, path, asked) if path == METRICS else self.answer(path, asked)
        headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    def answer(self, path: str, headers: list[tuple[bytes, bytes]]) -> Answer:
        """The answer to any method; the paths below /auth are those of the calls that a proxy asks about."""
        if path.startswith(AUTH) and path[len(AUTH) :][:1] in ("", "/"):
            return self._check(headers)
        if path == AUTH_REQUEST:
            return for_auth_request(self._check(headers))
        if path == "/healthz":
            return _text(200 if self._blocks.alive else 500, "alive" if self._blocks.alive else "not following")
        if path == "/readyz":
            return self._readiness()
        if path == METRICS:
            return _text(200, render_metrics(self._blocks) + render_guard(self._answered, self._keys))
        return _NOT_FOUND

    def _check(self, headers: list[tuple[bytes, bytes]]) -> Answer:
        try:
            answer = self._judge(headers)
        except BadCaller as error:
            answer = bad_caller(error)
        self._answered[answer.status] += 1
        return answer

    def _judge(self, headers: list[tuple[bytes, bytes]]) -> Answer:
        caller = self._reader.read(headers)
        if caller is None:
            if self._config.anonymous == "deny":
                raise BadCaller(401, "no_credential", "No credential was given.")
            return allowed(None, ALLOWED)
        if not self._blocks.ready.is_set():
            if self._on_stale == "open":
                return allowed(caller, ALLOWED)
            return unavailable("not_ready", "The list of blocks is not read yet.", 1)
        decision = self._blocks.check(
            caller.identity,
            credential=caller.credential,
            session=caller.session,
            end_user=caller.end_user,
            tenant=caller.tenant,
        )
        return allowed(caller, decision) if decision.allowed else denied(decision)

    def _readiness(self) -> Answer:
        blocks = self._blocks
        ready = blocks.ready.is_set() and blocks.alive
        told = {"ready": ready, "stale": blocks.stale, "staleness_seconds": round(blocks.staleness_seconds, 3)}
        return Answer(200 if ready else 503, [(b"content-type", b"application/json")], json.dumps(told).encode())

    async def _live(self, receive: Receive, send: Send) -> None:
        refreshing: asyncio.Task[None] | None = None
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._blocks.start()
                if self._keys is not None:
                    refreshing = asyncio.create_task(_refresh(self._keys))
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if refreshing is not None:
                    refreshing.cancel()
                # The thread is joined aside: it sends its last acknowledgements.
                await asyncio.to_thread(self._blocks.close)
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _refresh(keys: KnownKeys) -> None:
    while True:
        await asyncio.sleep(_REFRESH_S)
        await asyncio.to_thread(keys.refresh)


def _text(status: int, text: str) -> Answer:
    return Answer(status, [(b"content-type", b"text/plain; charset=utf-8")], f"{text.rstrip()}\n".encode())
