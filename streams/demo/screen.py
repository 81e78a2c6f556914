"""What the demo shows while it runs: a live screen on a terminal, plain lines elsewhere."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streams.demo.board import Board, State, Suspect

_BARS = " ▁▂▃▄▅▆▇█"
_CELL_SECONDS = 2
_COLOURS: dict[State, str] = {
    "quiet": "green",
    "attacking": "bold red",
    "found": "bold yellow",
    "denied": "bold green",
    "restored": "bold cyan",
}
_KEPT = 200
_Column = tuple[int | None, Literal["left", "right"]]
"""Its width (None: what is left) and side."""


class View(Protocol):
    """Where the demo tells its story."""

    def phase(self, text: str) -> None:
        """What goes on now."""

    def tell(self, text: str, style: str) -> None:
        """One step of the story."""

    def slack(self, text: str, *, updated: bool) -> None:
        """A Slack message as it reads now."""

    def refresh(self, board: Board) -> None:
        """The figures moved on."""


class Plain:
    """A line for each step, with the seconds since the start: for files and pipes."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._started = time.monotonic()
        self._shown: set[str] = set()

    def phase(self, text: str) -> None:
        self.tell(f"-- {text}", "")

    def tell(self, text: str, style: str) -> None:  # noqa: ARG002 - a View's signature
        self._write(f"{time.monotonic() - self._started:6.1f} s  {text}")

    def slack(self, text: str, *, updated: bool) -> None:
        first = text.partition("\n")[0]
        if first not in self._shown:
            self._shown.add(first)
            for number, line in enumerate(text.splitlines()):
                edited = " (edited)" if updated and number == 0 else ""
                self.tell(f"{'Slack │' if number == 0 else '      │'} {line}{edited}", "")

    def refresh(self, board: Board) -> None:
        pass


class Silent:
    """Shows nothing."""

    def phase(self, text: str) -> None:
        pass

    def tell(self, text: str, style: str) -> None:
        pass

    def slack(self, text: str, *, updated: bool) -> None:
        pass

    def refresh(self, board: Board) -> None:
        pass


class Screen:
    """A screen that is drawn anew several times a second; to be used as a context."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._phase = "starting"
        self._lines: deque[tuple[float, str, str]] = deque(maxlen=_KEPT)
        self._message = Text("No message yet.", style="dim")
        self._live = Live(console=console, auto_refresh=False, screen=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def phase(self, text: str) -> None:
        self._phase = text

    def tell(self, text: str, style: str) -> None:
        self._lines.append((time.monotonic() - self._started, text, style))

    def slack(self, text: str, *, updated: bool) -> None:
        self._message = Text(text + ("\n(edited)" if updated else ""))

    def refresh(self, board: Board) -> None:
        self._live.update(self.draw(board, time.time()), refresh=True)

    def draw(self, board: Board, now: float) -> RenderableType:
        """The whole screen as of `now` (Unix seconds)."""
        page = Layout()
        suspects = _suspects(board, now, self._console.width)
        head, middle = 5, 2 * len(board.suspects) + 3
        page.split_column(Layout(self._head(board, now), size=head), Layout(suspects, size=middle), Layout(name="rest"))
        wide = self._console.width >= 130
        if wide:
            page["rest"].split_row(Layout(name="story", ratio=3), Layout(name="slack", ratio=2))
        else:
            page["rest"].split_column(Layout(name="story"), Layout(name="slack"))
        rows = self._console.height - head - middle
        page["story"].update(self._story(max(1, (rows if wide else rows // 2) - 2)))
        page["slack"].update(Panel(self._message, title="Slack", title_align="left", border_style="blue"))
        return page

    def _head(self, board: Board, now: float) -> RenderableType:
        calls = sum(board.rate[int(now) - k] for k in range(1, 4)) / 3
        figures = Table.grid(expand=True)
        shown = (
            ("events", f"{board.events:,}"),
            ("calls/s", f"{calls:.0f}"),
            ("incidents", str(len(board.incidents))),
            ("commands", str(len(board.orders))),
            ("denied", f"{board.denied:,}"),
            ("bystanders denied", str(board.bystanders_denied)),
            ("saved", f"${sum(s.saved for s in board.suspects.values()):.2f}"),
        )
        for _ in shown:
            figures.add_column(justify="center")
        figures.add_row(*(Text(value, style="bold") for _, value in shown))
        figures.add_row(*(Text(name, style="dim") for name, _ in shown))
        behind = "  ".join(f"{app} {lag}" for app, lag in board.lag.items()) or "-"
        elapsed = f"{time.monotonic() - self._started:.0f} s; records behind: {behind}"
        body = Group(figures, Text(self._phase, style="cyan", no_wrap=True, overflow="ellipsis"))
        return Panel(
            body, title="tripswitch demo: an AI gateway on this machine is attacked", title_align="left",
            subtitle=elapsed, subtitle_align="right", border_style="bright_black",
        )  # fmt: skip

    def _story(self, rows: int) -> RenderableType:
        lines = list(self._lines)[-rows:]
        text = Text("\n", no_wrap=True, overflow="ellipsis").join(
            Text.assemble((f"{at:5.1f} s ", "dim"), (line, style)) for at, line, style in lines
        )
        text.no_wrap, text.overflow = True, "ellipsis"
        return Panel(text, title="what happens", title_align="left", border_style="bright_black")


def _suspects(board: Board, now: float, width: int) -> RenderableType:
    cells = max(12, min(45, width - 70))
    columns: tuple[_Column, ...] = ((18, "left"), (cells, "left"), (10, "right"), (6, "right"), (None, "left"))
    parts: list[RenderableType] = [
        _row(
            columns,
            [
                Text(name, style="dim")
                for name in ("identity", f"the last {cells * _CELL_SECONDS} s", "tokens/min", "$/min", "")
            ],
        )
    ]
    for suspect in board.suspects.values():
        colour = _COLOURS[suspect.state]
        row = [
            Text(suspect.attack.identity, style="bold"),
            Text(sparkline(rates(suspect, now, cells), 4.0 * suspect.usual_tokens), style=colour),
            Text(_short(suspect.tokens_per_minute(now))),
            Text(f"{suspect.usd_per_minute(now):.2f}"),
            Text(headline(suspect), style=colour),
        ]
        parts += [_row(columns, row), Text(f"  {detail(suspect)}", style="dim", no_wrap=True, overflow="ellipsis")]
    return Panel(
        Group(*parts), title="suspects", title_align="left",
        border_style="bright_black",
    )  # fmt: skip


def _row(columns: Sequence[_Column], cells: Sequence[Text]) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    for width, justify in columns:
        grid.add_column(width=width, ratio=None if width else 1, justify=justify, no_wrap=True)
    grid.add_row(*cells)
    return grid


def headline(suspect: Suspect) -> str:
    """How far an attack has come, in a few words."""
    if suspect.state in ("quiet", "attacking"):
        return "quiet" if suspect.state == "quiet" else f"ATTACK: {suspect.attack.title}"
    if suspect.denial is None:
        return f"FOUND: {'+'.join(dict.fromkeys(finding.kind for finding in suspect.findings))}"
    if suspect.state == "restored":
        return "RESTORED"
    return f"DENIED, {suspect.denial.status}, in {suspect.seconds_to_denial:.1f} s"


def detail(suspect: Suspect) -> str:
    """What explains the headline."""
    if suspect.denial is not None:
        refused = f"{suspect.answered} bad calls, then {suspect.denied} refused"
        return f"{refused}. {suspect.denial.action}: {suspect.denial.reason}"
    if suspect.findings:
        return f"alerted; no block yet. {suspect.findings[-1].reason}"
    if suspect.began is not None:
        return suspect.attack.told
    return f"{suspect.tenant}; never more than {suspect.usual} calls a minute"


def rates(suspect: Suspect, now: float, cells: int) -> list[float]:
    """Tokens per minute, a figure for each two seconds, oldest first."""
    last = int(now) // _CELL_SECONDS
    return [
        sum(suspect.tokens[second] for second in range(cell * _CELL_SECONDS, (cell + 1) * _CELL_SECONDS))
        * 60
        / _CELL_SECONDS
        for cell in range(last - cells, last)
    ]


def sparkline(values: Sequence[float], least: float) -> str:
    """A bar for each value; a full one is the greatest of them, but not less than `least`. What is not zero is seen."""
    most = max(*values, least, 1e-9)
    return "".join(_BARS[0 if value <= 0 else max(1, round(value / most * 8))] for value in values)


def _short(figure: float) -> str:
    return f"{figure / 1e6:.1f} M" if figure >= 1e6 else f"{figure / 1e3:.1f} k" if figure >= 1e3 else f"{figure:.0f}"
