"""The graph of a problem as an SVG, from the given quantities on the left to the one asked for on the right.

Quantities that the answer depends on have strong colors, distractors pale ones; the one asked for has a bold frame.
Hovering over a quantity shows its sentence. Supports light and dark mode.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from statistics import fmean

from .graph import ProblemGraph, Quantity

WIDTH, HEIGHT, GAP_X, GAP_Y, BEND = (
    216,
    54,
    64,
    14,
    10,
)  # of boxes, between them, and of bends where a long edge passes a layer
MARGIN, HEAD = 24, 84

_STYLE = """
.sheet { fill: #ffffff } text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 } .legend { fill: #59636e } .value { font-weight: 700 }
.box { fill: #ddebff; stroke: #0a58ca; stroke-width: 1.3 } .given .box { fill: #eaf6ec; stroke: #1a7f37 }
.asked .box { fill: #fff1d6; stroke: #b35900; stroke-width: 3 } .told .box { stroke-width: 3 }
.pale .box { fill: #f6f8fa; stroke: #d1d9e0; stroke-width: 1 } .pale text { fill: #818b98 }
.edge { fill: none; stroke: #0a58ca; stroke-width: 1.5 } .edge.pale { stroke: #d1d9e0; stroke-width: 1 }
.tip { fill: #0a58ca } .tip.pale { fill: #d1d9e0 }
@media (prefers-color-scheme: dark) {
.sheet { fill: #0d1117 } text { fill: #e6edf3 } .legend { fill: #9198a1 }
.box { fill: #10263f; stroke: #58a6ff } .given .box { fill: #0f2a17; stroke: #3fb950 }
.asked .box { fill: #3b2300; stroke: #f0a04b } .pale .box { fill: #151b23; stroke: #3d444d }
.pale text { fill: #7d8590 }
.edge { stroke: #58a6ff } .edge.pale { stroke: #3d444d } .tip { fill: #58a6ff } .tip.pale { fill: #3d444d }
}
"""


_LEGEND = "Green: given; blue: computed; orange: asked for; gray: not needed. Letters: the parents, in sentence order."


@dataclass
class _Spot:
    """A quantity, or a bend of an edge that passes a layer."""

    layer: int
    quantity: int | None
    y: float = 0.0  # of its middle

    @property
    def height(self) -> int:
        return BEND if self.quantity is None else HEIGHT


def graph_svg(graph: ProblemGraph) -> str:
    """An SVG document."""
    quantities, parents = _without_specials(graph)
    layers_of = _layers(quantities, parents)
    spots = {i: _Spot(layer, i) for i, layer in layers_of.items()}
    routes = []  # the spots of each edge, in order
    for child in quantities:
        for parent in parents[child]:
            if spots[parent].layer < spots[child].layer:
                bends = [_Spot(layer, None) for layer in range(spots[parent].layer + 1, spots[child].layer)]
                routes.append([spots[parent], *bends, spots[child]])
            else:
                routes.append([spots[parent], spots[child]])  # distractors may define each other in a circle
    columns = _arrange(list(spots.values()), routes, graph)
    width = 2 * MARGIN + len(columns) * (WIDTH + GAP_X) - GAP_X
    height = MARGIN + max(column[-1].y + column[-1].height / 2 for column in columns)
    width = max(width, 2 * MARGIN + 720)
    question = textwrap.wrap(graph.question, max(40, int((width - 2 * MARGIN) / 8)))
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" role="img"><title>{escape(graph.question)}</title><style>{_STYLE}</style>',
        f'<rect class="sheet" width="{width}" height="{height:.0f}"/>',
        *(
            f'<text class="title" x="{MARGIN}" y="{28 + 18 * k}">{escape(line)}</text>'
            for k, line in enumerate(question)
        ),
        f'<text class="legend" x="{MARGIN}" y="{34 + 18 * len(question)}">Answer {graph.answer}. {_LEGEND}</text>',
        *(_edge(route, graph) for route in sorted(routes, key=lambda route: _is_needed(route, graph))),
        *(_box(spots[i], graph) for i in quantities),
        "</svg>",
    ]
    return "\n".join(body) + "\n"


def _without_specials(graph: ProblemGraph) -> tuple[list[int], dict[int, list[int]]]:
    """All quantities except second names of averages, and the parents of each."""

    def itself(i: int) -> int:
        return graph.quantities[i].parents[0] if graph.quantities[i].kind == "special" else i

    shown = [i for i, quantity in enumerate(graph.quantities) if quantity.kind != "special"]
    return shown, {i: list(dict.fromkeys(itself(p) for p in graph.quantities[i].parents)) for i in shown}


def _layers(quantities: list[int], parents: dict[int, list[int]]) -> dict[int, int]:
    """The layer of each quantity: its longest path from the left; one without parents is just before its first use."""
    layer: dict[int, int] = {}
    on_the_way: set[int] = set()

    def visit(i: int) -> int:
        if i not in layer:
            on_the_way.add(i)
            layer[i] = 1 + max((visit(p) for p in parents[i] if p not in on_the_way), default=-1)
            on_the_way.discard(i)
        return layer[i]

    for i in quantities:
        visit(i)
    children: dict[int, list[int]] = {i: [] for i in quantities}
    for child in quantities:
        for parent in parents[child]:
            children[parent].append(child)
    for i in quantities:
        if not parents[i] and children[i]:
            layer[i] = max(0, min(layer[child] for child in children[i]) - 1)
    return layer


def _arrange(spots: list[_Spot], routes: list[list[_Spot]], graph: ProblemGraph) -> list[list[_Spot]]:
    """Columns with y set for every spot: first to reduce crossings, then for short edges without overlap."""
    bends = [spot for route in routes for spot in route if spot.quantity is None]
    columns: list[list[_Spot]] = [[] for _ in range(1 + max(spot.layer for spot in spots))]
    # quantities that the answer depends on come first
    for spot in sorted(spots, key=lambda spot: not _needs(graph, spot)) + bends:
        columns[spot.layer].append(spot)
    left: dict[int, list[_Spot]] = {id(spot): [] for spot in spots + bends}
    right: dict[int, list[_Spot]] = {id(spot): [] for spot in spots + bends}
    for route in routes:
        for a, b in pairwise(route):
            right[id(a)].append(b)
            left[id(b)].append(a)
    for column in columns:
        _stack(column)
    for sweep in range(12):
        neighbours = left if sweep % 2 == 0 else right
        for column in columns if sweep % 2 == 0 else reversed(columns):
            wanted = {id(spot): _mean([n.y for n in neighbours[id(spot)]], spot.y) for spot in column}
            column.sort(key=lambda spot: wanted[id(spot)])
            _stack(column)
    for _ in range(20):
        for column in columns:
            _settle(column, [_mean([n.y for n in left[id(s)] + right[id(s)]], s.y) for s in column])
    top = min(column[0].y - column[0].height / 2 for column in columns)
    for spot in spots + bends:
        spot.y += HEAD - top
    return columns


def _mean(values: list[float], otherwise: float) -> float:
    return fmean(values) if values else otherwise


def _stack(column: list[_Spot]) -> None:
    """In order, around 0."""
    total = sum(spot.height + GAP_Y for spot in column) - GAP_Y
    y = -total / 2
    for spot in column:
        spot.y = y + spot.height / 2
        y += spot.height + GAP_Y


def _settle(column: list[_Spot], wanted: list[float]) -> None:
    """Moves spots close to their preferred y, in order and without overlap: the mean of pushing down and up."""
    apart = [(a.height + b.height) / 2 + GAP_Y for a, b in pairwise(column)]
    down, up = wanted[:], wanted[:]
    for k, distance in enumerate(apart):
        down[k + 1] = max(down[k + 1], down[k] + distance)
    for k, distance in reversed(list(enumerate(apart))):
        up[k] = min(up[k], up[k + 1] - distance)
    for spot, a, b in zip(column, down, up, strict=True):
        spot.y = (a + b) / 2


def _needs(graph: ProblemGraph, spot: _Spot) -> bool:
    return spot.quantity is not None and graph.quantities[spot.quantity].necessary


def _is_needed(route: list[_Spot], graph: ProblemGraph) -> bool:
    return _needs(graph, route[0]) and _needs(graph, route[-1])


def _x(layer: int) -> float:
    return MARGIN + layer * (WIDTH + GAP_X)


def _edge(route: list[_Spot], graph: ProblemGraph) -> str:
    """From the right side of the parent through the bends to the left side of the child, with a tip."""
    name = "edge" if _is_needed(route, graph) else "edge pale"
    points = [(_x(route[0].layer) + WIDTH, route[0].y)]
    for bend in route[1:-1]:
        points += [(_x(bend.layer), bend.y), (_x(bend.layer) + WIDTH, bend.y)]
    end_x, end_y = _x(route[-1].layer) - 6, route[-1].y
    points.append((end_x, end_y))
    path = f"M{points[0][0]:.0f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        reach = max(30.0, abs(x1 - x0) / 2)
        path += f"C{x0 + reach:.0f} {y0:.1f} {x1 - reach:.0f} {y1:.1f} {x1:.0f} {y1:.1f}"
    tip = f'<path class="{name.replace("edge", "tip")}" d="M{end_x + 6:.0f} {end_y:.1f}l-8 -4v8z"/>'
    return f'<path class="{name}" d="{path}"/>{tip}'


def _box(spot: _Spot, graph: ProblemGraph) -> str:
    assert spot.quantity is not None
    quantity = graph.quantities[spot.quantity]
    lines = textwrap.wrap(quantity.name, 30)
    if len(lines) > 2:
        lines = [lines[0], textwrap.shorten(" ".join(lines[1:]), 29, placeholder="…")]
    x, y = _x(spot.layer), spot.y - HEIGHT / 2
    definition = graph.definition(spot.quantity)
    value = "?" if quantity.unknown else quantity.value
    known = "?" if quantity.unknown else definition
    last = f"{known} = {value}" if quantity.parents and value is not None else known
    middle, top = x + WIDTH / 2, y + (24 if len(lines) == 1 else 17)
    rows = [("", line) for line in lines] + [(' class="value"', last)]
    spans = "".join(
        f'<text{kind} x="{middle:.0f}" y="{top + 14.5 * k:.1f}" text-anchor="middle">{escape(text)}</text>'
        for k, (kind, text) in enumerate(rows)
    )
    return (
        f'<g class="{_role(spot.quantity, graph)}"><title>{escape(_hover(quantity, graph))}</title>'
        f'<rect class="box" x="{x}" y="{y:.1f}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>{spans}</g>'
    )


def _role(i: int, graph: ProblemGraph) -> str:
    quantity = graph.quantities[i]
    reverse = any(other.unknown for other in graph.quantities)
    # the target may be a second name of an average
    target = any(
        q.target and (k == i or (q.kind == "special" and i in q.parents)) for k, q in enumerate(graph.quantities)
    )
    if quantity.unknown or (target and not reverse):
        return "asked"
    if not quantity.necessary:
        return "pale"
    if target:
        return "told"
    return "step" if quantity.parents else "given"


def _hover(quantity: Quantity, graph: ProblemGraph) -> str:
    if quantity.sentence is not None:
        return graph.sentences[quantity.sentence]
    parts = ", ".join(graph.quantities[parent].name for parent in quantity.parents)
    return f"{quantity.name}: not stated; computed from {parts}"
