"""What the demo says at its end: a page for people, or one JSON object."""

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.demo.board import Board
from streams.demo.play import Play
from streams.demo.questions import Answered
from streams.demo.story import RESTORED

_NEXT = (
    ("tripswitch demo --json", "the same, for a program"),
    ("tripswitch policy show", "every threshold and response that was at work here"),
    ("tripswitch replay EVENTS --out out", "detection over a file of your own usage events, no broker"),
    ("docker compose up", "Kafka, ClickHouse, the workers and a gateway that stay"),
)


def as_json(played: Play) -> str:
    """The final object. Seconds are to the millisecond; null where an attack was never denied.

    `events_per_second` is over the time from the first event's publication until all were in ClickHouse.
    `seconds_from_finding_to_denial` counts from the `time` of the finding that the block hangs on.
    """
    board = played.board
    suspects = board.suspects
    return json.dumps(
        {
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
        }
    )


def show(played: Play, console: Console) -> None:
    """The page for people."""
    board = played.board
    console.print()
    console.print(_attacks(board))
    console.print(
        "Seconds count from the attack's first call. The spike is one family of evidence: the policy alerts at once, "
        "blocks when it lasts, and then leaves the caller its usual rate: the rest answers 429 with the reason.",
        style="dim",
    )
    console.print()
    slack = "in your Slack channel" if played.slack_messages is None else f"{played.slack_messages} Slack messages"
    console.print(
        f"{board.events:,} events, {played.rows:,} rows in ClickHouse; {len(board.incidents)} incidents, "
        f"{len(board.orders)} signed commands, {slack}; in {played.seconds:.0f} s."
    )
    console.print(
        f"{board.denied} calls were denied, {board.bystanders_denied} of them of the other "
        f"{played.identities - len(board.suspects)} identities."
    )
    if board.propagation:
        worst = max(board.propagation.values())
        console.print(f"A command was in force at the gateway at most {worst:.0f} ms after it was published.")
    console.print(
        f"Saved: ${sum(suspect.saved for suspect in board.suspects.values()):.2f}, which is each attacker's denied "
        "calls at the mean cost of its answered ones. They kept trying for some seconds only; a thief does not stop."
    )
    for answered in played.answers:
        _show_answer(answered, console)
    console.print()
    console.print(Text("What to try next", style="bold"))
    for command, what in _NEXT:
        console.print(f"  {command:<36} {what}")


def _attacks(board: Board) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("Attack", "Found by"):
        table.add_column(name, no_wrap=True)
    for name in ("First\nfinding", "First\ndenial", "Finding\n→denial", "Let\nthrough", "Denied"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Answer", no_wrap=True)
    for name in ("Spent", "Saved"):
        table.add_column(name, justify="right", no_wrap=True)
    for suspect in board.suspects.values():
        denial = suspect.denial
        answer = Text(f"{denial.status} {denial.action}") if denial else Text("MISSED", style="bold red")
        if suspect.restored_at is not None:
            answer.append("\nrestored", style="cyan")
        table.add_row(
            Text.assemble(suspect.attack.title, ("\n" + suspect.attack.identity, "dim")),
            "\n".join(dict.fromkeys(finding.kind for finding in suspect.findings)) or "nobody",
            _seconds(suspect.seconds_to_finding),
            _seconds(suspect.seconds_to_denial),
            _seconds(suspect.seconds_from_finding),
            str(suspect.answered),
            str(suspect.denied),
            answer,
            f"${suspect.spent:.2f}",
            f"${suspect.saved:.2f}",
        )
    return table


def _show_answer(answered: Answered, console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in answered.columns:
        table.add_column(column)
    for row in answered.rows:
        table.add_row(*(str(value) for value in row))
    console.print()
    console.print(Text(f"ClickHouse: {answered.question}", style="bold"))
    console.print(table)


def _seconds(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.1f} s"


def _round(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 3)
