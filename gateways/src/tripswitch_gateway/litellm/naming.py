"""Which of LiteLLM's names is whose: the identity, the credential and the tenant of a call."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tripswitch_gateway import SettingsError
from tripswitch_gateway.callers import NO_TENANT, Caller

ANONYMOUS = "anonymous"
"""The identity of calls without any key or user, on a proxy that asks for none."""

IDENTITIES = ("key_alias", "key_hash", "user_id", "team_id", "org_id")
TENANTS = ("org_id", "team_id")

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Naming:
    """Which names to take, in this order: the first that a call has. Both sides use it, checks and usage events."""

    identity: tuple[str, ...] = ("key_alias", "key_hash", "user_id", "team_id")
    tenant: tuple[str, ...] = ("org_id", "team_id")

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Naming":
        """From TRIPSWITCH_LITELLM_IDENTITY and TRIPSWITCH_LITELLM_TENANT: names, with commas between them.

        Raises `SettingsError` for a name that is none.
        """
        given = {
            "identity": ("TRIPSWITCH_LITELLM_IDENTITY", IDENTITIES),
            "tenant": ("TRIPSWITCH_LITELLM_TENANT", TENANTS),
        }
        orders = {}
        for field, (variable, known) in given.items():
            names = tuple(name.strip() for name in environment.get(variable, "").split(",") if name.strip())
            for name in names:
                if name not in known:
                    raise SettingsError(f"{variable}: {name!r} is none of {', '.join(known)}")
            if names:
                orders[field] = names
        return cls(**orders)

    def caller(self, names: Mapping[str, object], session: object = None, end_user: object = None) -> Caller:
        """The caller with these ``names``, of `IDENTITIES`."""
        key = names.get("key_hash")
        credential = _hashed(key) if isinstance(key, str) and key else None
        known = dict(names) | {"key_hash": credential, "key_alias": _alias(names.get("key_alias"))}
        identity = _first(known, self.identity)
        return Caller(
            identity or ANONYMOUS,
            tenant=_first(known, self.tenant) or NO_TENANT,
            credential=credential,
            session=session if isinstance(session, str) else None,
            end_user=end_user if isinstance(end_user, str) else None,
            kind="api_key" if credential else None,
            trust="authenticated" if identity else None,
        )


def names_of_key(key: Any) -> dict[str, object]:
    """The names in LiteLLM's UserAPIKeyAuth, which its authentication has made."""
    return {
        "key_hash": getattr(key, "api_key", None),
        **{name: getattr(key, name, None) for name in ("key_alias", "user_id", "team_id", "org_id")},
    }


def names_of_metadata(metadata: Mapping[str, object]) -> dict[str, object]:
    """The same names in the metadata of a StandardLoggingPayload."""
    return {name: metadata.get(f"user_api_{name}") for name in ("key_hash", "key_alias")} | {
        name: metadata.get(f"user_api_key_{name}") for name in ("user_id", "team_id", "org_id")
    }


def _first(names: Mapping[str, object], order: tuple[str, ...]) -> str | None:
    for name in order:
        value = names.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _hashed(key: str) -> str:
    """LiteLLM's own hash of a key. A custom authentication may leave the key itself here, and that must not go out."""
    return key if _HASH.fullmatch(key) else hashlib.sha256(key.encode(errors="replace")).hexdigest()


def _alias(alias: object) -> object:
    # Who may name a key could else call it by another key's hash, and have that one blocked.
    return None if isinstance(alias, str) and _HASH.fullmatch(alias.lower()) else alias
