"""The distribution of problems against the released generator's output, op by op."""

import numpy as np
import pytest

import fastreason as fr
from tests import solver

# what differs from one draw to the next; each is compared by its mean
FIGURES = (
    "counts",  # sentences of the problem
    "distractors",  # counts that the answer does not need
    "steps",
    "totals among the steps",
    "letters",
    "a total is asked",
    "parents of a needed count",
    "leaves among the needed counts",
    "constant + parents among the needed counts",
    "constant * parents among the needed counts",
    "differences among the needed counts",
    "answer",
)


def figures(problem: str, question: str, solution: str) -> list[float]:
    parsed = solver.read_published_problem(problem.strip(), question)
    steps = solver.read_published_solution(solution.rsplit(" Answer: ", 1)[0])
    needed = [parsed.quantities[step.name] for step in steps if not solver.is_total(step.name, parsed)]
    with_parents = [quantity for quantity in needed if quantity.parents]
    return [
        len(parsed.quantities),
        len(parsed.quantities) - len(needed),
        len(steps),
        len(steps) - len(needed),
        sum(len(step.variables) for step in steps),
        float(solver.is_total(parsed.asked, parsed)),
        float(np.mean([len(quantity.parents) for quantity in needed])),
        float(np.mean([not quantity.parents for quantity in needed])),
        sum(quantity.constant is not None and not quantity.times for quantity in with_parents) / len(needed),
        sum(quantity.constant is not None and quantity.times for quantity in with_parents) / len(needed),
        sum(quantity.minus for quantity in needed) / len(needed),
        # answers have a long tail, which their logarithm has not
        float(np.log1p(steps[-1].value)),
    ]


@pytest.fixture(scope="module")
def released(reference):
    rows = [row for row in reference("problems_medium.jsonl.gz") if row["mode"] == "normalforward"]
    by_op: dict[int, list[list[float]]] = {}
    for row in rows:
        by_op.setdefault(row["op"], []).append(figures(row["problem"], row["question"], row["solution"]))
    return {op: np.array(values) for op, values in by_op.items()}


@pytest.mark.parametrize("op", range(2, 21))
def test_means_agree(released, op):
    batch = fr.TaskStream(fr.Mixture.uniform(op=[op], themes=["zoo"]), seed=11)[0:2000]
    ours = np.array([figures(*texts) for texts in zip(batch.problems, batch.questions, batch.solutions, strict=True)])
    theirs = released[op]
    error = np.sqrt(ours.var(0) / len(ours) + theirs.var(0) / len(theirs)) + 1e-9
    distance = np.abs(ours.mean(0) - theirs.mean(0)) / error
    worst = int(distance.argmax())
    assert distance[worst] < 4.5, (FIGURES[worst], ours.mean(0)[worst], theirs.mean(0)[worst])
