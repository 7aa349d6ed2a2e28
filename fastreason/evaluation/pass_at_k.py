"""pass@k from n samples of each problem, with confidence intervals.

    pass@k = mean over problems of 1 - C(n - c, k) / C(n, k),   c of the n samples pass

Binomials are computed from log-factorials, because C(1100, 550) exceeds the range of floats. Intervals are percentiles
of a bootstrap over problems with all their samples (samples of one problem are correlated, so resampling single samples
would give intervals that are too narrow), and bounds that hold for any distribution.

Letters: P problems, K values of k, R resamples, M columns.

Source: estimator: Chen et al. 2021, arXiv:2107.03374, equation 1. Bounds: Hoeffding 1963, theorem 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..runtime.arguments import INT64_MAX, integer, integers

CONFIDENCE = 0.95
RESAMPLES = 2000
_MOST_SAMPLES = 10_000_000  # the factorial of each number up to this is in a table
_BLOCK = 1 << 20  # draws per block, 8 MB


def pass_at_ks(num_correct: np.ndarray, num_samples: np.ndarray | int, ks: Sequence[int]) -> np.ndarray:
    """float64 [P, K]: for every problem and k, the probability that k of its samples, drawn without replacement,
    include a correct one.

        1 - exp(log (n - c)! - log (n - c - k)! - log n! + log (n - k)!),   1 if n - c < k

    Args:
        num_correct: integers [P] in 0 .. n.
        num_samples: n, one for all problems or integers [P].
        ks: each in 1 .. the smallest n.
    Raises:
        ValueError: a k or a count is out of range.
    """
    c, n = np.broadcast_arrays(
        integers("pass_at_k: num_correct", num_correct, -INT64_MAX),
        integers("pass_at_k: n", num_samples, 0, _MOST_SAMPLES),
    )
    k = integers("pass_at_k: k", ks, -INT64_MAX)
    fewest = int(n.min()) if n.size else 0
    if n.size and (k.size == 0 or k.min() < 1 or k.max() > fewest):
        raise ValueError(f"pass_at_k: k must be in 1 .. n = {fewest}, got {', '.join(map(str, k.tolist())) or 'none'}")
    if np.any((c < 0) | (c > n)):
        raise ValueError(f"pass_at_k: num_correct must be in 0 .. n, got {c[(c < 0) | (c > n)][0]}")
    log_factorial = np.array([math.lgamma(i + 1.0) for i in range(int(n.max(initial=0)) + 1)])
    wrong = (n - c)[:, None]
    none_right = (
        log_factorial[wrong]
        - log_factorial[np.maximum(wrong - k, 0)]
        - log_factorial[n][:, None]
        + log_factorial[n[:, None] - k]
    )
    # because of rounding in lgamma, a sum of 0 may come out as 1e-14
    passed = np.where(wrong < k, 1.0, -np.expm1(np.minimum(none_right, 0.0)))
    return np.where(c[:, None] == 0, 0.0, passed)


def pass_at_k(num_correct: np.ndarray, n: int, k: int) -> np.ndarray:
    """float64 [P]: unbiased estimate of pass@k for each problem.

        pass@k = 1 - C(n - c, k) / C(n, k)

    Args:
        num_correct: c, integers [P] in 0 .. n.
        n: samples per problem.
        k: in 1 .. n.
    Raises:
        ValueError: k or a count is out of range.
    Source:
        Chen et al. 2021, arXiv:2107.03374, equation 1.

    >>> pass_at_k(np.array([0, 1, 4]), n=4, k=2).round(12).tolist()
    [0.0, 0.5, 1.0]
    """
    correct = integers("pass_at_k: num_correct", num_correct, -INT64_MAX)
    if correct.ndim != 1:
        raise ValueError(f"pass_at_k: num_correct must be 1-D, got shape {list(correct.shape)}")
    return pass_at_ks(correct, integer("pass_at_k: n", n, 0), [integer("pass_at_k: k", k)])[:, 0]


def bootstrap_means(values: np.ndarray, seed: int | Sequence[int] = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """float64 [R, M]: means of `values` [P, M] over problems, for R resamples of P problems with replacement."""
    num_problems, rng = len(values), np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    block = max(1, _BLOCK // num_problems)  # bounds memory when there are many problems
    for first in range(0, resamples, block):
        part = means[first : first + block]
        drawn = rng.integers(num_problems, size=(len(part), num_problems))
        # how often each problem was drawn; one matrix product gives the means of all columns
        drawn += num_problems * np.arange(len(part))[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        part[:] = (times.astype(np.float64) @ values) / num_problems
    return means


def percentile_interval(means: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray:
    """float64 [2, ...]: the interval that contains the middle `confidence` of the R means [R, ...]."""
    tail = (1.0 - confidence) / 2.0
    return np.quantile(means, [tail, 1.0 - tail], axis=0)


def bootstrap_interval(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` [P] under resampling of problems."""
    low, high = percentile_interval(bootstrap_means(values[:, None], seed, resamples))[:, 0]
    return float(low), float(high)


def mean_bounds(mean: np.ndarray, num_problems: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Bounds on the expectation of independent values in [0, 1], for any distribution.

        {q : P * KL(mean || q) <= log(1 / error)},   KL(p || q) = p log(p / q) + (1 - p) log((1 - p) / (1 - q))

    Each bound is wrong with probability at most `error`. Unlike a bootstrap interval they have non-zero width if all
    values are equal: for P zeros the upper bound is 1 - error ** (1 / P), the exact binomial one.

    Args:
        mean: float [...] in 0 .. 1, over P values.
        num_problems: P, integers [...] >= 1.
        error: in 0 .. 1.
    Returns:
        float64 [...] lower and upper bounds, to 1e-12.

    >>> low, high = mean_bounds(np.array([0.0, 0.5]), np.array([20, 20]), error=0.05)
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([0.0, 0.246], [0.139, 0.754])
    """
    p, count = np.broadcast_arrays(np.asarray(mean, dtype=np.float64), np.asarray(num_problems, dtype=np.float64))
    allowed = -math.log(error) / count
    return _where_divergence_is(p, allowed, np.zeros_like(p)), _where_divergence_is(p, allowed, np.ones_like(p))


def _where_divergence_is(p: np.ndarray, allowed: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The q between p and `end` with KL(p || q) = allowed, by bisection; `end` if p equals it."""
    inside, outside = p.copy(), end.copy()
    for _ in range(40):
        middle = (inside + outside) / 2.0
        near = _divergence(p, middle) <= allowed
        inside, outside = np.where(near, middle, inside), np.where(near, outside, middle)
    return np.where(p == end, end, (inside + outside) / 2.0)


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL of Bernoulli p from Bernoulli q; 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(p > 0, p * np.log(p / q), 0.0)
        zero = np.where(p < 1, (1.0 - p) * np.log((1.0 - p) / (1.0 - q)), 0.0)
    return one + zero
