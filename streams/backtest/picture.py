"""The picture of a backtest: how often each kind of finding is right, against how soon it speaks; plain SVG."""

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil, floor, log10, sqrt
from typing import NamedTuple

from streams.backtest.run import Result
from streams.backtest.score import KindScore

_WIDTH, _HEIGHT = 820, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 796, 84, 452
_INK, _MUTED, _GRID, _OURS, _OTHER = "#1f2328", "#59636e", "#d1d9e0", "#0969da", "#bc4c00"
_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_SECONDS = ((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (36_000, "10 h"), (360_000, "4 d"))
_LETTER, _LINE = 6.6, 15.0


class _Point(NamedTuple):
    kind: str
    score: KindScore
    x: float
    y: float
    radius: float
    colour: str


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def picture(ours: Result, other: Result | None = None) -> str:
    """The SVG; with `other`, a line leads from each of our points to the other policy's."""
    results = [ours, *([other] if other else [])]
    slowest = max((k.median_seconds_to_detect or 1.0 for r in results for k in r.by_kind.values()), default=1.0)
    most = next((s for s, _ in _SECONDS if s >= max(slowest, 60)), _SECONDS[-1][0])
    least = min((k.precision for r in results for k in r.by_kind.values() if k.precision is not None), default=0.0)
    bottom = max(0.0, floor(least * 5 - 1) / 5)
    points = list(_points(ours, most, bottom, _OURS))
    others = list(_points(other, most, bottom, _OTHER)) if other else []
    body = [*_frame(most, bottom), *_moves(points, others)]
    body += [_dot(point) for point in (*others, *points)]
    body += _labels([*points, *(p for p in others if p.kind not in {q.kind for q in points})], others)
    body += _legend(ours, other)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="{_FONT}" role="img">\n'
        "<title>Precision of each kind of finding against its time to detect</title>\n"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _points(result: Result, most: float, bottom: float, colour: str) -> Iterator[_Point]:
    for kind, score in result.by_kind.items():
        if score.precision is None or score.median_seconds_to_detect is None:
            continue
        radius = min(16.0, 4.0 + sqrt(score.alarms))
        yield _Point(kind, score, _x(score.median_seconds_to_detect, most), _y(score.precision, bottom), radius, colour)


def _x(seconds: float, most: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * min(1.0, log10(max(1.0, seconds)) / log10(most))


def _y(precision: float, bottom: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * (precision - bottom) / (1 - bottom)


def _frame(most: float, bottom: float) -> Iterator[str]:
    yield _text(24, 34, "Precision against time to detect", size=16, weight=600)
    step = 20 if bottom < 0.5 else 10
    for percent in range(round(bottom * 100), 101, step):
        y = _y(percent / 100, bottom)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}" stroke="{_GRID}"/>'
        yield _text(_LEFT - 8, y + 4, f"{percent} %", size=12, colour=_MUTED, anchor="end")
    for seconds, words in _SECONDS:
        if seconds <= most:
            x = _x(seconds, most)
            yield f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_BOTTOM}" stroke="{_GRID}"/>'
            yield _text(x, _BOTTOM + 18, words, size=12, colour=_MUTED, anchor="middle")
    words = "median time from an attack's start to the first finding of the kind (log scale)"
    yield _text((_LEFT + _RIGHT) / 2, _BOTTOM + 38, words, size=12, colour=_MUTED, anchor="middle")
    yield _text(_LEFT, _TOP - 22, "share of the alarms with this kind that were right", size=12, colour=_MUTED)


def _moves(points: Sequence[_Point], others: Sequence[_Point]) -> Iterator[str]:
    of = {point.kind: point for point in others}
    for point in points:
        if point.kind in of:
            to = of[point.kind]
            yield (
                f'<line x1="{point.x:.1f}" y1="{point.y:.1f}" x2="{to.x:.1f}" y2="{to.y:.1f}" '
                f'stroke="{_MUTED}" stroke-dasharray="3 3"/>'
            )


def _dot(point: _Point) -> str:
    k = point.score
    told = f"{point.kind}: {k.right} right, {k.false} false of {k.alarms} alarms, {k.median_seconds_to_detect} s"
    return (
        f'<circle cx="{point.x:.1f}" cy="{point.y:.1f}" r="{point.radius:.1f}" fill="{point.colour}" '
        f'fill-opacity="0.55" stroke="{point.colour}"><title>{escape(told)}</title></circle>'
    )


def _labels(points: Sequence[_Point], others: Sequence[_Point]) -> Iterator[str]:
    """Names beside the points: each at the nearest place that is free, with a line where that is not beside it."""
    taken = [_Box(p.x - p.radius, p.y - p.radius, p.x + p.radius, p.y + p.radius) for p in (*points, *others)]
    for point in sorted(points, key=lambda p: p.x):
        width = len(point.kind) * _LETTER
        place = next((box for box in _places(point, width) if not any(box.meets(other) for other in taken)), None)
        if place is None:
            continue
        taken.append(place)
        middle = (place.top + place.bottom) / 2
        if abs(middle - point.y) > _LINE:
            end = place.top if middle > point.y else place.bottom
            yield (
                f'<line x1="{point.x:.1f}" y1="{point.y:.1f}" x2="{(place.left + place.right) / 2:.1f}" '
                f'y2="{end:.1f}" stroke="{_MUTED}" stroke-width="0.7"/>'
            )
        yield (
            f'<rect x="{place.left:.1f}" y="{place.top:.1f}" width="{width:.1f}" height="{_LINE:g}" fill="#ffffff" '
            'fill-opacity="0.85"/>'
        )
        yield _text(place.left, place.bottom - 4, point.kind, size=12)


def _places(point: _Point, width: float) -> Iterator[_Box]:
    gap = point.radius + 4
    for step in range(ceil((_BOTTOM - _TOP) / _LINE)):
        for direction in (1, -1) if step else (1,):
            top = point.y - _LINE / 2 + direction * step * _LINE
            lefts = (point.x + gap, point.x - gap - width) if step == 0 else (point.x - width / 2, point.x + gap)
            for left in lefts:
                if left >= _LEFT and left + width <= _RIGHT and _TOP - _LINE <= top <= _BOTTOM - _LINE:
                    yield _Box(left, top, left + width, top + _LINE)


def _legend(ours: Result, other: Result | None) -> Iterator[str]:
    y = 34.0
    for result, colour in ((ours, _OURS), (other, _OTHER)):
        if result is not None:
            words = f"{result.policy} ({result.version})"
            yield _text(_RIGHT - 14, y, words if len(words) <= 60 else "…" + words[-59:], size=12, anchor="end")
            style = f'fill="{colour}" fill-opacity="0.55" stroke="{colour}"'
            yield f'<circle cx="{_RIGHT - 4}" cy="{y - 4}" r="5" {style}/>'
            y += 18
    absent = sorted(k for k, s in ours.by_kind.items() if s.precision is None or s.median_seconds_to_detect is None)
    if absent:
        yield _text(_LEFT, _HEIGHT - 10, f"without a point: {', '.join(absent)}", size=12, colour=_MUTED)


def _text(
    x: float, y: float, text: str, *, size: int, weight: int = 400, colour: str = _INK, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
