"""Whether the memory of a process stays flat that draws problems, or that draws and grades them with `--grade`:
`python -m bench.checks.memory [--millions 10] [--grade]`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import fastreason as fr


def resident_mib() -> float:
    """Memory of this process that is in RAM, in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("bench.checks.memory: /proc/self/status has no VmRSS line")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, default=10)
    parser.add_argument("--grade", action="store_true", help="grade the solution of every problem too")
    options = parser.parse_args()
    mixture = fr.Mixture.uniform(op=range(2, 11), themes=["zoo"], modes=["forward", "reverse"])
    stream = fr.TaskStream(mixture, seed=0)
    print("| problems drawn | resident memory, MiB |\n| --- | --- |")
    for start in range(0, options.millions * 1_000_000, 10_000):
        batch = stream.batch(np.arange(start, start + 10_000))
        if options.grade:
            assert fr.grade(batch, batch.solutions).sound.all()
        if start % 1_000_000 == 0 or start + 10_000 == options.millions * 1_000_000:
            print(f"| {start + 10_000:,} | {resident_mib():.1f} |", flush=True)


if __name__ == "__main__":
    main()
