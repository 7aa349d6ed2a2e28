"""Grade your own completions: which answers are right, which reasoning is sound, and what is wrong with each step.

python examples/grade.py --problems 100
"""

import argparse
from collections import Counter

import numpy as np

import fastreason as fr


def complete(problems: fr.ProblemBatch) -> list[str]:
    """Replace this by your model, which continues `problems.prompts`. Here: the solution, with occasional errors."""
    rng = np.random.default_rng(0)
    completions = []
    for problem in problems:
        text = problem.solution
        if rng.random() < 0.3:  # an error: the last number before the answer is off by one
            steps, answer = text.rsplit(" Answer: ", 1)
            text = steps.rstrip(".").rsplit(" ", 1)[0] + f" {problem.answer + 1}. Answer: {answer}"
        completions.append(text)
    return completions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100)
    options = parser.parse_args()

    stream = fr.TaskStream(fr.Mixture.uniform(op=range(2, 11), themes=["zoo", "school"]), split="test")
    problems = stream[0 : options.problems]
    # several completions of each problem: all of problem 0, then all of problem 1, ...
    verdicts = fr.grade(problems, complete(problems))
    print(verdicts)

    statuses = Counter(fr.StepStatus(status).name.lower() for status in verdicts.steps.status)
    print("steps:", dict(statuses))
    lucky = verdicts.answer_correct & ~verdicts.verified
    print(f"right answers from wrong reasoning: {lucky.sum()}")
    for name in ("outcome", "blended", "strict", "steps"):
        print(f"mean reward {name}: {getattr(fr.rewards, name)(verdicts).mean():.3f}")

    # texts in the published format can be graded without a stream
    gold = "Define red kite in Alder Field as q; so q = 2. Answer: 2."
    print(fr.grade_texts([gold], [gold.replace("q = 2", "q = 3")]))


if __name__ == "__main__":
    main()
