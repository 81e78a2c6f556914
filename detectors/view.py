"""What a detector is shown, and what it answers."""

from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from xxhash import xxh3_64_hexdigest

from detectors.clock import Ticked
from detectors.identities import Rows
from detectors.windows import Closings, Velocities
from schemas.batch import Batch, Hashes, Ints
from schemas.finding import Kind, Severity

_SHORT = 64


class View(Struct, frozen=True):
    """A batch of a partition's events with its clock and windows. `row` is the identity's row per event,
    `identities` how many rows there are, `tenant` the number of each row's tenant, and `tenant_key` a hash of the name
    of each tenant, which outlives the numbers."""

    batch: Batch
    ticked: Ticked
    row: Ints
    identities: int
    tenant: Ints
    tenant_key: Hashes
    velocities: Velocities
    closings: Closings


class Raised(Struct, frozen=True):
    """A finding in the making. `at` is the position in the batch, `closing` the closed bucket that told (-1: the
    event at `at` did), `since` the offset of the first event it speaks of."""

    at: int
    closing: int
    row: int
    since: int
    severity: Severity
    score: float
    window: str
    observed: float
    baseline: float
    reason: str
    digest: str
    span_seconds: float = 0.0
    deterministic: bool = False
    extreme: bool = False
    usd_per_minute: float = 0.0
    baseline_usd_per_minute: float = 0.0
    session: bool = False
    """Whether what it speaks of is the event's session alone."""
    shared: str | None = None
    """What others would show too if it were not this identity's doing: a provider's outage, a tenant's new model."""
    details: dict[str, str | float | int] = {}


class Detector(Protocol):
    """Keeps what it needs per identity; judges batches in order. Answers depend on the records alone, however they
    are cut into batches. An identity that `returned` is a new one: its rows are blanked where the batch says so."""

    name: str
    kind: Kind
    version: int

    @property
    def components(self) -> dict[str, Rows]:
        """Its state: structured arrays over the identities' rows, by name."""
        ...

    def judge(self, view: View) -> list[Raised]:
        """Scores, then learns, every event and closed bucket of `view`."""
        ...

    def settle(self) -> None:
        """Brings what it keeps of identities elsewhere into the components, which are about to be saved."""
        return

    def forget(self, rows: Ints) -> None:  # noqa: ARG002
        """Forgets what it keeps of `rows` outside the components, which are blanked by whoever asks."""
        return

    def save_shared(self) -> bytes:
        """What belongs to no single identity."""
        return b""

    def restore_shared(self, saved: bytes) -> None:  # noqa: ARG002
        """Takes what `save_shared` gave."""
        return


def digest(state: NDArray[np.void]) -> str:
    """A name for an identity's state at the moment of a decision."""
    return xxh3_64_hexdigest(state.tobytes())


def short(name: str | None) -> str:
    """A name that a caller chose, for a sentence."""
    if not name:
        return "unknown"
    return name if len(name) <= _SHORT else name[: _SHORT - 1] + "…"


def amount(value: float) -> str:
    """A number as people say it: 2.1 M, 48.3 k, 7, 0.04."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.2f}" if 0 < value < 1 else f"{value:.3g}"
