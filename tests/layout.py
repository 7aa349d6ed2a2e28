"""Which file imports which, read from the imports themselves, and a picture of the subpackages.

    python -m tests.layout

draws docs/subpackages.svg.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "subpackages.svg"
# the modules that are compiled from csrc/
COMPILED = {"_core", "_cuda"}
FILES = [path for folder in ("fastreason", "kernels") for path in sorted((ROOT / folder).rglob("*.py"))]
BENCH = sorted((ROOT / "bench").rglob("*.py"))

Graph = dict[str, set[str]]


def name(path: Path) -> str:
    """The place inside the package, into which kernels/ is installed."""
    return path.relative_to(ROOT).as_posix().removeprefix("fastreason/")


def module(path: Path) -> str:
    """The name that a file is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] in ("fastreason", "bench") else ("fastreason", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """What a file imports by whole names: lazily and for annotations too."""
    package = module(path.with_name("__init__.py")).split(".")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{whole}.{alias.name}" for alias in node.names}
    return found


@cache
def imports() -> Graph:
    """The modules of the package and of the bench that each of them imports. The head of the package imports, on
    demand, what its names need; who imports a compiled module from it does not import that."""
    modules = {module(path): path for path in (*FILES, *BENCH)}
    graph: Graph = {}
    for importer, path in modules.items():
        graph[importer] = set()
        for target in imported(path):
            while target and target not in modules:  # a name inside a module
                target = target.rpartition(".")[0]
            graph[importer] |= {target} - {"", "fastreason", importer}
    return graph


def room(place: str) -> str:
    """Of a place as `name` gives it."""
    return place.split("/")[0].removesuffix(".py")


@cache
def rooms() -> Graph:
    """The rooms that each room imports, `csrc` among them."""
    graph: Graph = {"csrc": set()}
    for path in FILES:
        if path.parent == ROOT / "fastreason" and path.name != "runner.py":
            continue
        own = room(name(path))
        graph.setdefault(own, set())
        for target in imported(path):
            head, _, rest = target.partition(".")
            other = rest.split(".")[0]
            if head == "fastreason" and other and other != own:
                graph[own].add("csrc" if other in COMPILED else other)
    places = graph.keys()
    return {own: others & places for own, others in graph.items()}


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Names that import each other round and round; none if there is no such circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def below(graph: Graph, start: str) -> set[str]:
    """All that is imported from `start` on, by however many steps."""
    seen: set[str] = set()
    to_see = list(graph[start])
    while to_see:
        if (one := to_see.pop()) not in seen:
            seen.add(one)
            to_see += graph[one]
    return seen


def direct(graph: Graph) -> Graph:
    """Without the imports that a longer way makes as well."""
    return {
        one: {other for other in others if not any(other in below(graph, third) for third in others - {other})}
        for one, others in graph.items()
    }


WIDTH, HEIGHT, GAP, STEP, MARGIN = 118, 30, 26, 66, 12
STYLE = """
  text { font: 14px system-ui, sans-serif; text-anchor: middle; fill: #1f2328 }
  rect { fill: #f6f8fa; stroke: #8c959f }
  line { stroke: #57606a; stroke-width: 1.3; marker-end: url(#head) }
  marker path { fill: #57606a }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } rect { fill: #161b22; stroke: #6e7681 }
    line { stroke: #9198a1 } marker path { fill: #9198a1 }
  }
"""


def levels(graph: Graph) -> list[list[str]]:
    """From the top: each room one level above the highest that it imports, under the middle of those that import it."""
    height: dict[str, int] = {}
    for one in TopologicalSorter(graph).static_order():
        height[one] = 1 + max((height[other] for other in graph[one]), default=-1)
    rows = [sorted(one for one in graph if height[one] == h) for h in range(max(height.values()), -1, -1)]
    at: dict[str, float] = {}
    for row in rows:
        users = {one: [at[user] for user in at if one in graph[user]] for one in row}
        row.sort(key=lambda one: sum(users[one]) / len(users[one]) if users[one] else 1.0)
        at |= {one: (i + 0.5) / len(row) for i, one in enumerate(row)}
    return rows


def draw() -> str:
    """The rooms as SVG: an arrow leads to a room that is imported."""
    graph = direct(rooms())
    rows = levels(graph)
    across = max(len(row) for row in rows)
    width = 2 * MARGIN + across * WIDTH + (across - 1) * GAP
    height = 2 * MARGIN + (len(rows) - 1) * STEP + HEIGHT
    middle = {
        one: (width / 2 + (i - (len(row) - 1) / 2) * (WIDTH + GAP), MARGIN + r * STEP)
        for r, row in enumerate(rows)
        for i, one in enumerate(row)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        "<title>Subpackages of fastreason, and which imports which</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    for one, (x, y) in middle.items():
        lines.append(f'<rect x="{x - WIDTH / 2:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="5"/>')
        lines.append(f'<text x="{x:g}" y="{y + 20:g}">{one}</text>')
    for one in middle:
        for other in sorted(graph[one]):
            (x, y), (x2, y2) = middle[one], middle[other]
            lean = max(-WIDTH / 3, min(WIDTH / 3, (x2 - x) / 4))
            lines.append(f'<line x1="{x + lean:g}" y1="{y + HEIGHT:g}" x2="{x2 - lean:g}" y2="{y2:g}"/>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
