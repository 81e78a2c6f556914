"""Finds agents that go round in circles."""

from typing import NamedTuple

import numpy as np
from msgspec import Struct

from detectors.compiled import Row, State, compiled
from detectors.identities import Rows
from detectors.view import Detector, Raised, View, amount, digest, short
from schemas.batch import Codes, Flags, Floats, Hashes, Ints
from schemas.bounds import NotNegative, Positive, Some
from schemas.finding import Kind

_PROMPTS, _SESSIONS = 6, 3
_ROW = np.dtype([
    ("told", "i8"), ("told_by", "i8"),
    ("prompt", "u8", (_PROMPTS,)), ("of", "u8", (_PROMPTS,)), ("count", "f4", (_PROMPTS,)),
    ("seen", "i8", (_PROMPTS,)), ("since", "i8", (_PROMPTS,)),
    ("session", "u8", (_SESSIONS,)), ("context", "f4", (_SESSIONS,)), ("step", "f4", (_SESSIONS,)),
    ("run", "i4", (_SESSIONS,)), ("last", "i8", (_SESSIONS,)),
], align=True)  # fmt: skip
_REPEATS, _GROWTH = 1, 2
_REPEATED = 2.5
"""Of a prompt's fading count: one honest re-run is no repeat."""
_UNNAMED_FACTOR = 3.0
"""Calls that name no session need so many times the repeats: popular prompts come from many sessions."""


class _Calls(NamedTuple):
    row: Ints
    time: Ints
    returned: Flags
    duplicate: Flags
    excluded: Flags
    offset: Ints
    fingerprint: Hashes
    session: Hashes
    context: Floats


class _Told(NamedTuple):
    """What the kernel tells: where, by which pattern, (how many, since which offset, of how many calls or by what
    step), and the identity's state then."""

    at: Ints
    how: Codes
    value: Floats
    state: State


class _Limits(NamedTuple):
    repeats: float
    block_repeats: float
    half_life: float
    steps: float
    block_steps: float
    tolerance: float
    pause: float
    again: float


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[loop]` of policy.toml."""

    repeats: Positive
    block_repeats: Positive
    half_life_seconds: Positive
    growth_steps: Some
    block_growth_steps: Some
    growth_tolerance: Positive
    growth_pause_seconds: Positive
    repeat_finding_seconds: NotNegative

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if self.block_repeats < self.repeats or self.block_growth_steps < self.growth_steps:
            raise ValueError("what blocks must not be less than what is told: `block_repeats`, `block_growth_steps`")


class Loop(Detector):
    """Identical prompts at machine pace, cycles of a few prompts, and a context that grows by the same step.

    What it detects:
        *Repeats*: within one session the same fingerprints come again and again. The repeats of the six prompts seen
        most fade with a half-life; their sum beyond the policy's `repeats` is a loop, be it one prompt or a cycle of
        up to six. Calls that name no session need three times as many. *Growth*: in one session the input grows
        `growth_steps` times in a row by a step within `growth_tolerance` of its mean, without a pause.

    Why it matters:
        A looping agent burns up to 1.8 million tokens a minute, and each step costs more than the last.

    False positives:
        A poller that repeats one prompt in one session at machine pace. Honest re-runs (two to five of a failed
        call) and popular prompts that come from many sessions stay below the threshold.

    Runbook:
        Look at the session's last calls and its tool; stop the agent's run; restore once it is fixed.
    """

    name = "loop"
    kind: Kind = "loop"
    version = 1

    def __init__(self, config: Config) -> None:
        self._config = config
        self.rows = Rows(_ROW)

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """One finding when a loop is first told, one when it is long enough to block, then one a minute."""
        batch, c, n = view.batch, self._config, len(view.batch)
        calls = _Calls(
            view.row, view.ticked.time, view.velocities.returned, view.ticked.duplicate, batch.excluded, batch.offset,
            batch.fingerprint, batch.session, batch.input,
        )  # fmt: skip
        limits = _Limits(
            c.repeats, c.block_repeats, c.half_life_seconds * 1000, float(c.growth_steps), float(c.block_growth_steps),
            c.growth_tolerance, c.growth_pause_seconds * 1000, c.repeat_finding_seconds * 1000,
        )  # fmt: skip
        told = _Told(np.empty(n, np.int64), np.empty(n, np.int8), np.empty((n, 3)), np.empty(n, _ROW))
        count = _judge(self.rows.reach(view.identities), calls, limits, told)
        return [self._raised(view, told, k) for k in range(count)]

    def _raised(self, view: View, told: _Told, k: int) -> Raised:
        c, at, repeats = self._config, int(told.at[k]), told.how[k] == _REPEATS
        observed, since, extra = told.value[k].tolist()
        event, (tokens, _, spend) = view.batch.events[at].data, view.velocities.minute[at].tolist()
        usual = c.repeats if repeats else float(c.growth_steps)
        blocks = observed >= (c.block_repeats if repeats else c.block_growth_steps)
        if repeats:
            calls = "call" if extra <= 1 else f"{extra:.0f} calls"
            what = f"the same {calls} repeated {observed:.0f} times at machine pace"
        else:
            what = f"the context grew {observed:.0f} times in a row by about {amount(extra)} tokens without a pause"
        where = f"session {short(event.session_id)}" if event.session_id else "no session named"
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(since),
            severity="high" if blocks else "medium",
            score=round(min(1.0, observed / (4 * usual)), 4),
            window=f"{c.half_life_seconds:g}s half-life" if repeats else "session",
            observed=round(observed, 3),
            baseline=usual,
            reason=(
                f"{what} ({where}, tool {short(event.tool)}), "
                f"{amount(tokens)} tokens and ${spend:.2f} in the last minute"
            ),
            digest=digest(told.state[k : k + 1]),
            span_seconds=c.half_life_seconds if repeats else 60.0,
            deterministic=blocks,
            usd_per_minute=round(spend, 6),
            session=bool(event.session_id),
            details={"pattern": "repeats" if repeats else "growth"},
        )


@compiled
def _faded(row: Row, k: int, t: int, half_life: float) -> float:
    """The count of the identity's prompt `k`, as much as is left of it at `t`."""
    return float(row.count[k] * 0.5 ** (max(t - row.seen[k], 0) / half_life))


@compiled
def _repeat(
    row: Row, key: np.uint64, session: np.uint64, t: int, offset: int, half_life: float
) -> tuple[float, float, int, float]:
    """Counts a prompt among the identity's six most repeated ones; returns the sum of its session's repeats, how many
    prompts it is made of, the first of their offsets, and this prompt's own count."""
    at, least = -1, 0
    for k in range(_PROMPTS):
        if row.prompt[k] == key:
            at = k
        if _faded(row, k, t, half_life) < _faded(row, least, t, half_life):
            least = k
    if at < 0:
        at = least
        row.prompt[at] = key
        row.of[at] = session
        row.count[at] = 0.0
        row.seen[at] = t
        row.since[at] = offset
    row.count[at] = _faded(row, at, t, half_life) + 1.0
    row.seen[at] = max(row.seen[at], t)
    total, prompts, since = 0.0, 0.0, offset
    for k in range(_PROMPTS):
        now = _faded(row, k, t, half_life)
        if row.of[k] == session and now >= _REPEATED:
            total += now - 1.0
            prompts += 1.0
            since = min(since, row.since[k])
    return total, prompts, since, row.count[at]


@compiled
def _grow(row: Row, key: np.uint64, t: int, context: float, tolerance: float, pause: float) -> tuple[int, float]:
    """Follows a session's context; returns how many steady steps in a row it grew, and their mean."""
    at, oldest = -1, 0
    for k in range(_SESSIONS):
        if row.session[k] == key:
            at = k
        if row.last[k] < row.last[oldest]:
            oldest = k
    if at < 0:
        at = oldest
        row.session[at] = key
        row.context[at] = context
        row.run[at] = 0
        row.last[at] = t
        return 0, 0.0
    step = context - row.context[at]
    steady = step > 0 and t - row.last[at] <= pause
    if steady and row.run[at] > 0:
        steady = abs(step - row.step[at]) <= tolerance * row.step[at]
    if steady:
        row.run[at] += 1
        row.step[at] += (step - row.step[at]) / row.run[at]
    else:
        row.run[at] = 1 if step > 0 and t - row.last[at] <= pause else 0
        row.step[at] = step
    row.context[at] = context
    row.last[at] = max(row.last[at], t)
    return row.run[at], row.step[at]


@compiled
def _judge(rows: State, calls: _Calls, limits: _Limits, told: _Told) -> int:
    count = 0
    blank = np.zeros(1, _ROW)
    for i in range(len(calls.row)):
        if calls.returned[i]:
            rows[calls.row[i]] = blank[0]
        if calls.duplicate[i] or calls.excluded[i]:
            continue
        row = rows[calls.row[i]]
        t = calls.time[i]
        how, value, extra, since, blocks = 0, 0.0, 0.0, calls.offset[i], False
        if calls.fingerprint[i] != 0:
            key = calls.fingerprint[i] ^ (calls.session[i] * np.uint64(0x9E3779B97F4A7C15))
            total, prompts, first, mine = _repeat(row, key, calls.session[i], t, calls.offset[i], limits.half_life)
            factor = 1.0 if calls.session[i] != 0 else _UNNAMED_FACTOR
            # The call at hand must be one of those that repeat: others of the same identity are not to blame.
            if total >= limits.repeats * factor and mine >= _REPEATED:
                how, value, extra, since = _REPEATS, total, prompts, first
                blocks = total >= limits.block_repeats * factor
        if calls.session[i] != 0 and not np.isnan(calls.context[i]):
            run, step = _grow(row, calls.session[i], t, calls.context[i], limits.tolerance, limits.pause)
            # A loop that both repeats and grows is told by the pattern that is enough to block.
            if run >= limits.steps and (how == 0 or (not blocks and run >= limits.block_steps)):
                how, value, extra, since = _GROWTH, float(run), step, calls.offset[i]
                blocks = run >= limits.block_steps
        graver = 2 if blocks else 1
        if how == 0 or (t - row.told < limits.again and graver <= row.told_by):
            continue
        row.told = t
        row.told_by = graver
        told.at[count] = i
        told.how[count] = how
        told.value[count, 0] = value
        told.value[count, 1] = since
        told.value[count, 2] = extra
        told.state[count] = row
        count += 1
    return count
