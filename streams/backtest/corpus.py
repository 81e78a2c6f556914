"""A corpus: a folder with events, the labels of what was an attack in them, and who the identities are."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.directory import Directory, read_directory

Response = Literal["none", "alert_ok", "alert", "throttle", "downgrade", "suspend", "revoke"]
_Time = Annotated[datetime, Meta(tz=True)]
_NAMES = ("events.jsonl.gz", "events.jsonl")


class CorpusError(ValueError):
    """A folder that is no corpus; says what is missing, or which line is wrong."""


class Label(Struct, frozen=True):
    """One line of `labels.jsonl`: what an identity did from `start` to `end`, and which answer is right.

    `response` is what an attack asks for (`alert` to `revoke`), or for what only looks like one, what is tolerable: an
    alert (`alert_ok`) or nothing (`none`). `accept` are the kinds of finding that name it. `since` is when the attack
    could be seen at the earliest, its `start` where absent. Labels of one `group` are one attack.
    """

    identity: str
    attack: str
    start: _Time
    end: _Time
    response: Response
    accept: list[str] = []
    since: _Time | None = None
    group: str | int | None = None
    why: str = ""

    @property
    def is_attack(self) -> bool:
        """Whether anything is to be answered."""
        return self.response not in ("none", "alert_ok")


class Corpus(Struct, frozen=True):
    """A corpus that can be replayed."""

    events: str
    labels: list[Label]
    directory: Directory


def events_of(folder: Path) -> str:
    """The path of a folder's events.

    Raises:
        CorpusError: it has none.
    """
    found = next((folder / name for name in _NAMES if (folder / name).is_file()), None)
    if found is None:
        raise CorpusError(f"{folder}: no events.jsonl or events.jsonl.gz in it")
    return str(found)


def read_corpus(folder: Path) -> Corpus:
    """Reads what is in a folder, but for its events.

    Raises:
        CorpusError: it is no folder, a file is missing, or a label is none.
        DirectoryError: its directory.json is none.
    """
    if not folder.is_dir():
        raise CorpusError(
            f"{folder}: no such folder; a corpus is a folder with events.jsonl(.gz) and labels.jsonl "
            "(events without labels: --shadow)"
        )
    events, labels = events_of(folder), folder / "labels.jsonl"
    if not labels.is_file():
        raise CorpusError(f"{labels}: no such file; --shadow needs no labels")
    return Corpus(events, list(_labels(labels)), directory_of(folder))


def directory_of(folder: Path) -> Directory:
    """The folder's directory.json; an empty directory where there is none."""
    path = folder / "directory.json"
    return read_directory(path) if path.is_file() else Directory()


def _labels(path: Path) -> list[Label]:
    out: list[Label] = []
    decoder = msgspec.json.Decoder(Label)
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            out.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorpusError(f"{path}:{number}: no label: {error}") from error
    return out
