"""Scores of problems whose graph training has shown, and of those whose graph is new.

Whether a model composes or remembers shows where the nameless graph of a problem was in no training document. Within a
range every problem keeps the weight that it has in the whole,

    s = sum over problems of w_op / n_op * score / sum of w_op / n_op        over the seen problems, or the unseen ones

so that the whole is the mean of both by their shares. Intervals resample the problems of each part within each op, and
take the parts as given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.json_files import shown
from ..tasks.stream import TaskStream
from .op_ranges import op_weights
from .pass_table import Entry, Group

PARTS = ("seen", "unseen")


@dataclass(frozen=True, eq=False)
class SeenGraphs:
    """A set of nameless graphs."""

    graphs: np.ndarray
    """uint64, sorted, each once."""
    bound: str = "exact"
    """exact; at least: not all were looked at; at most: some of them may not have been drawn."""

    @classmethod
    def of(cls, graphs: Any) -> SeenGraphs:
        """From hashes in any order, such as `TaskStream.graph_hashes` gives.

        Raises:
            ValueError: they are not of uint64.
        """
        if isinstance(graphs, SeenGraphs):
            return graphs
        try:
            array = np.asarray(graphs)
        except ValueError:  # ragged lists
            raise ValueError(f"evaluate: seen must be graph hashes, uint64 [N], got {shown(graphs)}") from None
        if array.dtype != np.uint64 or array.ndim != 1:
            raise ValueError(f"evaluate: seen must be graph hashes, uint64 [N], got {array.dtype} {list(array.shape)}")
        return cls(np.unique(array))

    @classmethod
    def join(cls, parts: Sequence[SeenGraphs]) -> SeenGraphs:
        """All of them; of what is bounded from both sides nothing more is said than that."""
        bounds = {part.bound for part in parts} - {"exact"}
        bound = bounds.pop() if len(bounds) == 1 else "about" if bounds else "exact"
        return cls(np.unique(np.concatenate([part.graphs for part in parts])), bound)

    def holds(self, graphs: np.ndarray) -> np.ndarray:
        """bool, of the shape of `graphs`."""
        return np.isin(graphs, self.graphs)


def sets_of(seen: Any) -> dict[str, SeenGraphs]:
    """What `evaluate` takes as `seen`, by name; one set is that of training."""
    if seen is None:
        return {}
    named = seen if isinstance(seen, Mapping) else {"training": seen}
    return {str(name): SeenGraphs.of(graphs) for name, graphs in named.items()}


def split_scores(
    scores: np.ndarray,
    streams: Mapping[int, TaskStream],
    sets: Mapping[str, SeenGraphs],
    ks: Sequence[int],
    ranges: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, Any]]:
    """For every set of graphs the scores of the problems in it, and of the others.

    Args:
        scores: SCORES [P], in any order; `problem` is the index in the stream of its op.
        streams: by op.
        ks, ranges: as for `pass_table.summarise`.
    Returns:
        {NAME: {"bound", "ops": {OP: {"seen": entry, "unseen": entry}}, "ranges": the same by name, "problems": {OP:
        whether each problem is in the set, in the order of the stream}}}; a part without problems is left out.
    """
    scores = scores[np.lexsort((scores["problem"], scores["op"]))]
    graphs = {}
    for op in np.unique(scores["op"]).tolist():
        numbers = scores["problem"][scores["op"] == op]
        graphs[op] = streams[op].graph_hashes(0, int(numbers.max()) + 1)[numbers]
    weights = {name: op_weights(parts, name) for name, parts in ranges.items()}
    return {name: _split(scores, graphs, seen, ks, weights) for name, seen in sets.items()}


def _split(
    scores: np.ndarray,
    graphs: Mapping[int, np.ndarray],
    seen: SeenGraphs,
    ks: Sequence[int],
    weights: Mapping[str, Mapping[int, float]],
) -> dict[str, Any]:
    found: dict[str, Any] = {"bound": seen.bound, "ops": {}, "ranges": {name: {} for name in weights}, "problems": {}}
    groups: dict[str, dict[int, tuple[Group, float]]] = {part: {} for part in PARTS}
    for op, of_op in graphs.items():
        held = seen.holds(of_op)
        rows = scores[scores["op"] == op]
        found["problems"][str(op)] = held.astype(int).tolist()
        found["ops"][str(op)] = {}
        for i, (part, mask) in enumerate(zip(PARTS, (held, ~held), strict=True)):
            if mask.any():
                group = Group.of(rows[mask], ks, [0, 3 + i, op + 1])
                groups[part][op] = group, float(mask.mean())
                found["ops"][str(op)][part] = group.entry(ks)
    for name, weight_of in weights.items():
        for part in PARTS:
            if entry := _weighted(groups[part], weight_of, ks):
                found["ranges"][name][part] = entry
    return found


def _weighted(groups: Mapping[int, tuple[Group, float]], weight_of: Mapping[int, float], ks: Sequence[int]) -> Entry:
    """The entry of a part of a range; empty where it has no problem."""
    shares = {op: weight_of[op] * share for op, (_, share) in groups.items() if op in weight_of}
    total = sum(shares.values())
    if not total:
        return {}
    scaled = [groups[op][0].scaled(share / total) for op, share in shares.items()]
    whole = scaled[0]
    for group in scaled[1:]:
        whole = whole.plus(group)
    return whole.entry(ks) | {"share": total / sum(weight_of.values())}
