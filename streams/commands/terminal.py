"""What commands have in common: their options, their mistakes, and how they show that they work."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.directory import Directory, DirectoryError, read_directory
from sinks.clickhouse import SchemaError
from sinks.errors import Unreachable
from sinks.keys import BadKey
from streams.policy import PolicyError
from streams.settings import SettingsError, read_settings

USERS_MISTAKE = 2
_SHOWN_REJECTS = 5
_WIDE = 180

errors = Console(stderr=True, soft_wrap=True, highlight=False)

PolicyOption = Annotated[
    str | None, typer.Option("--policy", help="policy.toml; else TRIPSWITCH_POLICY, ./policy.toml, the one installed.")
]
DirectoryOption = Annotated[Path | None, typer.Option("--directory", help="Who the identities are: JSON or TOML.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a program to read.")]


def console() -> Console:
    """Where tables go: as wide as the terminal, and wide where there is none to be cut off by."""
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=_WIDE if wide else None)


class Mistake(ValueError):
    """Something on the command line that can't be meant."""


@contextmanager
def one_line() -> Iterator[None]:
    """The user's mistakes end in one line that says what, where and what to do, and exit code 2."""
    from streams.backtest.corpus import CorpusError
    from streams.explain import ExplainError, SourceError
    from streams.init import PartitionsDiffer
    from streams.replay import EventsError

    try:
        yield
    except (
        Mistake, PolicyError, SettingsError, DirectoryError, EventsError, CorpusError, ExplainError, SourceError,
        BadKey, Unreachable, SchemaError, PartitionsDiffer, OSError,
    ) as error:  # fmt: skip
        text = str(error)
        if isinstance(error, OSError) and error.filename:
            text = f"{error.filename}: {error.strerror}"
        errors.print(f"tripswitch: {text}", markup=False)
        raise typer.Exit(USERS_MISTAKE) from error


def known(directory: Path | None) -> Directory:
    """The directory that the command line names, else the one that the settings name."""
    return read_directory(directory) if directory else read_settings().known()


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int], None] | None]:
    """Counts lines on a terminal; silent elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda lines: bar.advance(task, lines)


class Rejects:
    """Shows the first lines of a file that are rejected, and counts the others."""

    def __init__(self, events: str) -> None:
        self._events = events
        self._count = 0

    def __call__(self, line: int, reason: str) -> None:
        self._count += 1
        if self._count <= _SHOWN_REJECTS:
            errors.print(f"{self._events}:{line}: rejected: {reason}", markup=False)

    def tell_rest(self) -> None:
        """Says how many were not shown."""
        if self._count > _SHOWN_REJECTS:
            errors.print(f"{self._events}: {self._count - _SHOWN_REJECTS} more lines rejected", markup=False)
