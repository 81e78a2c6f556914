"""A check at a terminal."""

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from streams.doctor.check import Check

_MARK = {"ok": ("ok     ", "green"), "unknown": ("unknown", "dim"), "warning": ("warning", "yellow")}
_FAILED = ("FAILED ", "bold red")


def shown(check: Check) -> RenderableType:
    """One line for what was seen, and one for how to mend it."""
    line = Text.assemble(_MARK.get(check.state, _FAILED), "  ", (check.what, "bold"), f": {check.seen}")
    return Group(line, Padding(Text(f"→ {check.mend}", style="dim"), (0, 0, 0, 9))) if check.mend else line
