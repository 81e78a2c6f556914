"""Decides: signals of tenants in, incidents and commands out. One per partition of `llm.signals`.

Its clock is the signals' own time. What it answers depends on the signals and requests in their order, on the policy
and on the directory alone.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec.structs import replace

from responses.approved import Approved, approval_of, excuses
from responses.case import Case, InForce
from responses.common import damped, is_common
from responses.config import Config
from responses.epochs import Epochs, Subject
from responses.guards import Caps, forbidden
from responses.ladder import Answer, answer
from responses.quotas import TenantQuotas
from responses.risk import Standing
from responses.saved import (
    Gone,
    Head,
    Part,
    Saved,
    SavedApproval,
    SavedBlocked,
    SavedEpoch,
    SavedWaiting,
    load_case,
    save_case,
    seal_parts,
)  # fmt: skip
from responses.second_person import SecondPerson
from responses.sweep import Sweep
from responses.taken import Taken
from responses.tenant_spike import TenantSpike
from schemas.command import STRICTNESS, Action, Command, Limits, Scope, command_id
from schemas.directory import Approval, Directory
from schemas.finding import Finding, Signal, TenantBucket
from schemas.incident import Incident
from schemas.piece import Checkpoint
from schemas.request import Request
from schemas.times import format_millis, parse_millis

Outcome = Incident | Command
_ROUND = 300
"""Checkpoints within which everything is written again."""


class Decider:
    """Keeps a case per identity of its tenants, and answers every signal with what follows from it, in order.

    What it keeps can be saved: `checkpoint` gives what changed, `restore` makes a fresh decider go on from it.
    """

    def __init__(self, config: Config, directory: Directory) -> None:
        self._config = config
        self._directory = directory
        self._caps = Caps(config.response)
        self._tenant_spike = TenantSpike(config.tenant_spike, config.version)
        self._quotas = TenantQuotas(directory, config.warn_share, config.version)
        self._cases: dict[tuple[str, str], Case] = {}
        self._epochs = Epochs()
        self._approved = Approved()
        self._second = SecondPerson(config.response.second_person_minutes)
        self._holders: dict[tuple[str, Scope, str], str] = {}
        """The identity whose block stands under a (tenant, scope, subject)."""
        self._due: list[tuple[int, str, str]] = []
        self._farewells: list[tuple[int, str, str]] = []
        """When each case is next asked whether it is over."""
        self._taken = Taken()
        self._sweep = Sweep()
        self._now = 0

    @property
    def now(self) -> int:
        """The clock, in ms of event time."""
        return self._now

    @property
    def cases(self) -> int:
        """How many identities have a case."""
        return len(self._cases)

    @property
    def due(self) -> int | None:
        """When (ms) the next thing falls due though no signal comes: a block that ends, an incident that closes."""
        return self._due[0][0] if self._due else None

    # -- what is in force -----------------------------------------------------------------------------------------

    def in_force(self) -> Iterator[tuple[Subject, InForce]]:
        """What gateways obey, as far as we know."""
        for (tenant, scope, subject), identity in list(self._holders.items()):
            block = self._cases[tenant, identity].blocks[scope, subject]
            if not block.shadow:
                yield (tenant, scope, subject), block

    def last_epoch(self, subject: Subject) -> int:
        """The epoch of the last command about a subject; 0 where there is none, or the clock has passed it."""
        return self._epochs.last(subject)

    def resume(self, command: Command) -> None:
        """Takes note of the last command that an earlier owner of these tenants published for a subject."""
        key = (command.tenant, command.scope, command.subject)
        self._epochs.note(key, command.epoch)
        if command.action == "restore":
            return
        case = self._case(command.tenant, command.identity or "")
        case.incident_id = command.incident_id
        self._hold(case, command, None if command.expires_at is None else parse_millis(command.expires_at))

    def adopt(self, command: Command) -> list[Outcome]:
        """Takes over what a person published without us, as that person's word."""
        key = (command.tenant, command.scope, command.subject)
        self._epochs.note(key, command.epoch)
        case = self._case_over(*key, command.identity or "")
        if command.action == "restore":
            self._lift(case, command.scope, command.subject)
            if command.scope in ("identity", "tenant"):
                case.forgive(self._now, self._config)
        else:
            self._hold(case, replace(command, manual=True), None)
        incident = case.responded(command)
        return [incident] if incident else []

    def order_again(self, subject: Subject) -> list[Outcome]:
        """Orders anew what is in force, though what was ordered is no longer to be read."""
        tenant, scope, name = subject
        case = self._case_over(tenant, scope, name, "")
        block = case.blocks[scope, name]
        cause = f"again:{block.command_id}"
        command = self._command(
            case, block.action, scope, name, block.expires, block.reason, cause, manual=block.manual,
            limits=block.limits,
        )  # fmt: skip
        block.command_id = command.command_id
        incident = case.responded(command)
        return [command, *([incident] if incident else [])]

    def withdraw(self, command: Command) -> list[Outcome]:
        """Gives back what a command blocks that is not in force: somebody has written an old one again."""
        key = (command.tenant, command.scope, command.subject)
        self._epochs.note(key, command.epoch)
        case = self._case_over(*key, command.identity or "")
        reason = "not in force: a command that was over had been written again"
        return self._restore(case, command.scope, command.subject, reason, f"over:{command.command_id}", real=True)

    def _hold(self, case: Case, command: Command, expires: int | None) -> None:
        """Has a block stand that is published already."""
        self._holders[case.tenant, command.scope, command.subject] = case.identity
        case.blocks[command.scope, command.subject] = InForce(
            command.action, command.scope, command.subject, expires, parse_millis(command.time), command.command_id,
            command.reason, command.manual, command.limits,
        )  # fmt: skip
        if expires is not None:
            self._look_again(case, expires - int(self._config.response.renew_seconds * 1000))

    def _lift(self, case: Case, scope: Scope, subject: str) -> InForce | None:
        self._holders.pop((case.tenant, scope, subject), None)
        return case.blocks.pop((scope, subject), None)

    def _case_over(self, tenant: str, scope: Scope, subject: str, identity: str) -> Case:
        """The case under which a subject's block stands; where there is none, that of `identity`."""
        return self._case(tenant, self._holders.get((tenant, scope, subject), identity))

    # -- signals and orders ---------------------------------------------------------------------------------------

    def take(self, signal: Signal, arrived: int = 0) -> list[Outcome]:
        """What follows from a signal that reached us at `arrived` (ms of the broker's clock; 0: unknown)."""
        out = self.wait_until(parse_millis(signal.time))
        if isinstance(signal, Finding):
            # A finding is published again after a crash, with the same id.
            out += self._found(signal, arrived) if self._taken.add(signal.finding_id) else []
        elif isinstance(signal, TenantBucket):
            for identity in signal.denied:
                case = self._cases.get((signal.tenant, identity))
                if case is not None:
                    case.denied_at = self._now
                    self._touch(case)
                    out += self._renewed(case)
            out += self._whole(signal)
        return out

    def wait_until(self, moment: int) -> list[Outcome]:
        """Moves the clock to `moment` (ms); what falls due by then happens now."""
        self._now = max(self._now, moment)
        self._epochs.forget(self._now)
        self._second.forget(self._now)
        self._approved.forget(self._now)
        out: list[Outcome] = []
        while self._due and self._due[0][0] <= self._now:
            _, tenant, identity = heapq.heappop(self._due)
            case = self._cases[tenant, identity]
            case.next_look = None
            self._touch(case)
            out += self._review(case)
            self._drop_replaced()
        while self._farewells and self._farewells[0][0] <= self._now:
            self._ask_farewell()
        return out

    def order(self, request: Request, person: str | None = None) -> list[Outcome]:
        """Carries out the order of a `person` (None: the key that signed it names nobody). It holds until a person ends
        it, over whatever we decide ourselves.

        Raises:
            Refused: it can't be carried out. Nothing has changed.
        """
        if request.request_id in self._taken:
            return self.wait_until(parse_millis(request.time))
        if person is not None:
            request = replace(request, by=person)
        agreed = self._second.agreed(request, person, max(self._now, parse_millis(request.time)))
        out = self.wait_until(parse_millis(request.time))
        self._taken.add(request.request_id)
        return out if agreed is None else out + self._carry_out(agreed)

    def _carry_out(self, request: Request) -> list[Outcome]:
        scope, subject, cause = request.scope, request.about, request.request_id
        reason = f"{request.reason} ({request.by})"
        if request.action == "approve":
            return self._approve(self._approved.add(request), request.tenant, reason, cause)
        case = self._case_over(request.tenant, scope, subject, request.identity)
        if request.action != "restore":
            return self._block(case, Answer(request.action, scope, subject), reason, cause, None, manual=True)
        if scope == "identity":
            case.forgive(self._now, self._config)
            return [
                outcome
                for at in sorted({*case.blocks, (scope, subject)})
                for outcome in self._restore(case, *at, reason, cause, manual=True)
            ]
        return self._restore(case, scope, subject, reason, cause, manual=True)

    def _approve(self, approval: Approval, tenant: str, reason: str, cause: str) -> list[Outcome]:
        """Ends what we ordered ourselves, if all that led to it is what was approved, whenever it was found."""
        case = self._cases.get((tenant, approval.identity))
        if case is None or not case.findings or not all(excuses(approval, one) for one in case.findings.values()):
            return []
        self._touch(case)
        case.forgive(self._now, self._config)
        ours = sorted(at for at, block in case.blocks.items() if not block.manual)
        return [outcome for at in ours for outcome in self._restore(case, *at, reason, cause, manual=True)]

    # -- saved state ----------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """What changed since the last call, and the next slice of everything else.

        Once the slices have had everything, the next round begins.
        """
        begins = self._sweep.swept and self._taken.swept
        if begins:
            self._sweep.begin_round(self._cases)
            self._taken.begin_round()
        return Checkpoint(begins, seal_parts(self._unsaved(begins=begins)))

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Makes this decider, which is fresh, the one whose checkpoints had these pieces. They come in the order in
        which they were written, from the beginning of a complete round, or from before it.

        Raises:
            StateError: a piece can't be read, or some are missing.
        """
        saved = Saved(pieces)
        head = saved.head
        if head is None:
            return
        if not self._taken.restore(saved.ids, head.ids_first, head.ids, head.ids_at, head.ids_end):
            raise saved.incomplete()
        self._now = head.now
        for subject, epoch in saved.epochs.items():
            self._epochs.note(subject, epoch)
        for (tenant, identity), when in saved.blocked.items():
            self._caps.count(tenant, identity, when)
        self._second.restore(saved.waiting)
        self._approved.restore(saved.approvals)
        self._cases = {key: load_case(case, self._config) for key, case in saved.cases.items()}
        for (tenant, identity), case in self._cases.items():
            self._holders |= {(tenant, *at): identity for at in case.blocks}
            self._farewells.append((case.next_farewell, tenant, identity))
            if case.next_look is not None:
                self._due.append((case.next_look, tenant, identity))
        heapq.heapify(self._farewells)
        heapq.heapify(self._due)
        self._sweep.begin_round(key for key in self._cases if key not in saved.again)

    def _unsaved(self, *, begins: bool) -> Iterator[Part]:
        ids = self._taken.unsaved(_ROUND)
        numbers = (self._taken.first, self._taken.count, self._taken.slice_at, self._taken.slice_end)
        yield Head(begins, self._now, len(self._cases), *numbers)
        yield from (SavedEpoch(subject, epoch) for subject, epoch in self._epochs.held)
        yield from (SavedBlocked(key, when) for key, when in self._caps.within(self._now))
        yield from map(SavedWaiting, self._second.waiting)
        yield from map(SavedApproval, self._approved.held)
        keys = self._sweep.unsaved(-(-len(self._cases) // _ROUND))
        yield from (Gone(key) for key in keys if key not in self._cases)
        yield from (save_case(self._cases[key]) for key in keys if key in self._cases)
        yield from ids

    # -- findings -------------------------------------------------------------------------------------------------

    def _whole(self, bucket: TenantBucket) -> list[Outcome]:
        """What a tenant's sums tell of the tenant as a whole: an alert, since no single identity is to blame."""
        case, end, out = self._case(bucket.tenant, ""), parse_millis(bucket.end), list[Outcome]()
        found = [*self._tenant_spike.take(case.whole.rhythm, bucket, end, self._now)]
        found += self._quotas.take(case.whole.used, bucket, end, self._now)
        for finding in found:
            incident = case.note(finding, self._config)
            self._look_again(case, self._now + self._quiet)
            out += [incident] if incident else []
        return out

    def _found(self, finding: Finding, arrived: int) -> list[Outcome]:
        ordered = self._approved.of(finding.tenant, finding.identity)
        if approval_of(finding, [*self._directory.approvals, *ordered] if ordered else self._directory.approvals):
            return []
        if self._is_common(finding):
            finding = damped(finding)
        case = self._case(finding.tenant, finding.identity)
        incident = case.note(finding, self._config)
        if incident is None:
            return []
        self._look_again(case, self._now + self._quiet)
        renewed = self._renewed(case)
        return renewed + self._answered(case, finding, case.incident or incident, arrived)

    def _answered(self, case: Case, finding: Finding, incident: Incident, arrived: int) -> list[Outcome]:
        """What a finding of an open incident leads to."""
        response = self._config.response
        if forbidden(finding, self._directory, response, arrived) is not None or case.answered(finding, self._now):
            return [incident]
        escaped = case.escapes(finding, self._now - int(response.renew_seconds * 1000))
        together = case.risk.since(self._now - int(response.together_minutes * 60_000))
        families, risk = together.families(self._now), together.total(self._now)
        wanted = answer(finding, families, risk, response, escaped=escaped)
        if wanted is not None and not wanted.exempt and self._caps.reached(case.tenant, case.identity, self._now):
            wanted = answer(finding, families, risk, response, escaped=escaped, capped=True)
        if wanted is None or STRICTNESS[wanted.action] <= self._strictness_over(case, finding, wanted):
            return [incident]
        if self._holders.get((case.tenant, wanted.scope, wanted.subject), case.identity) != case.identity:
            # Two identities with one session's or credential's name share a record of the kill switch, and the second
            # command would lift the first: this one is blocked as a whole.
            wanted = Answer(wanted.action, "identity", case.identity, exempt=wanted.exempt)
        # The incident as it stands after the block says all that it said before.
        return self._block(case, wanted, finding.reason, finding.finding_id, finding) or [incident]

    def _is_common(self, finding: Finding) -> bool:
        """Whether several identities of the tenant show what the finding speaks of."""
        if finding.evidence.shared is None:
            return False
        whole, response = self._case(finding.tenant, "").whole, self._config.response
        within = int(response.common_minutes * 60_000)
        return is_common(whole.shown, finding, parse_millis(finding.time), within, response.common_identities)

    @staticmethod
    def _strictness_over(case: Case, finding: Finding, wanted: Answer) -> int:
        """The strictness of what already blocks all that the finding speaks of, or all that `wanted` would."""
        covering = {
            ("identity", case.identity),
            ("credential", finding.evidence.credential_id),
            (wanted.scope, wanted.subject),
        }
        return max((STRICTNESS[block.action] for at, block in case.blocks.items() if at in covering), default=0)

    # -- commands -------------------------------------------------------------------------------------------------

    def _block(
        self, case: Case, wanted: Answer, reason: str, cause: str, finding: Finding | None, *, manual: bool = False
    ) -> list[Outcome]:
        held = case.blocks.get((wanted.scope, wanted.subject))
        if held is not None and held.manual and not manual and STRICTNESS[held.action] >= STRICTNESS[wanted.action]:
            return []
        lasting = (
            manual
            or wanted.action == "revoke"
            or case.blocks_within_day(self._now) + 1 >= self._config.response.permanent_after_blocks
        )
        escalates = held is not None or bool(case.blocks)
        if escalates and not manual:
            # One flare-up that climbs the ladder is one block, not two.
            lasting = wanted.action == "revoke" or any(block.expires is None for block in case.blocks.values())
        expires = None if lasting else self._now + self._period(wanted.action)
        limits = self._limits(finding) if wanted.action == "throttle" else None
        command = self._command(
            case, wanted.action, wanted.scope, wanted.subject, expires, reason, cause, manual=manual, limits=limits
        )
        if not escalates:
            case.block_starts.append(self._now)
            # What is exempt must not use the cap up either: it would shield the real thief.
            if not (manual or wanted.exempt):
                self._caps.count(case.tenant, case.identity, self._now)
        self._holders[case.tenant, wanted.scope, wanted.subject] = case.identity
        case.blocks[wanted.scope, wanted.subject] = InForce(
            wanted.action,
            wanted.scope,
            wanted.subject,
            expires,
            held.since if held else self._now,
            command.command_id,
            reason,
            manual,
            limits,
            # Gateways go on with what they obeyed before.
            command.mode == "shadow" and (held is None or held.shadow),
        )
        if expires is not None:
            self._look_again(case, expires - int(self._config.response.renew_seconds * 1000))
        if wanted.scope == "credential":
            # The block answers the theft; what the owner does with a new credential is judged anew.
            case.risk = Standing(self._config.risk)
        incident = case.responded(command)
        return [command, *([incident] if incident else [])]

    def _restore(
        self, case: Case, scope: Scope, subject: str, reason: str, cause: str, *, manual: bool = False,
        real: bool = False,
    ) -> list[Outcome]:  # fmt: skip
        """Gives back. `real`: gateways obey a block, whatever we know of it."""
        held = self._lift(case, scope, subject)
        # What was blocked in earnest is given back in earnest, though the policy says shadow by now.
        real = real or (held is not None and not held.shadow)
        command = self._command(
            case, "restore", scope, subject, None, reason, cause, manual=manual, mode="enforce" if real else None
        )
        incident = case.responded(command)
        self._look_again(case, self._now + self._quiet)
        return [command, *([incident] if incident else [])]

    def _command(
        self, case: Case, action: Action, scope: Scope, subject: str, expires: int | None, reason: str, cause: str,
        *, manual: bool = False, limits: Limits | None = None, mode: Literal["enforce", "shadow"] | None = None,
    ) -> Command:  # fmt: skip
        key = (case.tenant, scope, subject)
        epoch = self._epochs.next(key, self._now)
        incident = case.incident
        return Command(
            command_id=command_id(case.tenant, scope, subject, action, cause),
            time=format_millis(self._now),
            tenant=case.tenant,
            identity=case.identity or None,
            scope=scope,
            subject=subject,
            action=action,
            epoch=epoch,
            expires_at=None if expires is None else format_millis(expires),
            mode=mode or self._config.response.mode,
            reason=reason,
            incident_id=case.incident_id or f"inc-{cause}",
            finding_ids=incident.finding_ids if incident else [],
            policy=self._config.version,
            manual=manual,
            limits=limits,
        )

    # -- what falls due -------------------------------------------------------------------------------------------

    def _renewed(self, case: Case) -> list[Outcome]:
        """Renews at once what would end before it is looked at again."""
        soon = self._now + self._config.response.renew_seconds * 1000
        ends = any(b.expires is not None and self._now < b.expires <= soon for b in case.blocks.values())
        return self._review(case) if ends else []

    def _review(self, case: Case) -> list[Outcome]:
        """Renews or ends the blocks that expire, and closes an incident that has been quiet."""
        out: list[Outcome] = []
        response, now = self._config.response, self._now
        for (scope, subject), block in sorted(case.blocks.items()):
            if block.expires is None or now < block.expires - response.renew_seconds * 1000:
                continue
            active = max(case.denied_at, case.found_at)
            # What nobody looked at in time has ended at the gateways already.
            if now < block.expires and active > block.expires - response.renew_if_active_seconds * 1000:
                block.expires = now + self._period(block.action)
                reason = f"still active; {block.reason}"
                command = self._command(
                    case, block.action, scope, subject, block.expires, reason, f"renew:{block.command_id}",
                    limits=block.limits,
                )  # fmt: skip
                block.command_id, block.shadow = command.command_id, command.mode == "shadow"
                incident = case.responded(command)
                out += [command, *([incident] if incident else [])]
            elif now >= block.expires:
                out += self._restore(case, scope, subject, "expired: quiet since", f"expiry:{block.command_id}")
        upcoming = [
            int(block.expires - response.renew_seconds * 1000)
            for block in case.blocks.values()
            if block.expires is not None
        ]
        # A block that may yet be renewed is looked at once more at its expiry itself.
        for due, expires in ((due, due + int(response.renew_seconds * 1000)) for due in upcoming):
            self._look_again(case, due if due > now else expires)
        quiet_since = max(case.found_at, case.denied_at)
        if case.incident is not None and not upcoming and now - quiet_since >= self._quiet:
            closed = case.close(now)
            out += [closed] if closed else []
        elif case.incident is not None and not upcoming:
            self._look_again(case, quiet_since + self._quiet)
        return out

    def _ask_farewell(self) -> None:
        """Forgets the case whose turn it is, if it is over."""
        _, tenant, identity = heapq.heappop(self._farewells)
        case = self._cases[tenant, identity]
        self._sweep.change((tenant, identity))
        if case.over(self._now):
            del self._cases[tenant, identity]
        else:
            heapq.heappush(self._farewells, (case.next_farewell, tenant, identity))

    def _look_again(self, case: Case, moment: int) -> None:
        moment = max(moment, self._now + 1)
        if case.next_look is None or moment < case.next_look:
            case.next_look = moment
            heapq.heappush(self._due, (moment, case.tenant, case.identity))

    def _drop_replaced(self) -> None:
        """A case waits for one look at a time: drops from the top what an earlier look has replaced."""
        while self._due:
            moment, tenant, identity = self._due[0]
            case = self._cases.get((tenant, identity))
            if case is not None and case.next_look == moment:
                return
            heapq.heappop(self._due)

    @property
    def _quiet(self) -> int:
        return int(self._config.risk.quiet_minutes * 60_000)

    def _period(self, action: Action) -> int:
        response = self._config.response
        return int((response.suspend_minutes if action == "suspend" else response.throttle_minutes) * 60_000)

    def _limits(self, finding: Finding | None) -> Limits:
        """A throttle leaves the identity its own usual rate."""
        usual = finding.evidence.details.get("usual_requests_per_minute", 0.0) if finding else 0.0
        least = self._config.response.throttle_least_rpm
        return Limits(rpm=max(least, round(usual)) if isinstance(usual, int | float) else least)

    def _case(self, tenant: str, identity: str) -> Case:
        """The case of an identity with which something is done now."""
        key = (tenant, identity)
        case = self._cases.get(key)
        if case is None:
            case = self._cases[key] = Case(tenant, identity, self._config)
            case.touched = self._now
            case.over(self._now)
            heapq.heappush(self._farewells, (case.next_farewell, tenant, identity))
        self._touch(case)
        return case

    def _touch(self, case: Case) -> None:
        case.touched = self._now
        self._sweep.change((case.tenant, case.identity))
