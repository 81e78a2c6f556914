"""What the hooks know of one call, from before it until it has been told of."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from tripswitch_gateway import Decision
from tripswitch_gateway.live import LiveCall
from tripswitch_gateway.prompts import fingerprint, prompt_text

NOTED = "tripswitch_call"
"""Where LiteLLM's own record of a call has the `NotedCall`: all hooks are given that record, or what holds it. The call
id will not do as a key, as clients may choose it."""


class NotedCall:
    """A call that the proxy has let in.

    ``fields`` are those of its usage event that are known before the call. ``failures`` counts the attempts at a
    provider that failed so far, ``attempt_began`` is when the one under way did (monotonic seconds), and ``told`` says
    whether the call's end has been published.
    """

    def __init__(self, live: LiveCall, fields: Mapping[str, object]) -> None:
        self.id = uuid.uuid4().hex
        self.live = live
        self.fields = fields
        self.decision: Decision | None = None
        self.failures = 0
        self.attempt_began = time.monotonic()
        self.told = False

    def __deepcopy__(self, _: object) -> "NotedCall":
        # LiteLLM copies its record of a call here and there; the call stays one.
        return self

    def note_in(self, data: Mapping[str, Any]) -> None:
        """Leave a note for the hooks to come, in the request's record."""
        record = _record(data)
        if record is not None:
            record[NOTED] = self


def noted(data: Mapping[str, Any]) -> NotedCall | None:
    """The note in a request's record."""
    call = (_record(data) or {}).get(NOTED)
    return call if isinstance(call, NotedCall) else None


def request_metadata(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the proxy knows of a request; some routes have it beside the client's own ``metadata``."""
    for name in ("litellm_metadata", "metadata"):
        metadata = data.get(name)
        if isinstance(metadata, Mapping) and "user_api_key_hash" in metadata:
            return metadata
    return {}


def request_fields(data: Mapping[str, Any], route: object) -> dict[str, object]:
    """Usage event fields of a request that has not been served yet."""
    metadata, prompt = request_metadata(data), prompt_text(data)
    return {
        "model": data.get("model"),
        "route": route,
        "ip": metadata.get("requester_ip_address"),
        "user_agent": metadata.get("user_agent"),
        # Made now: what LiteLLM logs afterwards may have been redacted, and all prompts would look the same.
        "fingerprint": fingerprint(prompt) if prompt else None,
        "streaming": data.get("stream") is True,
    }


def _record(data: Mapping[str, Any]) -> dict[str, Any] | None:
    record = getattr(data.get("litellm_logging_obj"), "model_call_details", None)
    return record if isinstance(record, dict) else None
