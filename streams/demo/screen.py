"""What the demo shows while it runs: a live screen on a terminal, plain lines elsewhere."""

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

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
_PLAIN_WIDTH = 110
_KEPT = 200


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

    def tell(self, text: str, style: str) -> None:
        self._write(f"{time.monotonic() - self._started:6.1f} s  {text}")

    def slack(self, text: str, *, updated: bool) -> None:
        first = text.partition("\n")[0]
        if first not in self._shown:
            self._shown.add(first)
            for number, line in enumerate(text.splitlines()):
                self.tell(f"{'Slack │' if number == 0 else '      │'} {line}", "")

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

    def __enter__(self) -> "Screen":
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
        page.split_column(
            Layout(self._head(board, now), size=5),
            Layout(suspects, size=3 * len(board.suspects) + 3),
            Layout(name="rest"),
        )
        wide = self._console.width >= 130
        rest = (Layout(name="story", ratio=3), Layout(name="slack", ratio=2))
        if wide:
            page["rest"].split_row(*rest)
        else:
            page["rest"].split_column(*rest)
        rows = self._console.height - 5 - (3 * len(board.suspects) + 3)
        story = rows if wide else round(rows * 3 / 5)
        page["story"].update(self._story(max(1, story - 2)))
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
        elapsed = f"{time.monotonic() - self._started:.0f} s"
        body = Group(figures, Text(f"{self._phase}   [records behind: {behind}]", style="dim", no_wrap=True))
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
    table = Table.grid(padding=(0, 1), expand=True)
    cells = max(12, min(40, width // 4))
    table.add_column(width=26, no_wrap=True)
    table.add_column(width=cells, no_wrap=True)
    table.add_column(width=9, justify="right", no_wrap=True)
    table.add_column(width=7, justify="right", no_wrap=True)
    table.add_column(ratio=1, no_wrap=True)
    table.add_row(*(Text(name, style="dim") for name in ("identity", "tokens/min", "", "$/min", "state")))
    for suspect in board.suspects.values():
        colour = _COLOURS[suspect.state]
        table.add_row(
            Text(suspect.attack.identity, style="bold"),
            Text(sparkline(rates(suspect, now, cells)), style=colour),
            _short(suspect.tokens_per_minute(now)),
            f"{suspect.usd_per_minute(now):.2f}",
            Text(headline(suspect), style=colour),
        )
        table.add_row(
            Text(f"{suspect.tenant}, usually ≤{suspect.usual:g}/min", style="dim"), "", "", "",
            Text(detail(suspect), style="dim", overflow="ellipsis"),
        )  # fmt: skip
        table.add_row()
    return Panel(table, title="suspects", title_align="left", border_style="bright_black")


def headline(suspect: Suspect) -> str:
    """How far an attack has come, in a few words."""
    if suspect.state == "quiet":
        return "quiet"
    if suspect.state == "attacking":
        return f"ATTACK: {suspect.attack.title}"
    if suspect.denial is None:
        kinds = "+".join(dict.fromkeys(finding.kind for finding in suspect.findings))
        return f"FOUND: {kinds}"
    took = f"{suspect.seconds_to_denial:.1f} s"
    return f"{'RESTORED, was ' if suspect.restored_at else ''}DENIED in {took}: {suspect.denial.action} {suspect.denial.status}"


def detail(suspect: Suspect) -> str:
    """What explains the headline."""
    if suspect.state == "quiet":
        return ""
    if suspect.denial is not None:
        return f"{suspect.answered} calls before, {suspect.denied} refused; {suspect.denial.reason}"
    return suspect.findings[-1].reason if suspect.findings else suspect.attack.told


def rates(suspect: Suspect, now: float, cells: int) -> list[float]:
    """Tokens per minute, a figure for each two seconds, oldest first."""
    last = int(now) // _CELL_SECONDS
    return [
        sum(suspect.tokens[second] for second in range(cell * _CELL_SECONDS, (cell + 1) * _CELL_SECONDS))
        * 60
        / _CELL_SECONDS
        for cell in range(last - cells, last)
    ]


def sparkline(values: list[float]) -> str:
    """A bar for each value; the greatest is full, and what is not zero is seen."""
    most = max(values, default=0.0)
    if most <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[0 if value <= 0 else max(1, round(value / most * 8))] for value in values)


def _short(figure: float) -> str:
    return f"{figure / 1e6:.1f} M" if figure >= 1e6 else f"{figure / 1e3:.1f} k" if figure >= 1e3 else f"{figure:.0f}"
