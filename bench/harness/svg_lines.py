"""Lines as SVG text: no scripts, light and dark mode, and the value of every point on hover and focus.

Each point has a larger invisible mark on top for the pointer and the Tab key; it contains the point's text, which the
page's style shows (`.point:hover .tip, .point:focus .tip { display: inline }`). Colors are classes s0 ... s5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from fastreason.reports.drawing import value_mark

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 42
STYLES = 6
# maximum number of interactive points per line; more would be too close together
_MOST_POINTS = 20

Place = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line.

    Args:
        name: in the legend.
        points: (x, y) by increasing x.
        style: 0, 1, 2, ...: color and marker; lines with the same style share them.
        dashed: draw dashes without markers.
        intervals: None, or (low, high) of y for every point.
        interval: what the intervals are, for the text of a point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    dashed: bool = False
    intervals: Sequence[tuple[float, float]] | None = None
    interval: str = "95 % interval"


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    integer_x: bool = False,
    log_x: bool = False,
    log_y: bool = False,
    x_range: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | None = None,
    width: int = WIDTH,
    height: int = HEIGHT,
    left: int = LEFT,
) -> str:
    """An `<svg>` element with its legend; `title` is its name for screen readers.

    `x_ticks` within `x_range` are labeled; by default both follow from the points. `left` is the space for the labels
    of y.
    """
    points = [point for line in series for point in line.points]
    if not points:
        return '<p class="empty">nothing to plot yet</p>'
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high = x_range if x_range is not None else (min(xs), max(xs))
    y_low, y_high = y_range if y_range is not None else (min(ys), max(ys))
    if x_high == x_low:
        x_low, x_high = (x_low / 2, x_high * 2) if log_x else (x_low - 0.5, x_high + 0.5)
    if y_high == y_low:
        y_low, y_high = (y_low / 2, y_high * 2) if log_y else (y_low - 0.5, y_high + 0.5)
    across, up = _share(x_low, x_high, log_x), _share(y_low, y_high, log_y)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + across(x) * (width - left - RIGHT), height - BOTTOM - up(y) * (height - TOP - BOTTOM)

    parts = [_opening(width, height, title)]
    for y in log_ticks(y_low, y_high) if log_y else ticks(y_low, y_high):
        px, py = at(x_low, y)
        parts.append(f'<line class="grid" x1="{px:.1f}" x2="{width - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text class="tick" x="{px - 8:.1f}" y="{py + 4:.1f}" text-anchor="end">{y:,.10g}</text>')
    every = (integer_x or log_x) and len(set(xs)) <= 20
    chosen = sorted(set(xs)) if every else ticks(x_low, x_high)
    for x in chosen if x_ticks is None else [x for x in x_ticks if x_low <= x <= x_high]:
        px, py = at(x, y_low)
        parts.append(f'<text class="tick" x="{px:.1f}" y="{py + 18:.1f}" text-anchor="middle">{x:,.10g}</text>')
    middle = (left + width - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:.0f}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text class="axis" transform="translate(14 {(TOP + height - BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    for line in series:
        parts.extend(_draw(line, at))
    for line in series:
        parts.extend(_line_points(line, at, width))
    parts.append("</svg>")
    return "".join(parts) + _legend(series)


def _share(low: float, high: float, log: bool) -> Callable[[float], float]:
    """The relative position of a value between low and high."""
    scale: Callable[[float], float] = math.log if log else float
    return lambda value: (scale(value) - scale(low)) / (scale(high) - scale(low))


def _opening(width: int, height: int, title: str) -> str:
    # role group, because role img would hide the points from screen readers
    return (
        f'<svg viewBox="0 0 {width} {height}" role="group" aria-label="{escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    )


def _draw(line: Series, at: Place) -> list[str]:
    placed = [at(x, y) for x, y in line.points]
    colour = f"s{line.style % STYLES}"
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    parts = [f'<polyline class="{colour}{" dashed" if line.dashed else ""}" points="{path}"/>']
    for i, ((x, _), (px, py)) in enumerate(zip(line.points, placed, strict=True)):
        if line.intervals is not None:
            low, high = line.intervals[i]
            (_, top), (_, bottom) = at(x, high), at(x, low)
            parts.append(
                f'<line class="{colour} whisker" x1="{px:.1f}" x2="{px:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
            )
        if not line.dashed and len(placed) <= _MOST_POINTS:
            parts.append(_marker(line.style, px, py, colour))
    return parts


def _line_points(line: Series, at: Place, width: int) -> list[str]:
    """The interactive marks of a line: all points of a short line, some of a long one, always including the last."""
    every = -(-len(line.points) // _MOST_POINTS)
    parts = []
    for i, (x, y) in enumerate(line.points):
        if (len(line.points) - 1 - i) % every:
            continue
        said = f"{line.name}: {y:.3g} at {x:g}"
        if line.intervals is not None:
            low, high = line.intervals[i]
            said += f" ({line.interval} {low:.3g} to {high:.3g})"
        px, py = at(x, y)
        parts.append(value_mark(px, py, said, width=width))
    return parts


def _marker(style: int, x: float, y: float, colour: str) -> str:
    shape = style % STYLES
    if shape == 1:
        return f'<rect class="{colour} dot" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    if shape in (2, 3, 4):
        corners = {
            2: [(0, -5), (-5, 4), (5, 4)],
            3: [(0, -6), (6, 0), (0, 6), (-6, 0)],
            4: [(0, 5), (-5, -4), (5, -4)],
        }[shape]
        path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
        return f'<polygon class="{colour} dot" points="{path}"/>'
    hole = ' fill-opacity="0" stroke-width="2"' if shape == 5 else ""
    return f'<circle class="{colour} dot{" ring" if hole else ""}" cx="{x:.1f}" cy="{y:.1f}" r="4"{hole}/>'


def _legend(series: Sequence[Series]) -> str:
    items = []
    for line in series:
        dashes = " dashed" if line.dashed else ""
        marker = "" if line.dashed else _marker(line.style, 14, 6, f"s{line.style % STYLES}")
        items.append(
            f'<span><svg viewBox="0 0 28 12" width="28" height="12" aria-hidden="true">'
            f'<polyline class="s{line.style % STYLES}{dashes}" points="0,6 28,6"/>{marker}</svg> '
            f"{escape(line.name)}</span>"
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


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within [low, high], or a few percent beyond; powers alone where that is many.

    >>> log_ticks(0.9, 11.0)
    [1.0, 2.0, 5.0, 10.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    found = [value for value in fine if low * 0.96 <= value <= high * 1.04]
    return found if len(found) <= 8 else [value for value in found if math.log10(value) % 1 == 0]
