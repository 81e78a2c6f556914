"""The gateways, as their acknowledgements show them."""

from collections.abc import Iterable, Iterator

from streams.acknowledged import Gateway
from streams.doctor.check import Check

_SILENT_MS = 150_000
"""A gateway says once a minute that it lives."""
_FORGOTTEN_MS = 24 * 3600_000


def is_silent(gateway: Gateway, now: int) -> bool:
    """Whether a gateway has not been heard of lately, at `now` (ms)."""
    return now - gateway.heard > _SILENT_MS


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
