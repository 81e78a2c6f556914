"""Calls to Slack, with each failure as the answer that cures it. Neither the token nor headers leave here."""

import ipaddress
from collections.abc import Awaitable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
    AsyncServerErrorRetryHandler,
)
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from sinks.errors import Reject, Retry, Unreachable

_OVERLOADED = 429
_SERVER_FAULT = 500
_PAUSE_S = 5.0
_LATER = {
    "ratelimited", "rate_limited", "message_limit_exceeded", "internal_error", "fatal_error", "service_unavailable",
    "request_timeout", "team_added_to_org",
}  # fmt: skip
_CREDENTIALS = {
    "invalid_auth": "Slack does not accept the token: set SLACK_BOT_TOKEN to the app's bot token (xoxb-…)",
    "not_authed": "no Slack token was sent: set SLACK_BOT_TOKEN to the app's bot token (xoxb-…)",
    "token_revoked": "the Slack token was revoked: install the app again and set SLACK_BOT_TOKEN",
    "token_expired": "the Slack token has expired: set SLACK_BOT_TOKEN to a new one",
    "account_inactive": "the Slack token belongs to a deleted account: install the app again and set SLACK_BOT_TOKEN",
    "not_allowed_token_type": "Slack does not allow this kind of token: set SLACK_BOT_TOKEN to a bot token (xoxb-…)",
}
CHANNEL_FAULTS = {
    "channel_not_found": "Slack has no channel {channel} that this app can see: set SLACK_CHANNEL to its id (C…), "
    "and invite the app if it is private",
    "not_in_channel": "the app is not in the Slack channel {channel}: type /invite @<the app> there",
    "is_archived": "the Slack channel {channel} is archived: set SLACK_CHANNEL to another one",
}


class Gone(Exception):
    """The message can no longer be edited or answered: it was deleted, or it is too old for the workspace's rules."""


_GONE = {"message_not_found", "thread_not_found", "edit_window_closed", "cant_update_message"}


def writer(token: str, api_url: str | None) -> AsyncWebClient:
    """A client that tries once: a post whose answer was lost may have been made, and must not be made again."""
    return _client(token, api_url, retry=False)


def reader(token: str, api_url: str | None) -> AsyncWebClient:
    """A client that waits when Slack limits it and tries again: reading twice does no harm."""
    return _client(token, api_url, retry=True)


async def ask(call: Awaitable[AsyncSlackResponse]) -> AsyncSlackResponse:
    """What Slack answers to `call`.

    Raises:
        Retry: a rate limit (with Slack's own wait), a fault of the server, or no answer: it may have been carried out.
        Gone: the message to edit or to answer is not there any more.
        Unreachable: the token does not work.
        Reject: Slack will never take this.
    """
    try:
        return await call
    except SlackApiError as error:
        answer = _answer(error)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        answer = Retry(_PAUSE_S, f"no answer from Slack ({type(error).__name__})")
    # Raised out here, so that the client's exception with its response does not come along as the context.
    raise answer


def error_code(reason: str) -> str:
    """Slack's own code within a `Reject` of `ask`."""
    return reason.rpartition("Slack refuses it: ")[2].partition(" ")[0]


def _answer(error: SlackApiError) -> Exception:
    # A body that is no JSON comes with the bare HTTP response.
    response: Any = error.response
    status: int = response.status_code if isinstance(response, AsyncSlackResponse) else response.status
    headers: Mapping[str, str] = response.headers
    body = response.data if isinstance(response, AsyncSlackResponse) else None
    answer: dict[str, Any] = body if isinstance(body, dict) else {}
    code = str(answer.get("error", ""))
    if status == _OVERLOADED or code in _LATER or status >= _SERVER_FAULT:
        return Retry(_wait(headers), f"Slack asks to wait ({code or status})")
    if code in _GONE:
        return Gone(code)
    if code in _CREDENTIALS:
        return Unreachable(_CREDENTIALS[code])
    if code == "missing_scope":
        return Unreachable(
            f"the Slack app lacks the scope {answer.get('needed', '?')}: add it and install the app again"
        )
    notes = answer.get("response_metadata", {}).get("messages") or answer.get("errors") or []
    detail = f" ({'; '.join(map(str, notes))[:300]})" if notes else ""
    return Reject(f"Slack refuses it: {code or f'HTTP status {status}'}{detail}")


def _wait(headers: Mapping[str, str]) -> float:
    try:
        return max(float(headers.get("Retry-After", _PAUSE_S)), 0.0)
    except ValueError:
        return _PAUSE_S


def _client(token: str, api_url: str | None, *, retry: bool) -> AsyncWebClient:
    handlers = (
        [
            AsyncRateLimitErrorRetryHandler(max_retry_count=3),
            AsyncServerErrorRetryHandler(max_retry_count=2),
            AsyncConnectionErrorRetryHandler(max_retry_count=2),
        ]
        if retry
        else []
    )
    if api_url is None:
        return AsyncWebClient(token=token, retry_handlers=handlers)
    client = AsyncWebClient(token=token, base_url=api_url, retry_handlers=handlers)
    if _is_loopback(urlsplit(api_url).hostname or ""):
        client.proxy = None  # The client takes HTTPS_PROXY and never looks at NO_PROXY.
    return client


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
