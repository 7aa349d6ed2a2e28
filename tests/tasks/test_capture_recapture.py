"""How many kinds there are: known populations, and samples of them."""

import numpy as np
import pytest

from fastreason.tasks.capture_recapture import KnownKinds, SampledKinds


def sample(probabilities, draws, rng):
    counts = rng.multinomial(draws, probabilities)
    return SampledKinds(counts[counts > 0])


def test_by_hand():
    # seen once: 3 kinds, twice: 2, five times: 1; n = 12
    kinds = SampledKinds(np.array([1, 1, 1, 2, 2, 5]))
    assert (kinds.draws, kinds.seen(1), kinds.seen(2)) == (12, 3, 2)
    assert kinds.number == pytest.approx(6 + 11 / 12 * 9 / 4)
    low, high = kinds.interval
    assert 6 <= low < kinds.number < high


# nothing left to see; none seen twice; one draw
@pytest.mark.parametrize("counts, number", [([3, 4, 2], 3), ([1, 1, 1], 3 + 2 / 3 * 3), ([1], 1)])
def test_at_the_borders(counts, number):
    kinds = SampledKinds(np.array(counts))
    assert kinds.number == pytest.approx(number)
    assert kinds.interval[0] <= kinds.number <= kinds.interval[1]
    assert 0 <= kinds.shown(10).kinds <= 1 and 0 <= kinds.shown(10).draws <= 1


def test_the_interval_holds_the_number_of_equally_likely_kinds():
    # few draws a kind, some, many: 300 samples each; 95 % less four standard errors is 0.90
    rng = np.random.default_rng(0)
    for draws in (400, 1000, 3000):
        intervals = [sample(np.full(1000, 1e-3), draws, rng).interval for _ in range(300)]
        assert np.mean([low <= 1000 <= high for low, high in intervals]) > 0.90


def test_of_uneven_kinds_it_is_a_lower_bound_that_grows():
    rng, probabilities = np.random.default_rng(1), 1.0 / np.arange(1, 2001) ** 1.5
    probabilities /= probabilities.sum()
    few, many = (np.mean([sample(probabilities, n, rng).number for _ in range(20)]) for n in (500, 20_000))
    assert few < many < 2000


@pytest.mark.parametrize("uneven", [0.0, 1.0])
def test_what_shorter_and_longer_samples_show_is_what_the_law_gives(uneven):
    rng, probabilities = np.random.default_rng(2), 1.0 / np.arange(1, 301) ** uneven
    known = KnownKinds(probabilities / probabilities.sum())
    sampled = sample(known.probabilities, 3000, rng)
    for draws in (1, 50, 1000, 2999, 3000, 6000):
        want, got = known.shown(draws), sampled.shown(draws)
        assert got.kinds == pytest.approx(want.kinds, abs=0.05)
        assert got.draws == pytest.approx(want.draws, abs=0.02)
    # the whole sample shows what it has shown
    assert sampled.shown(3000).kinds * sampled.number == pytest.approx(len(sampled.counts))


def test_a_shorter_sample_is_the_mean_over_all_parts_of_it():
    rng = np.random.default_rng(3)
    counts = np.array([1, 1, 2, 3, 7])
    drawn = np.repeat(np.arange(5), counts)
    kinds, new = [], []
    for _ in range(20_000):
        order = rng.permutation(drawn)
        kinds.append(len(set(order[:6])))
        new.append(order[6] not in order[:6])
    found = SampledKinds(counts).shown(6)
    assert found.kinds * SampledKinds(counts).number == pytest.approx(np.mean(kinds), abs=0.03)
    assert 1 - found.draws == pytest.approx(np.mean(new), abs=0.015)


def test_known_kinds_by_hand():
    kinds = KnownKinds(np.array([0.5, 0.25, 0.25]))
    assert kinds.number == 3 and kinds.interval == (3, 3)
    assert kinds.shown(0) == (0.0, 0.0)
    assert kinds.shown(2) == pytest.approx(((0.75 + 2 * 0.4375) / 3, 0.5 * 0.75 + 0.5 * 0.4375))
    assert KnownKinds(np.array([1.0])).shown(1) == (1.0, 1.0)
