"""Differences between two variants of a study, with intervals that stay within the range of what they measure.

    d = mean over seeds s of  sum over problems p of  w[s, p] (a[s, p] - b[s, p]),        sum_p w[s, p] = 1

Variants with the same seed share their earlier stages, and all are scored on the same problems, so differences are
paired by seed and problem. Problems and seeds are both samples of more: with z and t the quantiles of the normal
distribution and of Student's with S - 1 degrees of freedom, the interval has in mid-range the half-width

    h ^ 2 = z ^ 2 (V + c / N ^ 2) + t ^ 2 U / S

    V   sum over p of (mean over s of w[s, p] (d[s, p] - mean of the op)) ^ 2, each op by n / (n - 1): problems
    U   variance of the S differences by seed; 0 for one seed, whose interval says nothing about other seeds
    N   1 / sum_p w[p] ^ 2, the effective number of problems
    c   2 for a difference, one more problem that rises and one that falls; 1/2 for a share, half a problem more

Noise of samples is in V and in U, so h is on the wide side. A mean x that lies in low .. high cannot have a normal
distribution near an end; the interval is therefore that of a score test, all q with

    (x - q) ^ 2 <= k (q - low) (high - q),        k = h ^ 2 / ((x' - low) (high - x')),  x' with the added problems

which is Wilson's for a share of one seed, never leaves low .. high, and has a width where all values are equal.
tests/studies/test_effects.py measures how often it covers the truth.

Letters: S seeds, P problems of a range.
Source: score interval: Wilson 1927; the added problems of a difference: Bonett and Price 2012 (paired proportions); N:
Kish 1965.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

from ..evaluation.pass_at_k import pass_at_k
from .study import RangePart

CONFIDENCE = 0.95
# of a share, and of a difference: the low end, c, and the number and sum of the added problems
_SHARE, _DIFFERENCE = (0.0, 0.5, 1.0, 0.5), (-1.0, 2.0, 2.0, 0.0)


@lru_cache(10_000)
def student_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| <= t) = confidence, T of Student's distribution.

        P(|T| <= sqrt(f) tan x) = sin x (1 + 1/2 cos^2 x + 1/2 3/4 cos^4 x + ...)               f even, f / 2 terms
                                = 2 / pi (x + sin x (cos x + 2/3 cos^3 x + 2/3 4/5 cos^5 x ...))  f odd, (f - 1) / 2

    Args:
        confidence: in 0 < c < 1.
        freedom: f, degrees of freedom, at least 1.
    Source:
        Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.

    >>> [round(student_quantile(0.95, f), 3) for f in (1, 2, 3, 4, 30)]
    [12.706, 4.303, 3.182, 2.776, 2.042]
    """
    odd, low, high = freedom % 2, 0.0, math.pi / 2.0
    for _ in range(60):
        x = (low + high) / 2.0
        term = math.cos(x) if odd else 1.0
        total = term if freedom > 1 else 0.0
        for j in range(2 + odd, freedom - 1, 2):
            term *= (j - 1) / j * math.cos(x) ** 2
            total += term
        within = 2.0 / math.pi * (x + math.sin(x) * total) if odd else math.sin(x) * total
        low, high = (x, high) if within < confidence else (low, x)
    return math.sqrt(freedom) * math.tan(low)


@dataclass(frozen=True, eq=False)
class Values:
    """The problems of a range with a seed."""

    values: np.ndarray
    """float [P], in 0 .. 1."""
    weights: np.ndarray
    """float [P], of sum 1; 0: does not count."""
    cells: np.ndarray
    """int [P]: the op of each problem, or part of a range; problems are compared within it."""

    def of(self, counts: np.ndarray) -> Values | None:
        """Those that count, bool [P], with their weights to each other; None if there are none."""
        weights = self.weights * counts
        total = weights.sum()
        return Values(self.values, weights / total, self.cells) if total > 0 else None


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and problems, and what its interval follows from (see the top of this module)."""

    value: float
    problem_variance: float
    seed_variance: float
    """Of the mean of all seeds."""
    by_seed: list[float]
    size: float
    """The effective number of problems."""
    signed: bool
    """Whether it lies in -1 .. 1, as a difference does, and not in 0 .. 1."""

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """(low, high)"""
        low, c, added, total = _DIFFERENCE if self.signed else _SHARE
        z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
        spread = z**2 * (self.problem_variance + c / self.size**2)
        if len(self.by_seed) > 1:
            spread += student_quantile(confidence, len(self.by_seed) - 1) ** 2 * self.seed_variance
        x, shrunk = self.value, (self.size * self.value + total) / (self.size + added)
        k = spread / ((shrunk - low) * (1.0 - shrunk))
        # the roots of (x - q) ^ 2 = k (q - low) (1 - q)
        middle = (2.0 * x + k * (1.0 + low)) / (2.0 * (1.0 + k))
        reach = math.sqrt(max(middle**2 - (x**2 + k * low) / (1.0 + k), 0.0))
        # rounding may pass an end by 1e-16
        return max(low, min(middle - reach, x)), min(1.0, max(middle + reach, x))


@dataclass(frozen=True)
class Effect:
    """A share, or a difference of shares (0.01 is one point): the smallest of the differences to several variants."""

    means: list[Mean]

    @property
    def effect(self) -> float:
        return min(mean.value for mean in self.means)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return self.at(CONFIDENCE)

    @property
    def by_seed(self) -> list[float]:
        return [min(values) for values in zip(*(mean.by_seed for mean in self.means), strict=True)]

    def at(self, confidence: float) -> tuple[float, float]:
        """The interval with this confidence.

        The smallest of m differences is below a bound only if one of them is, so the smallest lower end errs no more
        often than each; that it is above needs all m, so upper ends share the error among them.
        """
        each = 1.0 - (1.0 - confidence) / len(self.means)
        low = min(mean.interval(confidence)[0] for mean in self.means)
        return low, min(mean.interval(each)[1] for mean in self.means)

    def over_problems(self) -> tuple[float, float]:
        """The 95 % interval of a share for these seeds alone."""
        (mean,) = self.means
        return Mean(mean.value, mean.problem_variance, 0.0, [mean.value], mean.size, mean.signed).interval()


def values_of(
    problems: Mapping[str, Mapping[str, Sequence[Any]]],
    parts: Sequence[RangePart],
    metric: str,
    k: int,
    samples: int,
) -> Values:
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
            # the others stay, with weight 0, so that lists by op match problem by problem
            weights = inside * (part.weight / total / len(part.op) / inside.sum())
            cells.append((_values(entry, metric, k, samples), weights))
    numbers = np.concatenate([np.full(len(values), i) for i, (values, _) in enumerate(cells)])
    values, weights = (np.concatenate(arrays) for arrays in zip(*cells, strict=True))
    return Values(values, weights, numbers)


def _values(entry: Mapping[str, Sequence[Any]], metric: str, k: int, samples: int) -> np.ndarray:
    if metric == "process_accuracy":
        return np.asarray(entry["process_accuracy"], dtype=np.float64)
    if metric == "gap":
        return _values(entry, "answer", k, samples) - _values(entry, "verified", k, samples)
    return _pass_at_k(samples, k)[np.asarray(entry[metric])]


@lru_cache
def _pass_at_k(samples: int, k: int) -> np.ndarray:
    """float64 [samples + 1]: by the number of samples that pass."""
    return pass_at_k(np.arange(samples + 1), samples, k)


def level(by_seed: Sequence[Values]) -> Effect:
    """A mean over seeds, with its interval within 0 .. 1."""
    return Effect([_mean([v.values for v in by_seed], by_seed, signed=False)])


def difference(variant: Sequence[Values], others: Sequence[Sequence[Values]]) -> Effect:
    """How much higher a variant scores than the best of the others, with its interval within -1 .. 1.

    Args:
        variant: its values by seed.
        others: the values of each other variant by seed, with the same seeds, problems and weights.
    """
    means = []
    for other in others:
        apart = [a.values - b.values for a, b in zip(variant, other, strict=True)]
        means.append(_mean(apart, variant, signed=True))
    return Effect(means)


def _mean(values: Sequence[np.ndarray], by_seed: Sequence[Values], *, signed: bool) -> Mean:
    """The mean of values [P] for each seed, with the weights of `by_seed`."""
    d_SP, w_SP = np.stack(values), np.stack([v.weights for v in by_seed])
    d_S = (d_SP * w_SP).sum(axis=1)
    variance = 0.0
    for cell in np.unique(by_seed[0].cells):
        inside = (by_seed[0].cells == cell) & (w_SP.max(axis=0) > 0)
        if (count := int(inside.sum())) > 1:
            d, w = d_SP[:, inside], w_SP[:, inside]
            total = w.sum(axis=1, keepdims=True)
            apart = d - (d * w).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
            variance += count / (count - 1) * float(((w * apart).mean(axis=0) ** 2).sum())
    seeds = len(d_S)
    of_seeds = float(d_S.var(ddof=1)) / seeds if seeds > 1 else 0.0
    size = 1.0 / float((w_SP.mean(axis=0) ** 2).sum())
    return Mean(float(d_S.mean()), variance, of_seeds, d_S.tolist(), size, signed)
