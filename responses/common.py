"""What several identities of a tenant show at once is no single one's fault."""

from msgspec.structs import replace

from schemas.finding import Finding, Severity

Shown = dict[str, dict[str, int]]
"""By what is shared: the identities that showed it, and when each did last (ms)."""
_MOST = 64
"""Things that a tenant's identities may share at a time; the one that was shown longest ago makes room."""
_DAMPED: Severity = "low"


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
