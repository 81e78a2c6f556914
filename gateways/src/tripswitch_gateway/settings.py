"""Addresses and secrets of a gateway: the environment first, then ``tripswitch.toml`` in the working directory."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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


class SettingsError(ValueError):
    """A setting is missing or wrong; the message says which one and where to put it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the broker is, which keys sign commands, and who may issue them.

    ``kafka`` holds librdkafka properties and may contain a password, so it stays out of ``repr``.
    """

    kafka: Mapping[str, str]
    jwks: Path
    issuer: str

    def __repr__(self) -> str:
        return (
            f"Settings(bootstrap={self.kafka['bootstrap.servers']!r}, jwks={str(self.jwks)!r}, issuer={self.issuer!r})"
        )


def load_settings(environment: Mapping[str, str] | None = None, file: Path = Path("tripswitch.toml")) -> Settings:
    """Read KAFKA_*, TRIPSWITCH_JWKS and TRIPSWITCH_ISSUER, or the tables [kafka] and [signing] of ``file``.

    Raises `SettingsError` when an address is missing or the file cannot be read as TOML.
    """
    env = os.environ if environment is None else environment
    tables = _read(file)
    kafka_table, signing = _table(tables, "kafka", file), _table(tables, "signing", file)
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
    return Settings(kafka, Path(jwks), issuer)


def _read(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error


def _table(tables: dict[str, object], name: str, file: Path) -> dict[str, str]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{file}: [{name}] must be a table")
    for key, value in table.items():
        if not isinstance(value, str):
            raise SettingsError(f"{file}: [{name}] {key} must be a string")
    return table
