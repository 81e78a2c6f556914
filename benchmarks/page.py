"""Writes the latest figures into docs/performance.md, between its markers, and draws its picture."""

import re
from collections.abc import Mapping

from benchmarks import figures
from benchmarks.cluster import ROOT
from benchmarks.figures import Results, number
from benchmarks.picture import picture

PAGE = ROOT / "docs" / "performance.md"
_PICTURE = ROOT / "docs" / "performance.svg"
_MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NAMES = {
    "cpu": "CPU", "cores": "cores", "memory_gb": "memory, GB", "system": "system", "load_before": "load average before",
}  # fmt: skip


def refresh() -> None:
    """Raises FileNotFoundError where nothing has been measured yet."""
    results = figures.read()
    if results is None:
        raise FileNotFoundError(f"{figures.RESULTS} is absent: measure first, with `make bench`")
    PAGE.write_text(filled(PAGE.read_text(), results))
    _PICTURE.write_text(picture(results))


def filled(page: str, results: Results) -> str:
    """The page with the results between its markers `<!-- figures: PART -->` and `<!-- end -->`."""

    def between(found: re.Match[str]) -> str:
        part = found[2]
        table = _machine(results.machine) if part == "machine" else _table(results, part)
        return f"{found[1]}{table}{found[3]}"

    return _MARKED.sub(between, page)


def _table(results: Results, part: str) -> str:
    rows = results.of(part)
    gaps = [f"Skipped on this machine: {gap.why}\n" for gap in results.skipped if gap.part == part]
    if not rows:
        return "".join(gaps) or "Not measured yet.\n"
    lines = ["| what | under | figure | held against | ratio |", "|---|---|---:|---|---:|"]
    for row in rows:
        against = "" if row.than == row.value else f"{row.against}: {number(row.than)}"
        lines.append(
            f"| {row.what} | {row.conditions} | {number(row.value)} {row.unit} | {against} | {number(row.ratio)} |"
        )
    return "\n".join([*lines, *_notes(rows)]) + "\n"


def _notes(rows: list[figures.Figure]) -> list[str]:
    """What else was seen, a line per set of conditions."""
    seen: dict[str, str] = {}
    for row in rows:
        if row.extra:
            told = ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in row.extra.items())
            seen[f"{row.conditions}: {told}"] = ""
    return ["", *(f"- {note}" for note in seen)] if seen else []


def _machine(machine: Mapping[str, object]) -> str:
    facts = "; ".join(f"{_NAMES.get(name, name)} {value}" for name, value in machine.items())
    return f"{facts}.\n"
