"""A gateway's status at a terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.status import GatewayStatus, missing

_STYLE = {"sees": "green", "half-blind": "yellow", "blind": "red"}


def table(gateways: Sequence[GatewayStatus]) -> RenderableType:
    """A table for each gateway."""
    return Group(*_parts(gateways)) if gateways else Text("no events")


def _parts(gateways: Sequence[GatewayStatus]) -> Iterator[RenderableType]:
    for number, gateway in enumerate(gateways):
        if number:
            yield ""
        yield Text.assemble(
            (gateway.gateway, "bold"),
            f": {gateway.events:,} events of {gateway.identities:,} identities, {gateway.first} to {gateway.last}",
        )
        out = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        out.add_column(no_wrap=True)
        out.add_column(no_wrap=True)
        out.add_column()
        for detector in gateway.detectors:
            why = "; ".join(missing(detector))
            out.add_row(Text(detector.detector), Text(detector.sight, style=_STYLE[detector.sight]), Text(why))
        yield out
