"""The blocks of a partition's tenants: ordered, renewed, given back, and taken over from an earlier owner."""

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec.structs import replace

from responses.case import Case, InForce
from responses.cases import Cases
from responses.config import Config
from responses.epochs import Epochs, Subject
from responses.guards import Caps
from responses.ladder import Answer, is_stranger
from responses.risk import Standing
from schemas.command import STRICTNESS, Action, Command, Limits, Scope, command_id
from schemas.finding import Finding
from schemas.incident import Incident
from schemas.times import format_millis, parse_millis

Outcome = Incident | Command


class Blocks:
    """Keeps what is in force, and issues every command."""

    def __init__(self, config: Config, cases: Cases, caps: Caps) -> None:
        self._config = config
        self._cases = cases
        self._caps = caps
        self.epochs = Epochs()
        self._holders: dict[Subject, str] = {}
        """The identity whose block stands under a (tenant, scope, subject)."""

    def holder(self, tenant: str, scope: Scope, subject: str) -> str | None:
        """The identity whose block stands under a subject."""
        return self._holders.get((tenant, scope, subject))

    def hold_those_of(self, cases: Iterable[Case]) -> None:
        """Takes note of the blocks in saved cases."""
        for case in cases:
            self._holders |= {(case.tenant, *at): case.identity for at in case.blocks}

    def last_epoch(self, subject: Subject) -> int:
        """The epoch of the last command about a subject; 0 where there is none, or the clock has passed it."""
        return self.epochs.last(subject)

    def in_force(self) -> Iterator[tuple[Subject, InForce]]:
        """What gateways obey, as far as we know."""
        for (tenant, scope, subject), identity in list(self._holders.items()):
            block = self._cases[tenant, identity].blocks[scope, subject]
            if not block.shadow:
                yield (tenant, scope, subject), block

    def resume(self, command: Command) -> None:
        """Takes note of the last command that an earlier owner of these tenants published for a subject."""
        key = (command.tenant, command.scope, command.subject)
        self.epochs.note(key, command.epoch)
        if command.action == "restore":
            return
        case = self._cases.of(command.tenant, command.identity or "")
        case.incident_id = command.incident_id
        self.hold(case, command, None if command.expires_at is None else parse_millis(command.expires_at))

    def adopt(self, command: Command) -> list[Outcome]:
        """Takes over what a person published without us, as that person's word."""
        key = (command.tenant, command.scope, command.subject)
        self.epochs.note(key, command.epoch)
        case = self.case_over(*key, command.identity or "")
        if command.action == "restore":
            self.lift(case, command.scope, command.subject)
            if command.scope in ("identity", "tenant"):
                case.forgive(self._cases.now, self._config)
        else:
            self.hold(case, replace(command, manual=True), None)
        incident = case.responded(command)
        return [incident] if incident else []

    def order_again(self, subject: Subject) -> list[Outcome]:
        """Orders anew what is in force, though what was ordered is no longer to be read."""
        tenant, scope, name = subject
        case = self.case_over(tenant, scope, name, "")
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
        self.epochs.note(key, command.epoch)
        case = self.case_over(*key, command.identity or "")
        reason = "not in force: a command that was over had been written again"
        return self.restore(case, command.scope, command.subject, reason, f"over:{command.command_id}", real=True)

    def hold(self, case: Case, command: Command, expires: int | None) -> None:
        """Has a block stand that is published already."""
        self._holders[case.tenant, command.scope, command.subject] = case.identity
        case.blocks[command.scope, command.subject] = InForce(
            command.action, command.scope, command.subject, expires, parse_millis(command.time), command.command_id,
            command.reason, command.manual, command.limits,
        )  # fmt: skip
        if expires is not None:
            self._cases.look_again(case, expires - int(self._config.response.renew_seconds * 1000))

    def lift(self, case: Case, scope: Scope, subject: str) -> InForce | None:
        """A block stands no more; the block."""
        self._holders.pop((case.tenant, scope, subject), None)
        return case.blocks.pop((scope, subject), None)

    def case_over(self, tenant: str, scope: Scope, subject: str, identity: str) -> Case:
        """The case under which a subject's block stands; where there is none, that of `identity`."""
        return self._cases.of(tenant, self._holders.get((tenant, scope, subject), identity))

    def block(
        self, case: Case, wanted: Answer, reason: str, cause: str, finding: Finding | None, *, manual: bool = False
    ) -> list[Outcome]:
        """Blocks as `wanted`, because of a finding or of a person (`manual`)."""
        held = case.blocks.get((wanted.scope, wanted.subject))
        if held is not None and held.manual and not manual and STRICTNESS[held.action] >= STRICTNESS[wanted.action]:
            return []
        lasting = (
            manual
            or wanted.action == "revoke"
            or case.blocks_within_day(self._cases.now) + 1 >= self._config.response.permanent_after_blocks
        )
        escalates = held is not None or bool(case.blocks)
        if escalates and not manual:
            # One flare-up that climbs the ladder is one block, not two.
            lasting = wanted.action == "revoke" or any(block.expires is None for block in case.blocks.values())
        expires = None if lasting else self._cases.now + self._period(wanted.action)
        limits = self._limits(finding) if wanted.action == "throttle" else None
        command = self._command(
            case, wanted.action, wanted.scope, wanted.subject, expires, reason, cause, manual=manual, limits=limits
        )
        if not escalates:
            case.block_starts.append(self._cases.now)
            # What is exempt must not use the cap up either: it would shield the real thief.
            if not (manual or wanted.exempt):
                self._caps.count(case.tenant, case.identity, self._cases.now)
        self._holders[case.tenant, wanted.scope, wanted.subject] = case.identity
        case.blocks[wanted.scope, wanted.subject] = InForce(
            wanted.action,
            wanted.scope,
            wanted.subject,
            expires,
            held.since if held else self._cases.now,
            command.command_id,
            reason,
            manual,
            limits,
            # Gateways go on with what they obeyed before.
            command.mode == "shadow" and (held is None or held.shadow),
        )
        if expires is not None:
            self._cases.look_again(case, expires - int(self._config.response.renew_seconds * 1000))
        if wanted.scope == "credential" and not (finding and is_stranger(finding)):
            # The block answers the theft; what the owner does with a new credential is judged anew. A stranger is shut
            # out for minutes, until more evidence makes it theft.
            case.risk = Standing(self._config)
        incident = case.responded(command)
        return [command, *([incident] if incident else [])]

    def restore(
        self, case: Case, scope: Scope, subject: str, reason: str, cause: str, *, manual: bool = False,
        real: bool = False,
    ) -> list[Outcome]:  # fmt: skip
        """Gives back. `real`: gateways obey a block, whatever we know of it."""
        held = self.lift(case, scope, subject)
        # What was blocked in earnest is given back in earnest, though the policy says shadow by now.
        real = real or (held is not None and not held.shadow)
        command = self._command(
            case, "restore", scope, subject, None, reason, cause, manual=manual, mode="enforce" if real else None
        )
        incident = case.responded(command)
        self._cases.look_again(case, self._cases.now + self.quiet)
        return [command, *([incident] if incident else [])]

    def _command(
        self, case: Case, action: Action, scope: Scope, subject: str, expires: int | None, reason: str, cause: str,
        *, manual: bool = False, limits: Limits | None = None, mode: Literal["enforce", "shadow"] | None = None,
    ) -> Command:  # fmt: skip
        key = (case.tenant, scope, subject)
        epoch = self.epochs.next(key, self._cases.now)
        incident = case.incident
        return Command(
            command_id=command_id(case.tenant, scope, subject, action, cause),
            time=format_millis(self._cases.now),
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

    def renewed(self, case: Case) -> list[Outcome]:
        """Renews at once what would end before it is looked at again."""
        soon = self._cases.now + self._config.response.renew_seconds * 1000
        ends = any(b.expires is not None and self._cases.now < b.expires <= soon for b in case.blocks.values())
        return self.review(case) if ends else []

    def review(self, case: Case) -> list[Outcome]:
        """Renews or ends the blocks that expire, and closes an incident that has been quiet."""
        out: list[Outcome] = []
        response, now = self._config.response, self._cases.now
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
                out += self.restore(case, scope, subject, "expired: quiet since", f"expiry:{block.command_id}")
        upcoming = [
            int(block.expires - response.renew_seconds * 1000)
            for block in case.blocks.values()
            if block.expires is not None
        ]
        # A block that may yet be renewed is looked at once more at its expiry itself.
        for due, expires in ((due, due + int(response.renew_seconds * 1000)) for due in upcoming):
            self._cases.look_again(case, due if due > now else expires)
        quiet_since = max(case.found_at, case.claimed_at, case.denied_at)
        if case.incident is not None and not upcoming and now - quiet_since >= self.quiet:
            closed = case.close(now)
            out += [closed] if closed else []
        elif case.incident is not None and not upcoming:
            self._cases.look_again(case, quiet_since + self.quiet)
        return out

    def _period(self, action: Action) -> int:
        response = self._config.response
        return int((response.suspend_minutes if action == "suspend" else response.throttle_minutes) * 60_000)

    def _limits(self, finding: Finding | None) -> Limits:
        """A throttle leaves the identity its own usual rate."""
        usual = finding.evidence.details.get("usual_requests_per_minute", 0.0) if finding else 0.0
        least = self._config.response.throttle_least_rpm
        return Limits(rpm=max(least, round(usual)) if isinstance(usual, int | float) else least)

    @property
    def quiet(self) -> int:
        """Milliseconds without a finding or a denied call after which an incident is closed."""
        return int(self._config.risk.quiet_minutes * 60_000)
