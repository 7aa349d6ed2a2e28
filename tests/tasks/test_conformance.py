"""The law against figures measured on the original generator: how attempts end, and the numbers before any test."""

import math

import numpy as np
import pytest

import fastreason as fr
from fastreason import _core
from tests import published

# Probability that an attempt of the size knob of these op reaches the test of op with this op; of 2,500 attempts each.
OP_PROBABILITIES = {
    ("forward", 2): {
        2: 0.057,
        3: 0.014,
        4: 0.234,
        5: 0.257,
        6: 0.092,
        7: 0.106,
        8: 0.192,
        9: 0.206,
        10: 0.088,
        11: 0.112,
        12: 0.064,
        13: 0.094,
        14: 0.09,
        15: 0.082,
        16: 0.055,
        17: 0.069,
        18: 0.08,
        19: 0.073,
        20: 0.077,
    },
    ("reverse", 2): {2: 0.147, 3: 0.014, 4: 0.200},
    ("forward", 3): {
        2: 0.158,
        3: 0.196,
        4: 0.065,
        7: 0.108,
        8: 0.102,
        9: 0.07,
        12: 0.087,
        13: 0.1,
        14: 0.12,
        15: 0.096,
        19: 0.057,
        20: 0.079,
    },
}

# Attempts for one accepted problem of op 2, 3, ... 20. Each comes from some 40 problems, so off by 16 % on average.
ATTEMPTS = {
    ("forward", 2): [19, 84, 4, 4, 11, 9, 6, 5, 13, 10, 19, 12, 14, 13, 26, 18, 15, 16, 17],
    ("reverse", 2): [7, 84, 5, 6, 9, 9, 5, 6, 13, 9, 21, 9, 14, 15, 24, 20, 24, 20, 17],
    ("forward", 3): [6, 5, 14, 10, 21, 9, 11, 16, 10, 9, 13, 11, 10, 14, 16, 14, 14, 19, 17],
    ("reverse", 3): [9, 7, 21, 17, 29, 14, 18, 23, 14, 11, 24, 12, 13, 19, 26, 17, 17, 31, 23],
}

# The same, more exactly: from 300 problems and more, and half as many in reverse at depth 3 (8 %).
ATTEMPTS_POOLED = {
    ("forward", 2): {2: 19.1, 4: 4.1, 7: 9.2, 10: 13.2, 14: 14.1, 20: 16.9},
    ("reverse", 2): {2: 7.0, 4: 5.3, 7: 8.6, 10: 12.7, 14: 14.1, 20: 17.4},
    ("forward", 3): {2: 6.3, 4: 14.1, 7: 8.6, 10: 9.8, 14: 10.2, 20: 17.2},
    ("reverse", 3): {2: 9.1, 4: 19.0, 7: 14.3, 10: 14.3, 14: 12.7, 20: 22.8},
}

# Share of graphs of the right op whose numbers are refused, at depth 2 forward and depth 3.
REFUSED_VALUES = {
    ("forward", 2): {2: 0.0, 4: 0.02, 7: 0.03, 10: 0.12, 14: 0.18, 20: 0.21},
    ("forward", 3): {20: 0.26},
}

KINDS = [(mode, depth) for mode in ("forward", "reverse") for depth in (2, 3)]


def count(mode: str, depth: int, op: int, attempts: int) -> dict[str, float]:
    cell = _core.Cell(
        op=op,
        theme=0,
        mode=mode,
        depth=depth,
        weight=1.0,
        number_range=5,
        max_value=1000,
        max_sentences=50,
        circular_distractors=True,
        context=0,
    )
    return _core.count_attempts(cell, attempts, seed=1)


@pytest.mark.parametrize("mode, depth", OP_PROBABILITIES)
def test_attempts_reach_each_op_as_often_as_the_originals(mode, depth):
    chi_square = 0.0
    wanted = OP_PROBABILITIES[mode, depth]
    for op, theirs in wanted.items():
        found = count(mode, depth, op, 100_000)
        ours = found["mass"] * found["with_op"] / 100_000
        error = math.sqrt(theirs * (1 - theirs) / 2500 + 0.0005**2 / 3)  # of their sample and of the rounding
        assert abs(ours - theirs) < 4 * error, (op, ours, theirs)
        chi_square += ((ours - theirs) / error) ** 2
    # the 99.9 % point of a chi-square, Wilson and Hilferty 1931
    n = len(wanted)
    assert chi_square < n * (1 - 2 / (9 * n) + 3.09 * math.sqrt(2 / (9 * n))) ** 3


@pytest.mark.parametrize("mode, depth", KINDS)
def test_as_many_attempts_for_a_problem_as_the_original(mode, depth):
    distances = []
    for op, theirs in enumerate(ATTEMPTS[mode, depth], start=2):
        found = count(mode, depth, op, 60_000)
        ours = 60_000 / (found["accepted"] * found["mass"])
        distances.append(math.log(ours / theirs))
        assert abs(distances[-1]) < 0.4, (op, ours, theirs)
        if op in ATTEMPTS_POOLED[mode, depth]:
            allowed = 0.2 if (mode, depth) == ("reverse", 3) else 0.11
            assert abs(math.log(ours / ATTEMPTS_POOLED[mode, depth][op])) < allowed, (op, ours)
    assert abs(np.mean(distances)) < 0.1  # three standard errors


@pytest.mark.parametrize("mode, depth", REFUSED_VALUES)
def test_as_many_numbers_are_refused_as_in_the_original(mode, depth):
    for op, theirs in REFUSED_VALUES[mode, depth].items():
        found = count(mode, depth, op, 100_000)
        refused = 1 - found["accepted"] / found["with_op"]
        graphs = 2500 * found["mass"] * found["with_op"] / 100_000  # that theirs are a share of
        assert abs(refused - theirs) < 0.005 + 3 * math.sqrt(refused * (1 - refused) / graphs), (op, refused)


def test_a_leaf_is_one_less_often_than_two_three_or_four():
    """op 2 forward at depth 2 is one leaf and a total of it alone: its answer is the leaf, and none is refused."""
    stream = fr.TaskStream(fr.Mixture.uniform(op=[2], themes=["symbolic"]), seed=3)
    counts = np.bincount(stream[0:48_000].answers, minlength=5)
    expected = 48_000 * np.array([0, 1 / 8, 7 / 24, 7 / 24, 7 / 24])
    assert counts[0] == 0 and len(counts) == 5
    assert ((counts - expected)[1:] ** 2 / expected[1:]).sum() < 16.3  # 99.9 % point at 3 degrees of freedom


@pytest.mark.parametrize("mode, depth", KINDS)
def test_every_count_has_a_sentence_and_at_depth_3_an_average(mode, depth):
    batch = fr.TaskStream(fr.Mixture.uniform(op=range(2, 21), modes=[mode], depths=[depth]), seed=6)[0:600]
    for text, question in zip(batch.problems, batch.questions, strict=True):
        problem = published.read_problem(text, question)
        averages = {name for name in problem.names if name.startswith("average ")}
        counts = problem.names - averages
        assert {name.split(" per ", 1)[1] for name in averages} == (counts if depth == 3 else set())
        assert problem.sentences == len(counts) * (depth - 1) + (mode == "reverse")
        # places times kinds, at most 20 edges, every place with a kind
        assert 1 <= len(counts) <= 20
        assert len({name.split(" in ")[1] for name in counts}) <= 5
        assert len({name.split(" in ")[0] for name in counts}) <= 5
