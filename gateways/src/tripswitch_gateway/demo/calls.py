"""What a chat completion request says of itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Names end up in usage events, where a caller's megabyte would make the event too big to send, and the call unseen.
MAX_NAME = 256


class BadRequest(ValueError):
    """The caller's body is wrong; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a request says of itself. ``demo`` members set what the made-up model spends and how it is seen."""

    model: str
    prompt: str
    end_user: str | None
    session_id: str | None
    tool: str | None
    fingerprint: str | None
    input_tokens: int | None
    output_tokens: int | None
    latency_ms: float | None
    streaming: bool


def read_call(body: bytes, headers: Mapping[str, str]) -> Call:
    """Read a chat completion request. Raises `BadRequest`."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON.") from None
    if not isinstance(parsed, dict):
        raise BadRequest("The body must be an object.")
    model = _string(parsed, "model")
    if not model:
        raise BadRequest("model is missing.")
    demo = parsed.get("demo", {})
    if not isinstance(demo, dict):
        raise BadRequest("demo must be an object.")
    latency = demo.get("latency_ms")
    if latency is not None and (type(latency) not in (int, float) or not 0 <= latency < 1e9):
        raise BadRequest("demo.latency_ms must be a number of milliseconds.")
    return Call(
        model=model,
        prompt=_prompt(parsed.get("messages", [])),
        end_user=_string(parsed, "user"),
        session_id=_string(demo, "session_id") or headers.get("X-Session-Id"),
        tool=_string(demo, "tool"),
        fingerprint=_string(demo, "fingerprint"),
        input_tokens=_count(demo, "input_tokens"),
        output_tokens=_count(demo, "output_tokens"),
        latency_ms=latency,
        streaming=parsed.get("stream") is True,
    )


def _prompt(messages: object) -> str:
    if not isinstance(messages, list):
        raise BadRequest("messages must be a list.")
    texts = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts)


def _string(source: dict[str, Any], name: str) -> str | None:
    value = source.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} must be a string.")
    return value[:MAX_NAME] if value else None


def _count(source: dict[str, Any], name: str) -> int | None:
    value = source.get(name)
    if value is not None and (type(value) is not int or not 0 <= value < 2**53):
        raise BadRequest(f"demo.{name} must be a number of tokens.")
    return value
