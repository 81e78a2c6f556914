"""An explanation at a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from responses.account import Account
from schemas.command import Command
from schemas.incident import Incident
from streams.explain.explanation import Call, Explanation, Key, Recomputed, Word
from streams.explain.whole import Grown, WholeExplanation

_SEVERITY = {"critical": "bold red", "high": "red", "medium": "yellow"}


def screen(e: Explanation) -> RenderableType:
    """All parts, one below the other."""
    return Group(*_parts(e))


def whole_screen(e: WholeExplanation) -> RenderableType:
    """The same of a tenant's incident."""
    return Group(*_whole_parts(e))


def _whole_parts(e: WholeExplanation) -> Iterator[RenderableType]:
    yield _incident(e.incident)
    yield _inset(Text(e.incident.headline))
    yield from _section(
        f"Who grew most: the hour before it against the mean hour of the day before; {e.at_work} identities at work, "
        f"usually {e.usually_at_work:g}",
        _grown(e.grown),
    )
    yield from _section("In the policy", _keys([*e.detector_keys, *e.decision_keys]))
    yield from _section("Decided again from the events", Group(*(_recomputed(one) for one in e.recomputed)))


def _grown(grown: Sequence[Grown]) -> RenderableType:
    out = Table(box=None, pad_edge=False, header_style="dim")
    out.add_column("identity")
    for name in ("calls", "usual", "cost", "usual"):
        out.add_column(name, justify="right", no_wrap=True)
    for g in grown:
        out.add_row(Text(g.identity), f"{g.calls:,}", f"{g.usual_calls:,.1f}", f"${g.usd:,.4f}", f"${g.usual_usd:,.4f}")
    return out


def _parts(e: Explanation) -> Iterator[RenderableType]:
    if e.incident is not None:
        yield _incident(e.incident)
        yield ""
    f = e.finding
    yield Text.assemble(
        (f.kind, "bold"), " ", (f.severity, _SEVERITY.get(f.severity, "")), f" on {f.tenant}/{f.identity}, {f.time} ",
        (f.finding_id, "dim"),
    )  # fmt: skip
    yield _inset(Text(f.reason))
    yield from _section("Evidence", _evidence(e))
    yield from _section(_calls_title(e), _calls(e))
    yield from _section(f"State of {f.kind} before", _state(e))
    yield from _section("Each detector's last word on this identity up to then", _words(e.words))
    yield from _section(f"[{f.kind}] in the policy", _keys(e.detector_keys))
    yield from _section("Decision", Group(*_decision(e.decision, e)))
    yield from _section("What decided, in the policy", _keys(e.decision_keys))
    yield from _section("Computed again from the events", Group(*(_recomputed(one) for one in e.recomputed)))


def _section(title: str, body: RenderableType) -> Iterator[RenderableType]:
    yield ""
    yield Text(title, style="bold")
    yield _inset(body)


def _inset(body: RenderableType) -> RenderableType:
    return Padding(body, (0, 0, 0, 2))


def _incident(i: Incident) -> RenderableType:
    whom, until = f"{i.tenant}/{i.identity or '(the whole tenant)'}", i.closed or "now"
    said = [
        ", ".join(i.kinds), f"risk {i.risk:g}", f"response {i.response}", f"{len(i.finding_ids)} findings",
        f"{len(i.command_ids)} commands",
    ]  # fmt: skip
    title = (("incident", "bold"), f" {i.state} on {whom}, {i.opened} to {until} ", (i.incident_id, "dim"))
    return Group(Text.assemble(*title), _inset(Text("; ".join(said))))


def _evidence(e: Explanation) -> RenderableType:
    f, v = e.finding, e.finding.evidence
    out = _grid()
    out.add_row("observed", f"{f.observed:g}, against {f.baseline:g}, over {f.window}; score {f.score:g}")
    first, last = v.offsets
    out.add_row("where", f"partition {v.partition}, offsets {first} to {last if last >= 0 else 'the end'}")
    if v.cause:
        out.add_row("brought by", f"{v.cause.source} {v.cause.id}")
    marks = [name for name in ("deterministic", "extreme") if getattr(v, name)]
    marks += [f"shared by others: {v.shared}"] if v.shared else []
    if marks:
        out.add_row("marks", ", ".join(marks))
    out.add_row("costs", f"${v.usd_per_minute:g} a minute, usually ${v.baseline_usd_per_minute:g}")
    out.add_row("reaches back", f"{v.span_seconds:g} s; the identity is known for {v.age_seconds / 3600:,.1f} h")
    said = [v.workload, v.credential_id, v.session_id and f"session {v.session_id}", v.identity_trust]
    out.add_row("identity", ", ".join(filter(None, said)) or "–")
    if v.details:
        out.add_row("details", ", ".join(f"{name} {value}" for name, value in v.details.items()))
    out.add_row("made by", f"{f.detector}, policy {v.policy}, state {v.state_digest}")
    return out


def _calls_title(e: Explanation) -> str:
    shown, count = len(e.calls), e.calls_between
    return f"Its {count} calls" if shown == count else f"The first and last of its {count} calls"


def _calls(e: Explanation) -> RenderableType:
    if not e.calls:
        return Text("none can be shown", style="dim")
    rows = [_call(call) for call in e.calls]
    out = Table(box=None, pad_edge=False, header_style="dim")
    for n, name in enumerate(("offset", "time", "model", "in", "out", "cost", "status", "network", "session")):
        right = name in ("offset", "in", "out", "cost", "status")
        # On a narrow screen names give way, numbers don't.
        least = 0 if name in ("model", "session") else max(len(row[n]) for row in rows)
        out.add_column(name, justify="right" if right else "left", no_wrap=True, min_width=least)
    gap = len(rows) // 2 if e.calls_between > len(rows) else -1
    for number, row in enumerate(rows):
        if number == gap:
            out.add_row("…")
        out.add_row(*row)
    return out


def _call(c: Call) -> list[Text]:
    cost = "" if c.cost_usd is None else f"${c.cost_usd:.6f}".rstrip("0").rstrip(".")
    tokens = ["?" if n is None else f"{n:,}" for n in (c.input_tokens, c.output_tokens)]
    network = "" if c.asn is None else f"AS{c.asn} {c.country or ''}"
    time = f"{c.time[5:10]} {c.time[11:23]}"
    cells = [str(c.offset), time, c.model, *tokens, cost, str(c.status), network, c.session_id or ""]
    return [Text(cell) for cell in cells]


def _state(e: Explanation) -> RenderableType:
    if not e.state_before:
        return Text("none: the identity was not known yet, or the events can't be read", style="dim")
    out, zero = _grid(), list[str]()
    for component, row in e.state_before.items():
        for name, value in row.items():
            path = f"{component.partition('.')[2]}.{name}" if len(e.state_before) > 1 else name
            shown = _shown(value)
            if shown is None:
                zero.append(path)
            else:
                out.add_row(path, Text(shown))
    if zero:
        out.add_row("zero", Text(", ".join(zero)))
    return out


def _shown(value: Any) -> str | None:
    """A field's value; None where all of it is zero. Arrays end where only zeros follow."""
    if not isinstance(value, list):
        return None if not value else f"{value:g}" if isinstance(value, float) else str(value)
    inner = [_shown(one) for one in value]
    while inner and inner[-1] is None:
        inner.pop()
    nested = any(isinstance(one, list) for one in value)
    return ("  |  " if nested else "  ").join(one or "0" for one in inner) or None


def _words(words: Sequence[Word]) -> RenderableType:
    out = Table(box=None, pad_edge=False, show_header=False)
    out.add_column(style="dim", no_wrap=True)
    out.add_column(justify="right", no_wrap=True)
    out.add_column(no_wrap=True)
    out.add_column()
    for w in words:
        if w.score is None or w.seconds_before is None:
            out.add_row(w.detector, "", "", Text("nothing", style="dim"))
            continue
        when = "this one" if not w.seconds_before else f"{w.seconds_before:,.0f} s before"
        out.add_row(w.detector, when, f"{w.severity} {w.score:.2f}", Text(w.reason or ""))
    return out


def _keys(keys: Sequence[Key]) -> RenderableType:
    if not keys:
        return Text("nothing", style="dim")
    out = _grid()
    out.add_column()
    for key in keys:
        out.add_row(key.path, Text(key.value), Text(key.comment, style="dim"))
    return out


def _decision(d: Account, e: Explanation) -> Iterator[RenderableType]:
    parts = ", ".join(f"{family} {points:.1f}" for family, points in d.families.items()) or "nothing"
    yield Text(f"risk {d.risk:g}: {parts}; counting towards a block: {', '.join(d.counted) or 'none'}")
    if d.common:
        yield Text("several identities of the tenant showed the same within the time: weak evidence against each")
    if d.approved:
        yield Text(f"passed over: {d.approved}")
    elif d.wanted is None:
        yield Text("an alert is enough: no rung of the ladder is reached")
    else:
        yield Text(f"the ladder's rung {d.rung!r} asks for: {d.wanted.action} of {d.wanted.scope} {d.wanted.subject}")
    if d.guard and not d.approved:
        yield Text(f"held back from any block: {d.guard}")
    yield from (_command("in force already", command) for command in e.in_force)
    yield from (_command("done then", command) for command in e.commands)
    if not e.commands:
        yield Text("done then: nothing")


def _command(when: str, c: Command) -> Text:
    until = f"until {c.expires_at}" if c.expires_at else "until a person ends it" if c.action != "restore" else ""
    shadow = " (shadow)" if c.mode == "shadow" else ""
    limit = f", {c.limits.rpm} calls a minute left" if c.limits and c.limits.rpm is not None else ""
    return Text(f"{when}: {c.action}{shadow} of {c.scope} {c.subject} {until}{limit} ({c.command_id})")


def _recomputed(r: Recomputed) -> RenderableType:
    if r.reproduced:
        return Text.assemble(("reproduced", "green"), f" {r.finding_id}, byte for byte")
    if not r.differences:
        return Text.assemble(("not reproduced", "red"), f" {r.finding_id}: {r.why_not}")
    lines = [Text.assemble(("differs", "red"), f" {r.finding_id}{f': {r.why_not}' if r.why_not else ''}")]
    return Group(*lines, *(_inset(Text(one)) for one in r.differences))


def _grid() -> Table:
    out = Table(box=None, pad_edge=False, show_header=False)
    out.add_column(style="dim", no_wrap=True)
    out.add_column()
    return out
