"""How many nameless graphs the problems of a mixture have, and how many of them some training shows.

The graph of a problem is that of the quantities that its answer needs: which sorts there are, how each follows from
which others, and which is asked, without names and numbers; `TaskStream(..., split_by="graph")` splits by it. Where all
that can be drawn can be gone through the number is exact, and so are the probabilities; elsewhere both are estimated
from a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from .. import _core
from ..text.tokenizer import Tokenizer
from .capture_recapture import Kinds, KnownKinds, SampledKinds, Shown
from .stream import Cell, Mixture, TaskStream

DRAWS = 100_000
OFTEN = 10.0
"""A warning is due where every graph of an op comes more often than this on average."""
# ways to draw a problem: some seconds
_MOST_WAYS = 4_000_000
# of larger op there are more ways than that, whatever the other settings
_LARGEST_KNOWN_OP = 7
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

    @property
    def is_exact(self) -> bool:
        return isinstance(self.graphs, KnownKinds)

    def times_each(self, documents: float) -> float:
        """How often a graph comes in so many documents, on average over the graphs."""
        return documents / self.graphs.number


def count_graphs(
    mixture: Mixture, *, tokenizer: Tokenizer | None = None, draws: int = DRAWS, threads: int = 0
) -> list[OpGraphs]:
    """The graphs of every op of a mixture.

    Args:
        tokenizer: that documents are counted in; default: the mixture's own.
        draws: problems of an op from which their graphs are estimated, where they cannot be gone through.

    >>> [int(row.graphs.number) for row in count_graphs(Mixture.uniform(op=[2, 3, 4, 5], themes=["symbolic"]))]
    [1, 2, 8, 19]
    """
    tokenizer = Tokenizer.for_mixtures([mixture]) if tokenizer is None else tokenizer
    total = sum(mixture.weights.values())
    rows = []
    for op in mixture.ops:
        part = Mixture({cell: weight for cell, weight in mixture.weights.items() if cell.op == op})
        stream = TaskStream(part)
        _, ends, _ = stream.encoded(0, _MEASURED, tokenizer, threads=threads)
        graphs = known_graphs(part) or sampled_graphs(stream, draws, threads)
        rows.append(OpGraphs(op, sum(part.weights.values()) / total, float(ends[-1]) / _MEASURED, graphs))
    return rows


def known_graphs(mixture: Mixture) -> KnownKinds | None:
    """The probability of each graph, by going through all ways to draw a problem; None where they are too many."""
    total, law = sum(mixture.weights.values()), dict[int, float]()
    for cell, weight in mixture.weights.items():
        # words and padding do not matter to the graph
        found = _law_of(cell.op, cell.mode, cell.depth, cell.number_range, cell.max_value, cell.max_sentences)
        if found is None:
            return None
        for graph, probability in zip(*found, strict=True):
            law[graph] = law.get(graph, 0.0) + weight / total * probability
    return KnownKinds(np.array(list(law.values())))


@lru_cache(maxsize=256)
def _law_of(
    op: int, mode: str, depth: int, number_range: int, max_value: int, max_sentences: int
) -> tuple[list[int], list[float]] | None:
    if op > _LARGEST_KNOWN_OP:
        return None
    cell = Cell(op, mode=mode, depth=depth, number_range=number_range, max_value=max_value, max_sentences=max_sentences)
    found = _core.graph_law(_core.Cell(**(asdict(cell) | {"theme": 0, "weight": 1.0})), _MOST_WAYS)
    return None if found is None else (found[0].tolist(), found[1].tolist())


def sampled_graphs(stream: TaskStream, draws: int = DRAWS, threads: int = 0) -> SampledKinds:
    """The graphs of the first problems of a stream."""
    return SampledKinds(np.unique(stream.graph_hashes(0, draws, threads=threads), return_counts=True)[1])


def format_graphs(rows: Sequence[OpGraphs], tokens: float | None = None) -> str:
    """A table, and behind it the ops whose graphs come too often to be new; with `tokens` of training what these show."""
    per_document = sum(row.share * row.tokens for row in rows)
    header = f"{'op':>4}{'problems':>10}{'tokens each':>13}{'graphs':>12}{'95 %':>24}"
    if tokens is not None:
        header += f"{'documents':>12}{'graphs shown':>14}{'new problems':>14}{'times each':>12}"
    lines, often = [header], []
    for row in rows:
        low, high = row.graphs.interval
        between = "exact" if row.is_exact else f"{low:,.0f} - {high:,.0f}"
        number = f"{row.graphs.number:,.0f}"
        line = f"{row.op:>4}{100 * row.share:>8.1f} %{row.tokens:>13.1f}{number:>12}{between:>24}"
        if tokens is not None:
            documents = tokens / per_document * row.share
            shown, times = row.graphs.shown(documents), row.times_each(documents)
            line += f"{documents:>12,.0f}{_percent(shown.kinds):>14}{_percent(1 - shown.draws):>14}{times:>12,.1f}"
            often += [row.op] if times > OFTEN else []
        lines.append(line)
    if any(not row.is_exact for row in rows):
        lines.append("estimated from a sample where not exact: then there are at least about so many (Chao1)")
    if tokens is not None:
        lines.append("new problems: the share whose graph these tokens have not shown")
    return "\n".join(lines + ([often_warning(often)] if often else []))


def often_warning(ops: Sequence[int]) -> str:
    """What a stage that shows graphs too often is told."""
    named = ", ".join(map(str, ops))
    return (
        f"warning: op {named}: every graph comes more than {OFTEN:.0f} times on average, so scores there are of graphs "
        "that were seen"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


__all__ = ["DRAWS", "OFTEN", "OpGraphs", "Shown", "count_graphs", "format_graphs", "known_graphs", "sampled_graphs"]
