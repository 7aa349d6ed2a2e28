"""Every throughput figure of docs/benchmarks.md on this machine: `python -m bench [tasks grade train groups ...]`."""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from fastreason.machine import describe_machine

from . import bench_grade, bench_grade_files, bench_groups, bench_rl, bench_rollout, bench_tasks, bench_train

PARTS = {
    "tasks": bench_tasks,
    "grade": bench_grade,
    "grade_files": bench_grade_files,
    "train": bench_train,
    "groups": bench_groups,
    "rollout": bench_rollout,
    "rl": bench_rl,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; the core uses one where a row says nothing else"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = describe_machine()
    print(f"{machine['cpu']}, {options.threads} thread(s), torch {machine['torch']}, Python {machine['python']}\n")
    print("| what | median | slowest - fastest | peer | ratio |\n| --- | --- | --- | --- | --- |")
    for part in options.parts or PARTS:
        for row in PARTS[part].rows():
            print(row, flush=True)


if __name__ == "__main__":
    main()
