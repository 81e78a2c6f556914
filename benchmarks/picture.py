"""The picture of docs/performance.md: CPU per event of detect and its peers, and where detect's goes; plain SVG."""

from collections.abc import Sequence
from html import escape

from benchmarks.figures import Figure, Results, number
from benchmarks.throughput import OURS

_WIDTH, _LABELS, _ROW, _BAR, _MARGIN = 820, 260, 26, 16, 24
_INK, _MUTED, _GRID, _OURS, _PEER, _FLOOR = "#1f2328", "#59636e", "#d1d9e0", "#0969da", "#afb8c1", "#6e7781"
_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_OTHERS = 0.005
"""Steps of a smaller share are shown as one."""

Bar = tuple[str, float, str]
"""Label, value, colour."""


def picture(results: Results) -> str:
    """The SVG."""
    compared, steps = _compared(results), _steps(results.of("profile"))
    parts: list[str] = []
    y = _panel(
        parts, _MARGIN, "CPU µs per event, all threads", "identities drawn from Zipf(1.1) over a million", compared
    )
    if steps:
        y = _panel(parts, y + _MARGIN, "Where detect spends them", "sampled in a worker, Kafka in to Kafka out", steps)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" '
        f'font-family="{_FONT}" role="img">\n<title>CPU per event of tripswitch and its peers</title>\n'
        f'<rect width="{_WIDTH}" height="{y}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _compared(results: Results) -> list[Bar]:
    """The floor, ours and the peers, the cheapest first."""
    bars: list[Bar] = []
    for figure in results.of("detect"):
        if figure.conditions.startswith("Zipf") and figure.against != "limit":
            bars.append((figure.what, figure.value, _OURS if figure.what == OURS else _FLOOR))
    bars += [(figure.what, figure.value, _PEER) for figure in results.of("peers")]
    return sorted(bars, key=lambda bar: bar[1])


def _steps(profile: Sequence[Figure]) -> list[Bar]:
    large = [figure for figure in profile if figure.ratio >= _OTHERS]
    small = [figure for figure in profile if figure.ratio < _OTHERS]
    bars: list[Bar] = [(figure.what, figure.value, _OURS) for figure in large]
    if small:
        bars.append((", ".join(figure.what for figure in small), sum(figure.value for figure in small), _OURS))
    return bars


def _panel(parts: list[str], top: int, title: str, subtitle: str, bars: Sequence[Bar]) -> int:
    """Adds horizontal bars under a title; returns where they end."""
    parts.append(_text(_MARGIN, top + 14, title, size=16, weight=600))
    parts.append(_text(_MARGIN, top + 34, subtitle, size=12, colour=_MUTED))
    top += 48
    left, room = _MARGIN + _LABELS, _WIDTH - 2 * _MARGIN - _LABELS - 60
    greatest = max((value for _, value, _ in bars), default=1.0)
    bottom = top + _ROW * len(bars)
    parts.append(f'<line x1="{left}" y1="{top}" x2="{left}" y2="{bottom}" stroke="{_GRID}"/>')
    for n, (label, value, colour) in enumerate(bars):
        y, length = top + n * _ROW, max(1.0, value / greatest * room)
        bold = 600 if label == OURS else 400
        parts.append(_text(left - 8, y + 17, label, size=12, weight=bold, anchor="end"))
        parts.append(f'<rect x="{left}" y="{y + 5}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>')
        parts.append(_text(left + length + 6, y + 17, number(value), size=12, weight=bold))
    return bottom + _MARGIN


def _text(
    x: float, y: int, text: str, *, size: int, weight: int = 400, colour: str = _INK, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
