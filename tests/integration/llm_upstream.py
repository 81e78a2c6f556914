"""A tiny LLM API behind a proxy: `python llm_upstream.py PORT`. Answers at once, or as a stream of `max_tokens` events,
ten a second; says for whom the proxy took the caller, and publishes each call's usage under that name."""

import asyncio
import hashlib
import json
import os
import sys
import time
import uuid
from typing import Any

from aiohttp import web

from tripswitch_gateway import UsagePublisher

PAUSE_S = 0.1
_TOKENS = 900, 200


def usage_event(identity: str, tenant: str, prompt: str, *, streaming: bool) -> dict[str, Any]:
    """A call that ends now. No session: the identity itself is to be blocked."""
    now = time.time_ns() // 1_000_000
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1000)) + f".{now % 1000:03d}Z"
    return {
        "specversion": "1.0", "type": "llm.usage.v1", "id": uuid.uuid4().hex, "source": "gateway/upstream",
        "subject": identity, "time": moment,
        "data": {
            "tenant": tenant, "credential_id": f"cred_{identity}", "kind": "api_key", "workload": "agent",
            "provider": "local", "model": "gpt-5-mini", "route": "/v1/chat/completions", "status": 200,
            "input_tokens": _TOKENS[0], "output_tokens": _TOKENS[1], "cost_usd": 0.002, "streaming": streaming,
            "fingerprint": hashlib.sha256(prompt.encode()).hexdigest()[:32], "identity_trust": "authenticated",
        },
    }  # fmt: skip


class Upstream:
    """The route's handler."""

    def __init__(self, usage: UsagePublisher) -> None:
        self._usage = usage

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        body = await request.json()
        told = {name: request.headers.get(f"X-Tripswitch-{name}") for name in ("Identity", "Tenant", "Model")}
        if body.get("stream"):
            answer = await self._stream(request, int(body["max_tokens"]))
        else:
            answer = web.json_response({"object": "chat.completion", "told": told})
        prompt = body["messages"][0]["content"]
        streaming = bool(body.get("stream"))
        self._usage.publish(usage_event(told["Identity"] or "", told["Tenant"] or "-", prompt, streaming=streaming))
        return answer

    async def _stream(self, request: web.Request, count: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(count):
            await response.write(f"data: {json.dumps({'n': number})}\n\n".encode())
            await asyncio.sleep(PAUSE_S)
        await response.write(b"data: [DONE]\n\n")
        return response


def main() -> None:
    usage = UsagePublisher({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP"]})
    app = web.Application()
    app.router.add_post("/v1/chat/completions", Upstream(usage).complete)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
