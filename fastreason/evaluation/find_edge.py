"""The edge of a model's competence: pass@1 and pass@k by op and theme, and a label for each.

    mastered        pass@1 is above `mastered`: little is left to learn
    edge            in between: some samples are right and some are not, as reinforcement learning needs
    out of reach    pass@k is below `reach`: k samples of a problem rarely include a right one

A label is final once the bounds of pass@1 and pass@k exclude all others; an undecided cell gets more problems. A bound
could be wrong at each look at the data, so the error probability is divided among the looks: a final label is wrong
with probability at most 1 - confidence, for any distribution of difficulty.

Source: edge of competence: arXiv 2512.07783.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..runtime import distributed
from ..runtime.field_docs import explain_fields
from ..runtime.progress import progress_bar
from ..runtime.ranges import COUNT, COUNT_OR_ZERO, check_settings
from ..runtime.stop_request import StopRequest
from ..tasks.mixture import Cell, Mixture
from ..tasks.stream import TaskStream
from .pass_at_k import CONFIDENCE, mean_bounds, pass_at_ks
from .samplers import Sampler

Label = Literal["mastered", "edge", "out of reach"]


@explain_fields
@dataclass(frozen=True)
class EdgeSettings:
    """Settings of the search for the edge."""

    samples: int = 32
    """Samples per problem, the k of pass@k."""
    mastered: float = 0.8
    """pass@1 above which a cell is mastered."""
    reach: float = 0.1
    """pass@k below which a cell is out of reach."""
    confidence: float = CONFIDENCE
    """Minimum probability that a final label is right."""
    first: int = 16
    """Problems per cell at first; each further look doubles their number."""
    problems: int = 256
    """Maximum number of problems per cell."""
    budget: int = 0
    """Maximum number of samples over all cells, at least those of the first look; 0: as many as `problems` allows."""

    def __post_init__(self) -> None:
        counts = {"samples": COUNT, "first": COUNT, "problems": COUNT, "budget": COUNT_OR_ZERO}
        check_settings("edge", self, counts)
        if self.first > self.problems:
            raise ValueError(f"edge: first must be at most problems = {self.problems}, got {self.first}")
        if not 0 < self.reach < 1 or not self.reach <= self.mastered < 1 or not 0 < self.confidence < 1:
            raise ValueError(
                "edge: must have 0 < reach <= mastered < 1 and 0 < confidence < 1, "
                f"got {self.reach}, {self.mastered} and {self.confidence}"
            )
        if self.budget < 0:
            raise ValueError(f"edge: budget must be at least 0, got {self.budget}")

    def looks(self) -> list[int]:
        """Number of problems of a cell at each look.

        >>> EdgeSettings(first=16, problems=100).looks()
        [16, 32, 64, 100]
        """
        sizes = [self.first]
        while sizes[-1] < self.problems:
            sizes.append(min(2 * sizes[-1], self.problems))
        return sizes

    @property
    def error(self) -> float:
        """The error probability of one bound at one look; either of two bounds can lead to a wrong label."""
        return (1.0 - self.confidence) / (2 * len(self.looks()))


@dataclass(frozen=True)
class EdgeCell:
    """The estimates and label of a cell."""

    cell: Cell
    problems: int
    pass_1: float
    pass_1_interval: tuple[float, float]
    pass_k: float
    pass_k_interval: tuple[float, float]
    label: Label
    decided: bool
    """False if problems or budget ran out; the label is then that of the point estimates."""

    @classmethod
    def of(cls, cell: Cell, num_verified: np.ndarray, settings: EdgeSettings) -> EdgeCell:
        """Computed from the number of verified samples of each problem, integers [problems]."""
        values = pass_at_ks(num_verified, settings.samples, [1, settings.samples])
        mean = values.mean(axis=0)
        low, high = mean_bounds(mean, np.array(len(values)), settings.error)
        label: Label = _label(mean[0], mean[1], settings)
        sides = {_label(p1, pk, settings) for p1 in (low[0], high[0]) for pk in (low[1], high[1])}
        one, k = ((float(low[i]), float(high[i])) for i in (0, 1))
        return cls(cell, len(values), float(mean[0]), one, float(mean[1]), k, label, sides == {label})

    def to_dict(self, samples: int) -> dict[str, Any]:
        """As JSON; `samples` is k."""
        facts = {name: getattr(self.cell, name) for name in ("op", "theme", "mode", "depth")}
        return facts | {
            "problems": self.problems,
            "samples": samples,
            "verified": {"1": self.pass_1, str(samples): self.pass_k},
            "verified_interval": {"1": list(self.pass_1_interval), str(samples): list(self.pass_k_interval)},
            "label": self.label,
            "decided": self.decided,
        }


def _label(pass_1: float, pass_k: float, settings: EdgeSettings) -> Label:
    if pass_1 > settings.mastered:
        return "mastered"
    return "out of reach" if pass_k < settings.reach else "edge"


def find_edge(
    sampler: Sampler,
    mixture: Mixture,
    settings: EdgeSettings,
    *,
    seed: int = 0,
    stop: StopRequest | None = None,
) -> list[EdgeCell]:
    """Labels every cell of a mixture, on split `val`. Cells are divided among ranks; all get the same result.

    Args:
        sampler: the model.
        mixture: the cells; weights are ignored.
        settings: of the search.
        seed: of the sampling.
        stop: a request to stop between two looks, with the results so far.
    Raises:
        ValueError: the model cannot be sampled on these problems.
        KeyboardInterrupt: `stop` was requested before the first look.
    """
    cells = list(mixture.weights)
    streams = [TaskStream(Mixture({cell: 1.0}), seed=0, split="val") for cell in cells]
    for stream in streams:
        sampler.check(stream[0 : settings.first])
    verified: list[np.ndarray] = [np.zeros(0, dtype=np.int64) for _ in cells]
    left, before, undecided = settings.budget or float("inf"), 0, list(range(len(cells)))
    with progress_bar("edge", len(cells), unit="cell") as bar:
        for size in settings.looks():
            if distributed.any_rank(stop is not None and stop.requested):
                if before == 0:
                    raise KeyboardInterrupt
                break
            cost = (size - before) * settings.samples
            # the first look is at all cells, later ones at as many as the budget allows
            chosen = [i for place, i in enumerate(undecided) if before == 0 or (place + 1) * cost <= left]
            if not chosen:
                break
            left -= len(chosen) * cost
            for i, counts in _look(sampler, streams, chosen, slice(before, size), settings, seed).items():
                verified[i] = np.concatenate([verified[i], counts])
            undecided = [i for i in chosen if not EdgeCell.of(cells[i], verified[i], settings).decided]
            before = size
            bar.update(len(cells) - len(undecided) - bar.n)
    return [EdgeCell.of(cell, counts, settings) for cell, counts in zip(cells, verified, strict=True)]


def _look(
    sampler: Sampler,
    streams: Sequence[TaskStream],
    chosen: Sequence[int],
    which: slice,
    settings: EdgeSettings,
    seed: int,
) -> dict[int, np.ndarray]:
    """The number of verified samples of each problem, by cell."""
    own = []
    for i in chosen[distributed.rank() :: distributed.world_size()]:
        samples = sampler.sample(streams[i][which], settings.samples, seed)
        counts = samples.verdicts.verified.reshape(-1, settings.samples).sum(axis=1)
        own.append(np.stack([np.full(len(counts), i), counts], axis=1).astype(np.int64))
    table = np.concatenate(distributed.gather_arrays(np.concatenate([np.zeros((0, 2), dtype=np.int64), *own])))
    return {i: table[table[:, 0] == i, 1] for i in chosen}


def edge_mixture(cells: Sequence[EdgeCell]) -> list[dict[str, Any]]:
    """The cells at the edge as the parts of a recipe's mixture, with ops of the same kind combined."""
    parts: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in cells:
        cell = entry.cell
        if entry.label == "edge":
            part = {"themes": [cell.theme], "modes": [cell.mode], "depths": [cell.depth], "max_value": cell.max_value}
            key = (cell.theme, cell.mode, cell.depth, cell.max_value)
            parts.setdefault(key, {"op": [], **part, "weight": 0.0})
            parts[key]["op"].append(cell.op)
            parts[key]["weight"] += 1.0
    return list(parts.values())


def edge_table(cells: Sequence[EdgeCell], samples: int) -> str:
    """A table in percent, one line per cell; undecided labels have a question mark."""
    several = len({(entry.cell.mode, entry.cell.depth) for entry in cells}) > 1
    lines = [f"{'cell':30}{'problems':>9}{'pass@1':>8}{'bounds':>15}{'pass@' + str(samples):>9}{'bounds':>15}  label"]
    for entry in sorted(cells, key=lambda entry: (entry.cell.theme, entry.cell.mode, entry.cell.depth, entry.cell.op)):
        cell = entry.cell
        name = f"op {cell.op} {cell.theme}" + (f" {cell.mode} depth {cell.depth}" if several else "")
        label = entry.label + ("" if entry.decided else " ?")
        line = f"{name:30}{entry.problems:>9}{100 * entry.pass_1:>8.1f}{_bounds(entry.pass_1_interval)}"
        lines.append(f"{line}{100 * entry.pass_k:>9.1f}{_bounds(entry.pass_k_interval)}  {label}")
    return "\n".join(lines)


def _bounds(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{f'{100 * low:.1f} - {100 * high:.1f}':>15}"
