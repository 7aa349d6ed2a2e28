"""Read problems: texts, steps, difficulty, and the graph of each.

python examples/read.py --count 3 --svg graph.svg
"""

import argparse
from pathlib import Path

import fastreason as fr
from fastreason.tasks.graph_svg import graph_svg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3, help="number of problems to print")
    parser.add_argument("--svg", type=Path, help="file for the graph of the first problem")
    options = parser.parse_args()

    # op is the number of arithmetic operations; a mixture consists of weighted cells
    mixture = 0.8 * fr.Mixture.uniform(op=range(2, 5), themes=["zoo"]) + 0.2 * fr.Mixture.uniform(op=[8])
    # problem i is a function of (mixture, seed, split, i): nothing is stored, and test problems are never in train
    stream = fr.TaskStream(mixture, seed=0, split="train")

    problems = stream[0 : options.count]
    for problem in problems:
        print(f"--- {problem.id}, op {problem.op}")
        print("problem: ", problem.problem)
        print("question:", problem.question)
        print("solution:", problem.solution)
        needed = [quantity.name for quantity in problem.graph.quantities if quantity.necessary]
        print(f"{len(problem.graph.quantities)} quantities, {len(needed)} of which the answer depends on")

    hard = problems[problems.ops > 3]  # another batch: indices, slices and masks select problems
    print(f"\n{len(hard)} of {len(problems)} have more than 3 operations; answers {problems.answers.tolist()}")
    print("a row of the published schema:", sorted(problems.rows()[0]))
    if options.svg is not None:
        options.svg.write_text(graph_svg(problems[0].graph), encoding="utf-8")
        print(f"graph of the first problem: {options.svg}")


if __name__ == "__main__":
    main()
