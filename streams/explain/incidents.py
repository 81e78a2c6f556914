"""Incidents at a terminal."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from schemas.incident import Incident
from schemas.times import parse_millis

_STYLE = {"revoke": "red", "suspend": "red", "downgrade": "yellow", "throttle": "yellow"}


def listed(incidents: Sequence[Incident]) -> RenderableType:
    """Two lines for each: what it is, and what its headline says."""
    return Group(*_lines(incidents))


def _lines(incidents: Sequence[Incident]) -> Iterator[RenderableType]:
    for i in incidents:
        force = ", in force" if i.in_force else ""
        yield Text.assemble(
            f"{i.opened[:10]} {i.opened[11:19]}  {i.incident_id}  ",
            (f"{i.tenant}/{i.identity or '(all)'}", "bold"),
            f"  {', '.join(i.kinds)}, risk {i.risk:.0f}: ",
            (f"{i.response}{force}", _STYLE.get(i.response, "")),
            f"; {_lasted(i)}, ${i.usd_per_minute:.2f} a minute",
        )
        yield Padding(Text(i.headline, style="dim"), (0, 0, 0, 4))
    responses = Counter(i.response for i in incidents)
    said = ", ".join(f"{count} {response}" for response, count in responses.most_common())
    still = sum(i.state == "open" for i in incidents)
    yield Text(f"{len(incidents)} incidents, {still} open{f'; {said}' if said else ''}")


def _lasted(i: Incident) -> str:
    if i.closed is None:
        return "open"
    return f"closed after {(parse_millis(i.closed) - parse_millis(i.opened)) / 60_000:.0f} min"
