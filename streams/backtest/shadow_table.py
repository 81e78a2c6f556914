"""At a terminal: what a policy would have cut off."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streams.backtest.shadow import Cut, Shadow
from streams.policy import Loaded

_MOST = 40


def table(answer: Shadow, policy: Loaded) -> RenderableType:
    """The cuts, the most money first, then the tenants; what is left out is said."""
    return Group(*_parts(answer, policy))


def _parts(answer: Shadow, policy: Loaded) -> Iterator[RenderableType]:
    yield Text(
        f"{answer.calls:,} calls of {answer.identities:,} identities, {answer.since or '–'} to {answer.until or '–'}; "
        f"policy {policy.path} ({policy.version})"
    )
    kept = answer.identities - answer.cut_off
    yield Text(
        f"{answer.cut_off:,} identities ({answer.cut_off_share:.2%}) would have been cut off at some time, "
        f"{answer.alerted:,} would have raised an alert; {kept:,} would never have noticed"
    )
    yield Text(
        f"{answer.calls_denied:,} calls denied, which cost ${answer.usd_saved:,.2f} of ${answer.usd_total:,.2f} in all"
    )
    if not answer.cuts:
        return
    yield ""
    yield _cuts(answer.cuts[:_MOST])
    if len(answer.cuts) > _MOST:
        yield Text(f"… and {len(answer.cuts) - _MOST} more; --json has all", style="dim")
    yield ""
    yield _tenants(answer)


def _cuts(cuts: list[Cut]) -> Table:
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column("whom and why", ratio=1)
    for name in ("when (UTC)", "minutes", "how", "calls", "saved", "its cost"):
        out.add_column(name, no_wrap=True, justify="left" if name in ("when (UTC)", "how") else "right")
    for cut in cuts:
        out.add_row(
            Text.assemble(f"{cut.tenant}/{cut.identity or '(all)'}\n", (cut.why, "dim")),
            f"{cut.since[5:10]} {cut.since[11:19]}",
            f"{cut.minutes:,.1f}" + ("" if cut.until else "+"),
            " → ".join(cut.actions),
            f"{cut.calls_denied:,}",
            f"${cut.usd_saved:,.2f}",
            f"${cut.usd_total:,.2f}",
        )
    if any(cut.until is None for cut in cuts):
        out.caption = "+ until a person gives access back; counted to the end of the file"
        out.caption_justify = "left"
    return out


def _tenants(answer: Shadow) -> Table:
    out = Table(box=None, pad_edge=False, header_style="bold")
    out.add_column("tenant", overflow="fold")
    for words in ("identities", "cut off", "times", "calls denied", "saved", "its cost"):
        out.add_column(words, justify="right", no_wrap=True)
    touched = [tenant for tenant in answer.tenants if tenant.cuts]
    for tenant in touched[:_MOST]:
        out.add_row(
            Text(tenant.tenant),
            f"{tenant.identities:,}",
            f"{tenant.cut_off:,}",
            f"{tenant.cuts:,}",
            f"{tenant.calls_denied:,}",
            f"${tenant.usd_saved:,.2f}",
            f"${tenant.usd_total:,.2f}",
        )
    rest = len(answer.tenants) - len(touched)
    if rest:
        out.add_row(Text(f"{rest} others", style="dim"), "", "0", "0", "0", "$0.00", "")
    return out
