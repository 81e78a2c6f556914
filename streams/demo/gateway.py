"""The demo gateway's configuration, made from the sample: whose key is whose, where networks are, what models cost."""

from collections import Counter
from typing import Any

from schemas.usage import UsageData
from streams.demo.history import History
from streams.demo.story import PRICES, THIEF_NETWORK

_PLACE = ("country", "city", "lat", "lon", "asn")


def key_of(identity: str) -> str:
    """The API key of an identity."""
    return f"sk-demo-{identity}"


def gateway_config(history: History) -> dict[str, Any]:
    """What `python -m tripswitch_gateway.demo --config` reads."""
    keys = {
        key_of(past.identity): {
            "identity": past.identity,
            "tenant": past.tenant,
            "credential_id": past.credential,
            "kind": past.kind,
            "workload": past.workload,
        }
        for past in history.pasts.values()
    }
    return {
        "name": "demo-1",
        "keys": keys,
        "networks": [THIEF_NETWORK, *_networks(history)],
        "prices": {model: {"input": price[0], "output": price[1]} for model, price in PRICES.items()},
    }


def _networks(history: History) -> list[dict[str, Any]]:
    """The sample's /16 networks with their place, and single addresses that lie elsewhere than their network."""
    seen: dict[str, Counter[tuple[Any, ...]]] = {}
    addresses: dict[str, tuple[Any, ...]] = {}
    for past in history.pasts.values():
        for call in past.calls:
            if call.data.ip is not None:
                place = _place_of(call.data)
                addresses[call.data.ip] = place
                seen.setdefault(_network(call.data.ip), Counter())[place] += 1
    usual = {network: places.most_common(1)[0][0] for network, places in seen.items()}
    odd = {f"{ip}/32": place for ip, place in addresses.items() if place != usual[_network(ip)]}
    return [{"cidr": cidr} | dict(zip(_PLACE, place, strict=True)) for cidr, place in (usual | odd).items()]


def _network(ip: str) -> str:
    return ".".join([*ip.split(".")[:2], "0.0/16"])


def _place_of(said: UsageData) -> tuple[Any, ...]:
    return tuple(getattr(said, name) for name in _PLACE)
