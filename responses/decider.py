"""Decides: signals of tenants in, incidents and commands out. One per partition of `llm.signals`.

Its clock is the signals' own time. What it answers depends on the signals and requests in their order, on the policy
and on the directory alone.
"""

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from responses.approved import Approved, approval_of, excuses
from responses.blocks import Blocks, Outcome
from responses.case import Case
from responses.cases import Cases
from responses.common import damped, is_common, is_unheard, of_tenant
from responses.config import Config
from responses.guards import Caps, forbidden
from responses.ladder import Answer, answer
from responses.quotas import TenantQuotas
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
from responses.taken import Taken
from responses.tenant_spike import TenantSpike
from schemas.command import STRICTNESS
from schemas.directory import Approval, Directory
from schemas.finding import Finding, Signal, TenantBucket
from schemas.incident import Incident
from schemas.piece import Checkpoint
from schemas.request import Request
from schemas.times import parse_millis

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
        self._cases = Cases(config)
        self.blocks = Blocks(config, self._cases, self._caps)
        """What is in force, and what an earlier owner of these tenants left so."""
        self._tenant_spike = TenantSpike(config.tenant_spike, config.version)
        self._quotas = TenantQuotas(directory, config.warn_share, config.version)
        self._approved = Approved()
        self._second = SecondPerson(config.response.second_person_minutes)
        self._taken = Taken()

    @property
    def now(self) -> int:
        """The clock, in ms of event time."""
        return self._cases.now

    @property
    def cases(self) -> int:
        """How many identities have a case."""
        return len(self._cases)

    @property
    def due(self) -> int | None:
        """When (ms) the next thing falls due though no signal comes: a block that ends, an incident that closes."""
        return self._cases.due

    # -- signals and orders ---------------------------------------------------------------------------------------

    def take(self, signal: Signal, arrived: int = 0) -> list[Outcome]:
        """What follows from a signal that reached us at `arrived` (ms of the broker's clock; 0: unknown)."""
        out = self.wait_until(parse_millis(signal.time))
        if isinstance(signal, Finding):
            # A finding is published again after a crash, with the same id.
            out += self._found(signal, arrived) if self._taken.add(signal.finding_id) else []
        elif isinstance(signal, TenantBucket):
            for identity in signal.denied:
                case = self._cases.get(signal.tenant, identity)
                if case is not None:
                    case.denied_at = self._cases.now
                    self._cases.touch(case)
                    out += self.blocks.renewed(case)
            out += self._whole(signal)
        return out

    def wait_until(self, moment: int) -> list[Outcome]:
        """Moves the clock to `moment` (ms); what falls due by then happens now."""
        self._cases.now = max(self._cases.now, moment)
        self.blocks.epochs.forget(self._cases.now)
        self._second.forget(self._cases.now)
        self._approved.forget(self._cases.now)
        out = [outcome for case in self._cases.fall_due() for outcome in self.blocks.review(case)]
        self._cases.forget()
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
        agreed = self._second.agreed(request, person, max(self._cases.now, parse_millis(request.time)))
        out = self.wait_until(parse_millis(request.time))
        self._taken.add(request.request_id)
        return out if agreed is None else out + self._carry_out(agreed)

    def _carry_out(self, request: Request) -> list[Outcome]:
        scope, subject, cause = request.scope, request.about, request.request_id
        reason = f"{request.reason} ({request.by})"
        if request.action == "approve":
            return self._approve(self._approved.add(request), request.tenant, reason, cause)
        case = self.blocks.case_over(request.tenant, scope, subject, request.identity)
        if request.action != "restore":
            return self.blocks.block(case, Answer(request.action, scope, subject), reason, cause, None, manual=True)
        if scope == "identity":
            case.forgive(self._cases.now, self._config)
            return [
                outcome
                for at in sorted({*case.blocks, (scope, subject)})
                for outcome in self.blocks.restore(case, *at, reason, cause, manual=True)
            ]
        return self.blocks.restore(case, scope, subject, reason, cause, manual=True)

    def _approve(self, approval: Approval, tenant: str, reason: str, cause: str) -> list[Outcome]:
        """Ends what we ordered ourselves, if all that led to it is what was approved, whenever it was found."""
        case = self._cases.get(tenant, approval.identity)
        if case is None or not case.findings or not all(excuses(approval, one) for one in case.findings.values()):
            return []
        self._cases.touch(case)
        case.forgive(self._cases.now, self._config)
        ours = sorted(at for at, block in case.blocks.items() if not block.manual)
        return [outcome for at in ours for outcome in self.blocks.restore(case, *at, reason, cause, manual=True)]

    # -- saved state ----------------------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """What changed since the last call, and the next slice of everything else.

        Once the slices have had everything, the next round begins.
        """
        begins = self._cases.sweep.swept and self._taken.swept
        if begins:
            self._cases.begin_round()
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
        self._cases.now = head.now
        for subject, epoch in saved.epochs.items():
            self.blocks.epochs.note(subject, epoch)
        for (tenant, identity), when in saved.blocked.items():
            self._caps.count(tenant, identity, when)
        self._second.restore(saved.waiting)
        self._approved.restore(saved.approvals)
        cases = [load_case(case, self._config) for case in saved.cases.values()]
        self._cases.restore(cases, saved.again)
        self.blocks.hold_those_of(cases)

    def _unsaved(self, *, begins: bool) -> Iterator[Part]:
        ids = self._taken.unsaved(_ROUND)
        numbers = (self._taken.first, self._taken.count, self._taken.slice_at, self._taken.slice_end)
        yield Head(begins, self._cases.now, len(self._cases), *numbers)
        yield from (SavedEpoch(subject, epoch) for subject, epoch in self.blocks.epochs.held)
        yield from (SavedBlocked(key, when) for key, when in self._caps.within(self._cases.now))
        yield from map(SavedWaiting, self._second.waiting)
        yield from map(SavedApproval, self._approved.held)
        written = [(key, self._cases.get(*key)) for key in self._cases.unsaved(_ROUND)]
        yield from (Gone(key) for key, case in written if case is None)
        yield from (save_case(case) for _, case in written if case is not None)
        yield from ids

    # -- findings -------------------------------------------------------------------------------------------------

    def _whole(self, bucket: TenantBucket) -> list[Outcome]:
        """What a tenant's sums tell of the tenant as a whole: an alert, since no single identity is to blame."""
        case, end = self._cases.of(bucket.tenant, ""), parse_millis(bucket.end)
        found = [*self._tenant_spike.take(case.whole.rhythm, bucket, end, self._cases.now)]
        found += self._quotas.take(case.whole.used, bucket, end, self._cases.now)
        return [outcome for finding in found for outcome in self._note(case, finding)]

    def _note(self, case: Case, finding: Finding) -> list[Outcome]:
        """The incident of a tenant as a whole that a finding opens or updates."""
        incident = case.note(finding, self._config)
        self._cases.look_again(case, self._cases.now + self.blocks.quiet)
        return [incident] if incident else []

    def _found(self, finding: Finding, arrived: int) -> list[Outcome]:
        ordered = self._approved.of(finding.tenant, finding.identity)
        if approval_of(finding, [*self._directory.approvals, *ordered] if ordered else self._directory.approvals):
            return []
        out, common = list[Outcome](), self._is_common(finding)
        if self._is_unheard(finding, common=common):
            whole, within = self._cases.of(finding.tenant, ""), self._config.response.common_minutes
            out = self._note(whole, of_tenant(finding, self._config.response.common_identities, within))
        if common:
            finding = damped(finding)
        case = self._cases.of(finding.tenant, finding.identity)
        incident = case.note(finding, self._config)
        if incident is None:
            return out
        self._cases.look_again(case, self._cases.now + self.blocks.quiet)
        out += self.blocks.renewed(case)
        return out + self._answered(case, finding, case.incident or incident, arrived)

    def _answered(self, case: Case, finding: Finding, incident: Incident, arrived: int) -> list[Outcome]:
        """What a finding of an open incident leads to."""
        response = self._config.response
        if forbidden(finding, self._directory, response, arrived) is not None or case.answered(
            finding, self._cases.now
        ):
            return [incident]
        escaped = case.escapes(finding, self._cases.now - int(response.renew_seconds * 1000))
        together = case.risk.since(self._cases.now - int(response.together_minutes * 60_000))
        families, risk = together.families(self._cases.now), together.total(self._cases.now)
        wanted = answer(finding, families, risk, response, escaped=escaped)
        if wanted is not None and not wanted.exempt and self._caps.reached(case.tenant, case.identity, self._cases.now):
            wanted = answer(finding, families, risk, response, escaped=escaped, capped=True)
        if wanted is None or STRICTNESS[wanted.action] <= self._strictness_over(case, finding, wanted):
            return [incident]
        if self.blocks.holder(case.tenant, wanted.scope, wanted.subject) not in (None, case.identity):
            # Two identities with one session's or credential's name share a record of the kill switch, and the second
            # command would lift the first: this one is blocked as a whole.
            wanted = Answer(wanted.action, "identity", case.identity, exempt=wanted.exempt)
        # The incident as it stands after the block says all that it said before.
        return self.blocks.block(case, wanted, finding.reason, finding.finding_id, finding) or [incident]

    def _is_common(self, finding: Finding) -> bool:
        """Whether several identities of the tenant show what the finding speaks of."""
        if finding.evidence.shared is None:
            return False
        whole, response = self._cases.of(finding.tenant, "").whole, self._config.response
        within = int(response.common_minutes * 60_000)
        return is_common(whole.shown, finding, parse_millis(finding.time), within, response.common_identities)

    def _is_unheard(self, finding: Finding, *, common: bool) -> bool:
        """Whether several identities of the tenant were damped and nobody was told of any."""
        if finding.evidence.shared is None:
            return False
        held, response = self._cases.of(finding.tenant, "").whole.together, self._config.response
        within, moment = int(response.common_minutes * 60_000), parse_millis(finding.time)
        return is_unheard(held, finding, moment, within, response.common_identities, common=common)

    @staticmethod
    def _strictness_over(case: Case, finding: Finding, wanted: Answer) -> int:
        """The strictness of what already blocks all that the finding speaks of, or all that `wanted` would."""
        covering = {
            ("identity", case.identity),
            ("credential", finding.evidence.credential_id),
            (wanted.scope, wanted.subject),
        }
        return max((STRICTNESS[block.action] for at, block in case.blocks.items() if at in covering), default=0)
