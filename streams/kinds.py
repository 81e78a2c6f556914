"""Renders docs/kinds: a page for each kind of finding, from its detector's docstring, policy.toml and what it needs.

python -m streams.kinds
"""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from detectors import DETECTORS
from responses.config import FAMILY
from responses.tenant_spike import TenantSpike
from schemas.finding import Kind
from streams.needs import METERED, NEEDS, Part
from streams.policy_text import Line, comment_of, read_lines, within

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "kinds"
SECTIONS = ("What it detects", "Why it matters", "False positives", "Runbook")
_SECTION = re.compile(rf"^({'|'.join(SECTIONS)}):\n((?:[ ]{{4}}.*\n?|\n)+)", re.MULTILINE)
_GENERATED = "<!-- Rendered by `make docs` from the detector's docstring and policy.toml. -->\n"


class Page(NamedTuple):
    """What the page of one kind is made of."""

    kind: Kind
    version: int
    title: str
    sections: dict[str, str]


def pages() -> list[Page]:
    """A page for each kind that is detected, in the order of the kinds."""
    every: list[Any] = [*DETECTORS, TenantSpike]
    classes = {one.kind: one for one in every}
    return [_page(classes[kind]) for kind in get_args(Kind) if kind in classes]


def render(page: Page, policy: Sequence[Line]) -> str:
    """The page in Markdown."""
    return _GENERATED + "\n".join(_parts(page, policy)) + "\n"


def render_index(every: Sequence[Page]) -> str:
    """The index in Markdown."""
    rows = [f"| [{page.kind}]({page.kind}.md) | {FAMILY[page.kind]} | {_cell(page.title)} |" for page in every]
    return (
        _GENERATED + "# Kinds of finding\n\n"
        "Findings add to a risk per identity, by family: two families count more than two findings of one.\n\n"
        "| kind | family | |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def rendered() -> dict[str, str]:
    """Every file of docs/kinds, by name."""
    policy, every = read_lines((ROOT / "policy.toml").read_text()), pages()
    return {"README.md": render_index(every)} | {f"{page.kind}.md": render(page, policy) for page in every}


def _page(detector: Any) -> Page:
    text = inspect.getdoc(detector) or ""
    title = text.partition("\n\n")[0].replace("\n", " ")
    return Page(detector.kind, detector.version, title, {m[1]: _plain(m[2]) for m in _SECTION.finditer(text + "\n")})


def _plain(text: str) -> str:
    return inspect.cleandoc(text).strip()


def _parts(page: Page, policy: Sequence[Line]) -> Iterator[str]:
    yield f"# {page.kind}\n\n{page.title}\n"
    yield f"Family *{FAMILY[page.kind]}*, `{page.kind}@{page.version}`. [All kinds](README.md)."
    for name in SECTIONS:
        yield f"\n## {name}\n\n{page.sections[name]}"
    yield "\n## What it needs\n\n| sees | of the usage event |\n|---|---|"
    yield from (f"| {part.what} | {_needs(part)} |" for part in NEEDS[page.kind])
    yield "\n## Policy"
    lines = within(policy, page.kind)
    for sections in _alike(lines):
        yield from _table(sections, policy)


def _alike(lines: Sequence[Line]) -> list[list[list[Line]]]:
    """Tables' lines; tables side by side that have the same keys, as workload classes have, are one."""
    out: list[list[list[Line]]] = []
    for section in dict.fromkeys(line.section for line in lines):
        table = [line for line in lines if line.section == section]
        beside = out and out[-1][0][0].section.rpartition(".")[0] == section.rpartition(".")[0] != ""
        if beside and [line.key for line in out[-1][0]] == [line.key for line in table]:
            out[-1].append(table)
        else:
            out.append([table])
    return out


def _table(tables: Sequence[Sequence[Line]], policy: Sequence[Line]) -> Iterator[str]:
    said = next((line.comment for line in tables[0] if not line.key), "")
    names = ", ".join(f"`[{table[0].section}]`" for table in tables)
    values = [table[0].section.rpartition(".")[2] for table in tables] if len(tables) > 1 else ["value"]
    yield f"\n{names}{f': {said}' if said else ''}\n\n| key | {' | '.join(values)} | |\n|{'---|' * (len(values) + 2)}"
    for row in zip(*([line for line in table if line.key] for table in tables), strict=True):
        cells = " | ".join(f"`{_cell(line.value)}`" for line in row)
        yield f"| `{row[0].key}` | {cells} | {_cell(comment_of(row[0], policy))} |"


def _needs(part: Part) -> str:
    if not part.fields:
        return "what every event has"
    names = [" or ".join(f"`{one}`" for one in field.split("|")) for field in part.fields]
    metered = any(METERED & {*field.split("|")} for field in part.fields)
    return ", ".join(names) + (" of calls that were served" if metered else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Writes what is rendered, and removes pages of kinds that are gone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    files = rendered()
    for path in FOLDER.glob("*.md"):
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (FOLDER / name).write_text(text)
    sys.stdout.write(f"{len(files)} pages in {FOLDER}\n")


if __name__ == "__main__":
    main()
