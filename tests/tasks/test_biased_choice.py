"""The tabulated biased choice against its definition: candidate y with weight exp(b_y |g_y|), g_y standard normal."""

import numpy as np
import pytest

from fastreason import _core


def test_two_candidates_agree_with_the_integral():
    """P(bias 0 of one of each) = E[1 / (1 + e^(b |g|))], by the trapezoidal rule over g."""
    g = np.linspace(0, 12, 2_000_001)
    density = np.sqrt(2 / np.pi) * np.exp(-g * g / 2)
    for bias in (1, 2):
        wanted = np.trapezoid(density / (1 + np.exp(bias * g)), g)
        counts = [1, 0, 0]
        counts[bias] = 1
        found = _core.bias_probabilities(counts)
        assert abs(found[0] - wanted) < 1e-11
        assert abs(sum(found) - 1) < 1e-14


@pytest.mark.parametrize("counts", [(1, 1, 1), (3, 2, 1), (0, 5, 3), (7, 0, 2), (20, 3, 1)])
def test_any_counts_agree_with_simulation(counts):
    rng = np.random.default_rng(0)
    n = 400_000
    weights = np.zeros((n, 3))
    for bias, count in enumerate(counts):
        for _ in range(count):
            weights[:, bias] += np.exp(bias * np.abs(rng.standard_normal(n)))
    shares = weights / weights.sum(1, keepdims=True)
    error = shares.std(0) / np.sqrt(n)
    assert (np.abs(_core.bias_probabilities(counts) - shares.mean(0)) < 4.5 * error + 1e-12).all()


def test_counts_outside_the_table_are_refused():
    for counts in ((0, 0, 0), (-1, 2, 0), (20, 4, 1)):
        with pytest.raises(ValueError, match=r"counts must be >= 0 and sum to 1 \.\. 24"):
            _core.bias_probabilities(counts)
