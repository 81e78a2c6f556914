"""Finds identities whose calls are cut off before anyone can count them."""

from typing import NamedTuple

import numpy as np
from msgspec import Struct

from detectors import others
from detectors.compiled import Row, State, compiled
from detectors.identities import Rows
from detectors.others import Listener, listen, speak
from detectors.ticks import WRAP
from detectors.view import Raised, View, amount, digest, short
from schemas.batch import Batch, Codes, Flags, Floats, Hashes, Ints
from schemas.bounds import Count, NotNegative, Positive, Share, Some
from schemas.finding import Kind

_ROW = np.dtype([
    *others.FIELDS, ("grave", "u1"), ("since", "u4"), ("told_at", "u2"), ("last", "u2"),
    # Evidence against the past; the past's share of uncounted calls, over how many; and the run of calls that tells.
    ("evidence", "f4"), ("share", "f4"), ("seconds", "f4"), ("squares", "f4"), ("calls", "u2"), ("run", "u2"),
    ("cut", "f4"),
], align=True)  # fmt: skip
"""`seconds` and `squares` are sums over the uncounted calls of the run: how long they took, and how alike that was.
`told_at` is when it was told last, in s, 0 for never; `last` is when a call of the run last went uncounted, in units of
16 s. Both are what is left of the division by 65,536."""
_MOST = 60_000
_PRIOR = 20.0
"""Calls that an identity without a past counts as having made."""
_SLOWLY = 10.0
"""Times as many calls make the past while there is evidence against them: only what lasts is learnt."""
_OVER = 900
"""Seconds without an uncounted call after which what was told is over: what comes then is another story."""
_UNIT, _TURN, _LATE = 16, 65_536, 1024
_HIGH, _SURE = 1, 2
_CUT = 499
_EMBEDS = "embed"


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
    """What the kernel tells: where, how grave it is (0, _HIGH, _SURE), (calls, of these uncounted ones, their seconds,
    the usual share, since which offset), and the identity's state then."""

    at: Ints
    grave: Codes
    value: Floats
    state: State


class _Limits(NamedTuple):
    share: float
    burst_share: float
    evidence: float
    calls: float
    cut: float
    grave: float
    sure: float
    timeout: float
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
    high_ratio: Positive
    sure_ratio: Positive
    timeout: NotNegative
    brief_seconds: Positive
    warm_up_calls: Count
    others: Some
    tokens_per_second: Positive
    repeat_finding_seconds: NotNegative

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if self.usual_share >= self.burst_share:
            raise ValueError("`usual_share` must be less than `burst_share`")
        if self.sure_ratio < self.high_ratio:
            raise ValueError("what throttles must not be less than what is graver: `sure_ratio`")


class Evasion(Listener):
    """Streams that are cut early, and served calls whose usage never comes, far above the identity's own past.

    What it detects:
        A call is *uncounted* if it was served, or cut off by its caller (status 499), and its usage is unknown; or if
        a stream reports no output at all. Brief ones weigh less: little was made. Each call is weighed against the
        identity's past share, and that of the others at the same gateway and route (a CUSUM of log-likelihood ratios);
        `cut_calls` among at least `calls` tell. `high_ratio` times the evidence and the calls are graver, and
        `sure_ratio` times are enough to throttle alone; unless all were cut after the same time, by a client's timeout.
        More evidence than that is not kept, and after a quarter of an hour without such a call what was told is over.

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
    version = 3

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config
        self.rows = Rows(_ROW)

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """One finding when it is told, one if it gets graver, then one each `repeat_finding_seconds` meanwhile."""
        batch, c, n = view.batch, self._config, len(view.batch)
        weight, latency = _uncounted(batch, c.brief_seconds)
        calls = _Calls(
            view.row, view.ticked.time, view.velocities.returned,
            view.ticked.duplicate | batch.excluded | (batch.failed & (batch.status != _CUT)), batch.offset,
            batch.source ^ (batch.route * np.uint64(3)) ^ (batch.provider * np.uint64(5)), weight, latency,
        )  # fmt: skip
        limits = _Limits(
            c.usual_share, c.burst_share, c.evidence, float(c.calls), float(c.cut_calls), c.high_ratio,
            c.sure_ratio, c.timeout, float(c.warm_up_calls), float(c.others), c.repeat_finding_seconds * 1000,
        )  # fmt: skip
        told = _Told(np.empty(n, np.int64), np.empty(n, np.int8), np.empty((n, 5)), np.empty(n, _ROW))
        count = _judge(self.rows.reach(view.identities), self.voices, calls, limits, told)
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
            severity="high" if told.grave[k] else "medium",
            score=round(min(1.0, cut / max(calls, 1.0)), 4),
            window=f"{calls:.0f} calls",
            observed=round(cut, 3),
            baseline=round(usual * calls, 3),
            reason=(
                f"{cut:.0f} of the last {calls:.0f} calls were cut off or never reported their usage, "
                f"{100 * usual:.0f} % are usual; their {amount(seconds)} s may hide about {amount(tokens)} tokens"
            ),
            digest=digest(told.state[k : k + 1]),
            extreme=bool(told.grave[k] == _SURE),
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
        # An answer without output is usual for what does not stream, and for embeddings.
        if empty[at] and (not event.streaming or _EMBEDS in f"{event.route} {event.model}".lower()):
            continue
        if event.latency_ms is None:
            weight[at] = 1.0
        else:
            latency[at] = event.latency_ms / 1000
            weight[at] = max(min(1.0, latency[at] / brief), 0.01)
    return weight, latency


@compiled
def _gone(earlier: int, now: int) -> int:
    """What has gone by since a moment of which the remainder is kept; negative where a call is late."""
    gone = (np.int64(now) - np.int64(earlier)) % _TURN
    return int(gone - _TURN if gone > _TURN - _LATE else gone)


@compiled
def _forget_run(row: Row) -> None:
    row.evidence = 0.0
    row.run = 0
    row.cut = 0.0
    row.seconds = 0.0
    row.squares = 0.0
    row.grave = 0


@compiled
def _weigh(row: Row, weight: float, seconds: float, usual: float, limits: _Limits) -> None:
    """Weighs a call against what is usual, then adds it to the past."""
    burst = max(limits.burst_share, min(2.5 * usual, 0.95))
    if weight > 0:
        row.evidence += weight * np.log(burst / usual)
        row.cut += weight
        row.seconds += seconds
        row.squares += seconds * seconds
    else:
        # However long it went on, no more metered calls are needed to outweigh it than what is just sure.
        row.evidence = min(row.evidence, limits.evidence * limits.sure)
        row.evidence = max(row.evidence + np.log((1 - burst) / (1 - usual)), 0.0)
    row.run = min(row.run + 1, _MOST)
    if row.evidence == 0.0:
        _forget_run(row)
    slowly = _SLOWLY if row.evidence >= limits.evidence else 1.0
    row.share += ((1.0 if weight > 0 else 0.0) - row.share) / (slowly * (_PRIOR + min(row.calls, 500)))
    row.calls = min(row.calls + 1, _MOST)


@compiled
def _same_time(row: Row, timeout: float) -> bool:
    """Whether the calls of the run were cut after times that are alike."""
    if row.seconds == 0:
        return False
    # The mean square over the squared mean is 1 where all are the same.
    return bool(row.squares * row.cut < (1 + timeout * timeout) * row.seconds * row.seconds)


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
        tick = t // 1000
        if row.told_at > 0 and _gone(row.last, tick // _UNIT) * _UNIT > _OVER:
            _forget_run(row)
            row.told_at = 0
        if weight > 0:
            row.last = tick // _UNIT % _TURN
        if row.evidence == 0:
            row.since = calls.offset[i] % WRAP
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
        ratio = 0.0 if _same_time(row, limits.timeout) else min(row.evidence / limits.evidence, row.cut / limits.cut)
        grave = _SURE if ratio >= limits.sure else _HIGH if ratio >= limits.grave else 0
        if row.told_at > 0 and grave <= row.grave and _gone(row.told_at, tick) < limits.again / 1000:
            continue
        row.told_at = max(tick % _TURN, 1)
        row.grave = max(grave, row.grave)
        told.at[count] = i
        told.grave[count] = grave
        told.value[count, 0] = row.run
        told.value[count, 1] = row.cut
        told.value[count, 2] = row.seconds
        told.value[count, 3] = usual
        told.value[count, 4] = calls.offset[i] - (calls.offset[i] - row.since) % WRAP
        told.state[count] = row
        count += 1
    return count
