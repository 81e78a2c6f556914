"""A gateway of one's own, as docs/gateways/asgi.md says to build one: FastAPI, served by uvicorn."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from tripswitch_gateway import CommandVerifier, KeyFile, RevocationList, UsagePublisher, load_settings
from tripswitch_gateway.asgi import Caller, LiveCalls, TripswitchMiddleware

settings = load_settings()
calls = LiveCalls()
blocks = RevocationList(
    settings.kafka, CommandVerifier(KeyFile(settings.jwks), settings.issuer), gateway="own-1",
    topic=os.environ["TEST_KILLSWITCH"], acks_topic=None, on_change=calls.on_change,
)  # fmt: skip
usage = UsagePublisher(settings.kafka, topic=os.environ["TEST_USAGE"])


def identify(scope: Any) -> Caller | None:
    headers = dict(scope["headers"])
    key = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
    return Caller(key, tenant="acme") if key else None


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    blocks.start()
    yield
    blocks.close()
    usage.close()


app = FastAPI(lifespan=lifespan)
app.add_middleware(
    TripswitchMiddleware, blocks=blocks, calls=calls, usage=usage, source="gateway/own", identify=identify
)


@app.get("/ready")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/chat")
async def chat(request: Request) -> dict[str, str]:
    request.state.tripswitch.publish(model="m-1", status=200, input_tokens=3, output_tokens=4)
    return {"answer": "An answer."}


@app.post("/{kind}/stream")
async def stream(kind: str, stall: bool = False) -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(1200):
            yield f"data: w{number}\n\n".encode()
            await asyncio.sleep(60.0 if stall and number == 2 else 0.05)

    return StreamingResponse(chunks(), media_type="text/event-stream" if kind == "sse" else "application/x-ndjson")
