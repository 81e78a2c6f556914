"""Addresses and secrets of a gateway: the environment first, then ``tripswitch.toml`` in the working directory."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

# Our name -> librdkafka's. The environment spells ours KAFKA_<NAME>, the file [kafka] <name>.
_KAFKA_PROPERTIES = {
    "bootstrap": "bootstrap.servers",
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_username": "sasl.username",
    "sasl_password": "sasl.password",
    "ssl_ca": "ssl.ca.location",
    "ssl_cert": "ssl.certificate.location",
    "ssl_key": "ssl.key.location",
}


OnStale = Literal["last_known", "open", "closed"]


class SettingsError(ValueError):
    """A setting is missing or wrong; the message says which one and where to put it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the broker is, which keys sign commands, and who may issue them; and what to do when it is silent.

    ``kafka`` holds librdkafka properties and may contain a password, so it stays out of ``repr``. ``on_stale`` and
    ``snapshot`` are the arguments of `RevocationList` of the same name.
    """

    kafka: Mapping[str, str]
    jwks: Path
    issuer: str
    on_stale: OnStale = "last_known"
    snapshot: Path | None = None

    def __repr__(self) -> str:
        return (
            f"Settings(bootstrap={self.kafka['bootstrap.servers']!r}, jwks={str(self.jwks)!r}, issuer={self.issuer!r})"
        )


def load_settings(environment: Mapping[str, str] | None = None, file: Path = Path("tripswitch.toml")) -> Settings:
    """Read KAFKA_*, TRIPSWITCH_JWKS and TRIPSWITCH_ISSUER, or the tables [kafka] and [signing] of ``file``.

    Also TRIPSWITCH_ON_STALE and TRIPSWITCH_SNAPSHOT, or on_stale and snapshot in the table [gateway].

    Raises `SettingsError` when an address is missing or the file cannot be read as TOML.
    """
    env = os.environ if environment is None else environment
    tables = _read(file)
    kafka_table = _table(tables, "kafka", file, _KAFKA_PROPERTIES)
    signing = _table(tables, "signing", file, ("jwks", "issuer"))
    kafka = {}
    for name, prop in _KAFKA_PROPERTIES.items():
        value = env.get(f"KAFKA_{name.upper()}") or kafka_table.get(name)
        if value:
            kafka[prop] = value
    if "bootstrap.servers" not in kafka:
        raise SettingsError("no broker: set KAFKA_BOOTSTRAP=host:port, or bootstrap in [kafka] of tripswitch.toml")
    jwks = env.get("TRIPSWITCH_JWKS") or signing.get("jwks")
    if not jwks:
        raise SettingsError("no keys to verify commands: set TRIPSWITCH_JWKS, or jwks in [signing] of tripswitch.toml")
    issuer = env.get("TRIPSWITCH_ISSUER") or signing.get("issuer")
    if not issuer:
        raise SettingsError("no issuer to trust: set TRIPSWITCH_ISSUER, or issuer in [signing] of tripswitch.toml")
    gateway = _table(tables, "gateway", file, ("snapshot", "on_stale"))
    snapshot = env.get("TRIPSWITCH_SNAPSHOT") or gateway.get("snapshot")
    on_stale = _on_stale(env.get("TRIPSWITCH_ON_STALE") or gateway.get("on_stale") or "last_known")
    return Settings(kafka, Path(jwks), issuer, on_stale, Path(snapshot) if snapshot else None)


def _on_stale(text: str) -> OnStale:
    for choice in get_args(OnStale):
        if text == choice:
            return cast(OnStale, choice)
    # A misspelt "closed" must not quietly mean something weaker.
    raise SettingsError(f"TRIPSWITCH_ON_STALE (on_stale in [gateway]) is {text!r}: last_known, open or closed")


def _read(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error


def _table(tables: dict[str, object], name: str, file: Path, keys: Iterable[str]) -> dict[str, str]:
    """The ``keys`` of a table that are there; what else is in it is tripswitch's own, which may share the file."""
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{file}: [{name}] must be a table")
    found = {key: table[key] for key in keys if key in table}
    for key, value in found.items():
        if not isinstance(value, str):
            raise SettingsError(f"{file}: [{name}] {key} must be a string")
    return found
