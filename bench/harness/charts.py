"""Line charts as SVG files that stand alone: light or dark as the reader's system is, no scripts, no fonts.

A line has markers and whiskers, or is dashed and has neither: what would be ideal. Its name stands in the legend above.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from fastreason.reports.charts import ticks

__all__ = ["Axis", "Line", "chart"]

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 88, 20, 84, 88
_ROW = 20
# colours that people tell apart who do not see red and green alike: Okabe and Ito's, lighter where the page is dark
_STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #30363d; } .title { font-size: 15px; font-weight: 600; }
  .soft { fill: #59636e; font-size: 12px; } .page { fill: #ffffff; } .grid { stroke: #dfe3e8; }
  .line { fill: none; stroke-width: 2; } .dashed { stroke-dasharray: 6 5; stroke-width: 1.5; }
  .s0 { stroke: #0072b2; } .s1 { stroke: #c04f00; } .s2 { stroke: #007a5a; } .s3 { stroke: #9b4f82; }
  .d0 { fill: #0072b2; } .d1 { fill: #c04f00; } .d2 { fill: #007a5a; } .d3 { fill: #9b4f82; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .soft { fill: #9aa5b1; } .page { fill: #0d1117; } .grid { stroke: #30363d; }
    .s0 { stroke: #56b4e9; } .s1 { stroke: #f0883e; } .s2 { stroke: #3fc79a; } .s3 { stroke: #d291bc; }
    .d0 { fill: #56b4e9; } .d1 { fill: #f0883e; } .d2 { fill: #3fc79a; } .d3 { fill: #d291bc; }
  }
</style>"""
_STYLES = 4


@dataclass(frozen=True)
class Line:
    """One line.

    Args:
        name: in the legend.
        points: (x, y) in rising x.
        spans: (low, high) of y for every point, or nothing.
        style: 0 to 3: colour and marker.
        dashed: what would be ideal.
    """

    name: str
    points: Sequence[tuple[float, float]]
    spans: Sequence[tuple[float, float]] = ()
    style: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """A label with its unit, and whether equal factors are equal distances; `at`: the ticks, default round numbers."""

    label: str
    log: bool = False
    at: Sequence[float] = ()


def chart(lines: Sequence[Line], x: Axis, y: Axis, *, title: str, note: str = "") -> str:
    """A whole SVG file. A y axis that is not logarithmic starts at 0.

    Args:
        note: lines in small type at the bottom: where and when this was measured.
    Raises:
        ValueError: there are no points, or one at or below 0 on a logarithmic axis.
    """
    xs = [px for line in lines for px, _ in line.points]
    ys = [py for line in lines for _, py in line.points] + [
        end for line in lines for span in line.spans for end in span
    ]
    if not xs:
        raise ValueError(f"chart: {title!r} has no points")
    legend, top = _legend(lines)
    across, x_ticks = _scale("x", x, xs, LEFT, WIDTH - RIGHT)
    up, y_ticks = _scale("y", y, ys if y.log else [0.0, *ys], HEIGHT - BOTTOM, top)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">{_STYLE}',
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>',
        *legend,
    ]
    for value in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}"/>')
        parts.append(_text(LEFT - 8, up(value) + 4, f"{value:,.10g}", "end"))
    for value in x_ticks:
        parts.append(_text(across(value), HEIGHT - BOTTOM + 20, f"{value:,.10g}", "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 42, x.label, "middle"))
    middle = (top + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text transform="translate(16 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    for line in lines:
        parts += _drawn(line, across, up)
    rows = note.splitlines()
    parts += [_text(LEFT, HEIGHT - 8 - 16 * (len(rows) - 1 - i), row, "start") for i, row in enumerate(rows)]
    return "\n".join([*parts, "</svg>\n"])


Place = Callable[[float], float]


def _scale(name: str, axis: Axis, values: Sequence[float], low_at: float, high_at: float) -> tuple[Place, list[float]]:
    """Where a value stands, and the ticks."""
    low, high = min(values), max(values)
    if axis.log and low <= 0:
        raise ValueError(f"chart: the {name} axis is logarithmic, so its values must be positive, got {low}")
    of: Callable[[float], float] = math.log if axis.log else float
    if high == low:
        low, high = (low / 2, high * 2) if axis.log else (low - 0.5, high + 0.5)
    margin = 0.04 * (of(high) - of(low))
    # the zero of an axis is its end
    first = of(low) - (0.0 if low == 0 and not axis.log else margin)
    last = of(high) + margin

    def place(value: float) -> float:
        return low_at + (of(value) - first) / (last - first) * (high_at - low_at)

    if axis.at:
        return place, list(axis.at)
    return place, _log_ticks(low, high) if axis.log else ticks(low, high)


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, within a factor of the range; powers alone where that is many.

    >>> _log_ticks(0.9, 11.0)
    [1.0, 2.0, 5.0, 10.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    found = [value for value in fine if low * 0.96 <= value <= high * 1.04]
    return found if len(found) <= 8 else [value for value in found if math.log10(value) % 1 == 0]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="soft" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(lines: Sequence[Line]) -> tuple[list[str], int]:
    """Two names a row under the title, and where the picture begins."""
    parts = []
    wide = (WIDTH - LEFT - RIGHT) / 2
    for i, line in enumerate(lines):
        x, y = LEFT + wide * (i % 2), 44 + _ROW * (i // 2)
        parts.append(f'<polyline class="line {_kind(line)}" points="{x:.0f},{y - 4} {x + 28:.0f},{y - 4}"/>')
        parts += [] if line.dashed else [_marker(line.style, x + 14, y - 4)]
        parts.append(f'<text x="{x + 36:.0f}" y="{y}">{escape(line.name)}</text>')
    return parts, max(TOP, 60 + _ROW * ((len(lines) + 1) // 2))


def _kind(line: Line) -> str:
    return f"s{line.style % _STYLES}{' dashed' if line.dashed else ''}"


def _drawn(line: Line, across: Place, up: Place) -> list[str]:
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
    parts = [f'<polyline class="line {_kind(line)}" points="{path}"/>']
    for (x, _), (low, high) in zip(line.points, line.spans, strict=False):
        at, top, bottom = across(x), up(high), up(low)
        whisker = f"M{at - 4:.1f},{top:.1f}h8m-4,0V{bottom:.1f}m-4,0h8"
        parts.append(f'<path class="line {_kind(line)}" d="{whisker}"/>')
    if line.dashed:
        return parts
    for x, y in line.points:
        said = escape(f"{line.name}: {y:.3g} at {x:,g}")
        parts.append(
            _marker(line.style, across(x), up(y)).replace("/>", f"><title>{said}</title>", 1) + _END[line.style % 2]
        )
    return parts


_END = ("</circle>", "</rect>")


def _marker(style: int, x: float, y: float) -> str:
    if style % 2:
        return f'<rect class="d{style % _STYLES}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    return f'<circle class="d{style % _STYLES}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
