"""Compares our problems with the released generator's, cell by cell: two-sample Kolmogorov-Smirnov distances.

    python -m bench.checks.fidelity REFERENCE [--problems 2000]

REFERENCE is a folder with problems_medium.jsonl.gz and problems_hard.jsonl.gz in the published schema. The themes are
extracted from those files, so that text lengths can be compared too. Every cell of (mode, depth, op) is compared in 11
statistics. A statistic is outside if its distance exceeds the 99 % point under random permutations of both samples.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import fastreason as fr
from fastreason.runtime.json_files import to_json
from fastreason.text.theme_from_data import learn_file
from tests import published

MODES = {"normalforward": "forward", "forwardreverse": "reverse"}


def figures(row: dict[str, Any]) -> dict[str, float]:
    """What is compared. A released reverse problem tells the value of another draw, so its text is not compared."""
    steps, answer, _ = published.read_solution(row["solution"])
    clauses = row["solution"].split(" We know ")[0]
    sentences = row["problem"].count(" equals ") + row["problem"].count(" greater than 0")
    counted = sum(not step.name.startswith("total ") for step in steps)
    found = {
        "sentences": sentences,
        "share of distractors": (sentences - counted) / sentences,
        "steps": len(steps),
        "characters of the solution": len(row["solution"]),
        "answer": answer,
        "largest value": max(step.value.at(answer) for step in steps),
        "operands a step": float(np.mean([len(step.parents) for step in steps])),
        "sums a step": clauses.count(" + ") / len(steps),
        "differences a step": clauses.count(" - ") / len(steps),
        "products a step": clauses.count(" * ") / len(steps),
    }
    if row["mode"] == "normalforward":
        found["characters of the problem"] = len(row["problem"])
    return found


def table(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in figures(row).items():
            found[name].append(value)
    return {name: np.array(values) for name, values in found.items()}


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of the two empirical distribution functions."""
    points = np.union1d(a, b)
    below = [np.searchsorted(np.sort(x), points, side="right") / len(x) for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def chance(a: np.ndarray, b: np.ndarray, permutations: int = 400) -> float:
    """The distance that 99 % of random divisions of both samples stay below."""
    pooled, rng = np.concatenate([a, b]), np.random.default_rng(0)
    found = []
    for _ in range(permutations):
        rng.shuffle(pooled)
        found.append(distance(pooled[: len(a)], pooled[len(a) :]))
    return float(np.quantile(found, 0.99))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--problems", type=int, default=2000, help="of ours in each cell")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for level in ("medium", "hard"):
        with gzip.open(options.reference / f"problems_{level}.jsonl.gz", "rt", encoding="utf-8") as file:
            rows += [json.loads(line) for line in file]
    with TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        source.write_text("".join(to_json(row) + "\n" for row in rows), encoding="utf-8")
        themes = [str(path) for path in learn_file(source, Path(folder) / "themes")]
        compare(rows, themes, options.problems)


def compare(rows: list[dict[str, Any]], themes: list[str], problems: int) -> None:
    cells: dict[tuple[str, int, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        cells[MODES[row["mode"]], row["d"], row["op"]].append(row)
    compared = 0
    outside: list[str] = []
    print("| mode | depth | op | mean distance | mean of two halves of the reference | outside chance |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (mode, depth, op), theirs_rows in sorted(cells.items()):
        mixture = fr.Mixture.uniform(op=[op], themes=themes, modes=[mode], depths=[depth])
        ours, theirs = table(fr.TaskStream(mixture, seed=7)[0:problems].rows()), table(theirs_rows)
        found = {name: distance(ours[name], theirs[name]) for name in theirs}
        floor = [distance(values[::2], values[1::2]) for values in theirs.values()]
        beyond = [name for name in theirs if found[name] > chance(ours[name], theirs[name])]
        compared, outside = compared + len(found), outside + beyond
        mean = float(np.mean(list(found.values())))
        print(f"| {mode} | {depth} | {op} | {mean:.3f} | {np.mean(floor):.3f} | {', '.join(beyond)} |", flush=True)
    inside = compared - len(outside)
    print(f"\n{inside} of {compared} statistics within the 99 % band of chance ({inside / compared:.1%})")


if __name__ == "__main__":
    main()
