"""An account of a decision: what an identity's findings added up to, and which rung or guard of the policy it met.

Computed from the findings alone, as an analyst would; `Decider` decides, and what it did is in its commands.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from responses.approved import Ordered, approval_of, last_ordered
from responses.common import Shown, damped, is_common
from responses.config import FAMILY, Config, Family
from responses.guards import forbidden
from responses.ladder import Answer, answer, is_stranger
from responses.risk import Standing
from schemas.command import Command, command_id
from schemas.directory import Directory
from schemas.finding import Finding
from schemas.times import parse_millis


class Account(Struct, frozen=True):
    """How things stood when the last of some findings had come.

    `families` has each family's points, `counted` those that hold enough to count towards a block. `approved` is the
    approval that covers the finding; `common` says that several identities of the tenant showed the same, which made it
    weak evidence; `guard` is what forbids any block. `wanted` is what the ladder asks for, on which `rung`. `keys` are
    the policy's keys that decided, by path.
    """

    risk: float
    families: dict[Family, float]
    counted: list[Family]
    approved: str | None
    common: bool
    guard: str | None
    rung: str | None
    wanted: Answer | None
    keys: list[str]


def account(
    findings: Sequence[Finding],
    commands: Sequence[Command],
    config: Config,
    directory: Directory,
    arrived: int = 0,
    ordered: Sequence[Ordered] = (),
) -> Account:
    """The account of the last of a tenant's `findings`, which are in order; `commands` are those on its identity that
    came before it or with it. `arrived` is when it reached the decider (ms; 0: unknown, as in a replay). `ordered` are
    the approvals that people ordered for the tenant's identities, in order."""
    finding = findings[-1]
    moment = parse_millis(finding.time)
    # After a blocked credential, and after a person gave access back, risk begins at nothing.
    thefts = [c for c in commands if c.scope == "credential" and c.action != "restore"]
    forgiven = sorted(parse_millis(c.time) for c in commands if c.manual and c.action == "restore")
    standing, shown = Standing(config), Shown()
    approval, counts, common = None, finding, False
    for one in findings:
        when = parse_millis(one.time)
        while forgiven and forgiven[0] < when:
            standing = Standing(config)
            forgiven.pop(0)
        approval = approval_of(one, [*directory.approvals, *last_ordered(ordered, one)])
        if approval is None:
            within = int(config.response.common_minutes * 60_000)
            common = is_common(shown, one, when, within, config.response.common_identities)
            counts = damped(one) if common else one
            if (one.identity, one.evidence.claimed) == (finding.identity, finding.evidence.claimed):
                standing.add(counts)
        if one is not finding and any(brought_by(one, command) for command in thefts):
            standing = Standing(config)
    together = standing.since(moment - int(config.response.together_minutes * 60_000))
    risk, counted = together.total(moment), together.families(moment)
    guard = forbidden(counts, directory, config.response, arrived)
    wanted = answer(counts, counted, risk, config.response, escaped=False) if approval is None else None
    rung = _rung(wanted, counts, config) if wanted else None
    keys = [f"risk.points.{counts.severity}", f"risk.half_life_minutes.{FAMILY[finding.kind]}", "risk.open"]
    if len(counted) > 1:
        keys.append("risk.family_bonus")
    if common:
        keys += ["response.common_identities", "response.common_minutes"]
    keys += ["response.families_to_block", "response.block_risk", "response.together_minutes"]
    if wanted and wanted.scope == "credential":
        keys.append("response.theft_points")
    if guard:
        keys += _guard_keys(counts, directory, config, arrived)
    if rung:
        keys.append(f"response.{finding.evidence.workload or 'interactive'}.{rung}")
    return Account(
        risk=round(risk, 2),
        families={name: round(points, 2) for name, _, _ in standing.held if (points := standing.of(name, moment))},
        counted=list(counted),
        approved=f"approved by {approval.approved_by}: {approval.reason}" if approval else None,
        common=common,
        guard=guard,
        rung=rung,
        wanted=wanted,
        keys=keys,
    )


def brought_by(finding: Finding, command: Command) -> bool:
    """Whether a command is what the decider answered to a finding: the finding is its cause, by which it is named."""
    named = (command.tenant, command.scope, command.subject, command.action)
    return command.command_id == command_id(*named, finding.finding_id)


def _rung(wanted: Answer, finding: Finding, config: Config) -> str:
    ladder = config.response.ladder(finding.evidence.workload)
    if wanted.exempt:
        return "deterministic"
    if is_stranger(finding) and wanted.action == ladder.stranger:
        return "stranger"
    if wanted.scope == "credential":
        return "theft" if wanted.action == ladder.theft else "families"
    return "extreme" if finding.evidence.extreme and wanted.action == ladder.extreme else "families"


def _guard_keys(finding: Finding, directory: Directory, config: Config, arrived: int) -> list[str]:
    """The thresholds without which the guard would not have held it back."""
    response = config.response
    if forbidden(finding, directory, msgspec.structs.replace(response, grace_minutes=0.0), arrived) is None:
        return ["response.grace_minutes"]
    return ["response.backlog_seconds"] if forbidden(finding, directory, response, 0) is None else []
