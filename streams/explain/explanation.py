"""Puts together what explains a finding, or an incident by the finding that decided."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from detectors import DETECTORS
from responses.account import Account, account, brought_by
from schemas.batch import WORKLOADS
from schemas.command import STRICTNESS, Command
from schemas.directory import Directory
from schemas.finding import Finding, Kind
from schemas.incident import Incident
from schemas.times import format_millis, parse_millis, to_millis
from schemas.usage import UsageEvent
from streams.backtest.blocks import blocks_of
from streams.explain.again import Seen, State, changes, compute_again
from streams.explain.sources import Source, SourceError
from streams.policy import Loaded
from streams.policy_text import Line, comment_of, read_lines, within


class ExplainError(ValueError):
    """Nothing can be explained: there is no such finding or incident."""


class Call(Struct, frozen=True):
    """One call that a finding speaks of."""

    offset: int
    time: str
    id: str
    source: str
    model: str
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    status: int
    asn: int | None
    country: str | None
    session_id: str | None


class Word(Struct, frozen=True):
    """A detector's last word on the identity up to the finding, and how long before it (seconds); None: it has said
    nothing."""

    detector: str
    finding_id: str | None
    seconds_before: float | None
    severity: str | None
    score: float | None
    reason: str | None


class Key(Struct, frozen=True):
    """A key of the policy: its value as it is written, and its comment."""

    path: str
    value: str
    comment: str


class Recomputed(Struct, frozen=True):
    """How a finding that was computed again compares: `differences` are fields, empty where every byte is the same;
    `why_not` says why it could not be computed or was not found again."""

    finding_id: str
    reproduced: bool
    differences: list[str]
    why_not: str | None = None


class Explanation(Struct, frozen=True):
    """All of it. `calls_between` counts the identity's calls between the evidence's offsets; of these the first and the
    last are in `calls`. `state_before` has the rows of the finding's detector just before it was told."""

    finding: Finding
    incident: Incident | None
    policy: str
    calls_between: int
    calls: list[Call]
    state_before: State
    words: list[Word]
    decision: Account
    in_force: list[Command]
    commands: list[Command]
    detector_keys: list[Key]
    decision_keys: list[Key]
    recomputed: list[Recomputed]

    @property
    def reproduced(self) -> bool:
        """Whether every finding came out again, byte for byte."""
        return all(one.reproduced for one in self.recomputed)


def explain(name: str, source: Source, policy: Loaded, directory: Directory) -> Explanation:
    """Explains the finding or incident `name`.

    Raises:
        ExplainError: there is none of that name.
        EventsError, SourceError: its records can't be read.
    """
    incident, finding, others = _named(name, source)
    commands = source.commands(finding.tenant, finding.identity)
    upto = [f for f in source.findings(finding.tenant) if (f.time, f.finding_id) < (finding.time, finding.finding_id)]
    upto.append(finding)
    moment = parse_millis(finding.time)
    before = [c for c in commands if parse_millis(c.time) <= moment]
    ordered = source.approvals(finding.tenant)
    decision = account(upto, before, policy.for_responses, directory, ordered=ordered)
    recomputed, state, seen = _again(finding, others, source, policy, directory)
    lines = read_lines(Path(policy.path).read_text())
    return Explanation(
        finding=finding,
        incident=incident,
        policy=policy.version,
        calls_between=seen.count,
        calls=[_call(offset, event) for offset, event in (*seen.first, *seen.last)],
        state_before=state,
        words=_words([f for f in upto if f.identity == finding.identity], moment),
        decision=decision,
        in_force=[block.command for block in blocks_of(commands) if block.start < moment / 1000 < block.until],
        commands=[c for c in commands if brought_by(finding, c)],
        detector_keys=keys_at(lines, [finding.kind], finding.evidence.workload),
        decision_keys=keys_at(lines, decision.keys, None),
        recomputed=recomputed,
    )


def _named(name: str, source: Source) -> tuple[Incident | None, Finding, list[Finding]]:
    """The incident, if one is named; the finding that is explained; and the incident's other findings."""
    finding = source.finding(name)
    if finding is not None:
        return None, finding, []
    incident = source.incident(name)
    if incident is None:
        raise ExplainError(f"{name}: no such finding or incident")
    held = [f for f in (source.finding(one) for one in incident.finding_ids) if f is not None]
    if not held:
        raise ExplainError(f"{name}: none of its findings is there")
    of_identity = source.commands(incident.tenant, incident.identity) if incident.identity else []
    blocks = [c for c in of_identity if c.incident_id == incident.incident_id and STRICTNESS[c.action]]
    strongest = max(blocks, key=lambda c: STRICTNESS[c.action], default=None)
    # What brought the strongest block; where there is none, what the headline says.
    decided = (f for f in held if strongest is not None and brought_by(f, strongest))
    headline = (f for f in reversed(held) if f.reason == incident.headline)
    told = next(decided, None) or next(headline, held[-1])
    return incident, told, [f for f in held if f is not told]


def _again(
    finding: Finding, others: Sequence[Finding], source: Source, policy: Loaded, directory: Directory
) -> tuple[list[Recomputed], State, Seen]:
    every = [finding, *others]
    by_detectors = {detector.kind for detector in DETECTORS}
    if finding.kind not in by_detectors:
        cause = "it is made of a tenant's sums, not of one partition's events"
        return [Recomputed(f.finding_id, False, [], cause) for f in every], {}, Seen(0, [], [])
    try:
        again = compute_again(
            finding, [f for f in others if f.kind in by_detectors], source.items(finding.evidence.partition), policy,
            directory,
        )  # fmt: skip
    except SourceError as error:
        return [Recomputed(f.finding_id, False, [], str(error)) for f in every], {}, Seen(0, [], [])
    out = []
    for old in every:
        new = again.found.get(old.finding_id)
        reasons = [] if new else ["the events do not bring it again: are they the same, with the same directory?"]
        if policy.version != old.evidence.policy:
            reasons.append(f"it was made under policy {old.evidence.policy}, this is {policy.version}")
        why = "; ".join(reasons) or None
        differ = changes(old, new) if new else []
        out.append(Recomputed(old.finding_id, new is not None and not differ, differ, why))
    state = {part: row for part, row in again.before.items() if part.startswith(f"{finding.kind}.")}
    return out, state, again.events


def _words(findings: Sequence[Finding], moment: int) -> list[Word]:
    last: dict[Kind, Finding] = {f.kind: f for f in findings}
    out = []
    for kind in dict.fromkeys((*(detector.kind for detector in DETECTORS), *last)):
        f = last.get(kind)
        if f is None:
            out.append(Word(kind, None, None, None, None, None))
        else:
            before = (moment - parse_millis(f.time)) / 1000
            out.append(Word(kind, f.finding_id, before, f.severity, f.score, f.reason))
    return out


def keys_at(lines: Sequence[Line], paths: Sequence[str], workload: str | None) -> list[Key]:
    """The keys at or in `paths`, less those of other workload classes where one is named."""
    others = {name for name in WORKLOADS if workload and name != workload}
    found = [line for path in paths for line in within(lines, path) if line.key]
    return [
        Key(line.path, line.value, comment_of(line, lines)) for line in found if not others & {*line.section.split(".")}
    ]


def _call(offset: int, event: UsageEvent) -> Call:
    d = event.data
    return Call(
        offset, format_millis(to_millis(event.time)), event.id, event.source, d.model, d.input_tokens, d.output_tokens,
        d.cost_usd, d.status, d.asn, d.country, d.session_id,
    )  # fmt: skip
