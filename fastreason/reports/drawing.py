"""An SVG drawn by matplotlib for a page of light and dark mode, with a text on every value.

matplotlib draws axes, lines, legends and clip paths in colors that stand for variables of the page: --s0 ... --s9,
--text, --soft, --line, --card. On top lie invisible marks that say a value exactly on hover, on a tap and for the Tab
key (`.point:hover .tip, .point:focus .tip { display: inline }`), as an SVG title is shown to a mouse alone.

Lengths are in pixels of the SVG, whose y grows downwards.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.util import find_spec
from typing import Any

WIDTH = 440
_LEFT, _RIGHT, _TOP, _BOTTOM, _ROW = 56, 16, 10, 46, 20
MARKERS = "os^Dv*Xphd"
# what matplotlib is told, and what takes its place
_VARIABLES = {f"#0000b{i}": f"var(--s{i})" for i in range(10)}
_VARIABLES |= {"#0000a0": "var(--text)", "#0000a1": "var(--soft)", "#0000a2": "var(--line)", "#0000a3": "var(--card)"}
TEXT, SOFT, LINE, CARD = list(_VARIABLES)[-4:]
_STYLE: dict[Any, Any] = {  # matplotlib types its keys one by one
    "svg.fonttype": "none",
    "font.size": 12.5,
    "text.color": TEXT,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": LINE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "path.simplify": False,
}


@cache
def matplotlib_is_installed() -> bool:
    return find_spec("matplotlib") is not None


def color(style: int) -> str:
    return f"#0000b{style % 10}"


class Drawing:
    """A figure of one pair of axes, under its legend.

    Args:
        title: its name for screen readers.
        names: (name, style) of what the legend shows, two in a row; longer names have a row each.
        height: of axes and labels, without legend.
        bars: whether the legend shows areas and not lines with markers.
    """

    def __init__(self, title: str, names: Sequence[tuple[str, int]], height: float, *, bars: bool = False) -> None:
        import matplotlib
        from matplotlib.figure import Figure

        self.title, self._points = title, list[str]()
        columns = 2 if max((len(name) for name, _ in names), default=0) <= 24 else 1
        legend = _ROW * -(-len(names) // columns)
        self.height = height + legend
        self._style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": title}
        with matplotlib.rc_context(self._style):
            self.figure = Figure(figsize=(WIDTH / 72, self.height / 72), dpi=72, facecolor="none")
            across, up = (WIDTH - _LEFT - _RIGHT) / WIDTH, (height - _TOP - _BOTTOM) / self.height
            self.axes: Any = self.figure.add_axes((_LEFT / WIDTH, _BOTTOM / self.height, across, up))
            if names:
                self._legend(names, columns, bars)

    def rows(self, names: Sequence[str]) -> None:
        """Named rows over the whole width in place of y; row i is between i and i + 1, its name in its upper half."""
        self.axes.set_yticks([])
        self.axes.grid(axis="y", visible=False)
        self.axes.spines["left"].set_visible(False)
        self.axes.set_ylim(len(names), 0)
        place = self.axes.get_position()
        self.axes.set_position([_RIGHT / WIDTH, place.y0, 1 - 2 * _RIGHT / WIDTH, place.height])
        for i, name in enumerate(names):
            across = self.axes.get_yaxis_transform()
            self.axes.text(0.0, i + 0.3, name, transform=across, va="center", color=TEXT, size=_STYLE["font.size"])

    def _legend(self, names: Sequence[tuple[str, int]], columns: int, bars: bool) -> None:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        handles: list[Any] = []
        for _, style in names:
            marker = MARKERS[style % len(MARKERS)]
            line = Line2D([], [], color=color(style), marker=marker, markersize=5, linewidth=1.8)
            handles.append(Patch(color=color(style)) if bars else line)
        self.figure.legend(
            handles,
            [name for name, _ in names],
            loc="upper left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            borderaxespad=0,
            borderpad=0,
            labelspacing=0.25,
            columnspacing=1.4,
            handlelength=1.8,
        )

    def aside(self, drawn: Any, pixels: float) -> None:
        """Shifts what is drawn to the right."""
        from matplotlib.transforms import ScaledTranslation

        shift = ScaledTranslation(pixels / 72, 0, self.figure.dpi_scale_trans)
        drawn.set_transform(self.axes.transData + shift)

    def say(self, x: float, y: float, said: str, radius: float = 9) -> None:
        """Puts an invisible mark at a place in the units of the axes; their limits must not change any more."""
        low, high = sorted(self.axes.get_ylim())  # which also makes limits follow from what is drawn
        across, up = self.axes.transData.transform((x, y))
        if low <= y <= high:
            self._points.append(value_mark(float(across), self.height - float(up), said, radius))

    def svg(self) -> str:
        """An `<svg>` element."""
        import matplotlib

        file = io.StringIO()
        with matplotlib.rc_context(self._style):
            facts = {"Creator": None, "Date": None, "Format": None, "Type": None}
            self.figure.savefig(file, format="svg", transparent=True, metadata=facts)
        drawn = file.getvalue()
        drawn = drawn[drawn.index("<g id=") : drawn.rindex("</svg>")]
        drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL).replace("xlink:href", "href")
        # ids are unique on a page but for those of groups, which nothing refers to
        drawn = re.sub(r'<g id="(?!clip)[^"]*"', "<g", drawn)
        drawn = re.sub(r"#0000[0-9a-f]{2}", lambda found: _VARIABLES[found[0]], drawn)
        drawn = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", drawn)
        drawn = re.sub(r"(\d\.\d\d)\d+", r"\1", re.sub(r"\n\s*", "\n", drawn))
        # role group, because role img would hide the points from screen readers
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height:g}" role="group" aria-label="{escape(self.title)}" '
            f'xmlns="http://www.w3.org/2000/svg">{drawn}{"".join(self._points)}</svg>'
        )


def value_mark(x: float, y: float, said: str, radius: float = 9, width: int = WIDTH) -> str:
    """An invisible mark of an SVG of this width that shows a text on hover and focus."""
    text = escape(said)
    # at 12 px a character is about 6.2 px wide; the box stays inside the chart
    wide = min(len(said) * 6.2 + 12, width - 4.0)
    left = min(max(x - wide / 2, 2), width - 2 - wide)
    top = y + 12 if y < 40 else y - 34
    return (
        f'<g class="point" tabindex="0" role="img" aria-label="{text}">'
        f'<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="transparent"/>'
        f'<g class="tip" display="none"><rect x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="22" rx="4"/>'
        f'<text x="{left + wide / 2:.1f}" y="{top + 15:.1f}" text-anchor="middle" textLength="{wide - 12:.1f}" '
        f'lengthAdjust="spacingAndGlyphs">{text}</text></g></g>'
    )
