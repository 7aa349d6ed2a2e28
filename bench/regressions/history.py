"""What was measured before: small runs of named machine classes in bench/regressions/history, committed with the code.

    python -m bench.regressions.history add RUN.json [RUN.json ...]
    python -m bench.regressions.history list

A file is DATE-COMMIT-CLASS.json. `--compare` compares with the latest of the machine's class, and with all others of
that class and commit: repeated runs say how far noise goes.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..harness.records import OURS, Run, read_run, write_run

__all__ = ["HISTORY", "MOST_BYTES", "add", "entries", "latest"]

HISTORY = Path(__file__).with_name("history")
MOST_BYTES = 100_000
_LEAST_TURNS = 5


def add(path: Path | str) -> Path:
    """Puts a run into the history, times rounded to five digits, and returns the file.

    Where that is more than MOST_BYTES, turns are left out of the records that have most of them, the fastest, the
    median and the slowest kept and the others evenly by rank.

    Raises:
        ValueError: the run is of a checkout with changes, of an unknown commit, or has no records; the file would be
            too large with few turns too; the history has it already.
    """
    run = read_run(path)
    if not re.fullmatch(r"[0-9a-f]{7,40}", run.commit):
        raise ValueError(f"history: {path} must be of a commit, got {run.commit!r}; commit first, then run again")
    if not run.records:
        raise ValueError(f"history: {path} has no records")
    # 2026-01-31T12:00:00+00:00 -> 20260131T120000
    date = re.sub(r"[-:]", "", run.date)[:15]
    target = HISTORY / f"{date}-{run.commit[:10]}-{run.machine['class']}.json"
    if target.exists():
        raise ValueError(f"history: {target} is there already")
    most = max(len(record.times_s) for record in run.records)
    while True:
        write_run(target, _thinned(run, most))
        size = target.stat().st_size
        if size <= MOST_BYTES:
            return target
        if most <= _LEAST_TURNS:
            target.unlink()
            raise ValueError(f"history: {path} needs {size} bytes with {most} turns, more than {MOST_BYTES}")
        most = max(min(most - 2, most * MOST_BYTES // size), _LEAST_TURNS)


def _thinned(run: Run, most: int) -> Run:
    """Left out too: counts of peers and budgets, which nothing is compared with, and the operating system's name, which
    may say who hosts the machine."""
    kept = [record for record in run.records if record.provider == OURS or record.times_s]
    records = [replace(record, times_s=_by_rank(record.times_s, most)) for record in kept]
    machine = {name: value for name, value in run.machine.items() if name != "os"}
    return replace(run, records=records, machine=machine)


def _by_rank(times_s: Sequence[float], most: int) -> list[float]:
    """At most so many of them (an odd number, so that the median stays), rounded; in their order if all are kept."""
    rounded = [float(f"{time_s:.5g}") for time_s in times_s]
    if len(rounded) <= most:
        return rounded
    most -= 1 - most % 2
    ranked = sorted(rounded)
    return [ranked[round(i * (len(ranked) - 1) / (most - 1))] for i in range(most)]


def entries(machine_class: str | None = None) -> list[tuple[Path, Run]]:
    """Files of a class, or all, with their runs, the latest last."""
    found = [(path, read_run(path)) for path in HISTORY.glob("*.json")]
    mine = [(path, run) for path, run in found if machine_class in (None, run.machine["class"])]
    return sorted(mine, key=lambda entry: entry[1].date)


def latest(machine_class: str, *, other_than: Sequence[Run] = ()) -> list[Path]:
    """The latest file of a class, and the others of its commit; [] if there is none.

    Args:
        other_than: runs that are to be compared: none of them is its own past.
    """
    own = {(run.date, run.commit) for run in other_than}
    found = [(path, run) for path, run in entries(machine_class) if (run.date, run.commit) not in own]
    return [path for path, run in found if run.commit == found[-1][1].commit]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("add", help="put runs into the history").add_argument("runs", nargs="+", type=Path)
    commands.add_parser("list", help="what there is")
    options = parser.parse_args(arguments)
    if options.command == "list":
        for path, run in entries():
            print(f"{path.name}: {len(run.records)} figures, {run.threads} thread(s), {path.stat().st_size:,} bytes")
        return 0
    try:
        for path in options.runs:
            target = add(path)
            print(f"{target}: {target.stat().st_size:,} bytes")
    except (OSError, ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
