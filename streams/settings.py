"""Addresses and secrets: from the environment, else from tripswitch.toml in the working directory."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.directory import Directory, read_directory


class SettingsError(ValueError):
    """A setting that can't be used: says which, where it came from and what to do."""


class Kafka(Struct, frozen=True, forbid_unknown_fields=True):
    """`[kafka]`. `partitions` and `replication` are for topics that `init` makes. `group_instance` is the worker's own
    name, which stays over restarts: one that is back within 15 s gets its partitions back without a rebalance.
    Without `transactions`, for a broker that has none, no state is saved: a worker that starts again learns anew. With
    `grant_rights`, `init` tells the broker's authorizer what each part may do."""

    bootstrap: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str | None = None
    sasl_password: str | None = None
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    partitions: Annotated[int, Meta(ge=1)] = 16
    replication: Annotated[int, Meta(ge=1)] = 1
    group_instance: str | None = None
    transactions: bool = True
    grant_rights: bool = False

    def confluent(self) -> dict[str, str]:
        """The options of a confluent-kafka client."""
        options = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.security_protocol,
            "ssl.ca.location": self.ssl_ca,
            "ssl.certificate.location": self.ssl_cert,
            "ssl.key.location": self.ssl_key,
        }
        if self.security_protocol.startswith("SASL"):
            options |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.username": self.sasl_username,
                "sasl.password": self.sasl_password,
            }
        return {name: value for name, value in options.items() if value is not None}


class ClickHouse(Struct, frozen=True, forbid_unknown_fields=True):
    """`[clickhouse]`."""

    url: str = "http://default@127.0.0.1:8123/default"


class Slack(Struct, frozen=True, forbid_unknown_fields=True):
    """`[slack]`. Without a token nobody is told."""

    bot_token: str | None = None
    channel: str | None = None
    api_url: str | None = None


class Signing(Struct, frozen=True, forbid_unknown_fields=True):
    """`[signing]`: the private key (PEM) that signs commands, and the public keys (JWKS) that gateways get.

    `operators` has the public keys of people who give orders; without it, whoever has `key` gives them. `operator_key`
    is the private key of who types the orders here; without it, `key` is.
    """

    key: str = "tripswitch-signing.pem"
    jwks: str = "tripswitch-jwks.json"
    issuer: str = "https://tripswitch.invalid"
    operators: str | None = None
    operator_key: str | None = None


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All of it. `policy` and `directory` are paths."""

    kafka: Kafka = Kafka()
    clickhouse: ClickHouse = ClickHouse()
    slack: Slack = Slack()
    signing: Signing = Signing()
    policy: str | None = None
    directory: str | None = None

    def known(self) -> Directory:
        """The directory that the settings name; an empty one where they name none.

        Raises:
            FileNotFoundError: there is no such file.
            DirectoryError: it is no directory.
        """
        return read_directory(Path(self.directory)) if self.directory else Directory()


_GATEWAYS = ("gateway", "guard")
"""Tables that a gateway on this machine may have in the same file."""
_VARIABLES = {
    **{f"KAFKA_{name.upper()}": ("kafka", name) for name in Kafka.__struct_fields__},
    "CLICKHOUSE_URL": ("clickhouse", "url"),
    **{f"SLACK_{name.upper()}": ("slack", name) for name in Slack.__struct_fields__},
    "TRIPSWITCH_SIGNING_KEY": ("signing", "key"),
    "TRIPSWITCH_JWKS": ("signing", "jwks"),
    "TRIPSWITCH_ISSUER": ("signing", "issuer"),
    "TRIPSWITCH_OPERATORS": ("signing", "operators"),
    "TRIPSWITCH_OPERATOR_KEY": ("signing", "operator_key"),
    "TRIPSWITCH_POLICY": ("", "policy"),
    "TRIPSWITCH_DIRECTORY": ("", "directory"),
}


def read_settings(path: Path = Path("tripswitch.toml")) -> Settings:
    """The settings; a variable of the environment wins over the file.

    Raises:
        SettingsError: the file is not TOML, or a setting is unknown or impossible; a secret is never shown.
    """
    table: dict[str, object] = {}
    if path.is_file():
        try:
            table = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: not TOML: {error}") from error
    table = {name: value for name, value in table.items() if name not in _GATEWAYS}
    given = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    for variable, value in given.items():
        section, name = _VARIABLES[variable]
        at = table.setdefault(section, {}) if section else table
        if isinstance(at, dict):
            at[name] = value
    try:
        return msgspec.convert(table, Settings, strict=False)
    except msgspec.ValidationError as error:
        come_from = ", ".join([*([str(path)] if path.is_file() else []), *(["the environment"] if given else [])])
        raise SettingsError(f"settings from {come_from}: {error}") from error
