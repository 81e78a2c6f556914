"""Usage events for benchmarks: identities drawn from Zipf(1.1) or uniformly, at a steady rate of event time."""

import json
from collections.abc import Iterator

import numpy as np

from schemas.times import format_millis

_PLACES = (
    ("DE", 52.52, 13.4, 3320),
    ("US", 39.04, -77.49, 16509),
    ("JP", 35.68, 139.69, 4713),
    ("IN", 19.08, 72.88, 55836),
)
_MODELS = ("gpt-5.1", "gpt-5-mini", "claude-sonnet-4-5", "gemini-2.5-flash")


def events(
    count: int, identities: int, *, start: int, per_second: float, zipf: bool = True, seed: int = 7
) -> Iterator[tuple[str, bytes]]:
    """(subject, JSON) of `count` events from `start` (ms) on."""
    rng = np.random.default_rng(seed)
    if zipf:
        weights = 1.0 / np.arange(1, identities + 1) ** 1.1
        who = rng.choice(identities, count, p=weights / weights.sum())
    else:
        who = rng.integers(0, identities, count)
    at = start + np.cumsum(rng.exponential(1000.0 / per_second, count)).astype(np.int64)
    tokens_in, tokens_out = (
        rng.lognormal(6.5, 1.2, count).astype(int) + 1,
        rng.lognormal(4.8, 1.0, count).astype(int) + 1,
    )
    for n in range(count):
        k = int(who[n])
        country, lat, lon, asn = _PLACES[k % len(_PLACES)]
        subject = f"key_{k:07x}"
        event = {
            "specversion": "1.0", "type": "llm.usage.v1", "id": f"b-{n:08x}", "source": f"gateway/{k % 3}",
            "subject": subject, "time": format_millis(int(at[n])),
            "data": {
                "tenant": f"tenant-{k % 997:03d}", "credential_id": f"cred_{k:07x}", "kind": "api_key",
                "workload": "interactive", "provider": "openai", "model": _MODELS[k % len(_MODELS)],
                "route": "/v1/chat/completions",
                "input_tokens": int(tokens_in[n]), "output_tokens": int(tokens_out[n]),
                "cost_usd": round(float(tokens_in[n]) * 1e-6 + float(tokens_out[n]) * 8e-6, 6), "status": 200,
                "latency_ms": 900.5, "attempt": 0, "session_id": f"s{n // 9:x}", "fingerprint": f"{n:016x}",
                "ip": f"10.{k % 250}.{n % 250}.7", "country": country, "lat": lat, "lon": lon, "asn": asn,
                "user_agent": "openai-python/2.8.1", "streaming": True,
            },
        }  # fmt: skip
        yield subject, json.dumps(event, separators=(",", ":")).encode()
