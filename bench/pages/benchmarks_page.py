"""The tables and pictures of docs/benchmarks.md from what was measured.

    python -m bench.pages.benchmarks_page RUN.json [RUN.json ...]

Every suite that a run has goes between its marks, <!-- bench SUITE --> and <!-- /bench SUITE -->, with machine, commit,
date and spread; the pictures of bench/sweeps/sweeps.py between those of "sweep". A suite that no run has keeps its
table, which says itself where it is from. What stands outside the marks is written by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ..harness.environment import ROOT
from ..harness.markdown import put_between_marks
from ..harness.records import Run, read_run
from ..harness.results_table import format_skipped, table
from ..sweeps.charts import TITLES, pictures

__all__ = ["PAGE", "machine", "main", "marks", "regenerate", "section"]

PAGE = ROOT / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a suite of several runs is the last one's")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    try:
        regenerate([read_run(path) for path in options.runs], options.page)
    except (OSError, ValueError, TypeError) as error:
        print(f"bench.pages.benchmarks_page: {error}", file=sys.stderr)
        return 2
    return 0


def regenerate(runs: Sequence[Run], page: Path = PAGE) -> None:
    """Puts every suite of the runs between its marks, and says which it has no marks for.

    Raises:
        ValueError: the page has no marks for any of them.
    """
    newest = {record.suite: run for run in runs for record in run.records}
    places = marks(page)
    if not set(newest) & set(places):
        raise ValueError(f"{page} has marks for {', '.join(places) or 'nothing'}, the runs have {', '.join(newest)}")
    for suite, run in newest.items():
        if suite in places:
            put_between_marks(page, f"bench {suite}", section(run, suite))
            print(f"{suite}: {run.commit}, {run.date[:10]}")
        else:
            print(f"{suite}: {page.name} has no marks for it")
    suites = [run for run in runs if any(record.suite != "sweep" for record in run.records)]
    if suites and "machine" in places:
        put_between_marks(page, "bench machine", machine(suites[-1]))


def marks(page: Path) -> list[str]:
    """The marks of a page, in order: suites, and "machine"."""
    return re.findall(r"^<!-- bench (\w+) -->$", page.read_text(encoding="utf-8"), flags=re.M)


def section(run: Run, suite: str) -> str:
    """The text between the marks of a suite."""
    if suite == "sweep":
        shown = [f"![{TITLES[name]}](bench/{name}.svg)" for name in pictures(run)]
        return "\n\n".join([_where(run, suite), *shown])
    return f"{_where(run, suite)}\n\n{table([record for record in run.records if record.suite == suite])}"


def _where(run: Run, suite: str) -> str:
    """Machine, commit, and what the spread is."""
    records = [record for record in run.records if record.suite == suite]
    turns = sorted({len(record.times_s) for record in records if record.times_s})
    clocks = {"cpu": "CPU time", "wall": "wall time"}
    timed = " and ".join(clocks[clock] for clock in sorted({record.clock for record in records} & set(clocks)))
    threads = "" if suite == "sweep" else f", {run.threads} thread{'s' if run.threads > 1 else ''}"
    busy = f", {run.machine['load']:g} processes running when it began" if "load" in run.machine else ""
    said = f"`{run.machine['class']}`{threads}{busy}, commit {run.commit}, {run.date[:10]}"
    if not turns:
        return f"{said}: counts."
    span = f"{turns[0]}" if len(turns) == 1 else f"{turns[0]} to {turns[-1]}"
    return f"{said}: {timed}, medians of {span} turns and their 20th and 80th percentile."


def machine(run: Run) -> str:
    """The machine of a run, its peaks, what it had installed, and who took no part."""
    described = run.machine
    memory = f", {described['memory_gib']:.0f} GiB" if "memory_gib" in described else ""
    lines = [f"- `{described['class']}`: {described['cpu']}, {described['cores']} cores{memory}"]
    if run.peaks:
        peaks = [f"{name.replace('_', ' ')} {rate / 1e9:,.0f} {_giga(name)}/s" for name, rate in run.peaks.items()]
        lines.append(f"- its peaks: {', '.join(peaks)}")
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    lines.append(f"- commit {run.commit}, {run.date[:10]}: {versions}")
    skipped = [line.removeprefix("- ") for line in format_skipped(run)[2:]]
    lines += [f"- took no part: {'; '.join(skipped)}"] if skipped else []
    return "\n".join(lines)


def _giga(peak: str) -> str:
    return "GFLOP" if peak.startswith("matmul") else "GB"


if __name__ == "__main__":
    sys.exit(main())
