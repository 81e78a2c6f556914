"""Usage events for benchmarks, the same for the same arguments: who calls, when, and the JSON of the call."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from schemas.times import format_millis

Shape = Literal["zipf", "uniform", "hot"]
"""How often identities call: Zipf's law with exponent 1.1, all alike, or one of them 90 % of the calls."""

_PLACES = (
    ("DE", 52.52, 13.4, 3320),
    ("US", 39.04, -77.49, 16509),
    ("JP", 35.68, 139.69, 4713),
    ("IN", 19.08, 72.88, 55836),
)
_MODELS = ("gpt-5.1", "gpt-5-mini", "claude-sonnet-4-5", "gemini-2.5-flash")


def drawn(count: int, identities: int, shape: Shape, seed: int = 7) -> NDArray[np.int64]:
    """Numbers of the identities that call, `count` of them."""
    rng = np.random.default_rng(seed)
    if shape == "zipf":
        weights = 1.0 / np.arange(1, identities + 1) ** 1.1
        return rng.choice(identities, count, p=weights / weights.sum())
    who = rng.integers(0, identities, count)
    return who if shape == "uniform" else np.where(rng.random(count) < 0.9, 0, who)


def subject(who: int) -> str:
    """An identity's name."""
    return f"key_{who:07x}"


def head(unique: str, time: str) -> bytes:
    """The part of an event's JSON that is another one in each: its id, its fingerprint and its time."""
    return f'{{"specversion":"1.0","id":"{unique}","time":"{time}","data":{{"fingerprint":"{unique}",'.encode()


def tails(who: NDArray[np.int64], seed: int = 7) -> Iterator[bytes]:
    """The rest of the JSON of a call of each of the identities `who`."""
    rng = np.random.default_rng(seed + 1)
    given = (rng.lognormal(6.5, 1.2, len(who)).astype(int) + 1).tolist()
    made = (rng.lognormal(4.8, 1.0, len(who)).astype(int) + 1).tolist()
    for n, (k, tokens_in, tokens_out) in enumerate(zip(who.tolist(), given, made, strict=True)):
        country, lat, lon, asn = _PLACES[k % len(_PLACES)]
        yield (
            f'"tenant":"tenant-{k % 997:03d}","credential_id":"cred_{k:07x}","kind":"api_key",'
            f'"workload":"interactive","provider":"openai","model":"{_MODELS[k % len(_MODELS)]}",'
            f'"route":"/v1/chat/completions","input_tokens":{tokens_in},"output_tokens":{tokens_out},'
            f'"cost_usd":{tokens_in * 1e-6 + tokens_out * 8e-6:.6f},"status":200,"latency_ms":900.5,"attempt":0,'
            f'"session_id":"s{n // 9:x}","ip":"10.{k % 250}.{n % 250}.7","country":"{country}","lat":{lat},"lon":{lon},'
            f'"asn":{asn},"user_agent":"openai-python/2.8.1","streaming":true}},"type":"llm.usage.v1",'
            f'"source":"gateway/{k % 3}","subject":"{subject(k)}"}}'
        ).encode()


def events(
    who: NDArray[np.int64], *, start: int, per_second: float, first: int = 0, seed: int = 7
) -> Iterator[tuple[str, bytes]]:
    """(subject, JSON) of a call of each of `who`, from `start` (ms) on; ids are numbered from `first`."""
    rng = np.random.default_rng(seed + 2)
    at = start + np.cumsum(rng.exponential(1000.0 / per_second, len(who))).astype(np.int64)
    for n, (k, time, tail) in enumerate(zip(who.tolist(), at.tolist(), tails(who, seed), strict=True), first):
        yield subject(k), head(f"{n:016x}", format_millis(time)) + tail
