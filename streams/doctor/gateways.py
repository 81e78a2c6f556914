"""The gateways, as their acknowledgements show them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from streams.doctor.check import Check

_SILENT_MS = 150_000
"""A gateway says once a minute that it lives."""
_FORGOTTEN_MS = 24 * 3600_000


class Gateway(Struct):
    """The last that was heard of a gateway. Times are ms; `keys` names those that it verifies commands with, `checked`
    the callers that it asked its table about: (hash of tenant and name, hash of the name)."""

    name: str
    heard: int
    alive: int = 0
    ready: bool = True
    stale: bool = False
    keys: str = ""
    refused: int = 0
    checked: tuple[tuple[str, str], ...] = ()


def heard_of(records: Iterable[bytes]) -> dict[str, Gateway]:
    """The gateways that acknowledged something, by name; what is no acknowledgement is passed over."""
    found: dict[str, Gateway] = {}
    for raw in records:
        try:
            record = json.loads(raw)
            name, time = str(record["metadata"]["product"]["vendor_name"]), int(record["time"])
            told = record.get("unmapped") or {}
            gateway = found.setdefault(name, Gateway(name, time))
            _note(gateway, time, told)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def is_silent(gateway: Gateway, now: int) -> bool:
    """Whether a gateway has not been heard of lately, at `now` (ms)."""
    return now - gateway.heard > _SILENT_MS


def _note(gateway: Gateway, time: int, told: Mapping[str, Any]) -> None:
    gateway.heard = max(gateway.heard, time)
    if "jwks_sha256" not in told or time < gateway.alive:
        return
    gateway.alive, gateway.keys = time, str(told["jwks_sha256"])
    gateway.ready, gateway.stale = bool(told.get("ready", True)), bool(told.get("stale", False))
    gateway.refused = sum(told["refused"].values()) if isinstance(told.get("refused"), dict) else 0
    gateway.checked = tuple((str(a), str(b)) for a, b in told.get("checked") or ())


def check_gateways(gateways: Iterable[Gateway], now: int, keys: str) -> Iterator[Check]:
    """What is wrong with each at `now` (ms); `keys` names those that the JWKS file has."""
    known = [gateway for gateway in gateways if now - gateway.heard < _FORGOTTEN_MS]
    if not known:
        yield Check(
            "gateways",
            "failure",
            "no gateway has acknowledged anything for a day",
            "start one with tripswitch-gateway, and let it write llm.killswitch.acks",
        )
    for gateway in sorted(known, key=lambda gateway: gateway.name):
        faults = list(_faults(gateway, now, keys))
        yield from faults
        if not faults:
            yield Check(f"gateway {gateway.name}", "ok", f"heard {_ago(now, gateway.heard)}, ready, keys of today")


def _faults(gateway: Gateway, now: int, keys: str) -> Iterator[Check]:
    what = f"gateway {gateway.name}"
    if is_silent(gateway, now):
        yield Check(
            what, "failure", f"last heard {_ago(now, gateway.heard)}",
            "see whether it runs and reaches Kafka; one that was taken away is forgotten after a day",
        )  # fmt: skip
        return
    if not gateway.ready:
        yield Check(what, "failure", "not ready: its table is not complete", "see its log; does decide run?")
    if gateway.stale:
        yield Check(
            what, "failure", "stale: it hears no heartbeat, or holds other commands than decide says are in force",
            "see whether decide runs; if it does, restart the gateway, and if it stays so, look for whoever writes or "
            "withholds records of llm.killswitch (`tripswitch killswitch verify`)",
        )  # fmt: skip
    if gateway.keys and gateway.keys != keys:
        yield Check(
            what, "failure", "verifies commands with other keys than the JWKS file has",
            "ship the JWKS file to it",
        )  # fmt: skip
    if gateway.refused:
        yield Check(
            what, "warning", f"has refused {gateway.refused} records since it started",
            "`tripswitch killswitch verify` says which; gateways log why",
        )  # fmt: skip


def _ago(now: int, then: int) -> str:
    seconds = max(0, now - then) / 1000
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"
