"""The directory: who the identities are, what they may use, and which unusual activity was approved."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from schemas.quota import MOST, Quota, limits_of
from schemas.times import to_millis


class Entry(Struct, frozen=True):
    """One identity. Absent `models` or `routes` allow all; from `expires` on it should not be used any more. Beyond one
    of its `quotas` it is used no more until the next minute, hour, day or month."""

    tenant: str | None = None
    owner: str | None = None
    purpose: str | None = None
    kind: str | None = None
    workload: str | None = None
    models: list[str] | None = None
    routes: list[str] | None = None
    protected: bool = False
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    quotas: list[Quota] = []

    def __post_init__(self) -> None:
        """Checks what quotas say together."""
        if len(limits_of(self.quotas)) > MOST:
            raise ValueError(f"an identity has {MOST} limits at the most")


class Tenant(Struct, frozen=True):
    """A tenant. Its `quotas` are what all its identities may use together."""

    quotas: list[Quota] = []

    def __post_init__(self) -> None:
        """Checks what quotas say together."""
        limits_of(self.quotas)


class Approval(Struct, frozen=True, rename={"since": "from"}):
    """Planned activity: from `since` until `until` up to `max_multiplier` times what a finding is measured against, for
    a spike the identity's own record. Without a `tenant` it holds for the identity's name in every tenant."""

    identity: str
    since: Annotated[datetime, Meta(tz=True)]
    until: Annotated[datetime, Meta(tz=True)]
    max_multiplier: Annotated[float, Meta(gt=0)]
    approved_by: str
    reason: str
    tenant: str | None = None

    def covers(self, millis: int) -> bool:
        """Whether the moment `millis` (ms since 1970) falls into the approved time."""
        return to_millis(self.since) <= millis <= to_millis(self.until)


class Directory(Struct, frozen=True):
    """Identities and tenants by name, and approvals."""

    identities: dict[str, Entry] = {}
    tenants: dict[str, Tenant] = {}
    approvals: list[Approval] = []

    def tenant_of(self, identity: str) -> str:
        """The tenant of an identity whose events name none; `-` where the directory does not know it."""
        entry = self.identities.get(identity)
        return entry.tenant if entry is not None and entry.tenant else "-"


class DirectoryError(ValueError):
    """A directory file that can't be read as one; says which file and where in it."""


def read_directory(path: Path) -> Directory:
    """Reads a `.toml` or JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        DirectoryError: it is not a directory as described above.
    """
    decode = msgspec.toml.decode if path.suffix == ".toml" else msgspec.json.decode
    try:
        return decode(path.read_bytes(), type=Directory)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DirectoryError(f"{path}: {error}") from error
