"""What several identities of a tenant show at once is no single one's fault."""

from msgspec import Struct
from msgspec.structs import replace
from xxhash import xxh3_64_hexdigest

from responses.config import FAMILY
from schemas.finding import Finding, Severity

Shown = dict[str, dict[str, int]]
"""By what is shared: the identities that showed it, and when each did last (ms)."""
_MOST = 64
"""Things that a tenant's identities may share at a time; the one that was shown longest ago makes room."""
_DAMPED: Severity = "low"
_TOLD_ALONE: tuple[Severity, ...] = ("medium", "high", "critical")
"""Of an identity alone these open an incident."""


class Together(Struct):
    """The identities that showed one thing, each clearly enough to be told alone, when each did last (ms), and whether
    anybody was told since the first of them did."""

    identities: dict[str, int] = {}
    told: bool = False


def is_common(shown: Shown, finding: Finding, moment: int, within: int, enough: int) -> bool:
    """Takes note of what a finding says others would show too; returns whether by now `enough` identities of the
    tenant have shown it within the last `within` ms before `moment` (ms)."""
    shared = finding.evidence.shared
    if shared is None:
        return False
    who = {name: when for name, when in shown.pop(shared, {}).items() if when >= moment - within}
    who.pop(finding.identity, None)
    who[finding.identity] = moment
    # More than enough need not be remembered.
    shown[shared] = dict(list(who.items())[-enough:])
    for old in list(shown)[: max(0, len(shown) - _MOST)]:
        del shown[old]
    return len(shown[shared]) >= enough


def damped(finding: Finding) -> Finding:
    """The finding as weak evidence: it counts together with what is the identity's own, and for nothing alone."""
    evidence = replace(finding.evidence, deterministic=False, extreme=False)
    return replace(finding, severity=_DAMPED, evidence=evidence)


def is_unheard(
    held: dict[str, Together], finding: Finding, moment: int, within: int, enough: int, *, common: bool
) -> bool:
    """Takes note of a finding, which is damped if it is `common`; returns whether so many identities have by now been
    damped, none of them longer than `within` ms after the one before, that the tenant is to be told. It is told once,
    and not where one of them was told alone: nobody wants to hear twice of an office that moved."""
    shared = finding.evidence.shared
    if shared is None or finding.severity not in _TOLD_ALONE:
        return False
    of = held.pop(shared, None) or Together()
    who = {name: when for name, when in of.identities.items() if when >= moment - within and name != finding.identity}
    # More than enough need not be remembered.
    of.told = not common or (of.told and any(when >= moment - within for when in of.identities.values()))
    of.identities = dict([*who.items(), (finding.identity, moment)][-enough:])
    held[shared] = of
    for old in list(held)[: max(0, len(held) - _MOST)]:
        del held[old]
    if of.told or len(of.identities) < enough:
        return False
    of.told = True
    return True


def of_tenant(finding: Finding, enough: int, minutes: float) -> Finding:
    """What is told of the tenant once `enough` of its identities were damped, within so many minutes of each other, and
    this finding was the last. An alert, since no single identity is to blame."""
    evidence = replace(
        finding.evidence,
        deterministic=False,
        extreme=False,
        credential_id=None,
        session_id=None,
        workload=None,
        identity_trust=None,
        shared=None,
        usd_per_minute=0.0,
        baseline_usd_per_minute=0.0,
    )
    return replace(
        finding,
        finding_id="f-" + xxh3_64_hexdigest(f"common\0{finding.tenant}\0\0{finding.finding_id}".encode()),
        identity="",
        kind="tenant_spike" if FAMILY[finding.kind] == "velocity" else finding.kind,
        severity="medium",
        reason=(
            f"at least {enough} identities of the tenant show the same within {minutes:g} min "
            f"({finding.evidence.shared}), {finding.identity} the last: {finding.reason}"
        ),
        evidence=evidence,
    )
