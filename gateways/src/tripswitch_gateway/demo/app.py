"""The demo gateway's routes."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache, partial

from aiohttp import web

from tripswitch_gateway.commands import CommandVerifier
from tripswitch_gateway.decisions import Decision
from tripswitch_gateway.demo.calls import BadRequest, Call, read_call
from tripswitch_gateway.demo.config import Caller, GatewayConfig
from tripswitch_gateway.denials import DENIED, denial_answer, rfc3339
from tripswitch_gateway.keys import KeyFile
from tripswitch_gateway.prompts import fingerprint
from tripswitch_gateway.publisher import UsagePublisher
from tripswitch_gateway.settings import Settings
from tripswitch_gateway.subscriber import RevocationList

ROUTE = "/v1/chat/completions"
MAX_BODY_BYTES = 8 * 1024 * 1024
CHARACTERS_PER_TOKEN = 4
ANSWER = "This is a made-up answer: no model was asked."

BLOCKS = web.AppKey("blocks", RevocationList)


class Gateway:
    """The route's handler; holds no state of its own."""

    def __init__(self, config: GatewayConfig, blocks: RevocationList, usage: UsagePublisher) -> None:
        self._config = config
        self._blocks = blocks
        self._usage = usage
        self._source = f"gateway/{config.name}"
        self._place = lru_cache(maxsize=65_536)(config.place)

    async def complete(self, request: web.Request) -> web.Response:
        """POST /v1/chat/completions."""
        started = time.perf_counter()
        if not self._blocks.ready.is_set():
            return _json_answer(503, _error("not_ready", "The list of blocks is not read yet."), {"Retry-After": "1"})
        caller = self._config.keys.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if caller is None:
            # Nobody's usage: an unknown key is no evidence against anyone, so no event names anyone.
            return _json_answer(401, _error("authentication_error", "Unknown API key."))
        body = await request.read()
        event = partial(self._event, request, caller, started)
        call, fault = None, ""
        try:
            call = read_call(body, request.headers)
        except BadRequest as error:
            fault = str(error)
        # Before any work, and before the body's faults are told: a blocked caller learns that it is blocked.
        session, end_user = (call.session_id, call.end_user) if call else (None, None)
        decision = self._blocks.check(caller.identity, caller.credential_id, session, caller.tenant, end_user)
        if not decision.allowed:
            status, headers, answer = denial_answer(decision)
            self._usage.publish(event(call, status, error=DENIED))
            return _json_answer(status, answer, headers)
        if call is None:
            self._usage.publish(event(None, 400, error="invalid_request_error"))
            return _json_answer(400, _error("invalid_request_error", fault))
        return self._serve(call, decision, event)

    def _serve(self, call: Call, decision: Decision, event: "partial[dict[str, object]]") -> web.Response:
        model = decision.model or call.model
        tokens_in = _estimate(call.prompt) if call.input_tokens is None else call.input_tokens
        tokens_out = _estimate(ANSWER) if call.output_tokens is None else call.output_tokens
        self._blocks.table.charge(decision, tokens_in + tokens_out)
        self._usage.publish(event(call, 200, model=model, tokens=(tokens_in, tokens_out)))
        answer = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"},
            ],
            "usage": {
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
            },
        }
        return _json_answer(200, answer)

    def _event(
        self,
        request: web.Request,
        caller: Caller,
        started: float,
        call: Call | None,
        status: int,
        *,
        model: str | None = None,
        tokens: tuple[int, int] | None = None,
        error: str | None = None,
    ) -> dict[str, object]:
        """The usage event of a call that ends now. Tokens are null where nothing was spent."""
        now_ms = time.time_ns() // 1_000_000
        latency_ms = (time.perf_counter() - started) * 1000
        usage: dict[str, object] = {
            "tenant": caller.tenant,
            "credential_id": caller.credential_id,
            "kind": caller.kind,
            "workload": caller.workload,
            "provider": "demo",
            "model": model or (call.model if call else "unknown"),
            "route": ROUTE,
            "status": status,
            "error": error,
            "latency_ms": round(latency_ms, 3),
            "operation_id": request.headers.get("X-Operation-Id") or uuid.uuid4().hex,
            "attempt": 0,
            "user_agent": request.headers.get("User-Agent"),
            "identity_trust": "authenticated",
            **self._place(client_address(request)),
        }
        if call is not None:
            usage["session_id"] = call.session_id
            usage["end_user"] = call.end_user
            usage["tool"] = call.tool
            usage["fingerprint"] = call.fingerprint or fingerprint(call.prompt)
            usage["streaming"] = call.streaming
            if call.latency_ms is not None:
                usage["latency_ms"] = call.latency_ms
        if tokens is not None:
            usage["input_tokens"], usage["output_tokens"] = tokens
            usage["cost_usd"] = self._config.cost_usd(str(usage["model"]), *tokens)
        return {
            "specversion": "1.0",
            "type": "llm.usage.v1",
            "id": uuid.uuid4().hex,
            "source": self._source,
            "subject": caller.identity,
            "time": rfc3339(now_ms),
            "data": usage,
        }


def client_address(request: web.Request) -> str | None:
    """The first address of X-Forwarded-For, else the peer's."""
    forwarded = request.headers.get("X-Forwarded-For")
    return forwarded.split(",", 1)[0].strip() if forwarded else request.remote


def _estimate(text: str) -> int:
    return max(1, len(text) // CHARACTERS_PER_TOKEN)


def _error(kind: str, message: str) -> dict[str, object]:
    return {"error": {"type": kind, "message": message}}


def _json_answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), headers=headers, content_type="application/json")


async def _healthz(request: web.Request) -> web.Response:
    blocks = request.app[BLOCKS]
    state = {
        "ready": blocks.ready.is_set(),
        "staleness_seconds": round(blocks.staleness_seconds, 3),
        "refusals": blocks.refusals,
        "conflicts": blocks.table.conflicts,
    }
    return _json_answer(200 if blocks.alive else 500, state)


async def _readyz(request: web.Request) -> web.Response:
    ready = request.app[BLOCKS].ready.is_set() and request.app[BLOCKS].alive
    return _json_answer(200 if ready else 503, {"ready": ready})


async def _list_blocks(request: web.Request) -> web.Response:
    return _json_answer(
        200,
        [
            {
                "command_id": command.command_id,
                "incident_id": command.incident_id,
                "action": command.action,
                "scope": command.scope,
                "tenant": command.tenant,
                "identity": command.identity,
                "subject": command.subject,
                "epoch": command.epoch,
                "expires_at": None if command.expires_at is None else rfc3339(command.expires_at),
                "reason": command.reason_admin,
            }
            for command in request.app[BLOCKS].table.live()
        ],
    )


def make_app(config: GatewayConfig, settings: Settings) -> web.Application:
    """The gateway as an aiohttp application; follows the kill switch while it runs.

    Raises `KeysUnreadable` when there are no keys to verify commands with.
    """
    verifier = CommandVerifier(KeyFile(settings.jwks), settings.issuer)
    blocks = RevocationList(settings.kafka, verifier, gateway=config.name, on_stale=settings.on_stale)
    usage = UsagePublisher(settings.kafka)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[BLOCKS] = blocks

    async def follow(_: web.Application) -> AsyncIterator[None]:
        blocks.start()
        yield
        # Threads are joined aside: the loop still finishes the calls under way.
        await asyncio.to_thread(blocks.close)
        await asyncio.to_thread(usage.close)

    app.cleanup_ctx.append(follow)
    app.router.add_post(ROUTE, Gateway(config, blocks, usage).complete)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/v1/blocks", _list_blocks)
    return app
