"""Which response the evidence asks for, and how narrow it can be."""

from collections.abc import Mapping

from msgspec import Struct

from responses.config import FAMILY, Block, Family, Response
from schemas.command import STRICTNESS, Scope
from schemas.finding import Finding, Severity

_OF_THEFT: frozenset[Family] = frozenset(("place", "velocity", "sharing", "mix", "sleep", "failure"))
_GRAVE: frozenset[Severity] = frozenset(("high", "critical"))
_GEOGRAPHY: frozenset[Family] = frozenset(("place", "sharing"))


class Answer(Struct, frozen=True):
    """A block on `subject` within `scope`; `exempt` from the caps when a deterministic rule told."""

    action: Block
    scope: Scope
    subject: str
    exempt: bool = False


def answer(
    finding: Finding,
    families: Mapping[Family, float],
    risk: float,
    response: Response,
    *,
    escaped: bool,
    capped: bool = False,
) -> Answer | None:
    """The block that a finding, with the families that hold risk by now and their points, asks for; None where an
    alert is enough.

    `escaped` tells that a narrower block is in force and did not stop it. `capped` leaves of what is not exempt a
    throttle: a cap must not shield the real thief behind decoys. The place alone never blocks; a client that the
    identity never had, at work where it never was, is more than the place.
    """
    evidence = finding.evidence
    ladder = response.ladder(evidence.workload)
    answers: list[Answer] = []
    if evidence.deterministic:
        action = ladder.deterministic if finding.severity in _GRAVE else "throttle"
        if evidence.session_id and not escaped:
            answers.append(Answer(action, "session", evidence.session_id, exempt=True))
        else:
            answers.append(Answer(action, "identity", finding.identity, exempt=True))
    if evidence.extreme:
        answers.append(Answer(ladder.extreme, "identity", finding.identity))
    if is_stranger(finding):
        answers.append(Answer(ladder.stranger, *_credential_of(finding)))
    if len(families) >= response.families_to_block and risk >= response.block_risk:
        if "place" in families and evidence.credential_id and FAMILY[finding.kind] in _OF_THEFT:
            # Theft blocks the credential: rotating it heals. Where the place is weak, or geography is all there is, the
            # block ends by itself.
            certain = families["place"] >= response.theft_points and families.keys() - _GEOGRAPHY
            answers.append(Answer(ladder.theft if certain else ladder.families, "credential", evidence.credential_id))
        else:
            answers.append(Answer(ladder.families, "identity", finding.identity))
    if capped:
        answers = [a if a.exempt else Answer("throttle", a.scope, a.subject) for a in answers]
    return max(answers, key=lambda a: (STRICTNESS[a.action], a.scope == "session"), default=None)


def is_stranger(finding: Finding) -> bool:
    """Whether a finding is of somebody at work whose client, network and country are all new to the identity."""
    return finding.kind == "geo_shift" and finding.evidence.details.get("pattern") == "stranger"


def _credential_of(finding: Finding) -> tuple[Scope, str]:
    """The narrowest that shuts out whoever else has the identity's credential."""
    credential = finding.evidence.credential_id
    return ("credential", credential) if credential else ("identity", finding.identity)
