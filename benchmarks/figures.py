"""What a part measured: figures, each held against a peer or a limit; as a table and as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

RESULTS = Path("build/benchmarks.json")
_WIDTH = 160
"""Columns of the table where there is no terminal."""


class Figure(Struct, frozen=True, omit_defaults=True):
    """One measured value. `than` is what it is held against, in the same unit, and `against` says what that is: a peer
    measured in the same run, or a limit. `conditions` say under what it was measured; `extra` is what else was seen."""

    part: str
    what: str
    value: float
    unit: str
    than: float
    against: str
    conditions: str = ""
    extra: Mapping[str, float] = {}

    @property
    def ratio(self) -> float:
        """How many times what it is held against."""
        return self.value / self.than if self.than else float("nan")


class Skipped(Struct, frozen=True):
    """A part that could not be measured, and why."""

    part: str
    why: str


class Unable(RuntimeError):
    """This machine can't measure a part; says why."""


class Results(Struct, frozen=True):
    """Of one run, or of several of single parts; `machine` is that of the last."""

    machine: dict[str, str | int | float]
    figures: list[Figure]
    skipped: list[Skipped] = []

    def of(self, part: str) -> list[Figure]:
        """The figures of one part."""
        return [figure for figure in self.figures if figure.part == part]


def read(path: Path = RESULTS) -> Results | None:
    """What was measured before; None where nothing was."""
    return msgspec.json.decode(path.read_bytes(), type=Results) if path.exists() else None


def merged(old: Results | None, new: Results) -> Results:
    """`new`, and of `old` the parts that `new` did not measure."""
    if old is None:
        return new
    again = {row.part for row in new.figures} | {gap.part for gap in new.skipped}
    return Results(
        new.machine,
        [row for row in old.figures if row.part not in again] + new.figures,
        [row for row in old.skipped if row.part not in again] + new.skipped,
    )


def write(results: Results, path: Path = RESULTS) -> None:
    """As JSON, with the ratios."""
    rows = [{**msgspec.to_builtins(figure), "ratio": round(figure.ratio, 4)} for figure in results.figures]
    whole = {
        "machine": results.machine,
        "figures": rows,
        "skipped": [msgspec.to_builtins(row) for row in results.skipped],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n")


def number(value: float) -> str:
    """Three digits, or all before the point: 0.0123, 5.71, 128,400."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show(figures: Sequence[Figure], skipped: Sequence[Skipped]) -> None:
    """Prints the table."""
    table = Table("part", "what", "conditions", "figure", "held against", "ratio")
    for row in figures:
        table.add_row(
            row.part, row.what, row.conditions, f"{number(row.value)} {row.unit}", f"{number(row.than)}: {row.against}",
            number(row.ratio),
        )  # fmt: skip
    for gap in skipped:
        table.add_row(gap.part, "[bold]skipped[/]", gap.why, "", "", "")
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(table)
