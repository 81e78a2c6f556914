"""A real LiteLLM proxy, a process in an environment of its own, and a made-up provider behind it."""

import asyncio
import hashlib
import json
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from kafka_node import ends_with_us, free_port

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("litellm.txt")
READY_S = 240.0
CHUNK_S = 0.05

# Without a database LiteLLM has no virtual keys; a custom authentication yields what it would know of them.
AUTH = """
from litellm.proxy._types import ProxyException, UserAPIKeyAuth

TEAMS = {"alice": "acme", "bob": "acme", "carol": "umbrella"}

async def user_api_key_auth(request, api_key):
    name = api_key.removeprefix("sk-")
    if name not in TEAMS:
        raise ProxyException("no such key", "auth_error", None, 401)
    return UserAPIKeyAuth(api_key=api_key, key_alias=None if name == "carol" else name, team_id=TEAMS[name])
"""
CONFIG = """
model_list:
  - model_name: mocked
    litellm_params: {{model: openai/gpt-5-mini, api_key: none, mock_response: "A made-up answer."}}
  - model_name: small
    litellm_params: {{model: openai/gpt-4o-mini, api_key: none, mock_response: "A small answer."}}
  - model_name: live
    litellm_params: {{model: openai/gpt-5-mini, api_key: none, api_base: "{provider}/v1"}}
  - model_name: claude
    litellm_params: {{model: anthropic/claude-sonnet-4-5, api_key: none, api_base: "{provider}"}}
litellm_settings:
  callbacks: ["tripswitch_gateway.litellm.tripswitch"]
router_settings:
  num_retries: 1
general_settings:
  custom_auth: auth.user_api_key_auth
"""


def python() -> Path:
    """The Python of LiteLLM's environment under build/, which is made when the pins have changed.

    Raises RuntimeError with pip's own words when it cannot be.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    cache = ROOT / "build"
    made = cache / f"litellm-{version}-{hashlib.sha256(PINS.read_bytes()).hexdigest()[:8]}"
    if not made.is_dir():
        cache.mkdir(exist_ok=True)
        # Filled under another name, then renamed: a folder of that name is complete, whoever was interrupted.
        filling = Path(tempfile.mkdtemp(prefix="filling-", dir=cache))
        try:
            steps = (
                [sys.executable, "-m", "venv", "--without-pip", str(filling)],
                [
                    *(sys.executable, "-m", "pip", "--python", str(filling / "bin" / "python"), "install", "--quiet"),
                    *("--disable-pip-version-check", "--no-deps", "--no-compile", "--requirement", str(PINS)),
                ],
            )
            for step in steps:
                done = subprocess.run(step, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise RuntimeError(f"LiteLLM can't be installed: {done.stderr.strip()[-500:]}")
            try:
                filling.rename(made)
            except OSError:
                if not made.is_dir():  # else another run was quicker
                    raise
        finally:
            shutil.rmtree(filling, ignore_errors=True)
    return made / "bin" / "python"


class Server:
    """A process in that environment that serves HTTP at ``url``; what it prints goes to ``log``.

    ``arguments`` are Python's; ``{port}`` in them is the port to listen on. ``health`` is a path that is answered as
    soon as it is ready.
    """

    def __init__(self, folder: Path, arguments: Sequence[str], environment: Mapping[str, str], health: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        self._health = health
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*ends_with_us(), str(python()), *(argument.format(port=port) for argument in arguments)],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**environment, "PYTHONPATH": str(ROOT / "gateways" / "src"), "NO_PROXY": "*"},
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Returns when it answers; fails with what it printed when it does not."""
        end = time.monotonic() + READY_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}{self._health}", timeout=5):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"it does not answer:\n{self.printed()}") from None
                time.sleep(0.1)

    def printed(self) -> str:
        """The last of what it printed."""
        return self.log.read_text(errors="replace")[-4000:]

    def close(self) -> int:
        """Asks it to end; its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def proxy(folder: Path, environment: Mapping[str, str], provider: str, *more: str) -> Server:
    """A LiteLLM proxy before the provider at that address; `more` are arguments of its own."""
    (folder / "auth.py").write_text(AUTH)
    (folder / "config.yaml").write_text(CONFIG.format(provider=provider))
    arguments = (
        "-m",
        "litellm.proxy.proxy_cli",
        "--config",
        "config.yaml",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
        *more,
    )
    ours = {
        "TRIPSWITCH_GATEWAY": "litellm-1",
        "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    return Server(folder, arguments, {**ours, **environment}, "/health/liveliness")


class Provider:
    """A made-up model provider: what the last message says is what it does.

    `go` streams a word every 50 ms for a minute, `stall` falls silent after three and `mute` before the first, `fail`
    is refused with 500 the first time, and all else is answered at once. ``asked`` are the streams that were asked for,
    ``hung_up`` those whose reader went away.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hung_up: list[str] = []
        self._failed: set[str] = set()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._openai)
        app.router.add_post("/v1/messages", self._anthropic)
        app.router.add_post("/v1/responses", self._responses)
        return app

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked = body["messages"][-1]["content"]
        if asked.startswith("fail") and asked not in self._failed:
            self._failed.add(asked)
            return web.json_response({"error": {"message": "no", "type": "server_error"}}, status=500)
        if body.get("stream"):
            words = ({"index": 0, "delta": {"content": f"w{number} "}, "finish_reason": None} for number in range(1200))
            return await self._stream(request, asked, (_sse({**_CHUNK, "choices": [word]}) for word in words))
        message = {"role": "assistant", "content": "An answer.", "tool_calls": [_TOOL] if asked == "tool" else None}
        usage = {
            "prompt_tokens": 50, "completion_tokens": 7, "total_tokens": 57,
            "prompt_tokens_details": {"cached_tokens": 20},
        }  # fmt: skip
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response({**_CHUNK, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def _anthropic(self, request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["messages"][-1]["content"]
        text = asked if isinstance(asked, str) else asked[0]["text"]
        return await self._stream(request, f"anthropic {text}", _anthropic_events())

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        asked = (await request.json())["input"]
        return await self._stream(request, f"responses {asked}", _responses_events())

    async def _stream(self, request: web.Request, asked: str, chunks: Iterator[bytes]) -> web.StreamResponse:
        self.asked.append(asked)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for number, chunk in enumerate(chunks):
                if (asked.endswith("stall") and number == 3) or asked.endswith("mute"):
                    while request.transport is not None and not request.transport.is_closing():
                        await asyncio.sleep(CHUNK_S)
                    raise ConnectionResetError  # noqa: TRY301 - as a write would find out
                await response.write(chunk)
                await asyncio.sleep(CHUNK_S)
        except (ConnectionResetError, asyncio.CancelledError):
            self.hung_up.append(asked)
        return response


_CHUNK: dict[str, Any] = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5-mini"}
_TOOL = {"id": "t-1", "type": "function", "function": {"name": "search", "arguments": "{}"}}


def _sse(event: Mapping[str, Any]) -> bytes:
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()


def _responses_events() -> Iterator[bytes]:
    response = {
        "id": "r-1", "object": "response", "created_at": 1, "model": "gpt-5-mini", "output": [],
        "status": "in_progress", "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip
    yield _sse({"type": "response.created", "sequence_number": 0, "response": response})
    for number in range(1200):
        delta = {"item_id": "m-1", "output_index": 0, "content_index": 0, "delta": f"w{number} "}
        yield _sse({"type": "response.output_text.delta", "sequence_number": number + 1, **delta})


def _anthropic_events() -> Iterator[bytes]:
    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {
        "id": "m-1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    yield _sse({"type": "message_start", "message": message})
    yield _sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for number in range(1200):
        delta = {"type": "text_delta", "text": f"w{number} "}
        yield _sse({"type": "content_block_delta", "index": 0, "delta": delta})


@contextmanager
def serving(provider: Provider) -> Iterator[str]:
    """Serves the provider in a thread of its own; gives its address."""
    port, loop = free_port(), asyncio.new_event_loop()
    runner = web.AppRunner(provider.app(), shutdown_timeout=1.0)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", port).start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()
