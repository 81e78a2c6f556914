"""What the demo says at its end: a page for people, or one JSON object."""

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.demo.play import Play
from streams.demo.story import RESTORED


def as_json(played: Play) -> str:
    """The final object. Seconds are to the millisecond; null where an attack was never denied."""
    board = played.board
    suspects = board.suspects
    return json.dumps({
        "events": board.events,
        "events_per_second": round(board.events / played.seconds_of_events, 1),
        "incidents": len(board.incidents),
        "commands": len(board.orders),
        "seconds_to_denial": {name: _round(s.seconds_to_denial) for name, s in suspects.items()},
        "seconds_from_finding_to_denial": {name: _round(s.seconds_from_finding) for name, s in suspects.items()},
        "denied_calls": board.denied,
        "clickhouse_rows": played.rows,
        "slack_messages": played.slack_messages,
        "restored": suspects[RESTORED].restored_at is not None,
    })


def show(played: Play, console: Console) -> None:
    """The page for people."""
    board = played.board
    table = Table(title="Three attacks", title_justify="left", title_style="bold", show_lines=True)
    for name, justify in (
        ("attack", "left"), ("found by", "left"), ("cut off by", "left"), ("bad call → denied", "right"),
        ("finding → denied", "right"), ("calls before / denied", "right"), ("spent", "right"), ("saved", "right"),
    ):  # fmt: skip
        table.add_column(name, justify="right" if justify == "right" else "left")
    for suspect in board.suspects.values():
        denial = suspect.denial
        table.add_row(
            f"{suspect.attack.title}\n{suspect.attack.identity}",
            "\n".join(dict.fromkeys(finding.kind for finding in suspect.findings)) or "nobody",
            f"{denial.action}, {denial.status}" if denial else Text("not denied", style="bold red"),
            _seconds(suspect.seconds_to_denial),
            _seconds(suspect.seconds_from_finding),
            f"{suspect.answered} / {suspect.denied}",
            f"${suspect.spent:.2f}",
            f"${suspect.saved:.2f}",
        )
    console.print()
    console.print(table)
    saved = sum(suspect.saved for suspect in board.suspects.values())
    slack = "in your Slack channel" if played.slack_messages is None else f"{played.slack_messages} Slack messages"
    console.print(
        f"{board.events:,} events, {len(board.incidents)} incidents, {len(board.orders)} signed commands, {slack}, "
        f"{played.rows:,} rows in ClickHouse; "
        f"{board.bystanders_denied} calls of the other {played.identities - len(board.suspects)} identities were denied."
    )
    console.print(
        f"Saved ${saved:.2f}: each denied call of an attacker at the mean cost of those that it got through. "
        "Each attacker went on for seconds only; a real one does not stop."
    )
    if board.propagation:
        worst = max(board.propagation.values())
        console.print(f"A command was in force at the gateway at most {worst:.0f} ms after it was published.")
    for answered in played.answers:
        console.print()
        rows = Table(title=answered.question, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in answered.columns:
            rows.add_column(column, justify="left", style="dim" if column == answered.columns[0] else "")
        for row in answered.rows:
            rows.add_row(*(str(value) for value in row))
        console.print(rows)
    console.print()
    console.print(Text("What to try next", style="bold"))
    for command, what in (
        ("tripswitch demo --json", "the same, for a program"),
        ("tripswitch policy show", "every threshold and response that was at work here"),
        ("tripswitch replay EVENTS --out out", "detection over your own file of usage events, no broker"),
        ("docker compose up", "Kafka, ClickHouse, the workers and a gateway that stay"),
    ):
        console.print(f"  {command:<36} {what}", highlight=False)


def _seconds(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2f} s"


def _round(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 3)
