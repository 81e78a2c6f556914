"""Reads policy.toml and gives each room its part."""

import hashlib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

import detectors
import responses
from responses.config import Response, Risk
from responses.tenant_spike import Config as TenantSpike
from streams.policy_check import contradictions, mistakes

_SHOWN = 4
"""Mistakes named at once."""


class PolicyError(ValueError):
    """A policy that can't be used: says which file, which key and what is wrong with it."""


class Notify(Struct, frozen=True, forbid_unknown_fields=True):
    """`[notify]`."""

    storm_size: Annotated[int, Meta(ge=1)]


class Policy(detectors.Sections, frozen=True, forbid_unknown_fields=True):
    """The whole of policy.toml."""

    tenant_spike: TenantSpike
    risk: Risk
    response: Response
    notify: Notify

    def __post_init__(self) -> None:
        """Checks what sections say of each other."""
        wrong = list(contradictions(self.risk, self.response))
        if wrong:
            raise ValueError(_in_one_line(wrong))


class Loaded(Struct, frozen=True):
    """A policy with the name of its content: two files that differ anywhere differ in `version`."""

    policy: Policy
    version: str
    path: str

    @property
    def for_detectors(self) -> detectors.Config:
        """What detection needs."""
        sections = {name: getattr(self.policy, name) for name in detectors.Sections.__struct_fields__}
        return detectors.Config(**sections, version=self.version)

    @property
    def for_responses(self) -> responses.Config:
        """What the responses need."""
        policy = self.policy
        return responses.Config(
            self.version, policy.risk, policy.response, policy.tenant_spike, policy.quota.warn_share
        )


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
    wrong = list(mistakes(table, Policy))
    if wrong:
        raise PolicyError(f"{path}: {_in_one_line(wrong)}")
    try:
        policy = msgspec.convert(table, Policy)
    except msgspec.ValidationError as error:
        where = re.search(r" - at `\$\.?(.*)`$", message := str(error))
        raise PolicyError(
            f"{path}: {where.group(1)}: {message[: where.start()]}" if where else f"{path}: {message}"
        ) from error
    return Loaded(policy, hashlib.sha256(raw).hexdigest()[:12], str(path))


def _in_one_line(wrong: list[str]) -> str:
    more = len(wrong) - _SHOWN
    return "; ".join(wrong[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
