"""Finds identities whose calls are cut off before anyone can count them."""

from typing import NamedTuple

import numpy as np
from msgspec import Struct

from detectors import others
from detectors.compiled import Row, State, compiled
from detectors.identities import Rows
from detectors.others import listen, silence, speak
from detectors.view import Detector, Raised, View, amount, digest, short
from schemas.batch import Batch, Flags, Floats, Hashes, Ints
from schemas.bounds import Count, NotNegative, Positive, Share, Some
from schemas.finding import Kind

_ROW = np.dtype([
    *others.FIELDS, ("pad", "u1"), ("since", "u4"), ("told", "u4"),
    # Evidence against the past; the past's share of uncounted calls, over how many; and the run of calls that tells.
    ("evidence", "f4"), ("share", "f4"), ("seconds", "f8"), ("calls", "u2"), ("run", "u2"), ("cut", "f4"),
], align=True)  # fmt: skip
_WRAP = 1 << 32
_MOST = 60_000
_PRIOR = 20.0
"""Calls that an identity without a past counts as having made."""
_CUT = 499


class _Calls(NamedTuple):
    """Columns of a batch. `weight` is how much of a call went uncounted: 0 for a metered one."""

    row: Ints
    time: Ints
    returned: Flags
    skipped: Flags
    offset: Ints
    matter: Hashes
    weight: Floats
    latency: Floats


class _Told(NamedTuple):
    """What the kernel tells: where, (calls, of these uncounted ones, their seconds, the usual share, since which
    offset), and the identity's state then."""

    at: Ints
    value: Floats
    state: State


class _Limits(NamedTuple):
    share: float
    burst_share: float
    evidence: float
    calls: float
    cut: float
    warm_calls: float
    others: float
    again: float


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[evasion]` of policy.toml."""

    usual_share: Share
    burst_share: Share
    evidence: Positive
    calls: Some
    cut_calls: Some
    brief_seconds: Positive
    warm_up_calls: Count
    others: Some
    tokens_per_second: Positive
    repeat_finding_seconds: NotNegative

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if self.usual_share >= self.burst_share:
            raise ValueError("`usual_share` must be less than `burst_share`")


class Evasion(Detector):
    """Streams that are cut early, and served calls whose usage never comes, far above the identity's own past.

    What it detects:
        A call is *uncounted* if it was served, or cut off by its caller (status 499), and its usage is unknown; or if
        a stream reports no output at all. Brief ones weigh less: little was made. Each call is weighed against the
        identity's past share, and that of the others at the same gateway and route (a CUSUM of log-likelihood ratios);
        `cut_calls` among at least `calls` tell.

    Why it matters:
        Gateways count usage when a stream ends. Who hangs up before pays nothing, and no budget sees it.

    False positives:
        A client with a short timeout, a page that people leave. A gateway that loses usage on a route loses that of
        others too, or always did: neither is told.

    Runbook:
        Compare with the provider's bill; ask the owner for the client's timeout; meter by what was streamed.
    """

    name = "evasion"
    kind: Kind = "evasion"
    version = 1

    def __init__(self, config: Config) -> None:
        self._config = config
        self.rows = Rows(_ROW)
        self._voices = silence()

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def save_shared(self) -> bytes:
        """What the partition's identities say of their gateways' routes."""
        return self._voices.tobytes()

    def restore_shared(self, saved: bytes) -> None:
        """Takes what `save_shared` gave."""
        if len(saved) == self._voices.nbytes:
            self._voices = np.frombuffer(saved, self._voices.dtype).copy()

    def judge(self, view: View) -> list[Raised]:
        """One finding when it is told, then one each `repeat_finding_seconds` while it goes on."""
        batch, c, n = view.batch, self._config, len(view.batch)
        weight, latency = _uncounted(batch, c.brief_seconds)
        calls = _Calls(
            view.row, view.ticked.time, view.velocities.returned,
            view.ticked.duplicate | batch.excluded | (batch.failed & (batch.status != _CUT)), batch.offset,
            batch.source ^ (batch.route * np.uint64(3)) ^ (batch.provider * np.uint64(5)), weight, latency,
        )  # fmt: skip
        limits = _Limits(
            c.usual_share, c.burst_share, c.evidence, float(c.calls), float(c.cut_calls), float(c.warm_up_calls),
            float(c.others), c.repeat_finding_seconds * 1000,
        )  # fmt: skip
        told = _Told(np.empty(n, np.int64), np.empty((n, 5)), np.empty(n, _ROW))
        count = _judge(self.rows.reach(view.identities), self._voices, calls, limits, told)
        return [self._raised(view, told, k) for k in range(count)]

    def _raised(self, view: View, told: _Told, k: int) -> Raised:
        at = int(told.at[k])
        event = view.batch.events[at].data
        calls, cut, seconds, usual, since = told.value[k].tolist()
        tokens = round(seconds * self._config.tokens_per_second)
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(since),
            severity="medium",
            score=round(min(1.0, cut / max(calls, 1.0)), 4),
            window=f"{calls:.0f} calls",
            observed=round(cut, 3),
            baseline=round(usual * calls, 3),
            reason=(
                f"{cut:.0f} of the last {calls:.0f} calls were cut off or never reported their usage, "
                f"{100 * usual:.0f} % are usual; their {amount(seconds)} s may hide about {amount(tokens)} tokens"
            ),
            digest=digest(told.state[k : k + 1]),
            usd_per_minute=round(float(view.velocities.minute[at, 2]), 6),
            shared=f"usage:{short(event.provider)} {short(event.route)}",
            details={"estimated_tokens": tokens, "uncounted_seconds": round(seconds, 3)},
        )


def _uncounted(batch: Batch, brief: float) -> tuple[Floats, Floats]:
    """How much each call weighs as an uncounted one, 0 to 1, and the seconds it took."""
    weight, latency = np.zeros(len(batch)), np.zeros(len(batch))
    empty = (batch.output == 0) & ~batch.failed
    for at in np.flatnonzero(batch.unmetered | (batch.status == _CUT) | empty).tolist():
        event = batch.events[at].data
        # An answer without output is usual for what does not stream: embeddings.
        if empty[at] and not event.streaming:
            continue
        if event.latency_ms is None:
            weight[at] = 1.0
        else:
            latency[at] = event.latency_ms / 1000
            weight[at] = max(min(1.0, latency[at] / brief), 0.01)
    return weight, latency


@compiled
def _weigh(row: Row, weight: float, seconds: float, usual: float, limits: _Limits) -> None:
    """Weighs a call against what is usual, then adds it to the past."""
    burst = max(limits.burst_share, min(2.5 * usual, 0.95))
    if weight > 0:
        row.evidence += weight * np.log(burst / usual)
        row.cut += weight
        row.seconds += seconds
    else:
        row.evidence = max(row.evidence + np.log((1 - burst) / (1 - usual)), 0.0)
    row.run = min(row.run + 1, _MOST)
    if row.evidence == 0.0:
        row.run = 0
        row.cut = 0.0
        row.seconds = 0.0
    row.share += ((1.0 if weight > 0 else 0.0) - row.share) / (_PRIOR + min(row.calls, 500))
    row.calls = min(row.calls + 1, _MOST)


@compiled
def _judge(rows: State, voices: State, calls: _Calls, limits: _Limits, told: _Told) -> int:
    count = 0
    blank = np.zeros(1, _ROW)
    for i in range(len(calls.row)):
        if calls.returned[i]:
            rows[calls.row[i]] = blank[0]
        if calls.skipped[i]:
            continue
        row = rows[calls.row[i]]
        t, weight = calls.time[i], calls.weight[i]
        speak(voices, row, calls.matter[i], t, 0 if weight > 0 else -1)
        if weight == 0 and row.evidence == 0:
            # By far the most calls: nothing to weigh.
            row.share -= row.share / (_PRIOR + min(row.calls, 500))
            row.calls = min(row.calls + 1, _MOST)
            continue
        if row.evidence == 0:
            row.since = calls.offset[i] % _WRAP
        _, said_ill, said_well = listen(voices, row, calls.matter[i], 0)
        everywhere = said_ill / (said_ill + said_well) if said_ill + said_well >= limits.others else 0.0
        usual = min(max(row.share, everywhere, limits.share), 0.9)
        _weigh(row, weight, calls.latency[i], usual, limits)
        # Whoever is new, and alone on its route, may be of a gateway that never reports usage.
        known = row.calls - row.run >= limits.warm_calls or said_well >= limits.others
        # Of what is lost half the time anyway, runs say little.
        if weight == 0 or not known or usual > limits.burst_share or row.evidence < limits.evidence:
            continue
        if row.run < limits.calls or row.cut < limits.cut:
            continue
        tick = t // 1000 % _WRAP
        if row.told > 0 and np.int64(tick) - np.int64(row.told) < limits.again / 1000:
            continue
        row.told = tick
        told.at[count] = i
        told.value[count, 0] = row.run
        told.value[count, 1] = row.cut
        told.value[count, 2] = row.seconds
        told.value[count, 3] = usual
        told.value[count, 4] = calls.offset[i] - (calls.offset[i] - row.since) % _WRAP
        told.state[count] = row
        count += 1
    return count
