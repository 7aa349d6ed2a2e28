"""How many nameless graphs the problems of a mixture have, and how many of them some training shows.

The graph of a problem is that of the quantities that its answer needs: which sorts there are, how each follows from
which others, and which is asked, without names and numbers; `TaskStream(..., split_by="graph")` splits by it. Where all
that can be drawn can be gone through the number is exact, and so are the probabilities; elsewhere both are estimated
from a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np

from .. import _core
from ..text.tokenizer import Tokenizer
from .capture_recapture import Kinds, KnownKinds, SampledKinds
from .mixture import Cell, Mixture
from .stream import TaskStream

DRAWS = 100_000
OFTEN = 10.0
"""A warning is due where every graph of an op comes more often than this on average."""
WAYS = 20_000_000
"""Ways to draw a problem that are gone through, some seconds: enough for op 2-8 forwards at depth 2."""
# of larger op there are more ways than that, whatever the other settings
_LARGEST_KNOWN_OP = 8
# documents that a length is taken from
_MEASURED = 512


@dataclass(frozen=True, eq=False)
class OpGraphs:
    """The problems of one op of a mixture."""

    op: int
    share: float
    """Of the mixture's problems."""
    tokens: float
    """Of a document, on average."""
    graphs: Kinds


def count_graphs(
    mixture: Mixture, *, tokenizer: Tokenizer | None = None, draws: int = DRAWS, ways: int = WAYS, threads: int = 0
) -> list[OpGraphs]:
    """The graphs of every op of a mixture.

    Args:
        tokenizer: that documents are counted in; default: the mixture's own.
        draws: problems of an op from which their graphs are estimated, where they cannot be gone through.
        ways: to draw a problem of a cell, up to which they are gone through.

    >>> [int(row.graphs.number) for row in count_graphs(Mixture.uniform(op=[2, 3, 4, 5], themes=["symbolic"]))]
    [1, 2, 8, 19]
    """
    tokenizer = Tokenizer.for_mixtures([mixture]) if tokenizer is None else tokenizer
    total = sum(mixture.weights.values())
    rows = []
    for op in mixture.ops:
        part = Mixture({cell: weight for cell, weight in mixture.weights.items() if cell.op == op})
        _, ends, _ = TaskStream(part).encoded(0, _MEASURED, tokenizer, threads=threads)
        graphs = graphs_of(part, draws, ways, threads)
        rows.append(OpGraphs(op, sum(part.weights.values()) / total, float(ends[-1]) / _MEASURED, graphs))
    return rows


def graphs_of(mixture: Mixture, draws: int = DRAWS, ways: int = WAYS, threads: int = 0) -> Kinds:
    """The graphs of a mixture: known where all ways to draw a problem can be gone through, else from a sample."""
    weights: dict[Cell, float] = {}
    for cell, weight in mixture.weights.items():
        # words and padding do not matter to the graph
        plain = replace(cell, theme="zoo", context=0, circular_distractors=True)
        weights[plain] = weights.get(plain, 0.0) + weight
    total = sum(weights.values())
    return _graphs(tuple((cell, weight / total) for cell, weight in weights.items()), draws, ways, threads)


@lru_cache(maxsize=256)
def _graphs(cells: tuple[tuple[Cell, float], ...], draws: int, ways: int, threads: int) -> Kinds:
    law: dict[int, float] = {}
    for cell, weight in cells:
        found = _law_of(cell, ways)
        if found is None:
            break
        for graph, probability in zip(*found, strict=True):
            law[graph] = law.get(graph, 0.0) + weight * probability
    else:
        return KnownKinds(np.array(list(law.values())))
    hashes = TaskStream(Mixture(dict(cells))).graph_hashes(0, draws, threads=threads)
    return SampledKinds(np.unique(hashes, return_counts=True)[1])


@lru_cache(maxsize=256)
def _law_of(cell: Cell, ways: int) -> tuple[list[int], list[float]] | None:
    if cell.op > _LARGEST_KNOWN_OP:
        return None
    found = _core.graph_law(_core.Cell(**(asdict(cell) | {"theme": 0, "weight": 1.0})), ways)
    return None if found is None else (found[0].tolist(), found[1].tolist())


def format_graphs(rows: Sequence[OpGraphs], tokens: float | None = None) -> str:
    """A table; with `tokens` of training what these show, and the ops whose graphs come too often to be new."""
    per_document = sum(row.share * row.tokens for row in rows)
    documents = [0.0 if tokens is None else tokens / per_document * row.share for row in rows]
    header = f"{'op':>4}{'problems':>10}{'tokens each':>13}{'graphs':>12}{'95 %':>24}"
    lines = [header if tokens is None else header + SHOWN_HEADER]
    for row, count in zip(rows, documents, strict=True):
        low, high = row.graphs.interval
        between = "exact" if is_exact(row.graphs) else f"{low:,.0f} - {high:,.0f}"
        line = f"{row.op:>4}{100 * row.share:>8.1f} %{row.tokens:>13.1f}{row.graphs.number:>12,.0f}{between:>24}"
        lines.append(line if tokens is None else line + format_shown(row.graphs, count))
    if not all(is_exact(row.graphs) for row in rows):
        lines.append("estimated from a sample where not exact: then there are at least about so many (Chao1)")
    if tokens is None:
        return "\n".join(lines)
    lines.append("new problems: the share whose graph these tokens have not shown")
    return "\n".join(lines + warn_often((row.op, row.graphs, n) for row, n in zip(rows, documents, strict=True)))


SHOWN_HEADER = f"{'documents':>12}{'graphs shown':>14}{'new problems':>14}{'times each':>12}"


def format_shown(graphs: Kinds, documents: float) -> str:
    """What so many documents show, in columns under SHOWN_HEADER."""
    shown = graphs.shown(documents)
    shares = f"{_percent(shown.kinds):>14}{_percent(max(0.0, 1.0 - shown.draws)):>14}"
    return f"{documents:>12,.0f}{shares}{documents / graphs.number:>12,.1f}"


def warn_often(rows: Iterable[tuple[int, Kinds, float]]) -> list[str]:
    """A line that names the ops whose graphs come too often to be new: of (op, graphs, documents)."""
    ops = [str(op) for op, graphs, documents in rows if documents > OFTEN * graphs.number]
    if not ops:
        return []
    often = f"every graph comes more than {OFTEN:.0f} times on average"
    return [f"warning: op {', '.join(ops)}: {often}, so that scores there are of graphs that were seen"]


def is_exact(graphs: Kinds) -> bool:
    """Whether they were gone through, and not estimated."""
    return isinstance(graphs, KnownKinds)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
