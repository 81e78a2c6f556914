"""How well incidents and commands answer a corpus's labels.

An attack (the labels of one `group`, else one label) is *seen* when an incident on its identity was opened, or raised
again, from its first event to two minutes after its end; *named* when the strongest kind of such an incident is one
that the label accepts; *contained* when a command that blocks enough falls into that time: a throttle alone does not
contain what asks for a suspension or a revocation. *Lost* is the share of an attack's cost that was spent while no
block held. Seconds count from the attack's start. What answers a whole tenant answers only attacks that accept
`tenant_spike`.

An alarm outside every attack and every look-alike on which an alert is tolerable is false, up to an hour after a
label's end; a block outside every attack is false, also on a look-alike; renewals within an hour are one. Shadow
commands count for nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np
from msgspec import Struct, field

from schemas.command import Action, Command
from schemas.finding import Finding
from schemas.incident import Incident
from streams.backtest.blocks import Held, blocks_of, seconds
from streams.backtest.calls import Calls
from streams.backtest.corpus import Label

_GRACE, _ALARM_SLACK, _BLOCK_SLACK, _SAME_BLOCK = 120.0, 3600.0, 600.0, 3600.0
_EARLY = 1.0
_DAY = 86_400.0
_STRENGTH: dict[Action, int] = {"throttle": 1, "downgrade": 1, "suspend": 2, "revoke": 3}


class Score(Struct, frozen=True):
    """All attacks together. Shares are 0 to 1, None where there was nothing to count."""

    events: int
    identity_days: float
    attacks: int
    seen: float | None
    named: float | None
    contained: float | None
    median_seconds_to_detect: float | None
    median_seconds_to_contain: float | None
    median_minutes_blocked_after: float | None
    cost_lost_share: float | None
    incidents: int
    false_alarms: int
    false_alarms_per_1000_identity_days: float
    false_blocks: int
    false_blocks_per_10000_identity_days: float
    blocked_look_alikes: dict[str, int]


class AttackScore(Struct, frozen=True):
    """The attacks of one kind."""

    attacks: int
    seen: float | None
    named: float | None
    contained: float | None
    median_seconds_to_detect: float | None
    median_seconds_to_contain: float | None
    cost_lost_share: float | None


class KindScore(Struct, frozen=True):
    """One kind of finding: how many alarms (incidents opened or raised again) it took part in, which of these were
    right and which false (an alert that is tolerable is neither), and how soon after its start it told an attack."""

    alarms: int
    right: int
    false: int
    precision: float | None
    attacks_told: int
    median_seconds_to_detect: float | None


class Scored(Struct, frozen=True):
    """All of it."""

    score: Score
    by_attack: dict[str, AttackScore]
    by_kind: dict[str, KindScore]


class _Answers(Struct):
    """What became of the attacks of one kind, an entry per attack."""

    seen: list[bool] = field(default_factory=list)
    named: list[bool] = field(default_factory=list)
    contained: list[bool] = field(default_factory=list)
    detect: list[float] = field(default_factory=list)
    contain: list[float] = field(default_factory=list)
    overrun: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)


class _Span(Struct, frozen=True):
    """A label with its times in seconds."""

    label: Label
    tenant: str
    since: float
    start: float
    end: float

    def within(self, moment: float, slack: float) -> bool:
        return self.since - _EARLY <= moment <= self.end + slack


class _Alarm(Struct, frozen=True):
    incident: Incident
    time: float


def score(
    labels: Sequence[Label],
    calls: Calls,
    tenants: dict[str, str],
    watched: int,
    findings: Sequence[Finding],
    incidents: Iterable[Incident],
    commands: Iterable[Command],
) -> Scored:
    """Scores against `labels`. `tenants` has identities' tenants; `watched` is how many identities could have raised
    a false alarm."""
    spans = [_span(label, tenants) for label in labels]
    ordered = sorted(incidents, key=lambda i: (i.opened, i.incident_id))
    alarms = [_Alarm(i, seconds(time)) for i in ordered for time in (i.opened, *i.raised)]
    blocks = blocks_of(c for c in commands if c.mode == "enforce")
    costs = _Costs(calls)
    by_attack: dict[str, _Answers] = defaultdict(_Answers)
    attacks = _attacks(spans)
    for attack in attacks:
        _judge(by_attack[attack[0].label.attack], attack, alarms, blocks, costs)
    false_alarms = [
        a for a in alarms if not any(s.within(a.time, _ALARM_SLACK) for s in _near(a.incident, spans, ok=True))
    ]
    false_blocks = _false_blocks(blocks, spans)
    look_alikes = Counter(
        s.label.attack
        for b in false_blocks
        for s in spans
        if _about(b.command, s) and not s.label.is_attack and s.start <= b.start <= s.end
    )
    days = (costs.last - costs.first) / _DAY * watched
    every = list(by_attack.values())
    overall = Score(
        events=len(calls),
        identity_days=round(days, 1),
        attacks=len(attacks),
        seen=_share([x for a in every for x in a.seen]),
        named=_share([x for a in every for x in a.named]),
        contained=_share([x for a in every for x in a.contained]),
        median_seconds_to_detect=_median([x for a in every for x in a.detect]),
        median_seconds_to_contain=_median([x for a in every for x in a.contain]),
        median_minutes_blocked_after=_median([x for a in every for x in a.overrun]),
        cost_lost_share=_share([x for a in every for x in a.lost]),
        incidents=len(ordered),
        false_alarms=len(false_alarms),
        false_alarms_per_1000_identity_days=_per(len(false_alarms), days, 1000),
        false_blocks=len(false_blocks),
        false_blocks_per_10000_identity_days=_per(len(false_blocks), days, 10_000),
        blocked_look_alikes=dict(look_alikes),
    )
    of_attacks = {name: _attack_score(answers) for name, answers in sorted(by_attack.items())}
    return Scored(overall, of_attacks, _by_kind(attacks, spans, alarms, false_alarms, findings))


def _span(label: Label, tenants: dict[str, str]) -> _Span:
    start = label.start.timestamp()
    since = label.since.timestamp() if label.since else start
    return _Span(label, tenants.get(label.identity, "-"), since, start, label.end.timestamp())


def _attacks(spans: Sequence[_Span]) -> list[list[_Span]]:
    groups: dict[object, list[_Span]] = defaultdict(list)
    for number, span in enumerate(spans):
        if span.label.is_attack:
            groups[span.label.group or (number,)].append(span)
    return list(groups.values())


def _about(what: Incident | Command, span: _Span) -> bool:
    """Whether it is on the label's identity, or on its whole tenant."""
    return what.identity == span.label.identity if what.identity else what.tenant == span.tenant


def _answers(what: Incident | Command, span: _Span) -> bool:
    """Whether it can be an answer to the label."""
    return _about(what, span) and bool(what.identity or "tenant_spike" in span.label.accept)


def _near(what: Incident | Command, spans: Sequence[_Span], *, ok: bool) -> list[_Span]:
    """The labels about the same identity or tenant on which an alarm (`ok`), else on which a block is right."""
    return [s for s in spans if _about(what, s) and (s.label.response != "none" if ok else s.label.is_attack)]


class _Costs:
    """Each identity's calls, and when the first and the last of all was (seconds)."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._rows: dict[str, list[int]] = defaultdict(list)
        for number, (_, subject) in enumerate(calls.identities):
            self._rows[subject].append(number)
        self.first = float(calls.time.min(initial=np.inf)) if len(calls) else 0.0
        self.last = float(calls.time.max(initial=0.0))

    def lost(self, span: _Span, blocks: Sequence[Held], need: int) -> tuple[float, float]:
        """USD that an attack's calls cost, and of these what was spent while no block held. A block that is weaker than
        needed holds in part."""
        mine = np.isin(self._calls.who, self._rows[span.label.identity])
        mine &= (self._calls.time >= span.since) & (self._calls.time <= span.end)
        time, cost = self._calls.time[mine], self._calls.cost[mine]
        held = np.zeros(len(time))
        for block in blocks:
            covers = (time > block.start) & (time <= block.until)
            held[covers] = np.maximum(held[covers], min(1.0, _STRENGTH[block.command.action] / need))
        return float(cost.sum()), float((cost * (1 - held)).sum())


def _judge(
    answers: _Answers, attack: Sequence[_Span], alarms: Sequence[_Alarm], blocks: Sequence[Held], costs: _Costs
) -> None:
    """Adds what became of one attack."""
    label, start = attack[0].label, min(s.start for s in attack)
    heard = [(a, s) for s in attack for a in alarms if _answers(a.incident, s) and s.since <= a.time <= s.end + _GRACE]
    answers.seen.append(bool(heard))
    answers.named.append(any(set(a.incident.kinds[:1]) & set(s.label.accept) for a, s in heard))
    if heard:
        answers.detect.append(max(0.0, min(a.time for a, _ in heard) - start))
    if label.response not in _STRENGTH:
        return
    need = 2 if label.response in ("suspend", "revoke") else 1
    fell = [b for s in attack for b in blocks if _answers(b.command, s) and s.since <= b.start <= s.end + _GRACE]
    enough = [b for b in fell if _STRENGTH[b.command.action] >= need]
    answers.contained.append(bool(enough))
    if enough:
        answers.contain.append(max(0.0, min(b.start for b in enough) - start))
    spent = lost = 0.0
    for span in attack:
        mine = [b for b in fell if _answers(b.command, span)]
        paid, unheld = costs.lost(span, mine, need)
        spent, lost = spent + paid, lost + unheld
        if enough and label.response != "revoke":
            answers.overrun += [max(0.0, min(b.until, costs.last) - span.end) / 60 for b in mine[-1:]]
    if spent:
        answers.lost.append(lost / spent)


def _false_blocks(blocks: Sequence[Held], spans: Sequence[_Span]) -> list[Held]:
    last: dict[str, float] = {}
    out: list[Held] = []
    for block in blocks:
        right = (s for s in _near(block.command, spans, ok=False) if _answers(block.command, s))
        if any(s.within(block.start, _BLOCK_SLACK) for s in right):
            continue
        if block.start - last.get(block.whom, -np.inf) >= _SAME_BLOCK:
            last[block.whom] = block.start
            out.append(block)
    return out


def _by_kind(
    attacks: Sequence[Sequence[_Span]],
    spans: Sequence[_Span],
    alarms: Sequence[_Alarm],
    false_alarms: Sequence[_Alarm],
    findings: Sequence[Finding],
) -> dict[str, KindScore]:
    total, wrong, right = Counter[str](), Counter[str](), Counter[str]()
    for alarm in alarms:
        total.update(alarm.incident.kinds)
        if any(s.within(alarm.time, _ALARM_SLACK) for s in _near(alarm.incident, spans, ok=False)):
            right.update(alarm.incident.kinds)
    for alarm in false_alarms:
        wrong.update(alarm.incident.kinds)
    of: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for finding in findings:
        of[finding.identity].append((seconds(finding.time), finding.kind))
    told: dict[str, list[float]] = defaultdict(list)
    for attack in attacks:
        start, first = min(s.start for s in attack), dict[str, float]()
        for span in attack:
            for moment, kind in of[span.label.identity]:
                if span.since <= moment <= span.end + _GRACE:
                    first[kind] = min(moment, first.get(kind, np.inf))
        for kind, moment in first.items():
            told[kind].append(max(0.0, moment - start))
    return {
        kind: KindScore(
            alarms=total[kind],
            right=right[kind],
            false=wrong[kind],
            precision=round(right[kind] / (right[kind] + wrong[kind]), 4) if right[kind] + wrong[kind] else None,
            attacks_told=len(told[kind]),
            median_seconds_to_detect=_median(told[kind]),
        )
        for kind in sorted({*total, *told})
    }


def _attack_score(answers: _Answers) -> AttackScore:
    return AttackScore(
        attacks=len(answers.seen),
        seen=_share(answers.seen),
        named=_share(answers.named),
        contained=_share(answers.contained),
        median_seconds_to_detect=_median(answers.detect),
        median_seconds_to_contain=_median(answers.contain),
        cost_lost_share=_share(answers.lost),
    )


def _share(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _median(values: Sequence[float]) -> float | None:
    return round(median(values), 1) if values else None


def _per(count: int, days: float, many: int) -> float:
    return round(count / days * many, 2) if days else 0.0
