"""A backtest at a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.backtest.compare import better
from streams.backtest.run import Result
from streams.backtest.score import AttackScore, KindScore, Score

Figures = Score | AttackScore | KindScore
_SHARES = {"seen", "named", "contained", "cost_lost_share", "precision"}
_SCORE = {
    "seen": "attacks seen",
    "named": "named",
    "contained": "contained, of those to be contained",
    "median_seconds_to_detect": "median seconds to detect",
    "median_seconds_to_contain": "median seconds to contain",
    "median_minutes_blocked_after": "median minutes blocked after the end",
    "cost_lost_share": "cost lost before containment",
    "false_alarms_per_1000_identity_days": "false alarms per 1,000 identity-days",
    "false_blocks_per_10000_identity_days": "false blocks per 10,000 identity-days",
}
_ATTACK = {
    "attacks": "n",
    "seen": "seen",
    "named": "named",
    "contained": "contained",
    "median_seconds_to_detect": "detect s",
    "median_seconds_to_contain": "contain s",
    "cost_lost_share": "cost lost",
}
_KIND = {
    "alarms": "alarms",
    "right": "right",
    "false": "false",
    "precision": "precision",
    "attacks_told": "attacks told",
    "median_seconds_to_detect": "first word s",
}


def table(ours: Result, other: Result | None = None) -> RenderableType:
    """The tables of a result, beside those of `other`."""
    s = ours.score
    head = Text(
        f"{s.attacks} attacks in {s.events:,} events, {s.identity_days:,.1f} identity-days; "
        f"policy {ours.policy} ({ours.version})"
    )
    if other:
        head.append(f" against {other.policy} ({other.version}); ")
        head.append("better", style="green").append(" and ").append("worse", style="red").append(" are the other's")
    return Group(head, "", _overall(ours, other), "", *_of_attacks(ours, other), "", *_of_kinds(ours, other))


def _overall(ours: Result, other: Result | None) -> Table:
    out = Table(box=None, pad_edge=False, show_header=other is not None)
    out.add_column("")
    out.add_column("policy", justify="right")
    if other:
        out.add_column("against", justify="right")
    out.add_column("")
    for name, words in _SCORE.items():
        verdict = better(name, getattr(ours.score, name), getattr(other.score, name)) if other else None
        cells = _cells(name, ours.score, other.score if other else None)
        out.add_row(words, *cells, {None: "", True: "better", False: "worse"}[verdict])
    blocked = [r.score.blocked_look_alikes for r in (ours, other) if r]
    out.add_row(
        "look-alikes blocked", *(", ".join(f"{n} {name}" for name, n in of.items()) or "none" for of in blocked)
    )
    return out


def _of_attacks(ours: Result, other: Result | None) -> Iterator[RenderableType]:
    yield _grid("attack", _ATTACK, ours.by_attack, other.by_attack if other else {}, both=other is not None)


def _of_kinds(ours: Result, other: Result | None) -> Iterator[RenderableType]:
    yield _grid("finding", _KIND, ours.by_kind, other.by_kind if other else {}, both=other is not None)
    yield Text(
        "alarms: incidents opened or raised again with this kind; where an alert is tolerable they are neither right "
        "nor false; first word: median from an attack's start",
        style="dim",
    )


def _grid(
    title: str,
    columns: dict[str, str],
    ours: Mapping[str, Figures],
    other: Mapping[str, Figures],
    *,
    both: bool,
) -> Table:
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column(title, no_wrap=True)
    for words in columns.values():
        out.add_column(words, justify="right", no_wrap=True)
    for name in sorted({*ours, *other}):
        a, b = ours.get(name), other.get(name)
        cells = [_cells(column, a, b if both else None) for column in columns]
        out.add_row(name, *(_beside(pair) for pair in cells))
    return out


def _beside(pair: Sequence[Text]) -> Text:
    """One cell of two figures: the other's only where it differs."""
    if len(pair) == 1 or pair[0].plain == pair[1].plain:
        return pair[0]
    return Text.assemble(pair[0], " → ", pair[1])


def _cells(name: str, ours: Figures | None, other: Figures | None) -> list[Text]:
    mine = getattr(ours, name, None)
    cells = [Text(shown(name, mine))]
    if other is not None:
        theirs = getattr(other, name)
        verdict = better(name, mine, theirs)
        cells.append(Text(shown(name, theirs), style={None: "", True: "green", False: "red"}[verdict]))
    return cells


def shown(name: str, value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "–"
    if name in _SHARES:
        return f"{value:.1%}"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
