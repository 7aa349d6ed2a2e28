"""The estimator against counting and against fractions; intervals against simulation."""

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from fastreason.evaluation.pass_at_k import (
    bootstrap_interval,
    bootstrap_means,
    mean_bounds,
    pass_at_k,
    pass_at_ks,
    percentile_interval,
)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_counts_draws(n):
    for k in range(1, n + 1):
        for correct in range(n + 1):
            samples = [1] * correct + [0] * (n - correct)
            draws = [any(draw) for draw in combinations(samples, k)]
            assert pass_at_k(np.array([correct]), n, k)[0] == pytest.approx(np.mean(draws), abs=1e-12)


# the paper's n, all c and k; and one whose binomials are no floats
@pytest.mark.parametrize("n, ks", [(128, range(1, 129)), (2000, [1, 2, 999, 1000, 1999, 2000])])
def test_pass_at_k_is_exact_arithmetic(n, ks):
    counts = range(n + 1) if n < 500 else [0, 1, 7, 1000, 1999, 2000]
    got = pass_at_ks(np.array(counts), n, ks)
    for row, c in enumerate(counts):
        for column, k in enumerate(ks):
            want = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
            # worst seen 1.6e-13 at n = 128, 3.2e-12 at n = 2000: logarithms of factorials as large as 560 and 13,000
            assert got[row, column] == pytest.approx(float(want), abs=1e-11)


def test_no_and_only_correct_samples_are_exact():
    got = pass_at_ks(np.array([0, 128]), 128, range(1, 129))
    assert (got[0] == 0).all()
    assert (got[1] == 1).all()


def test_pass_at_k_is_unbiased():
    rng = np.random.default_rng(0)
    p = 0.15
    estimates = pass_at_k(rng.binomial(8, p, size=200_000), 8, 4)
    assert estimates.mean() == pytest.approx(1 - (1 - p) ** 4, abs=0.003)


def test_every_problem_may_have_its_own_number_of_samples():
    got = pass_at_ks(np.array([1, 1]), np.array([4, 8]), [1, 4])
    np.testing.assert_allclose(got, [[1 / 4, 1.0], [1 / 8, 1 / 2]], atol=1e-12)


@pytest.mark.parametrize(
    "correct, n, ks, message",
    [
        ([1], 8, [9], r"k must be in 1 \.\. n = 8, got 9"),
        ([1], 8, [0, 1], r"k must be in 1 \.\. n = 8, got 0, 1"),
        ([1, 1], [8, 4], [5], r"k must be in 1 \.\. n = 4, got 5"),
        ([1], 8, [], r"got none"),
        ([9], 8, [1], r"num_correct must be in 0 \.\. n, got 9"),
        ([-1], 8, [1], r"num_correct must be in 0 \.\. n, got -1"),
        ([1.9], 8, [1], r"num_correct must be integers, got float64 \[1\.9\]"),
        ([True], 8, [1], r"num_correct must be integers, got bool"),
        ([1], 8.5, [1], r"n must be integers .*, got float64 8\.5"),
        ([1], 8, [1.5], r"k must be integers, got float64"),
    ],
)
def test_pass_at_k_refuses(correct, n, ks, message):
    with pytest.raises(ValueError, match=message):
        pass_at_ks(np.array(correct), np.array(n), ks)


def test_bootstrap_interval_of_a_proportion():
    values = np.random.default_rng(1).binomial(1, 0.3, size=400).astype(float)
    low, high = bootstrap_interval(values)
    error = 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / 400)
    assert low == pytest.approx(values.mean() - error, abs=0.01)
    assert high == pytest.approx(values.mean() + error, abs=0.01)
    assert bootstrap_interval(np.ones(5)) == (1.0, 1.0)


def test_the_bootstrap_is_the_plain_one():
    values = np.random.default_rng(2).random((7, 3))
    drawn = np.random.default_rng(5).integers(7, size=(50, 7))
    want = np.stack([values[row].mean(axis=0) for row in drawn])
    np.testing.assert_allclose(bootstrap_means(values, 5, 50), want, atol=1e-15)


def test_many_problems_are_drawn_in_blocks(monkeypatch):
    values = np.random.default_rng(2).random((50, 2))
    whole = bootstrap_means(values, 5, 3000)
    monkeypatch.setattr("fastreason.evaluation.pass_at_k._BLOCK", 1000)
    parts = bootstrap_means(values, 5, 3000)
    assert parts.shape == whole.shape
    # standard deviation of a mean of 50: 0.04, so four standard errors of 3,000 means are 0.003
    np.testing.assert_allclose(parts.mean(axis=0), values.mean(axis=0), atol=0.003)
    np.testing.assert_allclose(parts.std(axis=0), whole.std(axis=0), atol=0.002)


def test_intervals_hold_the_truth_as_often_as_they_say():
    # 100 problems whose chances differ (Beta), 16 samples each, as in an evaluation; 400 evaluations
    rng = np.random.default_rng(3)
    ks, n, problems, trials = [1, 8], 16, 100, 400
    a, b = 0.4, 0.8
    # E[1 - (1 - p)^k] for p ~ Beta(a, b)
    truth = [
        1 - math.exp(math.lgamma(b + k) + math.lgamma(a + b) - math.lgamma(b) - math.lgamma(a + b + k)) for k in ks
    ]
    held, alone = np.zeros(2), 0.0
    for trial in range(trials):
        counts = rng.binomial(n, rng.beta(a, b, size=problems))
        low, high = percentile_interval(bootstrap_means(pass_at_ks(counts, n, ks), trial, 500))
        held += (low <= truth) & (truth <= high)
        # what an interval over single samples would claim
        p = counts.sum() / (n * problems)
        alone += abs(p - truth[0]) <= 1.96 * math.sqrt(p * (1 - p) / (n * problems))
    # 0.95 up to four standard errors of 400 trials and the bias of percentiles at 100 problems
    assert (held / trials > 0.90).all()
    assert (held / trials < 0.99).all()
    assert alone / trials < 0.6


def test_bounds_solve_their_equation():
    mean, count, error = np.array([0.02, 0.3, 0.5, 0.97]), np.array([50, 10, 7, 400]), 0.01
    for q in mean_bounds(mean, count, error):
        divergence = mean * np.log(mean / q) + (1 - mean) * np.log((1 - mean) / (1 - q))
        np.testing.assert_allclose(count * divergence, -math.log(error), rtol=1e-6)


def test_bounds_of_values_that_are_all_alike():
    low, high = mean_bounds(np.array([0.0, 1.0]), np.array([35, 35]), 0.025)
    assert low[0] == 0.0
    assert high[1] == 1.0
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / 35), abs=1e-9)
    assert low[1] == pytest.approx(0.025 ** (1 / 35), abs=1e-9)


@pytest.mark.parametrize("kind", ["all or nothing", "spread"])
def test_bounds_are_wrong_less_often_than_they_say(kind):
    rng = np.random.default_rng(4)
    for truth in (0.05, 0.5, 0.9):
        draws = rng.random((4000, 20)) < truth if kind == "all or nothing" else rng.beta(truth, 1 - truth, (4000, 20))
        low, high = mean_bounds(draws.mean(axis=1), np.array(20), 0.05)
        assert (low > truth).mean() <= 0.05
        assert (high < truth).mean() <= 0.05
