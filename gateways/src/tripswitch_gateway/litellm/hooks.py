"""LiteLLM's hooks: what is asked before a call, what is watched during it, what is told after it."""

import asyncio
import atexit
import os
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

from tripswitch_gateway import (
    DENIED,
    CommandVerifier,
    Decision,
    KeyFile,
    RevocationList,
    UsagePublisher,
    denial_answer,
    load_settings,
)
from tripswitch_gateway.events import usage_event
from tripswitch_gateway.litellm.naming import Naming, names_of_key, names_of_metadata
from tripswitch_gateway.litellm.noted import NOTED, NotedCall, noted, request_fields, request_metadata
from tripswitch_gateway.litellm.payloads import CLIENT_CLOSED, ended_ms, is_error_status, model_name, usage_of
from tripswitch_gateway.live import LiveCall, LiveCalls, StreamCut

# LiteLLM tells of a stream's end some time after it; of an end that it never tells of, we do.
_GRACE_S = 30.0
_END = object()


class Denied(HTTPException):  # type: ignore[misc] # FastAPI is not there when this is checked
    """What the proxy answers to a denied call; LiteLLM makes an error in OpenAI's format of it."""

    type = DENIED
    param = None

    def __init__(self, decision: Decision) -> None:
        status, headers, body = denial_answer(decision)
        super().__init__(status_code=status, detail=body, headers=headers)


class TripswitchLogger(CustomLogger):  # type: ignore[misc] # LiteLLM is not there when this is checked
    """Denies, throttles, downgrades and cuts what the kill switch says, and publishes a usage event for each call.

    ``calls.on_change`` must be the ``on_change`` of ``blocks``. ``source`` is this gateway's name in usage events.
    """

    def __init__(
        self, blocks: RevocationList, usage: UsagePublisher, calls: LiveCalls, *, naming: Naming, source: str
    ) -> None:
        super().__init__()
        self.blocks = blocks
        self.usage = usage
        self.calls = calls
        self._naming = naming
        self._source = source

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any] | None:
        """Asked by the proxy before each call; raises `Denied`, or names the only model to use."""
        call = self._note(user_api_key_dict, data)
        caller = call.live.caller
        # The call is in the registry by now, so that no command falls between the check and the stream.
        decision = self.blocks.check(
            caller.identity,
            credential=caller.credential,
            session=caller.session,
            end_user=caller.end_user,
            tenant=caller.tenant,
        )
        if not decision.allowed:
            self._deny(call, decision)
        call.decision = decision
        if decision.model is None:
            return None
        if "model" not in data:
            # A file, a batch, a provider's own route: the model is not ours to choose there, and may be any.
            self._deny(call, decision)
        data["model"] = decision.model
        return data

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Passes a stream on, until it ends or a command ends it: the proxy makes an error chunk of `StreamCut`."""
        call = noted(request_data)
        if call is None:
            async for chunk in response:
                yield chunk
            return
        chunks = aiter(response)
        fields = {**call.fields, "streaming": True, "usage_missing": True}
        ended: dict[str, object] = {"status": CLIENT_CLOSED, "error": "ClientDisconnected"}
        try:
            while True:
                async with call.live.interruptible():
                    chunk = await anext(chunks, _END)
                if chunk is _END:
                    ended = {"status": 200}
                    return
                yield chunk
        except StreamCut as cut:
            self._tell(call, {**fields, "status": cut.status_code, "error": DENIED})
            await _close(response, chunks)
            raise
        except Exception as error:
            ended = {"status": _status_of(error), "error": type(error).__name__}
            raise
        finally:
            self._tell_soon(call, {**fields, **ended})

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A call was served, by a provider or from the cache, or as far as its client wanted it."""
        payload = kwargs.get("standard_logging_object")
        if not isinstance(payload, Mapping):
            return
        call = kwargs.get(NOTED)
        if not isinstance(call, NotedCall):
            call = self._note_afterwards(payload)
        self._tell(call, {**call.fields, **_known(usage_of(payload))}, ended_ms(payload))

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """A call failed. One that was never noted was turned away at the door: it is no evidence against anybody."""
        payload, call = kwargs.get("standard_logging_object"), kwargs.get(NOTED)
        # Attempts at a provider have been told of one by one.
        if isinstance(payload, Mapping) and isinstance(call, NotedCall) and not call.failures:
            self._tell(call, {**call.fields, **_known(usage_of(payload))}, ended_ms(payload))

    async def async_post_call_failure_deployment_hook(
        self, request_data: Mapping[str, Any], exception: Exception, call_type: Any, fallback_depth: int | None = None
    ) -> None:
        """An attempt at a provider failed; LiteLLM may try again."""
        call = noted(request_data)
        if call is None or call.told:
            return
        now, provider = time.monotonic(), getattr(exception, "llm_provider", None)
        fields = {
            **call.fields,
            "provider": provider,
            "model": model_name(request_data.get("model"), provider),
            "status": _status_of(exception),
            "error": type(exception).__name__,
            "latency_ms": (now - call.attempt_began) * 1000,
        }
        self._publish(call, fields)
        call.failures += 1
        call.attempt_began = now

    def close(self) -> None:
        """Send what waits, for a few seconds at most, and stop following the kill switch."""
        self.blocks.close()
        self.usage.close()

    def _deny(self, call: NotedCall, decision: Decision) -> NoReturn:
        if decision.allowed and decision.command is not None:
            decision = Decision(False, decision.command.http_status, decision.command)
        self._tell(call, {**call.fields, "status": decision.status, "error": DENIED})
        raise Denied(decision)

    def _note(self, key: Any, data: dict[str, Any]) -> NotedCall:
        session = data.get("litellm_session_id") or request_metadata(data).get("session_id")
        end_user = getattr(key, "end_user_id", None) or data.get("user")
        caller = self._naming.caller(names_of_key(key), session, end_user)
        call = NotedCall(self.calls.enter(caller), request_fields(data, getattr(key, "request_route", None)))
        call.note_in(data)
        return call

    def _note_afterwards(self, payload: Mapping[str, Any]) -> NotedCall:
        metadata = payload.get("metadata")
        names = names_of_metadata(metadata if isinstance(metadata, Mapping) else {})
        return NotedCall(LiveCall(self._naming.caller(names, payload.get("session_id"), payload.get("end_user"))), {})

    def _tell(self, call: NotedCall, fields: Mapping[str, object], ended: int | None = None) -> None:
        """Tell of the call's end, once."""
        if call.told:
            return
        call.told = True
        self.calls.leave(call.live)
        if call.decision is not None:
            tokens = [fields.get(name) for name in ("input_tokens", "output_tokens")]
            self.blocks.table.charge(call.decision, sum(count for count in tokens if isinstance(count, int)))
        self._publish(call, fields, ended)

    def _tell_soon(self, call: NotedCall, fields: Mapping[str, object]) -> None:
        """Tell of a stream that has ended, unless LiteLLM tells first and better."""
        if call.told:
            return
        now_ms = time.time_ns() // 1_000_000
        asyncio.get_running_loop().call_later(_GRACE_S, self._tell, call, fields, now_ms)

    def _publish(self, call: NotedCall, fields: Mapping[str, object], ended: int | None = None) -> None:
        told = {**fields, "operation_id": call.id, "attempt": call.failures}
        event_id = f"{call.id}-{call.failures}"
        self.usage.publish(usage_event(call.live.caller, self._source, told, event_id=event_id, ended_ms=ended))


def connect(environment: Mapping[str, str] | None = None) -> TripswitchLogger:
    """The hooks, following the kill switch in this process until it ends.

    Raises `SettingsError` or `KeysUnreadable`, so that a proxy that could not obey does not start.
    """
    env = os.environ if environment is None else environment
    settings = load_settings(environment)
    naming = Naming.read(env)
    name = env.get("TRIPSWITCH_GATEWAY") or socket.gethostname()
    calls = LiveCalls()
    verifier = CommandVerifier(KeyFile(settings.jwks), settings.issuer)
    # Each worker process follows the topic, counts rates and acknowledges for itself.
    gateway = f"{name}/{os.getpid()}"
    blocks = RevocationList(
        settings.kafka, verifier, gateway=gateway, on_change=calls.on_change, on_stale=settings.on_stale
    ).start()
    usage = UsagePublisher(settings.kafka)
    hooks = TripswitchLogger(blocks, usage, calls, naming=naming, source=f"gateway/{name}")
    # LiteLLM tells its callbacks nothing of its own end.
    atexit.register(hooks.close)
    return hooks


def _known(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _status_of(error: Exception) -> int:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and is_error_status(status) else 500


async def _close(stream: object, chunks: AsyncIterator[Any]) -> None:
    """Let go of the provider's stream, so that it stops to generate what nobody will read."""
    # A generator that has not begun closes nothing: it begins, and is cancelled where it first waits. What it says to
    # that matters to nobody any more.
    with suppress(Exception):
        async with asyncio.timeout(0):
            await anext(chunks, _END)
    # Streams of /v1/responses cannot be closed themselves, but hold the provider's answer.
    for closable in (stream, getattr(stream, "response", None)):
        aclose = getattr(closable, "aclose", None)
        if aclose is not None:
            await aclose()
            return
