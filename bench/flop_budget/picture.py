"""The picture of bench_budget: verified pass@1 against FLOP and against seconds, ours and the peers', by split."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fastreason.reports.charts import HEIGHT, Series, line_chart

_WIDTH, _TOP, _LEGEND = 480, 26, 66
_NUDGE = 1.06  # lines that have the same budget stand beside each other
_MARGIN = 1.3

_STYLE = """<style>
  svg { font: 13px system-ui, sans-serif; }
  .page { fill: #ffffff; } text { fill: #1f2328; } .tick, .axis { fill: #59636e; } .grid { stroke: #d9dee3; }
  polyline { fill: none; stroke-width: 2; } .dashed { stroke-dasharray: 5 4; } .whisker { stroke-width: 1.5; }
  .dot { stroke: none; }
  .s0 { stroke: #0072b2; } .s1 { stroke: #d55e00; } .s2 { stroke: #008060; } .s3 { stroke: #a0468c; }
  .s4 { stroke: #8a6d00; }
  .s0.dot { fill: #0072b2; } .s1.dot { fill: #d55e00; } .s2.dot { fill: #008060; } .s3.dot { fill: #a0468c; }
  .s4.dot { fill: #8a6d00; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } text { fill: #e6edf3; } .tick, .axis { fill: #9198a1; } .grid { stroke: #30363d; }
    .s0 { stroke: #4aa8e0; } .s1 { stroke: #ff8c42; } .s2 { stroke: #2dbf95; } .s3 { stroke: #dd8ccb; }
    .s4 { stroke: #d9b93b; }
    .s0.dot { fill: #4aa8e0; } .s1.dot { fill: #ff8c42; } .s2.dot { fill: #2dbf95; } .s3.dot { fill: #dd8ccb; }
    .s4.dot { fill: #d9b93b; }
  }
</style>"""


def picture(all_results: Sequence[Mapping[str, Any]]) -> str:
    """A panel for each range that some split does something in, by FLOP on the left and by seconds on the right.

    Args:
        all_results: of each budget, as `budget_report.collect` gives them.
    Returns:
        An SVG document that suits light and dark pages. Whiskers are 95 % intervals; the peers' lines are dashed.
    """
    ranges = [name for name in all_results[0]["ranges"] if _highest(all_results, name) >= 0.01]
    panels = []
    for row, name in enumerate(ranges or list(all_results[0]["ranges"])[:1]):
        for column, x_label in enumerate(("FLOP", "seconds (dashed: the peer stack, extrapolated)")):
            series = _series(all_results, name, by_seconds=column == 1)
            xs = [x for line in series for x, _ in line.points]
            chart = line_chart(
                series,
                title=f"Verified pass@1, {name}, against {'seconds' if column else 'FLOP'}",
                x_label=x_label,
                y_label=f"verified pass@1, {name}",
                y_range=(0.0, 1.0),
                log_x=True,
                x_range=(min(xs) / _MARGIN, max(xs) * _MARGIN) if xs else None,
                x_ticks=[mantissa * 10.0**power for power in range(20) for mantissa in (1, 3)],
                width=_WIDTH,
                height=HEIGHT,
            ).split("</svg>")[0]
            # a mark's text is for pages whose script or style shows it
            chart = re.sub(r'<g class="point".*?</g></g>', "", chart)
            place = f'<svg x="{column * _WIDTH}" y="{_TOP + row * HEIGHT}" width="{_WIDTH}" height="{HEIGHT}" '
            panels.append(place + chart.removeprefix("<svg ") + "</svg>")
    width, height = 2 * _WIDTH, _TOP + HEIGHT * max(1, len(ranges)) + _LEGEND
    opening = (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'aria-label="Verified pass@1 against FLOP and against seconds, by split" xmlns="http://www.w3.org/2000/svg">'
    )
    page = f'<rect class="page" width="{width}" height="{height}"/>'
    title = '<text x="52" y="18">Splits of a budget: % of FLOP on pre-training - mid-training - RL</text>'
    return "".join([opening, _STYLE, page, title, *panels, _legend(all_results, height - _LEGEND), "</svg>\n"])


def _highest(all_results: Sequence[Mapping[str, Any]], name: str) -> float:
    values = [e["scores"][name]["1"]["mean"] for r in all_results for e in r["splits"].values() if e["seeds"]]
    return max(values, default=0.0)


def _series(all_results: Sequence[Mapping[str, Any]], name: str, *, by_seconds: bool) -> list[Series]:
    splits = list(dict.fromkeys(split for results in all_results for split in results["splits"]))
    found = []
    for style, split in enumerate(splits):
        entries = [(r["flop"], r["splits"][split]) for r in all_results if r["splits"].get(split, {}).get("seeds")]
        effects = [entry["scores"][name]["1"] for _, entry in entries]
        spans = [(max(0.0, e["interval"][0]), min(1.0, e["interval"][1])) for e in effects]
        nudge = _NUDGE ** (style - (len(splits) - 1) / 2)
        if by_seconds:
            xs: list[float | None] = [statistics.median(entry["seconds"]) for _, entry in entries]
            peer = [entry["peer_seconds"] for _, entry in entries]
        else:
            xs, peer = [flop * nudge for flop, _ in entries], []
        for at, dashed in ((xs, False), (peer, True)):
            shown = [(x, e["mean"], span) for x, e, span in zip(at, effects, spans, strict=bool(at)) if x is not None]
            if shown:
                points = [(x, y) for x, y, _ in shown]
                found.append(Series(split, points, style, dashed, [span for *_, span in shown]))
    return found


def _legend(all_results: Sequence[Mapping[str, Any]], top: int) -> str:
    splits = list(dict.fromkeys(split for results in all_results for split in results["splits"]))
    items = []
    for style, split in enumerate(splits):
        x, y = 52 + 170 * (style % 5), top + 24
        items.append(f'<polyline class="s{style}" points="{x},{y - 4} {x + 28},{y - 4}"/>')
        items.append(f'<text x="{x + 36}" y="{y}">{split}</text>')
    said = "Solid: fastreason. Dashed: the peer stack, extrapolated from measured steps. Whiskers: 95 % intervals."
    return "".join(items) + f'<text class="axis" x="52" y="{top + 50}">{said}</text>'
