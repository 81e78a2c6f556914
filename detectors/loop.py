"""Finds agents that go round in circles."""

import math

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from detectors.identities import Rows
from detectors.loop_kernel import ALIKE, GROWTH, REPEATS, ROW, SPAWN, Calls, Limits, Told, judge
from detectors.view import Detector, Raised, View, amount, digest, short
from schemas.batch import Batch
from schemas.bounds import NotNegative, Positive, Share, Some
from schemas.finding import Kind, Severity

_PATTERN = {REPEATS: "repeats", ALIKE: "alike", GROWTH: "growth", SPAWN: "spawn"}
_SEVERITY: tuple[Severity, ...] = ("low", "medium", "high")
_PER_OCTAVE = 150


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[loop]` of policy.toml."""

    repeats: Positive
    block_repeats: Positive
    alike: Some
    block_alike: Some
    growth_steps: Some
    block_growth_steps: Some
    size_tolerance: Share
    growth_least_tokens: Positive
    growth_tolerance: Share
    growth_wobble: Share
    pause_seconds: Positive
    pace_seconds: Positive
    parallel_seconds: NotNegative
    irregular: Positive
    timer: NotNegative
    idle_tokens_per_minute: NotNegative
    light_tokens_per_minute: NotNegative
    unnamed_factor: Positive
    batch_factor: Positive
    irregular_factor: Positive
    slow_factor: Positive
    slow_growth_factor: Positive
    parallel_factor: Positive
    differing_factor: Positive
    spawned: Some
    spawn_ratio: Positive
    spawn_warm_up_hours: Some
    repeat_finding_seconds: NotNegative

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        pairs = (("repeats", self.repeats, self.block_repeats), ("alike", self.alike, self.block_alike),
                 ("growth_steps", self.growth_steps, self.block_growth_steps))  # fmt: skip
        for name, told, blocks in pairs:
            if blocks < told:
                raise ValueError(f"what blocks must not be less than what is told: `block_{name}`")
        if not self.parallel_seconds < self.pace_seconds < self.pause_seconds:
            raise ValueError("`parallel_seconds`, `pace_seconds` and `pause_seconds` must be in this order")


class Loop(Detector):
    """The same calls at machine pace, cycles of a few of them, and a context that grows by the same step.

    What it detects:
        Per session, over the calls that were served. *Repeats*: prompts that are among the session's last eight, as a
        cycle of up to six or one alone, at a size within `size_tolerance` and in the same order. A new prompt takes
        back seven eighths of what was counted; where no session is named, two repeats: it may be another's. *Alike*:
        an agent's calls, the same by tool and size, where prompts have no fingerprint; or another each time, which is
        weak evidence, and an alert when a session has plenty of them. Where no session is named and no fingerprint
        either, plenty of them are grave, and block with a second family.
        *Growth*: the input grows step after step by the same amount (`growth_wobble` on average over
        `block_growth_steps`, half as much over `growth_steps`, half as much again in a run nearly twice as long);
        uneven steps and others' calls take it back. *Spawn*: an agent's new sessions in an hour, far above those of any
        hour before.

        It takes more of them when the calls come irregularly, slowly, in parallel, of a batch workload, or name no
        session: the policy has a factor for each.

    Why it matters:
        A looping agent burns up to 1.8 million tokens a minute, and each step costs more than the last.

    False positives:
        An agent that polls with one prompt at machine pace and irregularly. Clocks, slow calls that burn little, honest
        re-runs (two to five of a failed call) and popular prompts that come from many sessions tell nothing. Failed
        calls are failure_burst's.

    Runbook:
        Look at the session's last calls and its tool; stop the agent's run; restore once it is fixed.
    """

    name = "loop"
    kind: Kind = "loop"
    version = 3

    def __init__(self, config: Config) -> None:
        self._config = config
        self.rows = Rows(ROW)

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """One finding when a loop is first told, one when it is long enough to block, then one a minute."""
        batch, n = view.batch, len(view.batch)
        # What fails was not served, unless its caller cut it off.
        skipped = view.ticked.duplicate | batch.excluded | (batch.failed & ~batch.unmetered)
        calls = Calls(
            view.row, view.ticked.time, batch.time, batch.source, view.velocities.returned, skipped, batch.offset,
            batch.fingerprint, batch.session, batch.input, batch.workload, _tools(batch),
        )  # fmt: skip
        told = Told(
            np.empty(n, np.int64),
            np.empty(n, np.int8),
            np.empty(n, np.bool_),
            np.empty(n, np.int8),
            np.empty((n, 4)),
            np.empty(n, ROW),
        )
        count = judge(self.rows.reach(view.identities), calls, self._limits(), told)
        return [self._raised(view, told, k) for k in range(count)]

    def _limits(self) -> Limits:
        c = self._config
        return Limits(
            2 * c.repeats, 2 * c.block_repeats, float(c.alike), float(c.block_alike), float(c.growth_steps),
            float(c.block_growth_steps), c.growth_least_tokens, c.growth_tolerance, c.growth_wobble,
            math.log2(1 + c.size_tolerance) * _PER_OCTAVE, c.pause_seconds * 1000, c.pace_seconds * 1000,
            c.parallel_seconds * 1000, c.irregular, c.timer, c.idle_tokens_per_minute,
            c.light_tokens_per_minute, c.unnamed_factor, c.batch_factor,
            c.irregular_factor, c.slow_factor, c.slow_growth_factor, c.parallel_factor, c.differing_factor,
            float(c.spawned), c.spawn_ratio, float(c.spawn_warm_up_hours), c.repeat_finding_seconds * 1000,
        )  # fmt: skip

    def _raised(self, view: View, told: Told, k: int) -> Raised:
        c, at, how, blocks = self._config, int(told.at[k]), int(told.how[k]), bool(told.blocks[k])
        observed, since, extra, variation = told.value[k].tolist()
        event, (tokens, _, spend) = view.batch.events[at].data, view.velocities.minute[at].tolist()
        where = f"session {short(event.session_id)}" if event.session_id else "no session named"
        lately = f"{amount(tokens)} tokens and ${spend:.2f} in the last minute"
        if how == REPEATS:
            usual, span = c.repeats, observed * extra
            what = f"the same prompts came again {observed:.0f} times"
        elif how == ALIKE:
            usual, span = float(c.alike), observed * extra
            what = f"{observed:.0f} calls in a row were like those before them by tool and size"
        elif how == GROWTH:
            usual, span = float(c.growth_steps), 60.0
            what = f"the context grew {observed:.0f} times in a row by about {amount(extra)} tokens without a pause"
        else:
            usual, span = extra, 3600.0
            what = f"{observed:.0f} new sessions within an hour, {extra:.0f} at most in any hour before"
        if how in (REPEATS, ALIKE):
            what += f", every {amount(extra)} s with a variation of {100 * variation:.0f} %"
        if how != SPAWN:
            what += f" ({where}, tool {short(event.tool)})"
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(since),
            severity=_SEVERITY[told.gravity[k]],
            score=round(min(1.0, observed / (4 * max(usual, 1.0))), 4),
            window="hour" if how == SPAWN else "session",
            observed=round(observed, 3),
            baseline=usual,
            reason=f"{what}, {lately}",
            digest=digest(told.state[k : k + 1]),
            span_seconds=round(span, 3),
            deterministic=blocks,
            usd_per_minute=round(spend, 6),
            session=bool(event.session_id) and how != SPAWN,
            details={"pattern": _PATTERN[how]},
        )


def _tools(batch: Batch) -> NDArray[np.uint8]:
    """A tag of the tool that was called, 1 to 15, where there is no fingerprint; 0 for none."""
    tags = np.zeros(len(batch), np.uint8)
    for at in np.flatnonzero(batch.fingerprint == 0).tolist():
        tool = batch.events[at].data.tool
        if tool:
            tags[at] = 1 + xxh3_64_intdigest(tool.encode()) % 15
    return tags
