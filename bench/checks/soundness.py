"""What passes at which level of the verifier: `python -m bench.checks.soundness [--millions 1] [--reference DIR]`.

Gold solutions of every kind against themselves and against themselves with other letters: all must be sound. With the
reference data, a table of how often each kind of damage passes as `answer_correct`, `verified` and `sound`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import fastreason as fr

KINDS = [("zoo", "forward", 2), ("school", "forward", 3), ("festival", "reverse", 2), ("zoo", "reverse", 3)]
KINDS += [("symbolic", "forward", 2)]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWYZabcdefghijklmnopqrstuvwyz"  # X and x are the unknown's
CHUNK = 5000
SIGNS = ("op_change", "num_change", "result_change", "var_change")  # damage to a single sign


def rename(solution: str, rng: random.Random) -> str:
    """Another injection of letters into the variables of a published solution."""
    to = dict(zip(LETTERS, rng.sample(LETTERS, len(LETTERS)), strict=True))
    return re.sub(r"(?<![\w'])[A-WYZa-wyz](?![\w'])", lambda match: to[match[0]], solution)


def check_gold(problems: int) -> None:
    print(
        "| theme | mode | depth | solutions | sound | sound with other letters |\n| --- | --- | --- | --- | --- | --- |"
    )
    for theme, mode, depth in KINDS:
        mixture = fr.Mixture.uniform(op=range(2, 21), themes=[theme], modes=[mode], depths=[depth])
        stream, rng, sound, renamed = fr.TaskStream(mixture, seed=0), random.Random(0), 0, 0
        for start in range(0, problems, CHUNK):
            gold = stream[start : min(start + CHUNK, problems)].solutions
            sound += int(fr.grade_texts(gold, gold).sound.sum())
            texts = gold if theme == "symbolic" else [rename(text, rng) for text in gold]
            renamed += int(fr.grade_texts(gold, texts).sound.sum())
        print(f"| {theme} | {mode} | {depth} | {problems:,} | {sound:,} | {renamed:,} |", flush=True)


def check_damage(reference: Path) -> None:
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * 5)
    for level in ("medium", "hard"):
        problems, rows = (read(reference / f"{name}_{level}.jsonl.gz") for name in ("problems", "verdicts"))
        gold = [problems[row["row"]] for row in rows]
        verdict = fr.grade_texts([problem["solution"] for problem in gold], [row["completion"] for row in rows])
        for i, row in enumerate(rows):
            if row["kind"] in SIGNS and steps_of(row["completion"]) == steps_of(gold[i]["solution"]):
                continue  # some texts are left as they are
            count = counts["reverse" if gold[i]["mode"] == "forwardreverse" else "forward", row["kind"]]
            levels = (True, verdict.answer_correct[i], row["verified"], verdict.verified[i], verdict.sound[i])
            for column, passed in enumerate(levels):
                count[column] += bool(passed)
    print("\n| damage | mode | texts | answer_correct | released | verified | sound |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (mode, kind), (texts, *passed) in sorted(counts.items(), key=lambda item: (item[0][1], item[0][0])):
        print(f"| {kind} | {mode} | {texts} | " + " | ".join(f"{100 * n / texts:.1f} %" for n in passed) + " |")


def steps_of(text: str) -> str:
    return re.split("</solution>|Answer:", text)[0].strip()


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=1.0, help="gold solutions of all kinds together")
    parser.add_argument("--reference", type=Path, help="folder of problems_*.jsonl.gz and verdicts_*.jsonl.gz")
    options = parser.parse_args()
    check_gold(int(options.millions * 1e6 / len(KINDS)))
    if options.reference:
        check_damage(options.reference)


if __name__ == "__main__":
    main()
