"""Everything that may go wrong, for as long as it is told; `make torture` is ten minutes of it.

    python -m tests.torture [--seconds 600] [--seed 0] [--parts kills truncations ...] [--docs]

    kills        commands killed or told to stop, at file-system events and at random; they go on to the same end
    truncations  every file that a command reads: cut, emptied, ending in zeros
    recipes      random recipes: two steps of every stage, or refused before the first
    folders      Hugging Face folders damaged in every way; they load or are refused by one error
    stages       kills of single stages, with resuming to the bit
    threads      threads that share engines, streams and tokenizers; Ctrl-C in long work of the core

One process at a time works, on one thread. Counts are printed; the status is 1 if anything went wrong. With `--docs`
they become the last run of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from . import commands, folders, kills, truncations

ROOT = Path(__file__).parents[2]
RECORD, PAGE = ROOT / "docs" / "torture.json", ROOT / "docs" / "reliability.md"
_BEGIN, _END = "<!-- torture -->", "<!-- /torture -->"


def _kills(place: Path, seconds: float, seed: int) -> Counter[str]:
    return _go_on(kills.Kills, place, seconds, seed)


def _truncations(place: Path, seconds: float, seed: int) -> Counter[str]:
    return _go_on(truncations.Truncations, place, seconds, seed)


def _go_on(kind: type[kills.Kills | truncations.Truncations], place: Path, seconds: float, seed: int) -> Counter[str]:
    end = time.time() + seconds
    commands.make_inputs(place / "given")
    part = kind(place, place / "given", Random(seed))
    part.go_on(end)
    return part.counts


def _recipes(place: Path, seconds: float, seed: int) -> Counter[str]:
    """In a process of its own, whose threads are no matter for those that are forked here."""
    run = [sys.executable, "-m", "tests.torture.recipes", "--seconds", str(seconds), "--seed", str(seed), "--json"]
    run += ["--number", "100000"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        return Counter({f"WRONG a recipe: {done.stdout[-300:]!r} {done.stderr[-700:]!r}": 1})
    return Counter(json.loads(done.stdout.splitlines()[-1]))


def _folders(place: Path, seconds: float, seed: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text, number in folders.torture(seconds, seed).items():
        if not text.startswith("note: "):
            counts[text if text.startswith("WRONG") else f"model {text.replace(', ', ', tokenizer ')}"] += number
    return counts


def _pytest(*files: str) -> Callable[[Path, float, int], Counter[str]]:
    """Tests, again and again while there is time for another round."""

    def part(place: Path, seconds: float, seed: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        end, longest = time.time() + seconds, 0.0
        while counts["rounds"] == 0 or time.time() + longest < end:
            begun = time.time()
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
            counts["rounds"] += 1
            if " passed" in done.stdout:
                counts["tests passed"] += int(done.stdout.partition(" passed")[0].split()[-1])
            if done.returncode:
                counts[f"WRONG tests failed: {done.stdout[-800:]!r}"] += 1
            longest = max(longest, time.time() - begun)
        return counts

    return part


PARTS: dict[str, tuple[float, Callable[[Path, float, int], Counter[str]]]] = {
    "kills": (0.40, _kills),
    "truncations": (0.20, _truncations),
    "recipes": (0.15, _recipes),
    "folders": (0.08, _folders),
    "stages": (0.10, _pytest("tests/training/test_resume.py", "tests/rl/test_resume.py")),
    "threads": (0.07, _pytest("tests/runtime/test_threads.py", "tests/runtime/test_signals.py")),
}
"""Its share of the time, and what it does; in this order, and forks first, while this process has one thread."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--docs", action="store_true", help="write docs/torture.json and the page's table from it")
    options = parser.parse_args(arguments)
    whole = sum(PARTS[name][0] for name in options.parts)
    record: dict[str, object] = {"commit": commands.commit(), "seed": options.seed, "seconds": options.seconds}
    parts: dict[str, dict[str, int]] = {}
    started = time.time()
    for name in options.parts:
        share, part = PARTS[name]
        place = Path(tempfile.mkdtemp(prefix="torture-"))
        try:
            parts[name] = dict(sorted(part(place, options.seconds * share / whole, options.seed).items()))
        finally:
            shutil.rmtree(place, ignore_errors=True)
        for text, number in parts[name].items():
            print(f"{name:12} {number:8,}  {text}", flush=True)
    record |= {"took_s": round(time.time() - started), "machine": machine(), "parts": parts}
    if options.docs:
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        PAGE.write_text(with_table(PAGE.read_text(), table(record)))
    wrong = sum(number for counts in parts.values() for text, number in counts.items() if text.startswith("WRONG"))
    print(f"{wrong} wrong (seed {options.seed}, {record['took_s']} s)")
    return 1 if wrong else 0


def machine() -> str:
    from fastreason.runtime.machine import describe_machine

    found = describe_machine()
    return f"{found['cores']} cores, {found['cpu']}"


def table(record: dict[str, object]) -> str:
    """What the page shows of a run."""
    lines = [
        f"The last run: {record['took_s']} s of one process, {record['machine']}, commit {record['commit']}, seed "
        f"{record['seed']}.",
        "",
        "| part | counts |",
        "| --- | --- |",
    ]
    for name, counts in record["parts"].items():  # type: ignore[attr-defined]
        lines.append(f"| {name} | {'; '.join(f'{number:,} {text}' for text, number in counts.items())} |")
    return "\n".join(lines)


def with_table(page: str, shown: str) -> str:
    """The page with another table between its marks."""
    before, _, rest = page.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{shown}\n{_END}{rest.partition(_END)[2]}"


if __name__ == "__main__":
    sys.exit(main())
