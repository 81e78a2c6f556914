import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import settings

# A deadline would measure the machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def raw() -> Callable[..., bytes]:
    """A usage event as a gateway sends it; `drop` names members to leave out, `data` replaces members of `data`."""

    def make(drop: str = "", data: Any = MappingProxyType({}), **members: Any) -> bytes:
        inner = {"model": "gpt-5-mini", "status": 200, "tenant": "acme", "input_tokens": 1064, "output_tokens": 145}
        event = {
            "specversion": "1.0", "type": "llm.usage.v1", "id": "1", "source": "gateway/eu-1", "subject": "key_7f3a",
            "time": "2026-03-02T00:01:32.844Z", "data": inner | data if isinstance(data, Mapping) else data,
        } | members  # fmt: skip
        holder, _, name = drop.rpartition(".")
        if name:
            del (event["data"] if holder else event)[name]
        return json.dumps(event).encode()

    return make
