"""Whether a claim of a study holds: the difference between two variants with its 95 % interval.

    d = mean over seeds s, and over the problems p of a range, of  a[s, p] - b[s, p]

Variants with the same seed share their earlier stages, and all are scored on the same problems, so differences are
paired by seed and problem. The interval resamples both: problems within each op, with the same draw for every seed, and
seeds. Resampling a few seeds underestimates the variation between seeds, so the seed component is widened by

    sqrt(S / (S - 1)) t(S - 1) / 1.96

as S normally distributed seeds require (t: the 97.5 % quantile of Student's distribution): 9.2, 2.7 and 1.9 for 2, 3
and 4 seeds. With one seed the interval covers problems only, and says nothing about other seeds.

Letters: S seeds, P problems of an op, R resamples.
Source: Efron and Tibshirani 1993, chapters 6 and 12 (paired bootstrap; its small-sample bias).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.evaluate import pass_at_k
from .study import Claim, RangePart

HOLDS, FAILS, UNDECIDED, UNFINISHED = "holds", "does not hold", "undecided at this size", "not finished"
_RESAMPLES = 4000
# 97.5 % quantiles of Student's distribution with 1, 2, ... degrees of freedom
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)

Cells = list[tuple[float, np.ndarray]]
"""The weight and the values [P] of the problems of each op of a range."""


@dataclass(frozen=True)
class Effect:
    """A difference, in the unit of the metric (for shares, 0.01 is one point)."""

    effect: float
    interval: tuple[float, float]
    by_seed: list[float]


def cells_of(
    problems: Mapping[str, Mapping[str, Sequence[Any]]],
    parts: Sequence[RangePart],
    metric: str,
    k: int,
    samples: int,
) -> Cells:
    """The values of a metric for each problem of a range.

    Args:
        problems: by op, from `evaluate.by_problem`.
        parts: of the range; weights are normalized to sum to 1, and the ops of a part have equal weights.
        metric: verified, sound, answer, gap or process_accuracy.
        k: of pass@k.
        samples: per problem.
    Raises:
        ValueError: an op, or a theme of it, has no problems.
    """
    total = sum(part.weight for part in parts)
    cells = []
    for part in parts:
        for op in part.op:
            entry = problems.get(str(op), {"theme": []})
            inside = np.array([part.themes is None or theme in part.themes for theme in entry["theme"]], dtype=bool)
            if not inside.any():
                of = "" if part.themes is None else f" and themes {', '.join(part.themes)}"
                raise ValueError(f"ranges: no problem of op {op}{of} was evaluated")
            cells.append((part.weight / total / len(part.op), _values(entry, metric, k, samples)[inside]))
    return cells


def _values(entry: Mapping[str, Sequence[Any]], metric: str, k: int, samples: int) -> np.ndarray:
    if metric == "process_accuracy":
        return np.asarray(entry["process_accuracy"], dtype=np.float64)
    if metric == "gap":
        return _values(entry, "answer", k, samples) - _values(entry, "verified", k, samples)
    return pass_at_k(np.asarray(entry[metric]), samples, k)


def mean_of(cells: Cells) -> float:
    """The weighted mean of a range."""
    return float(sum(weight * values.mean() for weight, values in cells))


def level(by_seed: Sequence[Cells], resamples: int = _RESAMPLES) -> Effect:
    """A mean over seeds, with its interval."""
    nothing = [[(weight, np.zeros_like(values)) for weight, values in cells] for cells in by_seed]
    return difference(by_seed, [nothing], resamples=resamples)


def difference(
    variant: Sequence[Cells], others: Sequence[Sequence[Cells]], *, seed: int = 0, resamples: int = _RESAMPLES
) -> Effect:
    """How much higher a variant scores than the best of the others.

    Args:
        variant: its cells by seed.
        others: the cells of each other variant by seed, with the same seeds and problems.
        seed, resamples: of the resampling.
    """
    rng = np.random.default_rng(seed)
    num_seeds = len(variant)
    problem_draws = [rng.integers(len(v), size=(resamples, len(v))) for _, v in variant[0]]
    seed_draws = rng.integers(num_seeds, size=(resamples, num_seeds))
    effects, resampled, by_seed = [], [], []
    for other in others:
        # [S], and [R] with the same draw of problems for every seed
        of_seed = np.array([mean_of(a) - mean_of(b) for a, b in zip(variant, other, strict=True)])
        of_problems = np.zeros(resamples)
        for c, (weight, _) in enumerate(variant[0]):
            mean_P = np.mean([a[c][1] - b[c][1] for a, b in zip(variant, other, strict=True)], axis=0)
            of_problems += weight * mean_P[problem_draws[c]].mean(axis=1)
        of_seeds = widening(num_seeds) * (of_seed[seed_draws].mean(axis=1) - of_seed.mean())
        effects.append(float(of_seed.mean()))
        resampled.append(of_problems + of_seeds)
        by_seed.append(of_seed)
    low, high = np.quantile(np.min(resampled, axis=0), [0.025, 0.975])
    return Effect(min(effects), (float(low), float(high)), np.min(by_seed, axis=0).tolist())


def widening(num_seeds: int) -> float:
    """The factor on the seed component of the interval; 0 for a single seed, whose spread is unknown.

    >>> [round(widening(n), 2) for n in (1, 2, 3, 4, 100)]
    [0.0, 9.17, 2.69, 1.87, 1.02]
    """
    if num_seeds < 2:
        return 0.0
    freedom = num_seeds - 1
    student = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96 + 2.6 / freedom
    return math.sqrt(num_seeds / freedom) * student / 1.96


def verdict(claim: Claim, interval: tuple[float, float]) -> str:
    """holds, does not hold, or undecided at this size."""
    low, high = interval
    if claim.at_least is not None:
        return HOLDS if low >= claim.at_least else FAILS if high < claim.at_least else UNDECIDED
    assert claim.at_most is not None
    return HOLDS if high <= claim.at_most else FAILS if low > claim.at_most else UNDECIDED
