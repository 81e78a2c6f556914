"""Finds agents that go round in circles."""

import numpy as np
from msgspec import Struct
from numba import njit

from detectors.identities import Rows
from detectors.view import Raised, View, amount, digest
from schemas.finding import Kind

_PROMPTS, _SESSIONS = 6, 3
_ROW = np.dtype([
    ("told", "i8"), ("told_by", "i8"),
    ("prompt", "u8", (_PROMPTS,)), ("count", "f4", (_PROMPTS,)), ("seen", "i8", (_PROMPTS,)), ("since", "i8", (_PROMPTS,)),
    ("session", "u8", (_SESSIONS,)), ("context", "f4", (_SESSIONS,)), ("step", "f4", (_SESSIONS,)), ("run", "i4", (_SESSIONS,)),
    ("last", "i8", (_SESSIONS,)),
])  # fmt: skip
_REPEATS, _GROWTH = 1, 2


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[loop]` of policy.toml."""

    repeats: float
    block_repeats: float
    half_life_seconds: float
    growth_steps: int
    block_growth_steps: int
    growth_tolerance: float
    growth_pause_seconds: float
    repeat_finding_seconds: float


class Loop:
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

    def judge(self, view: View) -> list[Raised]:
        """One finding when a loop is first told, one when it is long enough to block, then one a minute."""
        batch, n = view.batch, len(view.batch)
        at, how, value, states = np.empty(n, np.int64), np.empty(n, np.int8), np.empty((n, 3)), np.empty(n, _ROW)
        c = self._config
        told = _judge(
            self.rows.reach(view.identities), view.row, view.ticked.time, view.ticked.duplicate, batch.excluded, batch.offset,
            batch.fingerprint, batch.session, batch.input,
            c.repeats, c.block_repeats, c.half_life_seconds, c.growth_steps, c.block_growth_steps, c.growth_tolerance,
            c.growth_pause_seconds * 1000, c.repeat_finding_seconds * 1000,
            at, how, value, states,
        )  # fmt: skip
        return [self._raised(view, int(at[k]), int(how[k]), value[k], digest(states[k : k + 1])) for k in range(told)]

    def _raised(self, view: View, at: int, how: int, value: np.ndarray, state: str) -> Raised:
        observed, since, spend = float(value[0]), int(value[1]), float(view.velocities.minute[at, 2])
        minute = view.velocities.minute[at]
        c = self._config
        event = view.batch.events[at].data
        where = f"session {event.session_id}" if event.session_id else "no session named"
        if how == _REPEATS:
            usual, blocks, window = c.repeats, observed >= c.block_repeats, f"{c.half_life_seconds:g}s half-life"
            reason = (
                f"the same {'call' if value[2] <= 1 else f'{int(value[2])} calls'} repeated {observed:.0f} times "
                f"at machine pace ({where}, tool {event.tool or 'unknown'}), {amount(minute[0])} tokens and "
                f"${spend:.2f} in the last minute"
            )
        else:
            usual, blocks, window = float(c.growth_steps), observed >= c.block_growth_steps, "session"
            reason = (
                f"the context grew {observed:.0f} times in a row by about {amount(value[2])} tokens without a pause "
                f"({where}, tool {event.tool or 'unknown'}), {amount(minute[0])} tokens and ${spend:.2f} in the last minute"
            )
        return Raised(
            at=at, closing=-1, row=int(view.row[at]), since=since, severity="high" if blocks else "medium",
            score=round(min(1.0, observed / (4 * usual)), 4), window=window, observed=observed, baseline=usual, reason=reason,
            digest=state, deterministic=blocks, usd_per_minute=spend, session=bool(event.session_id),
            details={"pattern": "repeats" if how == _REPEATS else "growth"},
        )  # fmt: skip


@njit(cache=True)
def _repeat(row, key, t, offset, half_life):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Counts a prompt in the identity's six most repeated ones; returns the sum of repeats, how many prompts it is
    made of, and the first of their offsets."""
    at, least = -1, 0
    for k in range(_PROMPTS):
        if row.prompt[k] == key:
            at = k
        row_age = max(t - row.seen[k], 0) / 1000.0
        if row.count[k] * 0.5 ** (row_age / half_life) < row.count[least] * 0.5 ** (max(t - row.seen[least], 0) / 1000.0 / half_life):
            least = k
    if at < 0:
        at = least
        row.prompt[at] = key
        row.count[at] = 0.0
        row.seen[at] = t
        row.since[at] = offset
    fade = 0.5 ** (max(t - row.seen[at], 0) / 1000.0 / half_life)
    row.count[at] = row.count[at] * fade + 1.0
    row.seen[at] = max(row.seen[at], t)
    total, prompts, since = 0.0, 0.0, offset
    for k in range(_PROMPTS):
        now = row.count[k] * 0.5 ** (max(t - row.seen[k], 0) / 1000.0 / half_life)
        if now >= 2.5:  # noqa: PLR2004 - one honest re-run is no repeat
            total += now - 1.0
            prompts += 1.0
            since = min(since, row.since[k])
    return total, prompts, since, row.count[at]


@njit(cache=True)
def _grow(row, key, t, context, tolerance, pause):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
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
        row.step[at] += (step - row.step[at]) / row.run[at] if row.run[at] > 1 else step - row.step[at]
    else:
        row.run[at] = 1 if step > 0 and t - row.last[at] <= pause else 0
        row.step[at] = step
    row.context[at] = context
    row.last[at] = max(row.last[at], t)
    return row.run[at], row.step[at]


@njit(cache=True)
def _judge(rows, row_of, time, duplicate, excluded, offset, fingerprint, session, context, repeats, block_repeats, half_life, steps, block_steps, tolerance, pause, again, out_at, out_how, out_value, out_state):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    told = 0
    for i in range(len(time)):
        if duplicate[i] or excluded[i]:
            continue
        row = rows[row_of[i]]
        t = time[i]
        how, value, extra, since, blocks = 0, 0.0, 0.0, offset[i], False
        if fingerprint[i] != 0:
            key = fingerprint[i] ^ (session[i] * np.uint64(0x9E3779B97F4A7C15))
            total, prompts, first, mine = _repeat(row, key, t, offset[i], half_life)
            factor = 1.0 if session[i] != 0 else 3.0
            # The call at hand must be one of those that repeat: others of the same identity are not to blame.
            if total >= repeats * factor and mine >= 2.5:  # noqa: PLR2004
                how, value, extra, since, blocks = _REPEATS, total, prompts, first, total >= block_repeats * factor
        if session[i] != 0 and not np.isnan(context[i]):
            run, step = _grow(row, session[i], t, context[i], tolerance, pause)
            if how == 0 and run >= steps:
                how, value, extra, blocks = _GROWTH, float(run), step, run >= block_steps
        if how == 0:
            continue
        by = how * 2 + (1 if blocks else 0)
        if t - row.told < again and by <= row.told_by:
            continue
        row.told = t
        row.told_by = by
        out_at[told] = i
        out_how[told] = how
        out_value[told, 0] = value
        out_value[told, 1] = since
        out_value[told, 2] = extra
        out_state[told] = row
        told += 1
    return told
