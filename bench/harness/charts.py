"""Line charts of reports as SVG files of their own: light or dark as the reader's system is, no scripts, no fonts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .svg_lines import Series, line_chart, log_ticks

__all__ = ["Axis", "chart"]

WIDTH, HEIGHT, LEFT = 720, 420, 88
_ROW = 20
# colours that people tell apart who do not see red and green alike: Okabe and Ito's, lighter where the page is dark
_LIGHT, _DARK = ("#0072b2", "#c04f00", "#007a5a", "#9b4f82"), ("#56b4e9", "#f0883e", "#3fc79a", "#d291bc")


def _colours(page: str, text: str, soft: str, grid: str, lines: Sequence[str]) -> str:
    named = "".join(f" .s{i} {{ stroke: {c}; }} .s{i}.dot {{ fill: {c}; }}" for i, c in enumerate(lines))
    tip = f".tip rect {{ fill: {text}; }} .tip text {{ fill: {page}; }}"
    return (
        f".page {{ fill: {page}; }} text {{ fill: {text}; }} .tick, .axis {{ fill: {soft}; }} "
        f".grid {{ stroke: {grid}; }}{named} {tip}"
    )


_STYLE = f"""<style>
  text {{ font: 13px system-ui, sans-serif; }} .title {{ font-size: 15px; font-weight: 600; }}
  .tick, .axis, .tip text {{ font-size: 12px; }} polyline {{ fill: none; stroke-width: 2; }}
  .dashed {{ stroke-dasharray: 6 5; stroke-width: 1.5; }} .whisker {{ stroke-width: 2; }}
  .point:hover .tip {{ display: inline; }} {_colours("#ffffff", "#30363d", "#59636e", "#dfe3e8", _LIGHT)}
  @media (prefers-color-scheme: dark) {{ {_colours("#0d1117", "#e6edf3", "#9aa5b1", "#30363d", _DARK)} }}
</style>"""


@dataclass(frozen=True)
class Axis:
    """A label with its unit, and whether equal factors are equal distances; `at`: the ticks, default round numbers."""

    label: str
    log: bool = False
    at: Sequence[float] = ()


def chart(lines: Sequence[Series], x: Axis, y: Axis, *, title: str, note: str = "") -> str:
    """A whole SVG file. A y axis that is not logarithmic starts at 0.

    Args:
        lines: with style 0 to 3; dashed is what would be ideal.
        note: lines in small type at the bottom: where and when this was measured.
    Raises:
        ValueError: there are no points, or one at or below 0 on a logarithmic axis.
    """
    xs = [px for line in lines for px, _ in line.points]
    ys = [py for line in lines for _, py in line.points]
    ys += [end for line in lines for span in line.intervals or () for end in span]
    if not xs:
        raise ValueError(f"chart: {title!r} has no points")
    for name, axis, values in (("x", x, xs), ("y", y, ys)):
        if axis.log and min(values) <= 0:
            raise ValueError(
                f"chart: the {name} axis is logarithmic, so its values must be positive, got {min(values)}"
            )
    legend, top = _legend(lines)
    rows = note.splitlines()
    margin = (max(xs) / min(xs)) ** 0.04 if x.log else 1.0
    height = HEIGHT - top - 16 * len(rows) - 8
    drawn = line_chart(
        lines,
        title=title,
        x_label=x.label,
        y_label=y.label,
        y_range=(min(ys), max(ys)) if y.log else (min(0.0, *ys), max(ys)),
        log_x=x.log,
        log_y=y.log,
        x_range=(min(xs) / margin, max(xs) * margin) if x.log and margin > 1 else None,
        x_ticks=x.at or (log_ticks(min(xs), max(xs)) if x.log else None),
        width=WIDTH,
        height=height,
        left=LEFT,
    )
    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
            f'aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">{_STYLE}',
            f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
            f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>',
            *legend,
            f'<svg y="{top}" width="{WIDTH}" height="{height}" ',
            drawn[len("<svg ") : drawn.index("</svg>")],  # its legend is HTML
            "</svg>",
            *(_text(LEFT, HEIGHT - 8 - 16 * (len(rows) - 1 - i), row) for i, row in enumerate(rows)),
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _legend(lines: Sequence[Series]) -> tuple[list[str], int]:
    """Two names a row under the title, and where the picture begins."""
    parts = []
    for i, line in enumerate(lines):
        x, y = LEFT + 300 * (i % 2), 44 + _ROW * (i // 2)
        kind = f"s{line.style}{' dashed' if line.dashed else ''}"
        parts.append(f'<polyline class="{kind}" points="{x:.0f},{y - 4} {x + 28:.0f},{y - 4}"/>')
        parts.append(f'<text x="{x + 36:.0f}" y="{y}">{escape(line.name)}</text>')
    return parts, 40 + _ROW * ((len(lines) + 1) // 2)
