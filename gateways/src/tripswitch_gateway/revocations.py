"""The table of commands in force at one gateway, and the question asked of it on every call."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from enum import Enum
from threading import Lock

from tripswitch_gateway.claims import Command
from tripswitch_gateway.commands import wall_clock_ms
from tripswitch_gateway.decisions import ALLOWED, TOO_MANY_REQUESTS, Decision
from tripswitch_gateway.heartbeats import Heartbeat, Tally
from tripswitch_gateway.limits import Allowance
from tripswitch_gateway.tenant_blocks import CUTS_OFF, Standing, TenantBlocks

__all__ = ["ALLOWED", "Decision", "Outcome", "RevocationTable"]


class Outcome(Enum):
    """What became of a command that was shown to the table."""

    APPLIED = "applied"
    EXPIRED = "expired"  # taken, so that older ones stay out, but its time was already over
    SUPERSEDED = "superseded"  # the table holds a newer one
    CONFLICT = "conflict"  # the table holds another one of the same epoch, which is the stricter
    DUPLICATE = "duplicate"


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
    ``clock_ms`` gives Unix milliseconds.
    """

    def __init__(self, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._clock_ms = clock_ms
        self._lock = Lock()
        self._latest: dict[str, Command] = {}
        self._blocks: dict[str, TenantBlocks] = {}
        self._allowances: dict[str, Allowance] = {}
        self._tallies: defaultdict[int, Tally] = defaultdict(Tally)
        self.conflicts = 0

    def apply(self, command: Command, now_ms: int) -> Outcome:
        """Take ``command`` if it is the newest of its key."""
        with self._lock:
            held = self._latest.get(command.key)
            if held is not None and command.epoch <= held.epoch:
                if command.epoch < held.epoch:
                    return Outcome.SUPERSEDED
                stricter = _precedence(command) > _precedence(held)
                if command.command_id == held.command_id:
                    # Issued again: signed with another key, or with an end counted from a later publication.
                    if stricter:
                        self._hold(command, now_ms)
                    elif command.kid != held.kid:
                        self._hold(replace(held, kid=command.kid), now_ms)
                    return Outcome.DUPLICATE
                self.conflicts += 1
                if not stricter:
                    return Outcome.CONFLICT
            self._hold(command, now_ms)
        return Outcome.APPLIED if now_ms < command.ends_at else Outcome.EXPIRED

    def tally(self, partition: int, moment: int) -> tuple[int, str]:
        """Number and digest of what is in force of a partition at ``moment``."""
        with self._lock:
            return self._tallies[partition].at(moment, self._latest, partition)

    def agrees(self, beat: Heartbeat) -> bool:
        """Whether exactly what ``beat`` speaks of is in force here, as far as its partition goes."""
        return self.tally(beat.partition, beat.at) == (beat.count, beat.digest)

    def take_over(
        self, partition: int, proven: "RevocationTable", trusted: Collection[str], now_ms: int
    ) -> list[Command]:
        """Hold of ``partition`` what ``proven`` holds, which a heartbeat agrees with. Returns the blocks that are new.

        What it does not know goes, blocks and what was signed by none of the ``trusted`` keys; other restores stay,
        because they fence off what came before them.
        """
        right = proven.commands()
        new = []
        with self._lock:
            for key, held in list(self._latest.items()):
                if held.partition == partition and key not in right and (held.is_block or held.kid not in trusted):
                    self._drop(held)
            for key, command in right.items():
                old = self._latest.get(key)
                if old == command and (old.kid, old.partition) == (command.kid, command.partition):
                    continue
                self._hold(command, now_ms)
                if old != command and command.is_block and now_ms < command.ends_at:
                    new.append(command)
        return new

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

        ``tenant`` None is ``-``, the tenant of those that have none. ``now_ms`` is Unix milliseconds, the table's
        clock when None. A session is blocked for the identity that the command names only: session names are made up by
        callers, and two of them may well use the same one.
        """
        blocks = self._blocks.get(tenant or "-")
        if blocks is None:
            return ALLOWED
        matches: Sequence[Standing]
        if blocks.identity_alone:
            standing = blocks.identity.get(identity)
            if standing is None:
                return ALLOWED
            now = self._clock_ms() if now_ms is None else now_ms
            # By far the most frequent case, and asked at the rate of an attack. The standing comes first, as Python
            # would ask the other number for nothing.
            if standing <= now:
                return ALLOWED
            if standing.answer is not None:
                return standing.answer
            matches = (standing,)
        else:
            matches = blocks.matching(identity, credential, session, tenant or "-", end_user)
            if not matches:
                return ALLOWED
            now = self._clock_ms() if now_ms is None else now_ms
        live = [one for one in matches if one > now]
        if len(live) == 1 and (denial := live[0].denial()) is not None:
            return denial
        return self._decide([one.command for one in live], now)

    def charge(self, decision: Decision, tokens: float) -> None:
        """Count the tokens of a call that ``decision`` allowed, against the limits that it was allowed under."""
        for command in decision.matches:
            allowance = self._allowances.get(command.key)
            if allowance is not None and allowance.tokens is not None:
                with self._lock:
                    allowance.tokens.take(tokens)

    def live(self, now_ms: int | None = None) -> list[Command]:
        """The commands in force, strictest first."""
        now = self._clock_ms() if now_ms is None else now_ms
        with self._lock:
            latest = list(self._latest.values())
        in_force = [command for command in latest if command.is_block and now < command.ends_at]
        return sorted(in_force, key=_strictness)

    def live_by_action(self) -> Counter[str]:
        """How many commands are in force, by action."""
        now = self._clock_ms()
        with self._lock:
            latest = list(self._latest.values())
        return Counter(command.action for command in latest if command.is_block and now < command.ends_at)

    def commands(self) -> dict[str, Command]:
        """A copy of the last command of every key, restores and expired ones included."""
        with self._lock:
            return dict(self._latest)

    def __len__(self) -> int:
        return len(self._latest)

    def _hold(self, command: Command, now_ms: int) -> None:
        """Make ``command`` the last one of its key. For who has the lock."""
        old = self._latest.get(command.key)
        self._latest[command.key] = command
        if old is not None and old.partition != command.partition:
            self._tallies[old.partition].replace(old, None)
            old = None
        self._tallies[command.partition].replace(old, command)
        self._put_in_force(command, now_ms)

    def _drop(self, command: Command) -> None:
        del self._latest[command.key]
        self._tallies[command.partition].replace(command, None)
        self._lift(command)

    def _lift(self, command: Command) -> None:
        self._allowances.pop(command.key, None)
        blocks = self._blocks.get(command.tenant)
        if blocks is not None:
            blocks.remove(command)
            if blocks.is_empty():
                del self._blocks[command.tenant]

    def _put_in_force(self, command: Command, now_ms: int) -> None:
        if not command.is_block:
            self._lift(command)
            return
        # The allowance before the block: a check in another thread must find it when it finds the block.
        self._set_allowance(command, now_ms)
        blocks = self._blocks.get(command.tenant)
        if blocks is None:
            blocks = self._blocks[command.tenant] = TenantBlocks()
        blocks.put(command)

    def _set_allowance(self, command: Command, now_ms: int) -> None:
        limits = command.limits
        if limits is None or (limits.rpm is None and limits.tpm is None):
            self._allowances.pop(command.key, None)
            return
        self._allowances.setdefault(command.key, Allowance()).set_rates(limits.rpm, limits.tpm, now_ms)

    def _decide(self, live: list[Command], now_ms: int) -> Decision:
        if not live:
            return ALLOWED
        if len(live) > 1:
            live.sort(key=_strictness)
        strictest = live[0]
        if strictest.strictness >= CUTS_OFF:
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
