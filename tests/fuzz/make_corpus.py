"""Writes tests/fuzz/corpus: gold solutions of every kind with themselves, and with damaged ones, to start from."""

from pathlib import Path

import fastreason as fr
from tests.grading.gold import GOLD, REVERSE_GOLD, SYMBOLIC_GOLD

CELLS = [("zoo", "forward", 2), ("zoo", "forward", 3), ("zoo", "reverse", 2), ("zoo", "reverse", 3)]
CELLS += [("symbolic", "forward", 2)]


def main() -> None:
    folder = Path(__file__).with_name("corpus")
    folder.mkdir(exist_ok=True)
    pairs = {"gold": (GOLD, GOLD), "reverse": (REVERSE_GOLD, REVERSE_GOLD), "symbolic": (SYMBOLIC_GOLD, SYMBOLIC_GOLD)}
    pairs["damaged"] = (GOLD, GOLD.replace("as q; so q", "as qq; so q").replace("= 5.", "= = 5,"))
    for i, more in enumerate((" 0", "0", ".", " More.", " </answer>", "<answer> 7 </answer>", " Answer: 7.")):
        pairs[f"more-{i}"] = (GOLD, more)
        pairs[f"more-tagged-{i}"] = (SYMBOLIC_GOLD.replace("Answer: 7.", "</solution> <answer> 7 </answer>"), more)
    pairs["numbers"] = (GOLD, GOLD.replace("= 5", "= 5.0").replace("= 2.", "= 2,000.").replace("7.", "7 or 9."))
    pairs["tags"] = (GOLD, "<solution> " + GOLD.replace("Answer: 7.", "</solution> <answer> 7 </answer> </answer"))
    for theme, mode, depth in CELLS:
        mixture = fr.Mixture.uniform(op=[3, 9], themes=[theme], modes=[mode], depths=[depth])
        problems = fr.TaskStream(mixture, seed=0)[0:2]
        first, second = problems.solutions
        pairs[f"{theme}-{mode}-{depth}"] = (first, " " + first)
        pairs[f"{theme}-{mode}-{depth}-other"] = (first, second)
    for name, (gold, completion) in pairs.items():
        (folder / name).write_bytes(gold.encode() + b"\x1e" + completion.encode())


if __name__ == "__main__":
    main()
