"""The configuration of the demo gateway: whose key is whose, where networks are, what models cost."""

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PLACE_FIELDS = {"country": str, "city": str, "lat": float, "lon": float, "accuracy_km": float, "asn": int}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigError(ValueError):
    """The file is not a gateway configuration; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity behind an API key."""

    identity: str
    tenant: str | None = None
    credential_id: str | None = None
    kind: str | None = None
    workload: str | None = None


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """``keys`` by API key, ``networks`` narrowest first, ``prices`` in USD per million tokens (input, output)."""

    name: str
    keys: dict[str, Caller]
    networks: tuple[tuple[Network, dict[str, object]], ...]
    prices: dict[str, tuple[float, float]]

    def place(self, address: str | None) -> dict[str, object]:
        """``ip``, and country, city, coordinates and asn as far as the narrowest network says; empty for no address."""
        try:
            parsed = ipaddress.ip_address(address or "")
        except ValueError:
            return {}
        place = next((place for network, place in self.networks if parsed in network), {})
        return {"ip": str(parsed), **place}

    def cost_usd(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """What the tokens cost, None for a model without a price."""
        price = self.prices.get(model)
        return None if price is None else (input_tokens * price[0] + output_tokens * price[1]) / 1e6


def read_config(path: Path) -> GatewayConfig:
    """Read the JSON file at ``path``; raises `ConfigError`.

    Its members: ``name``, ``keys`` {API key: `Caller`'s fields}, ``networks`` [{cidr, country, city, lat, lon,
    accuracy_km, asn}], ``prices`` {model: {input, output}} in USD per million tokens. Only ``keys`` must be there.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    try:
        return _parse(document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error


def _parse(document: dict[str, Any]) -> GatewayConfig:
    networks = [(ipaddress.ip_network(entry["cidr"]), _place(entry)) for entry in document.get("networks", [])]
    networks.sort(key=lambda pair: -pair[0].prefixlen)
    return GatewayConfig(
        name=str(document.get("name", "demo")),
        keys={key: Caller(**caller) for key, caller in document["keys"].items()},
        networks=tuple(networks),
        prices={
            model: (float(price["input"]), float(price["output"]))
            for model, price in document.get("prices", {}).items()
        },
    )


def _place(entry: dict[str, Any]) -> dict[str, object]:
    unknown = entry.keys() - _PLACE_FIELDS.keys() - {"cidr"}
    if unknown:
        raise ValueError(f"networks: unknown {', '.join(sorted(unknown))}")
    return {name: convert(entry[name]) for name, convert in _PLACE_FIELDS.items() if entry.get(name) is not None}
