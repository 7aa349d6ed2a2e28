"""The suites that count instead of measuring time, as records.

    python -m bench.kernels.count_suites traffic|audit|decode|launches [--quick]

traffic: bytes a token that every operation moves under Triton's interpreter, beside the floor, where each operand is
moved once, and Liger-Kernel (bench/kernels/traffic.py). audit: registers, shared memory and instructions of the kernels
as compiled for sm_90, beside their budgets (bench/kernels/audit.py). decode: launches, waits and bytes of sampling, and
the time that a model gives it (bench/kernels/decode_step.py). launches: what a training step hands to a GPU, beside
what it should at most (bench/kernels/step_launches.py). None needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..harness.environment import ROOT
from ..harness.questions import Settings
from ..harness.records import OURS, Record, Shape
from ..harness.run_suite import Collected

if TYPE_CHECKING:
    from .audit import Audited
    from .traffic import Row

__all__ = ["count_suite"]

QUICK_OPERATION = "swiglu"
ARCH = 90


def count_suite(name: str, settings: Settings) -> Collected:
    """One of them in its own process, because the interpreter replaces kernels when they are decorated."""
    if find_spec("triton") is None:
        return Collected([], {name: "triton is not installed"})
    command = [sys.executable, "-m", "bench.kernels.count_suites", name, *(["--quick"] if settings.quick else [])]
    environment = {variable: value for variable, value in os.environ.items() if variable != "TRITON_INTERPRET"}
    environment |= {"TRITON_INTERPRET": "1"} if name == "traffic" else {}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RECORD ")]
    records = [Record.from_dict(json.loads(line.removeprefix("RECORD "))) for line in lines]
    skipped = (
        {} if find_spec("liger_kernel") or name != "traffic" else {"Liger-Kernel": "liger_kernel is not installed"}
    )
    return Collected(records, skipped, done.stderr.strip() or done.stdout if done.returncode else "")


def traffic_records(row: Row) -> Iterator[Record]:
    """Bytes per token of an operation, by provider."""
    per_token = {OURS: row.issued / row.tokens, "floor": row.floor / row.tokens}
    if row.liger is not None:
        per_token["Liger-Kernel"] = row.liger / row.liger_tokens
    for provider, size in per_token.items():
        yield Record(
            "traffic", f"{row.name}, forward and backward", provider, {"tokens": row.tokens}, "bytes a token",
            size, [], "count", bytes=row.floor / row.tokens,
        )  # fmt: skip


def audit_records(kernels: Sequence[Audited], budgets: Mapping[str, Any]) -> Iterator[Record]:
    """Of the kernels of an operation in one dtype: the most registers and shared memory, all instructions together."""
    of = [budgets.get(kernel.key, {}).get(str(kernel.arch), {}) for kernel in kernels]
    totals: dict[str, Callable[[Iterable[int]], int]] = {"registers": max, "shared_bytes": max, "instructions": sum}
    for name, total in totals.items():
        figures = {OURS: total(getattr(kernel.figures, name) for kernel in kernels)}
        figures["budget"] = total(budget.get(name, 0) for budget in of)
        unit, first = name.replace("_", " "), kernels[0]
        for provider, figure in figures.items():
            # nothing is used of what is 0
            if figure:
                shape: Shape = {"dtype": first.dtype, "arch": first.arch}
                yield Record("audit", f"{first.operation}: {unit}", provider, shape, unit, figure, [], "count")


def count(name: str, operations: Sequence[str]) -> Iterator[Record]:
    """Counts on two processes, as `python -m bench.kernels.traffic` and `python -m bench.kernels.audit` do."""
    # here, because without Triton they cannot be imported
    from .audit import tasks, work
    from .budgets import read_budgets
    from .traffic import measure_by_name

    if name == "decode":
        from .decode_step import Gpu, accounts, records

        for case, found in accounts(Gpu(), quick=operations == [QUICK_OPERATION]):
            yield from records(case, found)
        return
    if name == "launches":
        from .step_launches import step_records

        yield from step_records("10m" if operations == [QUICK_OPERATION] else "100m", 65_536)
        return
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        if name == "traffic":
            for row in pool.map(measure_by_name, operations):
                yield from traffic_records(row)
        else:
            budgets = read_budgets()
            for kernels in pool.map(work, tasks(operations, [ARCH])):
                yield from audit_records(kernels, budgets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["traffic", "audit", "decode", "launches"])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_OPERATION} alone, or little work")
    options = parser.parse_args()
    from .operations import OPS

    for record in count(options.name, [QUICK_OPERATION] if options.quick else list(OPS)):
        print("RECORD " + json.dumps(record.to_dict()), flush=True)


if __name__ == "__main__":
    main()
