"""A small Slack on this machine, for the demo and the tests: four methods of the Web API, messages kept in memory."""

import re
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

Message = dict[str, Any]
_TOP_LEVEL = ("text", "blocks", "metadata")
_MAX_BLOCKS = 50
_MAX_FIELDS = 10
_MAX_ELEMENTS = 10
_MAX_SECTION = 3000
_MAX_FIELD = 2000
_MAX_HEADER = 150
_MAX_TEXT = 40_000
_EMPHASIS = re.compile(r"(?<![\w*])\*([^*\n]+)\*(?!\w)")
_TOKEN = re.compile(r"<([^<>]*)>")


class FakeSlack:
    """Answers on 127.0.0.1 as Slack would, with Slack's errors.

    `messages` are those of `channel` and of their threads (`thread_ts`), oldest first; `calls` the methods that were
    called. `on_message(message, updated)` is called after each post and edit.

    Example:
        async with FakeSlack(token="xoxb-demo", channel="C0DEMO") as slack:
            sink = SlackSink("xoxb-demo", "C0DEMO", api_url=slack.url)
    """

    def __init__(self, *, token: str, channel: str, on_message: Callable[[Message, bool], None] | None = None) -> None:
        self.token = token
        self.channel = channel
        self.on_message = on_message
        self.messages: list[Message] = []
        self.calls: list[str] = []
        self.url = ""
        self._faults: deque[tuple[int, dict[str, str], str]] = deque()
        self._lost = 0
        self._runner: web.AppRunner | None = None

    def rate_limit(self, calls: int, *, retry_after: int = 1) -> None:
        """The next `calls` answer 429 and `Retry-After: retry_after` (seconds), and do nothing."""
        self._faults.extend([(429, {"Retry-After": str(retry_after)}, "ratelimited")] * calls)

    def refuse(self, calls: int, error: str, *, status: int = 200) -> None:
        """The next `calls` answer with `error`, and do nothing."""
        self._faults.extend([(status, {}, error)] * calls)

    def lose_answers(self, calls: int) -> None:
        """The next `calls` are carried out, but the connection breaks before the answer."""
        self._lost += calls

    def babble(self, calls: int) -> None:
        """The next `calls` answer 502 with a proxy's page instead of JSON, and do nothing."""
        self._faults.extend([(502, {}, "<html>")] * calls)

    async def start(self, port: int = 0) -> str:
        """Listens on a free port, or on `port`; returns the address for `SlackSink(api_url=…)`."""
        app = web.Application(client_max_size=4 << 20)
        app.router.add_route("*", "/api/{method}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/api/"
        return self.url

    async def stop(self) -> None:
        """Closes the port; the messages stay."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        """Starts on a free port."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops."""
        await self.stop()

    async def _answer(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        self.calls.append(method)
        if self._faults:
            status, headers, error = self._faults.popleft()
            if error == "<html>":
                return web.Response(text="<html>Bad gateway</html>", content_type="text/html", status=status)
            return web.json_response({"ok": False, "error": error}, status=status, headers=headers)
        answer = await self._carry_out(method, request)
        if self._lost and request.transport is not None:
            self._lost -= 1
            request.transport.close()
        return web.json_response(answer)

    async def _carry_out(self, method: str, request: web.Request) -> dict[str, Any]:
        authorization = request.headers.get("Authorization", "")
        if authorization != f"Bearer {self.token}":
            return _error("invalid_auth" if authorization else "not_authed")
        sent: dict[str, Any] = dict(request.query)
        if request.content_type == "application/json":
            sent |= await request.json()
        if method == "auth.test":
            return {"ok": True, "url": "https://fake.invalid/", "team": "fake", "user_id": "U0FAKE", "bot_id": "B0FAKE"}
        if sent.get("channel") != self.channel:
            return _error("channel_not_found")
        if method == "chat.postMessage":
            return self._post(sent)
        if method == "chat.update":
            return self._update(sent)
        return self._history(sent) if method == "conversations.history" else _error("unknown_method")

    def _post(self, sent: dict[str, Any]) -> dict[str, Any]:
        faults = block_faults(sent)
        if faults:
            return _error("invalid_blocks", faults)
        message: Message = {"type": "message", "user": "U0FAKE", "bot_id": "B0FAKE", "channel": self.channel}
        message["ts"] = f"1700000000.{len(self.messages) + 1:06d}"
        message |= {name: sent[name] for name in (*_TOP_LEVEL, "thread_ts") if name in sent}
        self.messages.append(message)
        self._tell(message, updated=False)
        return {"ok": True, "channel": self.channel, "ts": message["ts"], "message": message}

    def _update(self, sent: dict[str, Any]) -> dict[str, Any]:
        message = next((m for m in self.messages if m["ts"] == sent.get("ts")), None)
        if message is None:
            return _error("message_not_found")
        faults = block_faults(sent)
        if faults:
            return _error("invalid_blocks", faults)
        message |= {name: sent[name] for name in _TOP_LEVEL if name in sent}
        self._tell(message, updated=True)
        return {"ok": True, "channel": self.channel, "ts": message["ts"], "text": message.get("text", "")}

    def _tell(self, message: Message, *, updated: bool) -> None:
        if self.on_message is not None:
            self.on_message(message, updated)

    def _history(self, sent: dict[str, Any]) -> dict[str, Any]:
        newest_first = [m for m in reversed(self.messages) if "thread_ts" not in m]
        start, limit = int(sent.get("cursor") or 0), int(sent.get("limit", 100))
        page = newest_first[start : start + limit]
        if sent.get("include_all_metadata") not in ("1", "true", True):
            page = [{name: value for name, value in m.items() if name != "metadata"} for m in page]
        more = start + limit < len(newest_first)
        cursor = str(start + limit) if more else ""
        return {"ok": True, "messages": page, "has_more": more, "response_metadata": {"next_cursor": cursor}}


def block_faults(message: Message) -> list[str]:
    """What Slack would call `invalid_blocks` in a message: the documented limits of the blocks that we use."""
    blocks = message.get("blocks", [])
    faults = [f"no more than {_MAX_BLOCKS} items allowed"] if len(blocks) > _MAX_BLOCKS else []
    for number, block in enumerate(blocks):
        kind = block.get("type")
        if kind == "header":
            found = _text_faults(block.get("text"), _MAX_HEADER, ("plain_text",))
        elif kind == "section":
            found = _section_faults(block)
        elif kind == "context":
            elements = block.get("elements", [])
            found = [fault for element in elements for fault in _text_faults(element, _MAX_FIELD)]
            found += [] if 1 <= len(elements) <= _MAX_ELEMENTS else [f"1 to {_MAX_ELEMENTS} elements"]
        else:
            found = [] if kind == "divider" else [f"unsupported type: {kind}"]
        faults += [f"{fault} [json-pointer:/blocks/{number}]" for fault in found]
    if len(message.get("text", "")) > _MAX_TEXT:
        faults.append("msg_too_long")
    return faults


def render_text(message: Message) -> str:
    """A message as it reads on a terminal: no markup, times in UTC; a thread's reply is indented."""
    lines: list[str] = []
    for block in message.get("blocks", []):
        if block["type"] == "divider":
            lines.append("─" * 40)
        elif block["type"] == "context":
            lines += [_shown(element) for element in block["elements"]]
        elif "fields" in block:
            fields = [_shown(field).partition("\n")[::2] for field in block["fields"]]
            width = max(len(name) for name, _ in fields)
            lines += [f"{name:<{width}}  {value}" for name, value in fields]
        else:
            lines += _shown(block["text"]).split("\n")
    lines = lines or [_entities(message.get("text", ""))]
    if "thread_ts" in message:
        lines = [("    " if number else "  ↳ ") + line for number, line in enumerate(lines)]
    return "\n".join(lines)


def _error(code: str, notes: list[str] | None = None) -> dict[str, Any]:
    return {"ok": False, "error": code} | ({"response_metadata": {"messages": notes}} if notes else {})


def _section_faults(block: dict[str, Any]) -> list[str]:
    fields = block.get("fields", [])
    found = [fault for field in fields for fault in _text_faults(field, _MAX_FIELD)]
    found += [f"no more than {_MAX_FIELDS} fields"] if len(fields) > _MAX_FIELDS else []
    if "text" in block or not fields:
        found += _text_faults(block.get("text"), _MAX_SECTION)
    return found


def _text_faults(
    text: dict[str, Any] | None, limit: int, kinds: tuple[str, ...] = ("plain_text", "mrkdwn")
) -> list[str]:
    if text is None or text.get("type") not in kinds:
        return [f"must be one of {', '.join(kinds)}"]
    if ("emoji" in text and text["type"] != "plain_text") or ("verbatim" in text and text["type"] != "mrkdwn"):
        return ["emoji is for plain_text, verbatim for mrkdwn"]
    if not 1 <= len(text.get("text", "")) <= limit:
        return [f"must be 1 to {limit} characters long"]
    return []


def _shown(text: dict[str, Any]) -> str:
    raw = text["text"]
    if text["type"] == "plain_text":
        return _entities(raw)
    pieces = raw.split("`")
    # Every second piece is a code span, shown as it is.
    return "".join(
        _entities(piece) if number % 2 else _entities(_EMPHASIS.sub(r"\1", _TOKEN.sub(_token, piece)))
        for number, piece in enumerate(pieces)
    )


def _token(match: re.Match[str]) -> str:
    """`<!date^…|fallback>` and links as their text; a mention as Slack would shout it, so that a test sees it."""
    target, _, label = match[1].partition("|")
    return label or target.replace("!", "@", 1)


def _entities(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
