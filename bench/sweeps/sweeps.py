"""How cost scales: with op, context length, model size, batch and threads.

    python -m bench.sweeps.sweeps [NAME ...] [--out docs/bench] [--quick]
    python -m bench.sweeps.sweeps --draw                 the pictures anew, from DIR/sweeps.json

Writes DIR/sweeps.json, a run whose records have the suite "sweep", and the pictures. All points of a sweep take turns,
so that what else the machine does falls on all of them. Times are CPU time of one thread, except over threads: those
are by the clock on the wall. Bounds, dashed, come from the machine's peak for matrix products and count products alone
(fastreason.training.budget).
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fastreason import _core

from ..harness.environment import ROOT, new_run
from ..harness.machine_peaks import machine_peaks, percent_of_peak
from ..harness.records import Record, Run, read_run, write_run
from . import charts
from .points import SWEEPS, Point

__all__ = ["FOLDER", "main", "measured"]

FOLDER = ROOT / "docs" / "bench"
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


def measured(name: str, points: Sequence[Point], *, turns: int, peaks: dict[str, float]) -> Iterator[Record]:
    """A record for each point, its times taken in turns with all the others; one call before them is not counted.

    Args:
        name: of the sweep, which stands behind the point's own words.
    """
    works = [point.start() for point in points]
    units: list[list[float]] = [[] for _ in points]
    times_s: list[list[float]] = [[] for _ in points]
    for turn in range(turns + 1):
        for i, (point, work) in enumerate(zip(points, works, strict=True)):
            torch.set_num_threads(point.threads)
            clock = CLOCKS[point.clock]
            start = clock()
            done = work()
            taken_s = clock() - start
            if turn:
                units[i].append(done)
                times_s[i].append(taken_s)
    torch.set_num_threads(1)
    for point, done_of, taken in zip(points, units, times_s, strict=True):
        amount = statistics.median(done_of)
        # calls that did more or less than the median are brought to its size
        scaled = [time_s * amount / done for time_s, done in zip(taken, done_of, strict=True)]
        flop = None if point.flop_per_unit is None else point.flop_per_unit * amount
        percent = None
        if flop is not None and point.threads == 1:
            percent = percent_of_peak(peaks, "matmul", flop, statistics.median(scaled))
        yield Record(
            suite="sweep", what=f"{point.what}, by {name}", provider=point.provider, shape=point.shape,
            unit=point.unit, work=amount, times_s=scaled, clock=point.clock, flop=flop,
            peak=None if percent is None else "matmul", percent_of_peak=percent,
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(SWEEPS)}")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two turns of small work: whether it runs, not how fast")
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(SWEEPS):
        parser.error(f"no such sweep: {', '.join(sorted(unknown))}; there are {', '.join(SWEEPS)}")
    if options.turns < 1:
        parser.error(f"--turns must be at least 1, got {options.turns}")
    path = options.out / "sweeps.json"
    if not options.draw:
        _core.keep_freed_memory()
        load = os.getloadavg()[0]
        peaks = machine_peaks()
        records: list[Record] = []
        for name in options.names or SWEEPS:
            start = time.perf_counter()
            points = list(SWEEPS[name](options.quick))
            records += measured(name, points, turns=2 if options.quick else options.turns, peaks=peaks)
            gc.collect()
            print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        write_run(path, _run_of(records, peaks, load))
    run = read_run(path)
    for name, picture in charts.pictures(run).items():
        (options.out / f"{name}.svg").write_text(picture, encoding="utf-8")
        print(options.out / f"{name}.svg")
    return 0


def _run_of(records: Sequence[Record], peaks: dict[str, float], load: float) -> Run:
    """Times rounded to five digits; "load" of the machine says how many processes wanted a core when it began."""
    short = [replace(record, times_s=[float(f"{time_s:.5g}") for time_s in record.times_s]) for record in records]
    run = new_run(short, threads=1, peaks=peaks, modules=["torch"])
    machine = {name: value for name, value in run.machine.items() if name != "os"}
    return replace(run, machine=machine | {"load": round(load, 1)})


if __name__ == "__main__":
    sys.exit(main())
