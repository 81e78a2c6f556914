"""The table of commands in force at one gateway, and the question asked of it on every call."""

import math
import time
from enum import Enum
from threading import Lock
from typing import NamedTuple

from tripswitch_gateway.commands import Command
from tripswitch_gateway.limits import Bucket

TOO_MANY_REQUESTS = 429


class Outcome(Enum):
    """What became of a command that was shown to the table."""

    APPLIED = "applied"
    EXPIRED = "expired"  # taken, so that older ones stay out, but its time was already over
    SUPERSEDED = "superseded"  # the table holds a newer one, or a stricter one of the same epoch
    DUPLICATE = "duplicate"


class Decision(NamedTuple):
    """May this call go on?

    ``command`` is the strictest one that matches, None when nothing does; an allowed call may still have one, whose
    ``model`` (if any) is then the only one to use. ``status`` is what to answer: 200, the command's own, or 429 over a
    rate, with ``retry_after_s`` seconds to wait. ``matches`` are all live commands on the caller, strictest first.
    """

    allowed: bool
    status: int
    command: Command | None = None
    retry_after_s: float | None = None
    model: str | None = None
    matches: tuple[Command, ...] = ()


ALLOWED = Decision(allowed=True, status=200)


class _TenantBlocks:
    """The commands other than restores on one tenant, by scope and subject."""

    __slots__ = ("credential", "end_user", "identity", "session", "tenant")

    def __init__(self) -> None:
        self.identity: dict[str, Command] = {}
        self.credential: dict[str, Command] = {}
        self.session: dict[str, Command] = {}
        self.end_user: dict[str, Command] = {}
        self.tenant: dict[str, Command] = {}

    def is_empty(self) -> bool:
        return not (self.identity or self.credential or self.session or self.end_user or self.tenant)


class _Allowance:
    """The buckets of one limited key; None where there is no such limit."""

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None

    def wait_ms(self, now_ms: int) -> float:
        requests = self.requests.wait_ms(now_ms) if self.requests else 0.0
        tokens = self.tokens.wait_ms(now_ms) if self.tokens else 0.0
        return max(requests, tokens)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _precedence(command: Command) -> tuple[object, ...]:
    """A total order: the epoch, then the stricter; the id last, so that every gateway keeps the same one of two."""
    limits = command.limits
    rates = (math.inf, math.inf) if limits is None else (limits.rpm, limits.tpm)
    slowness = tuple(-math.inf if rate is None else -rate for rate in rates)
    return command.epoch, command.strictness, command.ends_at, slowness, command.command_id


def _strictness(command: Command) -> tuple[int, float, str]:
    return -command.strictness, -command.ends_at, command.key


class RevocationTable:
    """The last command of every key, and which of them are in force. Safe to use from several threads.

    A command replaces the one of its key when its epoch is greater. Two different commands of one epoch mean two
    writers: the stricter holds, and ``conflicts`` goes up. Restores are kept too, because they fence off what is older.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._latest: dict[str, Command] = {}
        self._blocks: dict[str, _TenantBlocks] = {}
        self._allowances: dict[str, _Allowance] = {}
        self.conflicts = 0

    def apply(self, command: Command, now_ms: int) -> Outcome:
        """Take ``command`` if it is the newest of its key."""
        with self._lock:
            held = self._latest.get(command.key)
            if held is not None and command.epoch <= held.epoch:
                if command.epoch < held.epoch:
                    return Outcome.SUPERSEDED
                if command.command_id == held.command_id:
                    return Outcome.DUPLICATE
                self.conflicts += 1
                if _precedence(command) < _precedence(held):
                    return Outcome.SUPERSEDED
            self._latest[command.key] = command
            self._put_in_force(command, now_ms)
        return Outcome.APPLIED if now_ms < command.ends_at else Outcome.EXPIRED

    def check(
        self,
        identity: str,
        credential: str | None = None,
        session: str | None = None,
        tenant: str | None = None,
        end_user: str | None = None,
        now_ms: int | None = None,
    ) -> Decision:
        """The strictest live command on this caller, over all scopes; counts the call against its rates.

        ``tenant`` None is ``-``, the tenant of those that have none. ``now_ms`` is Unix milliseconds, the wall clock
        when None. A session is blocked for the identity that the command names only: session names are made up by
        callers, and two of them may well use the same one.
        """
        blocks = self._blocks.get(tenant or "-")
        if blocks is None:
            return ALLOWED
        found = [blocks.identity.get(identity)]
        if credential is not None:
            found.append(blocks.credential.get(credential))
        if session is not None:
            command = blocks.session.get(session)
            if command is not None and command.identity in (None, identity):
                found.append(command)
        if end_user is not None:
            found.append(blocks.end_user.get(end_user))
        if blocks.tenant:
            found.append(blocks.tenant.get(tenant or "-"))
        matches = [command for command in found if command is not None]
        if not matches:
            return ALLOWED
        return self._decide(matches, _now_ms() if now_ms is None else now_ms)

    def charge(self, decision: Decision, tokens: float) -> None:
        """Count the tokens of a call that ``decision`` allowed, against the limits that it was allowed under."""
        for command in decision.matches:
            allowance = self._allowances.get(command.key)
            if allowance is not None and allowance.tokens is not None:
                with self._lock:
                    allowance.tokens.take(tokens)

    def live(self, now_ms: int | None = None) -> list[Command]:
        """The commands in force, strictest first."""
        now = _now_ms() if now_ms is None else now_ms
        with self._lock:
            latest = list(self._latest.values())
        in_force = [command for command in latest if command.action != "restore" and now < command.ends_at]
        return sorted(in_force, key=_strictness)

    def commands(self) -> dict[str, Command]:
        """A copy of the last command of every key, restores and expired ones included."""
        with self._lock:
            return dict(self._latest)

    def __len__(self) -> int:
        return len(self._latest)

    def _put_in_force(self, command: Command, now_ms: int) -> None:
        blocks = self._blocks.get(command.tenant)
        if command.action == "restore":
            self._allowances.pop(command.key, None)
            if blocks is not None:
                getattr(blocks, command.scope).pop(command.subject, None)
                if blocks.is_empty():
                    del self._blocks[command.tenant]
            return
        # The allowance before the block: a check in another thread must find it when it finds the block.
        self._set_allowance(command, now_ms)
        if blocks is None:
            blocks = self._blocks[command.tenant] = _TenantBlocks()
        getattr(blocks, command.scope)[command.subject] = command

    def _set_allowance(self, command: Command, now_ms: int) -> None:
        limits = command.limits
        if limits is None or (limits.rpm is None and limits.tpm is None):
            self._allowances.pop(command.key, None)
            return
        allowance = self._allowances.setdefault(command.key, _Allowance())
        allowance.requests = _at_rate(allowance.requests, limits.rpm, now_ms)
        allowance.tokens = _at_rate(allowance.tokens, limits.tpm, now_ms)

    def _decide(self, matches: list[Command], now_ms: int) -> Decision:
        live = [command for command in matches if now_ms < command.ends_at]
        if not live:
            return ALLOWED
        if len(live) > 1:
            live.sort(key=_strictness)
        strictest = live[0]
        if strictest.action in ("revoke", "suspend"):
            return Decision(False, strictest.http_status, strictest, None, None, tuple(live))
        # All rates hold, not only the strictest command's: a downgraded key must not escape its tenant's throttle.
        limited = [command for command in live if command.key in self._allowances]
        if limited:
            with self._lock:
                slowest_ms, slowest = self._take(limited, now_ms)
            if slowest_ms > 0:
                return Decision(False, TOO_MANY_REQUESTS, slowest, slowest_ms / 1000, None, tuple(live))
        model = strictest.limits.model if strictest.action == "downgrade" and strictest.limits else None
        return Decision(True, 200, strictest, None, model, tuple(live))

    def _take(self, limited: list[Command], now_ms: int) -> tuple[float, Command]:
        """Count a call against every rate, or, when one is used up, against none.

        Returns the longest wait in milliseconds, and whose it is.
        """
        slowest_ms, slowest = 0.0, limited[0]
        # A restore in another thread may have taken an allowance away by now.
        found = [(allowance, command) for command in limited if (allowance := self._allowances.get(command.key))]
        for allowance, command in found:
            wait_ms = allowance.wait_ms(now_ms)
            if wait_ms > slowest_ms:
                slowest_ms, slowest = wait_ms, command
        if slowest_ms == 0:
            for allowance, _ in found:
                if allowance.requests is not None:
                    allowance.requests.take(1)
        return slowest_ms, slowest


def _at_rate(bucket: Bucket | None, per_minute: float | None, now_ms: int) -> Bucket | None:
    if per_minute is None:
        return None
    if bucket is None:
        return Bucket(per_minute, now_ms)
    bucket.set_rate(per_minute)
    return bucket
