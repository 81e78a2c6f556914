"""What LiteLLM tells of a finished call, as fields of a usage event."""

from collections.abc import Mapping
from typing import Any

from tripswitch_gateway.events import UNKNOWN_STATUS, count

CLIENT_CLOSED = 499
_OK = 200
_NOTHING: dict[str, object] = {}


def usage_of(payload: Mapping[str, Any]) -> dict[str, object]:
    """Usage event fields of a StandardLoggingPayload.

    Tokens are absent where LiteLLM does not know them: a failed call. Those of a stream whose client hung up are its
    own estimate, and ``usage_missing`` says so. An answer from LiteLLM's cache has its tokens, all of them cached, and
    costs nothing.
    """
    metadata = _mapping(payload.get("metadata"))
    error = _mapping(payload.get("error_information"))
    provider = payload.get("custom_llm_provider")
    status = _status(payload, error)
    fields: dict[str, object] = {
        "provider": provider,
        "model": model_name(payload.get("model"), provider),
        "route": metadata.get("user_api_key_request_route"),
        "status": status,
        "error": error.get("error_class") or (None if status < 400 else "error"),
        "latency_ms": _milliseconds(payload),
        "ip": payload.get("requester_ip_address") or metadata.get("requester_ip_address"),
        "user_agent": payload.get("user_agent") or metadata.get("user_agent"),
        "streaming": payload.get("stream") is True,
        "tool": _tool(payload, metadata),
    }
    if payload.get("status") == "success":
        fields |= _tokens(payload, metadata)
        fields["usage_missing"] = status == CLIENT_CLOSED or fields.get("input_tokens") is None
    return fields


def ended_ms(payload: Mapping[str, Any]) -> int | None:
    """Unix milliseconds of the call's end; None when the payload does not say."""
    ended = payload.get("endTime")
    return int(ended * 1000) if isinstance(ended, int | float) and 0 < ended < 1e11 else None


def model_name(model: object, provider: object) -> str | None:
    """The model without LiteLLM's prefix: other gateways name it so."""
    return model.removeprefix(f"{provider}/") if isinstance(model, str) else None


def is_error_status(status: object) -> bool:
    """Whether ``status`` is an HTTP status of a failure."""
    return type(status) is int and 400 <= status <= 599


def _tokens(payload: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, object]:
    used = _mapping(metadata.get("usage_object"))
    tokens_in, tokens_out = count(payload.get("prompt_tokens")), count(payload.get("completion_tokens"))
    details = _mapping(used.get("prompt_tokens_details"))
    cached = count(details.get("cached_tokens")) or count(used.get("cache_read_input_tokens"))
    if not tokens_in and not tokens_out and not used:
        # Zeros without a usage of the provider's mean that nobody counted, not that nothing was used.
        tokens_in = tokens_out = None
    if payload.get("cache_hit") is True:
        return {"input_tokens": tokens_in, "output_tokens": tokens_out, "cached_tokens": tokens_in, "cost_usd": 0.0}
    return {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "cached_tokens": cached,
        "cost_usd": payload.get("response_cost"),
    }


def _status(payload: Mapping[str, Any], error: Mapping[str, Any]) -> int:
    code = str(error.get("error_code") or "")
    status = int(code) if code.isascii() and code.isdigit() and len(code) == 3 else 0
    if is_error_status(status):
        return status
    return _OK if payload.get("status") == "success" else UNKNOWN_STATUS


def _milliseconds(payload: Mapping[str, Any]) -> float | None:
    started, ended = payload.get("startTime"), payload.get("endTime")
    if not isinstance(started, int | float) or not isinstance(ended, int | float):
        return None
    return round((ended - started) * 1000, 3)


def _tool(payload: Mapping[str, Any], metadata: Mapping[str, Any]) -> object:
    """The tool that was called, or that the model asks to have called."""
    called = _mapping(metadata.get("mcp_tool_call_metadata")).get("name")
    if called:
        return called
    choice = _first(_mapping(payload.get("response")).get("choices"))
    tool = _first(_mapping(choice.get("message")).get("tool_calls"))
    return _mapping(tool.get("function")).get("name")


def _first(value: object) -> Mapping[str, Any]:
    return _mapping(value[0]) if isinstance(value, list) and value else _NOTHING


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else _NOTHING
