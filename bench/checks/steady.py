"""Whether training keeps its pace and its memory: `python -m bench.checks.steady --minutes 60`, a line a minute."""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import torch

from ..harness.worker_process import Report
from ..suites.train_worker import SIZES, Setting, fastreason_step


def resident_mib() -> float:
    """Memory the process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--size", choices=list(SIZES), default="tiny")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    step = fastreason_step(Setting.of(options.size))
    print("| minute | steps/s | steps/CPU-s | tokens/s | resident MiB |\n| --- | --- | --- | --- | --- |")
    begin, minute = time.perf_counter(), 0
    while time.perf_counter() - begin < 60 * options.minutes:
        minute += 1
        report, steps = Report(), 0
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        while time.perf_counter() - start_s < 60:
            step(report)
            steps += 1
        wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        found = (f"{steps / wall_s:.2f}", f"{steps / cpu_s:.2f}", f"{report.work / wall_s:.0f}")
        print(f"| {minute} | {' | '.join(found)} | {resident_mib():.0f} |", flush=True)


if __name__ == "__main__":
    main()
