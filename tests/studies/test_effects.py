"""Verdicts of claims on synthetic results whose truth is known."""

import numpy as np
import pytest

from fastreason.studies.effects import FAILS, HOLDS, UNDECIDED, cells_of, difference, level, mean_of, verdict
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
    return cells_of(problems(rate, **more), EDGE, metric, k, 32)


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
        low, high = difference(after, [before], seed=study, resamples=500).interval
        covered += low <= 0.1 <= high
    assert 0.917 <= covered / 400 <= 0.99


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
        return mean_of(cells_of(found, parts, metric, k, 4))

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
