"""The guard's settings: the table [guard] of tripswitch.toml; the environment wins over it."""

import re
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from tripswitch_gateway.settings import SettingsError

Anonymous = Literal["deny", "allow"]

# What header names are made of (RFC 9110, token).
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ENVIRONMENT = {
    "listen": "TRIPSWITCH_GUARD_LISTEN",
    "name": "TRIPSWITCH_GUARD_NAME",
    "keys": "TRIPSWITCH_GUARD_KEYS",
}


@dataclass(frozen=True, slots=True)
class NamedIn:
    """The headers in which the gateway, after it authenticated the caller, says who it is. None: it doesn't say."""

    identity: str | None = None
    tenant: str | None = None
    credential: str | None = None
    session: str | None = None
    end_user: str | None = None


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """``listen`` is host:port, ``name`` what acknowledgements call this guard. ``keys`` maps hashes of credentials to
    identities; without it an identity is ``credential_prefix`` and the credential's SHA-256. ``tenant`` is that of
    callers for whom nothing else says one."""

    listen: str = "127.0.0.1:9191"
    name: str = field(default_factory=socket.gethostname)
    keys: Path | None = None
    credential_prefix: str = ""
    credential_headers: tuple[str, ...] = ("authorization", "x-api-key", "api-key")
    tenant: str = "-"
    anonymous: Anonymous = "deny"
    headers: NamedIn = field(default_factory=NamedIn)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def read_guard_config(file: Path, environment: Mapping[str, str], **flags: str | None) -> GuardConfig:
    """The table [guard] of ``file``, which may be absent; then TRIPSWITCH_GUARD_*, then flags that are not None.

    Raises `SettingsError`, in one line, for what can't be used.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file}: cannot be read as TOML: {error}") from error
    table = tables.get("guard", {})
    if not isinstance(table, dict):
        raise SettingsError(f"{file}: [guard] must be a table")
    given = {name: environment[variable] for name, variable in _ENVIRONMENT.items() if environment.get(variable)}
    given |= {name: value for name, value in flags.items() if value is not None}
    try:
        return _checked({**table, **given})
    except SettingsError as error:
        raise SettingsError(f"[guard] of {file}, or TRIPSWITCH_GUARD_*: {error}") from error


def _checked(table: dict[str, Any]) -> GuardConfig:
    known = {each.name for each in fields(GuardConfig)}
    if unknown := sorted(table.keys() - known):
        raise SettingsError(f"there is no setting {unknown[0]}")
    out: dict[str, Any] = {}
    for name in ("listen", "name", "credential_prefix", "tenant"):
        if name in table:
            out[name] = _text(name, table[name])
    if "keys" in table:
        out["keys"] = Path(_text("keys", table["keys"]))
    if "anonymous" in table:
        if table["anonymous"] not in get_args(Anonymous):
            raise SettingsError(f"anonymous must be one of {', '.join(get_args(Anonymous))}")
        out["anonymous"] = table["anonymous"]
    if "credential_headers" in table:
        names = table["credential_headers"]
        if not isinstance(names, list):
            raise SettingsError("credential_headers must be a list of header names")
        out["credential_headers"] = tuple(_header("credential_headers", name) for name in names)
    out["headers"] = _named_in(table.get("headers", {}))
    config = GuardConfig(**out)
    _, _, port = config.listen.rpartition(":")
    if not config.address[0] or not port.isdecimal() or int(port) > 65_535:
        raise SettingsError(f"listen must be host:port, not {config.listen!r}")
    return config


def _named_in(table: object) -> NamedIn:
    if not isinstance(table, dict):
        raise SettingsError("headers must be a table")
    if unknown := sorted(table.keys() - {each.name for each in fields(NamedIn)}):
        raise SettingsError(f"there is no setting headers.{unknown[0]}")
    named = {name: _header(f"headers.{name}", value) for name, value in table.items()}
    if len(set(named.values())) < len(named):
        raise SettingsError("headers: one header can't say two things")
    return NamedIn(**named)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or (not value and name != "credential_prefix"):
        raise SettingsError(f"{name} must be a string")
    return value


def _header(name: str, value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise SettingsError(f"{name}: {value!r} is no name of a header")
    return value.lower()
