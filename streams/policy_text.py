"""What policy.toml says beside its values: where each key stands, and the comment that explains it."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_TABLE = re.compile(r"\[\s*([A-Za-z0-9_.\- ]+?)\s*\]\s*$")
_KEY = re.compile(r"([A-Za-z0-9_.\-]+)\s*=\s*(.*)", re.DOTALL)


class Line(NamedTuple):
    """A key, or a table's heading (`key` is empty), with its value and comment as they are written. `number` counts
    lines from 1; `raw` is the line itself."""

    section: str
    key: str
    value: str
    comment: str
    number: int
    raw: str

    @property
    def path(self) -> str:
        """The key's dotted path."""
        return ".".join(filter(None, (self.section, self.key)))


def read_lines(text: str) -> list[Line]:
    """The keys and headings of a valid TOML file, in its order. Comments above a line belong to it, where no blank line
    is between; those beside it come last."""
    out: list[Line] = []
    section, above = "", list[str]()
    for number, raw in _logical(text):
        bare, comment = _apart(raw)
        table, key = _TABLE.match(bare.strip()), _KEY.match(bare.strip())
        if not bare.strip():
            above = [*above, comment] if comment else []
            continue
        told = " ".join(filter(None, (*above, comment)))
        above = []
        if table:
            section = table.group(1).replace(" ", "")
            out.append(Line(section, "", "", told, number, raw))
        elif key:
            out.append(Line(section, key.group(1), key.group(2).strip(), told, number, raw))
    return out


def within(lines: Sequence[Line], path: str) -> list[Line]:
    """The lines of the table or key at a dotted path, and of the tables in it."""
    return [line for line in lines if line.path == path or line.path.startswith(f"{path}.")]


def comment_of(line: Line, lines: Sequence[Line]) -> str:
    """A key's comment; where it has none, that of the same key in a table beside its own, as classes have them."""
    beside = line.section.rpartition(".")[0]
    same = (one for one in lines if beside and one.key == line.key and one.section.rpartition(".")[0] == beside)
    return line.comment or next((one.comment for one in same if one.comment), "")


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Lines, those of one value as one."""
    held, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        held, first = (f"{held}\n{line}", first) if held else (line, number)
        if _depth(held) <= 0:
            yield first, held
            held = ""


def _depth(text: str) -> int:
    """How many brackets of a value are still open."""
    key = _KEY.match(_apart(text)[0].strip())
    bare = re.sub(r'"(?:\\.|[^"\\])*"|\'[^\']*\'', "", key.group(2)) if key else ""
    return sum(bare.count(c) for c in "[{") - sum(bare.count(c) for c in "]}")


def _apart(text: str) -> tuple[str, str]:
    """A line without its comments, and the comments."""
    bare, comments = [], []
    for line in text.split("\n"):
        end = next((m.start() for m in re.finditer(r'"(?:\\.|[^"\\])*"|\'[^\']*\'|#', line) if m.group() == "#"), None)
        bare.append(line if end is None else line[:end])
        if end is not None:
            comments.append(line[end:].lstrip("#").strip())
    return "\n".join(bare), " ".join(filter(None, comments))
