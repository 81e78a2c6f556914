"""Reads policy.toml and gives each room its part."""

import difflib
import hashlib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

import detectors
import responses
from detectors.geo_shift import Config as GeoShift
from detectors.loop import Config as Loop
from detectors.spike import Config as Spike
from responses.config import Response, Risk
from responses.tenant_spike import Config as TenantSpike


class PolicyError(ValueError):
    """A policy that can't be used: says which file, which key and what is wrong with it."""


class Notify(Struct, frozen=True, forbid_unknown_fields=True):
    """`[notify]`."""

    storm_size: Annotated[int, Meta(ge=1)]


class Policy(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of policy.toml."""

    spike: Spike
    loop: Loop
    geo_shift: GeoShift
    tenant_spike: TenantSpike
    risk: Risk
    response: Response
    notify: Notify


class Loaded(Struct, frozen=True):
    """A policy with the name of its content: two files that differ anywhere differ in `version`."""

    policy: Policy
    version: str
    path: str

    @property
    def for_detectors(self) -> detectors.Config:
        """What detection needs."""
        return detectors.Config(self.version, self.policy.spike, self.policy.loop, self.policy.geo_shift)

    @property
    def for_responses(self) -> responses.Config:
        """What the responses need."""
        return responses.Config(self.version, self.policy.risk, self.policy.response, self.policy.tenant_spike)


def find_policy(given: str | None = None) -> Path:
    """The policy's path: the one given, TRIPSWITCH_POLICY, ./policy.toml, or the one that was installed with us."""
    named = given or os.environ.get("TRIPSWITCH_POLICY")
    if named:
        return Path(named)
    here, ours = Path("policy.toml"), Path(__file__).parent
    candidates = (here, ours / "policy.toml", ours.parent / "policy.toml")
    return next((path for path in candidates if path.is_file()), here)


def read_policy(path: Path) -> Loaded:
    """Reads and checks a policy.

    Raises:
        PolicyError: no such file, not TOML, or a key that is unknown, missing or impossible; names the key's path.
    """
    try:
        raw = path.read_bytes()
        table = tomllib.loads(raw.decode())
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}; name a policy with --policy or TRIPSWITCH_POLICY") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{path}: not TOML: {error}") from error
    try:
        policy = msgspec.convert(table, Policy)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{path}: {_explain(str(error))}") from error
    return Loaded(policy, hashlib.sha256(raw).hexdigest()[:12], str(path))


def _explain(message: str) -> str:
    """Msgspec's message with the key's dotted path, and the nearest valid name for an unknown one."""
    where = re.search(r" - at `\$\.?(.*)`$", message)
    path = where.group(1) if where else ""
    text = message[: where.start()] if where else message
    unknown = re.search(r"unknown field `(.+)`", text)
    if unknown:
        name = unknown.group(1)
        near = difflib.get_close_matches(name, _fields_at(path), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{f'{path}.' if path else ''}{name}: no such key{hint}"
    return f"{path or 'policy'}: {text}"


def _fields_at(path: str) -> list[str]:
    """The valid names of the table at a dotted path."""
    at: Any = Policy
    for part in filter(None, path.split(".")):
        at = next((field.type for field in msgspec.structs.fields(at) if field.name == part), None)
        if not (isinstance(at, type) and issubclass(at, Struct)):
            return []
    return [field.name for field in msgspec.structs.fields(at)]
