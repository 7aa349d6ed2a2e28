"""Evaluate a Hugging Face folder: process-verified pass@k by op with intervals, and the edge of its competence.

python examples/evaluate.py FOLDER --op 2 3 4 --themes zoo
"""

import argparse
import json
from pathlib import Path

import fastreason as fr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="a Hugging Face folder of any causal language model")
    parser.add_argument("--op", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--themes", nargs="+", default=["zoo"])
    parser.add_argument("--max-value", type=int, default=1000)
    parser.add_argument("--problems", type=int, default=100, help="problems per op")
    parser.add_argument("--samples", type=int, default=8, help="samples per problem")
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--out", type=Path, help="file for the scores as JSON")
    options = parser.parse_args()

    mixture = fr.Mixture.uniform(op=options.op, themes=options.themes, max_value=options.max_value)
    how = {"samples": options.samples, "max_new_tokens": options.new_tokens}
    scores = fr.evaluate(options.folder, mixture, problems=options.problems, **how)
    print(scores)  # a table
    hardest = scores.ops[-1]
    best = scores.verified[hardest].at(options.samples)
    print(f"\nop {hardest}, verified pass@{options.samples}: {best}")
    print(f"right answers with wrong steps, pass@1: {luck(scores, hardest):.3f}\n")
    print(scores.failure_table())

    edge = fr.find_edge(options.folder, mixture, first=min(16, options.problems), problems=options.problems, **how)
    print(f"\n{edge}")
    print("train reinforcement learning on:", edge.mixture or "nothing is at the edge")
    if options.out is not None:
        options.out.write_text(json.dumps(scores.to_dict(), indent=1), encoding="utf-8")


def luck(scores: fr.Scores, op: int) -> float:
    """By how much the share of right answers exceeds the share of verified ones."""
    return scores.answer[op].at(1).value - scores.verified[op].at(1).value


if __name__ == "__main__":
    main()
