"""Finds identities whose calls fail through their own doing."""

import numpy as np
from msgspec import Struct
from xxhash import xxh3_64_intdigest

from detectors import failure_burst_kernel as kernel
from detectors.failure_burst_kernel import HAMMERING, OWN, PROBING, STORM, Calls, Limits, Told
from detectors.identities import Rows
from detectors.others import Listener
from detectors.view import Raised, View, amount, digest, short
from schemas.batch import Batch, Codes, Hashes, Ints
from schemas.bounds import NotNegative, Positive, Share, Some
from schemas.finding import Kind

_PATTERN = {STORM: "retry storm", PROBING: "probing", OWN: "own failures", HAMMERING: "hammering"}
_CUT, _TIMEOUT, _TOO_MANY, _SERVER = 499, 408, 429, 500
_REFUSALS = (400, 403, 404, 422)
"""What a caller gets who asks for a model that is not there, or not his."""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[failure_burst]` of policy.toml."""

    attempts: Some
    attempt_gap_seconds: Positive
    retries: Some
    unnamed_factor: Positive
    shared_factor: Positive
    probed_models: Some
    probed_quickly: Some
    probed_pairs: Some
    quick_seconds: Positive
    window_seconds: Positive
    usual_share: Share
    burst_share: Share
    evidence: Positive
    failures: Some
    theirs_factor: Positive
    outage_identities: Some
    outage_share: Share
    repeat_finding_seconds: NotNegative

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if self.probed_quickly > self.probed_models or self.quick_seconds > self.window_seconds:
            raise ValueError("quick probing must need no more models than slow probing, in no longer a time")
        if self.usual_share >= self.burst_share:
            raise ValueError("`usual_share` must be less than `burst_share`")


class FailureBurst(Listener):
    """Failing retries without back-off, models that are tried one after the other in vain, and own failures.

    What it detects:
        *Retry storm*: `attempts` failures in a row of one operation (prompt and session), the mean gap at most
        `attempt_gap_seconds`. *Hammering*: `retries` failing ones of whichever operations, as close together, beyond
        two for each operation; after half a minute it is throttled, unless others tell of an outage by then.
        *Probing*: `probed_quickly` different models within `quick_seconds`, or `probed_models`
        within `window_seconds`, refused with 400, 403, 404 or 422, each first attempt another one, and none of them
        answered. *Own failures*: a share of failed operations far above the identity's own past.

    Why it matters:
        A client that never backs off keeps a provider down and eats the tenant's quota. Whoever holds a stolen key
        asks first which models it opens, minutes before he uses it.

    False positives:
        An outage: while several others fail at the same provider in the same way, failures are nobody's. A router that
        falls back over many models, if its gateway does not count attempts. A first day with a wrong configuration.

    Runbook:
        Probing: ask the owner at once, else rotate the credential. A storm: fix the client's retry policy.
    """

    name = "failure_burst"
    kind: Kind = "failure_burst"
    version = 2

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config
        self.rows = Rows(kernel.ROW)

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """One finding when a burst is told, one if it gets graver, then one a minute."""
        batch, c, n = view.batch, self._config, len(view.batch)
        ill = _ills(batch)
        attempt, operation = _attempts(batch, ill)
        calls = Calls(
            view.row, view.ticked.time, view.velocities.returned,
            # A call that its caller cut off was served: evasion's.
            view.ticked.duplicate | batch.excluded | (batch.status == _CUT), batch.offset, ill,
            np.isin(batch.status, _REFUSALS), batch.retry, attempt, operation, batch.fingerprint, batch.session,
            batch.model, batch.provider, batch.route,
        )  # fmt: skip
        limits = _limits(c)
        told = Told(
            np.empty(n, np.int64), np.empty(n, np.int8), np.empty(n, np.bool_), np.empty(n, np.bool_),
            np.empty((n, 4)), np.empty(n, kernel.ROW),
        )  # fmt: skip
        count = kernel.judge(self.rows.reach(view.identities), self.voices, calls, limits, told)
        return [self._raised(view, told, k) for k in range(count)]

    def _raised(self, view: View, told: Told, k: int) -> Raised:
        at, how, blocks = int(told.at[k]), int(told.how[k]), bool(told.blocks[k])
        observed, usual, since, seconds = told.value[k].tolist()
        event, row = view.batch.events[at].data, told.state[k]
        provider, error = short(event.provider), f"status {event.status}"
        if how == STORM:
            tool = f", session {short(event.session_id)}" if event.session_id else ""
            what = f"{observed:.0f} failing attempts at one operation, every {amount(row['gap'] * 0.016)} s"
            reason = f"{what} without back-off ({short(event.model)} at {provider}, {error}{tool})"
        elif how == HAMMERING:
            reason = (
                f"{observed:.0f} failing retries beyond two for each operation, none later than "
                f"{self._config.attempt_gap_seconds:g} s after the failure before it ({short(event.model)} at "
                f"{provider}, {error})"
            )
        elif how == PROBING:
            reason = (
                f"{observed:.0f} or more different models tried in vain within {amount(max(seconds, 1.0))} s, "
                f"none of which answered; the last one {short(event.model)} ({error})"
            )
        else:
            reason = (
                f"{observed:.0f} operations failed, against {100 * usual:.1f} % of those before "
                f"({short(event.model)} at {provider}, {error})"
            )
        # What comes from the provider's side others may have, too; a probe is its sender's own.
        theirs = event.status == _TOO_MANY or event.status >= _SERVER
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(since),
            # A storm is throttled: it costs little. Who probes is a thief.
            severity="high" if how == PROBING else "medium",
            score=round(min(1.0, observed / (4 * usual) if how in (STORM, HAMMERING) else 0.5 + 0.05 * observed), 4),
            window=f"{self._config.window_seconds:g}s",
            observed=round(observed, 3),
            baseline=round(usual, 6),
            reason=reason,
            digest=digest(told.state[k : k + 1]),
            span_seconds=round(seconds, 3),
            deterministic=blocks,
            usd_per_minute=round(float(view.velocities.minute[at, 2]), 6),
            session=how == STORM and bool(row["session"]) and bool(event.session_id),
            shared=f"provider:{provider} {event.status}" if told.shared[k] or (theirs and how == OWN) else None,
            details={"pattern": _PATTERN[how], "status": event.status, "provider": event.provider or ""},
        )


def _limits(c: Config) -> Limits:
    return Limits(
        float(c.attempts), c.attempt_gap_seconds * 1000, float(c.retries), c.unnamed_factor, c.shared_factor,
        float(c.probed_quickly),
        c.quick_seconds * 1000, float(c.probed_models), float(c.probed_pairs), c.window_seconds * 1000, c.usual_share,
        c.burst_share, c.evidence, float(c.failures), c.theirs_factor, float(c.outage_identities), c.outage_share,
        c.repeat_finding_seconds * 1000,
    )  # fmt: skip


def _ills(batch: Batch) -> Codes:
    """How each call failed."""
    status = batch.status
    ills = np.where(status >= _SERVER, kernel.BROKEN, kernel.REFUSED)
    ills[status == _TIMEOUT] = kernel.BROKEN
    ills[status == _TOO_MANY] = kernel.LIMITED
    ills[~batch.failed] = -1
    return ills.astype(np.int8)


def _attempts(batch: Batch, ill: Codes) -> tuple[Ints, Hashes]:
    """The number of the attempt and a hash of the operation, of the calls that failed."""
    attempt, operation = np.zeros(len(batch), np.int64), np.zeros(len(batch), np.uint64)
    for at in np.flatnonzero(ill >= 0).tolist():
        event = batch.events[at].data
        attempt[at] = event.attempt or 0
        if event.operation_id:
            operation[at] = xxh3_64_intdigest(event.operation_id.encode())
    return attempt, operation
