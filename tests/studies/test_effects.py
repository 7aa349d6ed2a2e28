"""Differences and their intervals on synthetic results whose truth is known."""

import numpy as np
import pytest

from fastreason.evaluation.pass_at_k import pass_at_k
from fastreason.studies.claims import FAILS, HOLDS, UNDECIDED, verdict
from fastreason.studies.effects import Values, difference, level, student_quantile, values_of
from fastreason.studies.study import Claim, RangePart

EDGE = [RangePart(op=[6])]


def problems(rate, *, op="6", theme="symbolic", n=32, seed=0):
    """Counts of verified samples of problems that are solved with these chances."""
    verified = np.random.default_rng(seed).binomial(n, rate).tolist()
    answer = [min(n, v + 4) for v in verified]
    return {
        op: {
            "theme": [theme] * len(verified),
            "verified": verified,
            "sound": verified,
            "answer": answer,
            "process_accuracy": [v / n for v in verified],
        }
    }


def cells(rate, metric="verified", k=1, **more):
    return values_of(problems(rate, **more), EDGE, metric, k, 32)


def mean_of(values):
    return float(values.values @ values.weights)


def claim(**bound):
    return Claim(name="c", text="t", range="edge", variant="a", against=["b"], **bound)


@pytest.mark.parametrize(
    "gain, bound, want",
    [
        (0.3, {"at_least": 0.1}, HOLDS),
        (0.3, {"at_most": 0.1}, FAILS),
        (0.0, {"at_least": 0.1}, FAILS),
        (0.0, {"at_most": 0.1}, HOLDS),
        (0.1, {"at_least": 0.1}, UNDECIDED),
        (0.1, {"at_most": 0.1}, UNDECIDED),
        (-0.3, {"at_most": -0.05}, HOLDS),
    ],
)
def test_verdicts_follow_the_truth(gain, bound, want):
    chance = np.random.default_rng(5).uniform(0.35, 0.65, size=100)
    before = [cells(chance, seed=s) for s in range(3)]
    after = [cells(chance + gain, seed=10 + s) for s in range(3)]
    found = difference(after, [before])
    assert found.effect == pytest.approx(gain, abs=0.02)
    assert found.interval[0] <= found.effect <= found.interval[1]
    assert verdict(claim(**bound), found.interval) == want


def test_seeds_that_disagree_leave_a_claim_undecided():
    """Whether the third seed is like the first two is a matter of seeds, however many problems there are."""
    before = [cells(np.full(400, 0.3), seed=s) for s in range(3)]
    after = [cells(np.full(400, rate), seed=9 + s) for s, rate in enumerate((0.6, 0.6, 0.25))]
    found = difference(after, [before])
    assert verdict(claim(at_least=0.05), found.interval) == UNDECIDED
    assert len(found.by_seed) == 3 and found.by_seed[2] < 0 < found.by_seed[0]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """95 % of 400 studies with 3 seeds, each with an effect of its own around 0.1; 3 standard errors are 3.3 %."""
    rng = np.random.default_rng(0)
    covered = 0
    for study in range(400):
        chance = rng.uniform(0.2, 0.6, size=60)
        gains = 0.1 + 0.05 * rng.standard_normal(3)
        before = [cells(chance, seed=1000 * study + s) for s in range(3)]
        after = [cells(np.clip(chance + gains[s], 0, 1), seed=1000 * study + 500 + s) for s in range(3)]
        low, high = difference(after, [before]).interval
        covered += low <= 0.1 <= high
    assert 0.917 <= covered / 400 <= 0.99


def simulated(rng, seeds, problems, ops, base, spread, gain, samples, k):
    """pass@k [S, P] of two variants: problems differ in skill, seeds in skill and in what the variant gains."""
    skill = base + spread * rng.standard_normal(problems * ops) + 0.3 * rng.standard_normal((seeds, 1))
    gains = gain + 0.3 * rng.standard_normal((seeds, 1)) + 0.5 * rng.standard_normal(problems * ops)
    chances = (1.0 / (1.0 + np.exp(-logits)) for logits in (skill, skill + gains))
    table = pass_at_k(np.arange(samples + 1), samples, k)
    return [table[rng.binomial(samples, chance)] for chance in chances]


def of_range(values, ops=1, counts=None):
    """A range of equal ops; the same problems for every seed."""
    size = values.shape[1]
    found = [Values(row, np.full(size, 1 / size), np.repeat(np.arange(ops), size // ops)) for row in values]
    return found if counts is None else [v.of(c) for v, c in zip(found, counts, strict=True)]


# at the floor, near it, in the middle, near the ceiling; one op and four, few problems
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    "problems, ops, base, spread, gain, samples, k",
    [
        (100, 1, -6.0, 1.5, 0.8, 32, 1),
        (100, 1, -8.0, 2.0, 0.0, 64, 64),
        (100, 4, -8.0, 3.0, 1.0, 32, 32),
        (60, 2, -1.0, 1.5, 0.5, 32, 8),
        (100, 2, 3.0, 1.5, 0.5, 32, 8),
        (20, 1, -6.0, 2.0, 0.0, 64, 64),
    ],
)
def test_intervals_cover_the_truth_and_stay_in_range(seeds, problems, ops, base, spread, gain, samples, k):
    """Of 150 studies, 95 % or more; 3 standard errors are 5.3 %. Noise of samples counts twice, which is why more."""
    rng = np.random.default_rng(7)
    truth = [values.mean() for values in simulated(rng, 200, 10_000, 1, base, spread, gain, samples, k)]
    covered = np.zeros(3)
    for _ in range(150):
        before, after = (of_range(v, ops) for v in simulated(rng, seeds, problems, ops, base, spread, gain, samples, k))
        found = [level(before), level(after), difference(after, [before])]
        for i, (effect, true) in enumerate(zip(found, [*truth, truth[1] - truth[0]], strict=True)):
            low, high = effect.interval
            assert (-1.0 if i == 2 else 0.0) <= low <= effect.effect <= high <= 1.0
            covered[i] += low <= true <= high
    assert (covered / 150 >= 0.95 - 0.053).all()


def test_an_interval_has_a_width_where_all_values_are_equal():
    """As Wilson's does for 0 of 100: 0 to 3.7 %; for differences as for two discordant pairs of 102."""
    nothing, everything = np.zeros((3, 100)), np.ones((3, 100))
    assert level(of_range(nothing)).interval == pytest.approx((0.0, 0.037), abs=1e-3)
    assert level(of_range(everything)).interval == pytest.approx((0.963, 1.0), abs=1e-3)
    assert difference(of_range(nothing), [of_range(nothing)]).interval == pytest.approx((-0.028, 0.028), abs=1e-3)
    low, high = difference(of_range(everything), [of_range(nothing)]).interval
    assert 0.9 < low < 0.97 and high == 1.0


def test_two_seeds_far_apart_say_little_and_stay_in_range():
    apart = np.array([[0.1] * 100, [0.9] * 100])
    low, high = level(of_range(apart)).interval
    assert 0.0 < low < 0.1 and 0.9 < high < 1.0
    low, high = difference(of_range(apart), [of_range(1 - apart)]).interval
    assert -1.0 < low < -0.9 and 0.9 < high < 1.0


def test_a_share_of_one_seed_has_the_interval_of_wilson():
    hits = np.zeros((1, 200))
    hits[0, :12] = 1.0
    p, z2 = 0.06, 1.959964**2 / 200
    middle, reach = (p + z2 / 2) / (1 + z2), np.sqrt(p * (1 - p) * z2 + z2**2 / 4) / (1 + z2)
    # half a problem more moves the ends by less than a tenth of a point
    assert level(of_range(hits)).interval == pytest.approx((middle - reach, middle + reach), abs=1e-3)


def test_problems_that_do_not_count_have_no_influence():
    rng = np.random.default_rng(0)
    values, counts = rng.uniform(size=(3, 80)), rng.uniform(size=(3, 80)) < 0.5
    other = np.where(counts, values, rng.uniform(size=(3, 80)))
    found = level(of_range(values, 2, counts))
    assert found == level(of_range(other, 2, counts)) != level(of_range(values, 2))
    by_seed = [row[mask].mean() for row, mask in zip(values, counts, strict=True)]
    assert found.by_seed == pytest.approx(by_seed)
    assert of_range(values, 2, np.zeros((3, 80), dtype=bool)) == [None, None, None]
    # half as many problems know half as much
    assert np.diff(found.interval) > np.diff(level(of_range(values, 2)).interval)


def test_the_best_of_several_is_what_counts():
    best, middle, worst = ([cells(np.full(200, rate), seed=i)] * 3 for i, rate in enumerate((0.6, 0.5, 0.2)))
    assert difference(best, [middle, worst]).effect == pytest.approx(0.1, abs=0.02)
    assert difference(middle, [best, worst]).effect == pytest.approx(-0.1, abs=0.02)
    assert level(best).effect == pytest.approx(mean_of(best[0]))


def test_metrics_ranges_and_themes():
    entry = {
        "theme": ["a", "a", "b"],
        "verified": [0, 2, 4],
        "sound": [0, 1, 4],
        "answer": [4, 2, 4],
        "process_accuracy": [0.5, 0.75, 1.0],
    }
    found = {"2": entry, "3": {**entry, "verified": [4, 4, 4]}}
    op2 = [RangePart(op=[2])]

    def mean(parts, metric, k=1):
        return mean_of(values_of(found, parts, metric, k, 4))

    assert mean(op2, "verified") == pytest.approx(0.5)
    assert mean(op2, "verified", 4) == pytest.approx(2 / 3)
    assert mean(op2, "sound") == pytest.approx(5 / 12)
    assert mean(op2, "gap") == pytest.approx(1 / 3)
    assert mean(op2, "process_accuracy") == pytest.approx(0.75)
    assert mean([RangePart(op=[2], themes=["b"])], "verified") == 1.0
    assert mean([RangePart(op=[2], weight=3), RangePart(op=[3], weight=1)], "verified") == pytest.approx(0.625)
    with pytest.raises(ValueError, match="no problem of op 2 and themes zoo was evaluated"):
        mean([RangePart(op=[2], themes=["zoo"])], "verified")
    with pytest.raises(ValueError, match="no problem of op 7"):
        mean([RangePart(op=[7])], "verified")


@pytest.mark.parametrize(
    "confidence, freedom, t",  # as scipy.special.stdtrit gives them
    [(0.95, 1, 12.706205), (0.95, 2, 4.302653), (0.95, 5, 2.570582), (0.999, 4, 8.610302), (0.5, 29, 0.683044)],
)
def test_quantiles_of_student(confidence, freedom, t):
    assert student_quantile(confidence, freedom) == pytest.approx(t, rel=1e-6)
