"""Finds identities that turn to dearer models than they ever used."""

import numpy as np
from msgspec import Struct

from detectors.compiled import State
from detectors.identities import Rows
from detectors.model_shift_kernel import (
    MEDIUM,
    NEVER_USED,
    ROW,
    Calls,
    Limits,
    Told,
    count_users,
    judge,
)  # fmt: skip
from detectors.model_users import USER, grow_users
from detectors.view import Detector, Raised, View, amount, digest, short
from schemas.batch import Ints
from schemas.bounds import Count, NotNegative, Positive, Share, Some
from schemas.finding import Kind

_PER = 1e6
"""Prices are told in USD per million tokens."""
_LEAST_USERS = 1 << 12
_CUT = 499
"""The status of a call that its caller cut off: it was served."""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[model_shift]` of policy.toml."""

    first_calls: Count
    first_hours: Count
    warm_up_calls: Count
    warm_up_hours: Count
    dear_ratio: Positive
    hint_calls: Positive
    alert_calls: Positive
    session_calls: NotNegative
    calls_share: Share
    spend_share: Share
    mix_ratio: Positive
    mix_share: Share
    record_ratio: Positive
    half_life_minutes: Positive
    trusted_after_hours: Positive
    memory_hours: Some
    adapt_hours: Positive
    vouching_identities: Some
    vouching_share: Share
    repeat_finding_seconds: NotNegative

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if self.alert_calls < self.hint_calls:
            raise ValueError("what alerts must not be less than what hints: `alert_calls`, `hint_calls`")
        if self.warm_up_calls < self.first_calls or self.warm_up_hours < self.first_hours:
            raise ValueError("the warm-up must not end before it begins: `first_calls`, `first_hours`")
        if self.dear_ratio < 1 or self.mix_ratio < 1 or self.record_ratio < 1:
            raise ValueError("a ratio of prices that tells must be at least 1: `dear_ratio`, `mix_ratio`")


class ModelShift(Detector):
    """A mix of models that leaves the identity's past for dearer ones.

    What it detects:
        What a model costs per token follows from the cost of the identity's own calls; a token of output counts five
        times. *Never used*: calls of models that the identity never used and that cost `dear_ratio` times its usual
        mix, or whose cost is unknown. `hint_calls` of them within `half_life_minutes` are weak evidence; `alert_calls`
        of them, when they make up `calls_share` of the recent calls and `spend_share` of the recent spend, alert, but
        of one session only `session_calls`. *Mix*: the dear ones among its own models take over: the recent mix costs
        `mix_ratio` times the usual one, and `record_ratio` times what it ever reached, and dear models make up
        `mix_share` of its calls. The usual mix learns an hour at a time; a model is the identity's own once it was used
        over `trusted_after_hours`.

    Why it matters:
        Thieves take the dearest model there is: at the same number of calls it costs 10 to 60 times as much.

    False positives:
        A team that turns to a better model. What `vouching_share` of a tenant's identities use is weak evidence at the
        most; a cheaper or renamed model, an embedding job or a new price list tell nothing.

    Runbook:
        Ask the owner whether they meant to change the model; compare network and client before and after.
    """

    name = "model_shift"
    kind: Kind = "model_shift"
    version = 1

    def __init__(self, config: Config) -> None:
        self._config = config
        self.rows = Rows(ROW)
        self._users: State | None = None
        """Follows from the rows; None where it has to be counted anew."""
        c = config
        self._limits = Limits(
            float(c.first_calls), float(c.first_hours), float(c.warm_up_calls), float(c.warm_up_hours), c.dear_ratio,
            c.hint_calls, c.alert_calls, c.session_calls, c.calls_share, c.spend_share, c.mix_ratio, c.mix_share,
            c.record_ratio, c.half_life_minutes * 60, c.trusted_after_hours, float(c.memory_hours),
            float(c.vouching_identities), c.vouching_share, c.repeat_finding_seconds, c.adapt_hours * 3600,
        )  # fmt: skip

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """One finding when weak evidence is told, one when it alerts, then one every few minutes while it goes on."""
        batch, n = view.batch, len(view.batch)
        # What was not served cost nothing, and is no use of a model.
        skip = view.ticked.duplicate | batch.excluded | (batch.failed & (batch.status != _CUT)) | (batch.model == 0)
        calls = Calls(
            view.row, view.ticked.time, view.velocities.returned, skip, batch.model, batch.session, batch.input,
            batch.output, batch.cost,
        )  # fmt: skip
        told = Told(
            np.empty(n, np.int64), np.empty(n, np.int8), np.empty(n, np.int8), np.empty((n, 4)), np.empty(n, ROW)
        )
        rows = self.rows.reach(view.identities)
        users = self._users_of(rows, view.tenant, n)
        count = judge(rows, view.tenant, users, calls, self._limits, told)
        return [self._raised(view, told, k) for k in range(count)]

    def forget(self, rows: Ints) -> None:  # noqa: ARG002
        """The rows that are blanked are counted no more."""
        self._users = None

    def restore_shared(self, saved: bytes) -> None:  # noqa: ARG002
        """Who uses what follows from the rows."""
        self._users = None

    def _users_of(self, rows: State, tenant: Ints, n: int) -> State:
        """The table of who uses what, with room for what `n` calls may bring: a model each, and an identity's first."""
        if self._users is None:
            known = int(np.count_nonzero(rows["model"])) + len(rows)
            self._users = _table(known + 2 * n)
            count_users(rows, tenant, self._users)
        elif 2 * (int(self._users[-1]["identities"]) + 2 * n) > len(self._users):
            grown = _table(int(np.count_nonzero(self._users["identities"] > 0)) + 2 * n)
            grow_users(self._users, grown)
            self._users = grown
        return self._users

    def _raised(self, view: View, told: Told, k: int) -> Raised:
        at, gravity = int(told.at[k]), int(told.gravity[k])
        recent, usual, spend_share, calls_share = told.value[k].tolist()
        event, row = view.batch.events[at].data, told.state[k]
        model, never, fresh = short(event.model), told.how[k] == NEVER_USED, float(row["fresh"])
        history = f"in {int(row['calls'])} calls over {int(row['hours'])} distinct hours"
        if never and recent > 0:
            what = (
                f"{fresh:.0f} calls of models never used {history}: {model} costs {recent / usual:.1f} times the "
                f"usual mix (${amount(recent * _PER)} to ${amount(usual * _PER)} per million tokens)"
            )
        elif never:
            what = f"{fresh:.0f} calls of models never used {history}, whose price is unknown: {model}"
        else:
            what = (
                f"the recent mix of models, {model} above all, costs {recent / usual:.1f} times the usual one "
                f"(${amount(recent * _PER)} to ${amount(usual * _PER)} per million tokens), more than ever {history}"
            )
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(view.batch.offset[at]),
            severity="medium" if gravity == MEDIUM else "low",
            score=round(min(1.0, 0.5 + 0.5 * spend_share) if gravity == MEDIUM else 0.3, 4),
            window=f"{self._config.half_life_minutes:g}m half-life",
            observed=round(recent * _PER, 6),
            baseline=round(usual * _PER, 6),
            reason=f"{what}; {spend_share:.0%} of the recent spend",
            digest=digest(told.state[k : k + 1]),
            span_seconds=max(0.0, int(row["at"]) - float(row["began"])) if never else self._limits.half_life,
            usd_per_minute=round(float(view.velocities.minute[at, 2]), 6),
            shared=f"model:{model}",
            details={
                "pattern": "never used" if never else "mix",
                "calls_share": round(calls_share, 4),
                "spend_share": round(spend_share, 4),
            },
        )


def _table(uses: int) -> State:
    """A blank hash table that has room for `uses`, and the place that says how many there are."""
    size = _LEAST_USERS
    while size < 4 * uses:
        size *= 2
    return np.zeros(size + 1, USER)
