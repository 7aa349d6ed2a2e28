"""What became faster or slower since another run, and what noise alone may have moved.

    python -m bench.regressions.compare RUN.json [RUN.json ...] [--against OLD.json [OLD.json ...]] [--any-machine]

Without --against: the latest run of the same class of machines in bench/regressions/history, and all of its commit.
Several runs on a side make the bands narrower; bench/regressions/noise.py says how, docs/benchmarks.md how often that
is wrong. Exits 1 if a figure of ours became slower by more than 5 % beyond its band, 2 if there is nothing to compare.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..harness.markdown import markdown, short
from ..harness.records import OURS, Key, Record, Run, key, question, read_run
from .history import latest
from .noise import MIN_CONTROLS, Change, Figure, changes

__all__ = ["ALLOWED", "VARIANTS", "Compared", "compare", "is_peer", "main", "report"]

ALLOWED = 0.05
# what is compared with ours but runs our code too: no control, and no figure of its own
VARIANTS = frozenset({"one thread", "each with its prompt", "our torch engine", "budget"})
# a slow-down that a band should let through; where it is wider the table says so
_WORTH_SEEING = 0.2


@dataclass(frozen=True)
class Compared:
    """One of our figures in both runs.

    Args:
        base, new: of the latest run of either side.
    """

    base: Record
    new: Record
    change: Change

    @property
    def verdict(self) -> str:
        if self.change.slower_by(ALLOWED):
            return "SLOWER"
        if self.change.faster_by(ALLOWED):
            return "faster"
        if self.change.change > math.log1p(ALLOWED):
            return "slower? run again"
        if self.change.band > math.log1p(_WORTH_SEEING) - math.log1p(ALLOWED):
            return "too noisy to tell"
        return ""


def is_peer(provider: str) -> bool:
    """Whether our changes cannot affect it."""
    return provider != OURS and provider not in VARIANTS


def compare(base: Sequence[Run], new: Sequence[Run]) -> tuple[list[Compared], list[str]]:
    """Our figures that all runs have, and notes on what was omitted or subtracted.

    Raises:
        ValueError: the runs have no figure in common, or not the same number of threads.
    """
    runs = [*base, *new]
    if len(threads := {run.threads for run in runs}) > 1:
        raise ValueError(f"compare: all runs must have as many threads, got {sorted(threads)}")
    tables = [{key(record): record for record in run.records} for run in runs]
    notes = list(_other_versions(runs))
    shared = [k for k in tables[-1] if all(k in table and _alike(table[k], tables[-1][k]) for table in tables)]
    shared = [k for k in shared if tables[-1][k].provider == OURS or (is_peer(tables[-1][k].provider) and not notes)]
    if not any(tables[-1][k].provider == OURS for k in shared):
        raise ValueError("compare: the runs have no figure of fastreason in common")
    found: dict[Key, Compared] = {}
    for clock in ("cpu", "wall", "count"):
        keys = [k for k in shared if tables[-1][k].clock == clock]
        if not any(tables[-1][k].provider == OURS for k in keys):
            continue
        changed = _counts(keys, tables, len(base)) if clock == "count" else None
        if changed is None:
            figures = [_figure([table[k] for table in tables], len(base)) for k in keys]
            changed, drift_R = changes(figures)
            notes.append(_drift(clock, drift_R, len(base), figures))
        for k, change in zip(keys, changed, strict=True):
            if tables[-1][k].provider == OURS:
                found[k] = Compared(tables[len(base) - 1][k], tables[-1][k], change)
    lost = {k for table in tables for k, record in table.items() if record.provider == OURS} - set(found)
    if lost:
        notes.append(f"{len(lost)} figures are not in every run, or not with the same unit and clock, and left out.")
    return [found[k] for k in shared if k in found], notes


def _alike(one: Record, other: Record) -> bool:
    return (one.unit, one.clock) == (other.unit, other.clock)


def _other_versions(runs: Sequence[Run]) -> Iterator[str]:
    """What is not the same in all runs; a peer of another version is no control."""
    names = sorted({name for run in runs for name in run.versions} - {OURS})
    for name in names:
        versions = list(dict.fromkeys(run.versions[name] for run in runs if name in run.versions))
        if len(versions) > 1:
            yield f"{name} differs ({', '.join(versions)}): peers say nothing about the machine and are left out."


def _figure(records: Sequence[Record], num_base: int) -> Figure:
    times = [np.array(record.times_s) / record.work for record in records]
    return Figure(question(records[0]), records[0].provider != OURS, times[:num_base], times[num_base:])


def _counts(keys: Sequence[Key], tables: Sequence[dict[Key, Record]], num_base: int) -> list[Change]:
    """Counts have no noise."""
    work = np.array([[table[k].work for table in tables] for k in keys])
    change_F = np.log(np.median(work[:, num_base:], axis=1) / np.median(work[:, :num_base], axis=1))
    return [Change(float(change), 0.0) for change in change_F]


def _drift(clock: str, drift_R: np.ndarray, num_base: int, figures: Sequence[Figure]) -> str:
    change = float(np.median(drift_R[num_base:]) - np.median(drift_R[:num_base]))
    num_controls = sum(figure.is_control for figure in figures)
    if len(figures) < MIN_CONTROLS:
        return (
            f"{clock} time: {len(figures)} figures do not tell whether the machine itself changed; the bands are wide."
        )
    source = f"{num_controls} figures of peers"
    if num_controls < MIN_CONTROLS:
        source = f"all figures, for want of {MIN_CONTROLS} of peers: a slow-down of everything would not be seen"
    return f"{clock} time: the machine itself took {_percent(change)}, which is taken out (by {source})."


def _percent(change: float) -> str:
    return f"{100 * math.expm1(change):+.1f} %"


def report(found: Sequence[Compared], notes: Sequence[str]) -> str:
    """A table of all figures, the notes, and a last line that says what is slower."""
    rows = [
        [
            f"{one.new.suite}: {_named(one.new)}", _rate(one.base), _rate(one.new), _percent(one.change.change),
            f"± {100 * math.expm1(one.change.band):.1f} %", one.verdict,
        ]
        for one in found
    ]  # fmt: skip
    head = ["what", "before", "now", "cost", "noise", "verdict"]
    slower = [one for one in found if one.change.slower_by(ALLOWED)]
    unsure = [one for one in found if one.verdict.endswith("run again")]
    last = f"{len(found)} figures, none slower by more than {100 * ALLOWED:.0f} % beyond noise."
    if slower:
        names = "; ".join(f"{one.new.suite}: {_named(one.new)} {_percent(one.change.change)}" for one in slower)
        last = f"{len(slower)} of {len(found)} figures slower by more than {100 * ALLOWED:.0f} % beyond noise: {names}"
    if unsure:
        last += f"\n{len(unsure)} may be slower; give several runs to tell them from noise."
    return "\n".join([markdown(head, rows), "", *notes, last])


def _named(record: Record) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in record.shape.items())
    return f"{record.what} ({sizes})" if sizes else record.what


def _rate(record: Record) -> str:
    return (
        f"{short(record.work)} {record.unit}" if record.p50_s is None else f"{short(1 / record.cost)} {record.unit}/s"
    )


Paths = Path | str | Sequence[Path | str]


def main(run: Paths, against: Paths | None = None, *, any_machine: bool = False) -> int:
    """Prints what changed; 1 if any of our figures is slower, 2 if nothing can be compared.

    Args:
        run: a file, or several of one commit.
        against: files of an earlier commit; default: of the history.
        any_machine: compares runs of different classes of machines too.
    """
    new = [read_run(path) for path in _paths(run)]
    machine_class = new[-1].machine["class"]
    paths = latest(machine_class, other_than=new) if against is None else _paths(against)
    if not paths:
        print(
            f"compare: bench/regressions/history has no run of {machine_class}; "
            "`python -m bench.regressions.history add RUN` puts one there"
        )
        return 2
    base = [read_run(path) for path in paths]
    classes = sorted({each.machine["class"] for each in (*base, *new)})
    if len(classes) > 1 and not any_machine:
        print(f"compare: the runs are of different machines: {', '.join(classes)}; --any-machine compares them still")
        return 2
    print(f"{_of(new)} against {_of(base)}, {machine_class}\n")
    try:
        found, notes = compare(base, new)
    except ValueError as error:
        print(error)
        return 2
    print(report(found, notes))
    return int(any(one.change.slower_by(ALLOWED) for one in found))


def _paths(given: Paths) -> list[Path]:
    return [Path(given)] if isinstance(given, str | Path) else [Path(path) for path in given]


def _of(runs: Sequence[Run]) -> str:
    commits = ", ".join(dict.fromkeys(run.commit for run in runs))
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''} of {commits} ({runs[-1].date[:16]})"


def command(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--against", nargs="+", type=Path, metavar="OLD")
    parser.add_argument("--any-machine", action="store_true", help="although the machines differ")
    options = parser.parse_args(arguments)
    try:
        return main(options.runs, options.against, any_machine=options.any_machine)
    except (OSError, ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(command())
