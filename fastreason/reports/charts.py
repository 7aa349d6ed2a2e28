"""The three charts of reports: lines, values with intervals, and shares. Shares are of 1, and shown in percent.

Where matplotlib is not installed a chart is a sentence that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .drawing import CARD, LINE, MARKERS, SOFT, TEXT, Drawing, color, matplotlib_is_installed

_HEIGHT, _ROW_HEIGHT, _BAR_HEIGHT, _AROUND = 270, 40, 44, 56
# marked points of a long line, besides its first, lowest and highest; more would be too close together
_MOST_POINTS = 20
NOTHING = '<p class="empty">nothing to plot yet</p>'
NOT_INSTALLED = "<p class=\"empty\">no chart without matplotlib: pip install 'fastreason[report]'</p>"


@dataclass(frozen=True)
class Series:
    """One line.

    Args:
        name: in the legend.
        points: (x, y) by increasing x.
        style: 0, 1, 2, ...: color and marker.
        intervals: None, or (low, high) of y for every point.
        note: what a point is, for its text, for example "mean of 3 seeds".
        digits: of values in the text of a point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    intervals: Sequence[tuple[float, float]] | None = None
    note: str = ""
    digits: int = 4


@dataclass(frozen=True)
class Row:
    """One row of `interval_chart`: a name, and values with intervals.

    Args:
        name: shown above.
        values: (label, value, low, high, style); low and high may equal the value.
        bounds: positions of dotted marks, for example the smallest effect that counts.
    """

    name: str
    values: Sequence[tuple[str, float, float, float, int]]
    bounds: Sequence[float] = ()


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    share: bool = False,
    log_x: bool = False,
    integer_x: bool = False,
) -> str:
    """An `<svg>` element with its legend; `title` is its name for screen readers.

    Args:
        share: whether y is a share; its axis then covers 0 to 100 %, and more where a value is outside.
        log_x: whether equal factors of x are equal distances, as of k; every x is labeled.
        integer_x: whether x are a few integers, each labeled.
    """
    if not any(line.points for line in series):
        return NOTHING
    if not matplotlib_is_installed():
        return NOT_INSTALLED
    scale = 100.0 if share else 1.0
    drawing = Drawing(title, [(line.name, line.style) for line in series], _HEIGHT)
    axes = drawing.axes
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"{y_label}, %" if share else y_label)
    for i, line in enumerate(series):
        _draw_line(drawing, line, scale, aside=2.5 * (i - (len(series) - 1) / 2))
    low, high = _ends(series, scale)
    if share:
        axes.set_ylim(min(0.0, low), max(100.0, high))
    elif low == high:
        axes.set_ylim(low - 0.5, high + 0.5)
    if log_x:
        axes.set_xscale("log")
    if log_x or integer_x:
        xs = sorted({x for line in series for x, _ in line.points})
        xs = xs[:: -(-len(xs) // 12)]
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
        axes.minorticks_off()
    for line in series:
        _say_line(drawing, line, scale, " %" if share else "")
    return drawing.svg()


def _ends(series: Sequence[Series], scale: float) -> tuple[float, float]:
    """The lowest and the highest value, with intervals."""
    ys = [y for line in series for _, y in line.points]
    ys += [end for line in series for interval in line.intervals or () for end in interval]
    return scale * min(ys), scale * max(ys)


def _draw_line(drawing: Drawing, line: Series, scale: float, aside: float) -> None:
    """Intervals are `aside` pixels from their points, so that those of several lines do not hide each other."""
    xs, ys = [x for x, _ in line.points], [scale * y for _, y in line.points]
    marker = MARKERS[line.style % len(MARKERS)]
    drawing.axes.plot(
        xs,
        ys,
        color=color(line.style),
        marker=marker,
        markersize=5,
        markevery=_marked(ys),
        linewidth=1.8,
    )
    if line.intervals is not None:
        lows, highs = zip(*line.intervals, strict=True)
        ends = ([scale * y for y in lows], [scale * y for y in highs])
        drawing.aside(drawing.axes.vlines(xs, *ends, color=color(line.style), alpha=0.6), aside)


def _marked(ys: Sequence[float]) -> list[int]:
    """The points that have a marker and say their value: all of a short line; of a long one some, with its first, last,
    lowest and highest."""
    if not ys:
        return []
    every = -(-len(ys) // _MOST_POINTS)
    return sorted({*range(len(ys) - 1, -1, -every), 0, ys.index(min(ys)), ys.index(max(ys))})


def _say_line(drawing: Drawing, line: Series, scale: float, unit: str) -> None:
    for i in _marked([y for _, y in line.points]):
        x, y = line.points[i]
        said = f"{line.name}: {number(scale * y, line.digits)}{unit} at {number(x, line.digits)}"
        if line.intervals is not None:
            low, high = (number(scale * end, line.digits) for end in line.intervals[i])
            said += f" (95 % interval {low} to {high})"
        drawing.say(x, scale * y, said + (f", {line.note}" if line.note else ""))


def number(value: float, digits: int = 4) -> str:
    """Digits of a value without exponent where it is large; -0 is 0.

    >>> [number(v) for v in (-0.0, 12.3456, 123456.0, 3.74)]
    ['0', '12.35', '123456', '3.74']
    """
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value + 0.0:.{digits}g}"


def interval_chart(rows: Sequence[Row], *, title: str, x_label: str, limits: tuple[float, float] | None = None) -> str:
    """Values with intervals on one axis, one row each, with a line at 0; `limits` of x follow from them by default."""
    if not rows:
        return NOTHING
    if not matplotlib_is_installed():
        return NOT_INSTALLED
    names = {style: name for row in rows for name, _, _, _, style in row.values if name}
    drawing = Drawing(title, [(name, style) for style, name in names.items()], _AROUND + _ROW_HEIGHT * len(rows))
    axes = drawing.axes
    drawing.rows([row.name for row in rows])
    axes.set_xlabel(x_label)
    axes.axvline(0.0, color=SOFT, linewidth=1)
    for i, row in enumerate(rows):
        for bound in row.bounds:
            axes.plot([bound] * 2, [i + 0.45, i + 0.98], color=TEXT, linestyle=":", linewidth=2)
        for _, value, low, high, style in row.values:
            axes.plot([low, high], [i + 0.72] * 2, color=color(style), linewidth=3, alpha=0.55, solid_capstyle="butt")
            axes.plot([value], [i + 0.72], color=color(style), marker=MARKERS[style % len(MARKERS)], markersize=7)
    if limits is not None:
        axes.set_xlim(*limits)
    for i, row in enumerate(rows):
        for name, value, low, high, _ in row.values:
            said = f"{row.name}, {name}: {value + 0.0:.3g}" if name else f"{row.name}: {value + 0.0:.3g}"
            interval = f" (95 % interval {low + 0.0:.3g} to {high + 0.0:.3g})" if high > low else ""
            drawing.say(value, i + 0.72, said + interval)
    return drawing.svg()


def share_chart(rows: Sequence[tuple[str, Sequence[tuple[str, float]]]], *, title: str) -> str:
    """Shares that add up to at most 1, as one bar per row; a name has the same color in every row."""
    if not rows:
        return NOTHING
    if not matplotlib_is_installed():
        return NOT_INSTALLED
    names = list(dict.fromkeys(name for _, shares in rows for name, _ in shares))
    legend = [(name, i) for i, name in enumerate(names)]
    drawing = Drawing(title, legend, _AROUND + _BAR_HEIGHT * len(rows), bars=True)
    axes = drawing.axes
    drawing.rows([name for name, _ in rows])
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of samples, %")
    for i, (row, shares) in enumerate(rows):
        axes.barh(i + 0.7, 100, height=0.38, color=CARD, edgecolor=LINE, linewidth=1)
        start = 0.0
        for name, value in shares:
            axes.barh(i + 0.7, 100 * value, left=start, height=0.38, color=color(names.index(name)), linewidth=0)
            drawing.say(start + 50 * value, i + 0.7, f"{row}, {name}: {number(100 * value)} %", 8)
            start += 100 * value
    return drawing.svg()
