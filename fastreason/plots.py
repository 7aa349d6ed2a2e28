"""Line charts as SVG text: readable without scripts, in light and dark, with the value of every point on hover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 42


@dataclass(frozen=True)
class Series:
    """One line.

    Args:
        name: in the legend.
        points: (x, y) in rising x.
        style: 0, 1, 2, ...: colour and marker; lines of one style share them.
        dashed: drawn as dashes without markers.
        intervals: None, or (low, high) of y for every point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    dashed: bool = False
    intervals: Sequence[tuple[float, float]] | None = None


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    integer_x: bool = False,
) -> str:
    """An `<svg>` element; `title` is its name for screen readers."""
    points = [point for line in series for point in line.points]
    if not points:
        return '<p class="empty">nothing to plot yet</p>'
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = y_range if y_range is not None else (min(ys), max(ys))
    if x_high == x_low:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    if y_high == y_low:
        y_low, y_high = y_low - 0.5, y_high + 0.5

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">'
    ]
    for y in ticks(y_low, y_high):
        px, py = at(x_low, y)
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text class="tick" x="{px - 8:.1f}" y="{py + 4:.1f}" text-anchor="end">{y:g}</text>')
    x_ticks = sorted(set(xs)) if integer_x and len(set(xs)) <= 20 else ticks(x_low, x_high)
    for x in x_ticks:
        px, py = at(x, y_low)
        parts.append(f'<text class="tick" x="{px:.1f}" y="{py + 18:.1f}" text-anchor="middle">{x:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text class="axis" transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    for line in series:
        parts.extend(_draw(line, at))
    parts.append("</svg>")
    return "".join(parts) + _legend(series)


def _draw(line: Series, at: object) -> list[str]:
    placed = [at(x, y) for x, y in line.points]  # type: ignore[operator]
    colour = f"s{line.style % 4}"
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    parts = [f'<polyline class="{colour}{" dashed" if line.dashed else ""}" points="{path}"/>']
    for i, ((x, y), (px, py)) in enumerate(zip(line.points, placed, strict=True)):
        label = f"{line.name}: {y:.3g} at {x:g}"
        if line.intervals is not None:
            low, high = line.intervals[i]
            (_, top), (_, bottom) = at(x, high), at(x, low)  # type: ignore[operator]
            label += f" (95 % interval {low:.3g} to {high:.3g})"
            parts.append(
                f'<line class="{colour} whisker" x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
            )
        if not line.dashed or len(placed) <= 20:
            parts.append(_marker(line.style, px, py, colour, escape(label)))
    return parts


def _marker(style: int, x: float, y: float, colour: str, label: str) -> str:
    hover = f"<title>{label}</title>"
    if style % 4 == 1:
        return f'<rect class="{colour} dot" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8">{hover}</rect>'
    if style % 4 == 2:
        corners = f"{x:.1f},{y - 5:.1f} {x - 5:.1f},{y + 4:.1f} {x + 5:.1f},{y + 4:.1f}"
        return f'<polygon class="{colour} dot" points="{corners}">{hover}</polygon>'
    return f'<circle class="{colour} dot" cx="{x:.1f}" cy="{y:.1f}" r="4">{hover}</circle>'


def _legend(series: Sequence[Series]) -> str:
    items = []
    for line in series:
        dashes = " dashed" if line.dashed else ""
        marker = "" if line.dashed else _marker(line.style, 14, 6, f"s{line.style % 4}", "")
        items.append(
            f'<span><svg viewBox="0 0 28 12" width="28" height="12" aria-hidden="true">'
            f'<polyline class="s{line.style % 4}{dashes}" points="0,6 28,6"/>{marker}</svg> {escape(line.name)}</span>'
        )
    return f'<p class="legend">{"".join(items)}</p>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within [low, high], about `about` of them.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    raw = (high - low) / about
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]
