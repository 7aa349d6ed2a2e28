"""The distribution of problems against the released generator's output, for every mode, depth and op."""

import numpy as np
import pytest

import fastreason as fr
from tests import published

KINDS = [(mode, depth) for mode in ("forward", "reverse") for depth in (2, 3)]

# what differs from one draw to the next; each is compared by its mean
FIGURES = (
    "sentences",
    "distractors",
    "steps",
    "totals of counts among the steps",
    "totals of products among the steps",
    "averages among the steps",
    "letters",
    "operands of a step",
    "steps with a constant",
    "steps without parents",
    "products",
    "differences",
    "a total is the last step",
    "logarithm of the answer",
    "logarithm of the largest value",
    "parentheses",
)


def figures(problem: str, question: str, solution: str) -> list[float]:
    """Of the texts alone. Reverse problems are read only as far as the released ones make sense (their told values
    are those of another draw)."""
    steps, answer, _ = published.read_solution(solution)
    totals = [step.name for step in steps if step.name.startswith("total ")]
    of_products = [
        name for name in totals if name.split(" in ")[0].removeprefix("total number of ") in published.SECOND_LEVEL
    ]
    sentences = problem.count(" equals ") + problem.count(" greater than 0")
    clauses = solution.split(" We know ")[0]
    return [
        sentences,
        sentences - (len(steps) - len(totals)),
        len(steps),
        len(totals) - len(of_products),
        len(of_products),
        sum(step.name.startswith("average ") for step in steps),
        sum(len(step.variables) for step in steps),
        float(np.mean([len(set(step.parents)) for step in steps])),
        float(np.mean([step.has_constant for step in steps])),
        float(np.mean([not step.parents for step in steps])),
        clauses.count(" * ") / len(steps),
        clauses.count(" - ") / len(steps),
        float(steps[-1].name.startswith("total ")),
        float(np.log1p(answer)),
        float(np.log1p(max(step.value.at(answer) for step in steps))),
        clauses.count("(") / len(steps),
    ]


@pytest.fixture(scope="module")
def released(reference):
    modes = {"normalforward": "forward", "forwardreverse": "reverse"}
    cells: dict[tuple[str, int, int], list[list[float]]] = {}
    for level in ("medium", "hard"):
        for row in reference(f"problems_{level}.jsonl.gz"):
            key = (modes[row["mode"]], row["d"], row["op"])
            cells.setdefault(key, []).append(figures(row["problem"], row["question"], row["solution"]))
    return {key: np.array(values) for key, values in cells.items()}


@pytest.mark.parametrize("mode, depth", KINDS)
@pytest.mark.parametrize("op", range(2, 21))
def test_means_agree(released, mode, depth, op):
    mixture = fr.Mixture.uniform(op=[op], themes=["zoo"], modes=[mode], depths=[depth])
    batch = fr.TaskStream(mixture, seed=11)[0:400]
    ours = np.array([figures(*texts) for texts in zip(batch.problems, batch.questions, batch.solutions, strict=True)])
    theirs = released[mode, depth, op]
    # the spread of ours stands for both: in 36 rows a rare kind may not show at all
    error = np.sqrt(ours.var(0) * (1 / len(ours) + 1 / len(theirs))) + 1e-9
    distance = np.abs(ours.mean(0) - theirs.mean(0)) / error
    worst = int(distance.argmax())
    assert distance[worst] < 4.5, (FIGURES[worst], ours.mean(0)[worst], theirs.mean(0)[worst], distance[worst])
