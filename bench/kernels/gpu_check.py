"""On a GPU: the tests of the kernels, then the kernels suite, written after every operation.

    python -m bench.kernels.gpu_check [OPERATION ...] [--no-tests] [--out runs/bench/gpu.json]

Exits 2 where there is no GPU, 1 if a test fails or an operation of ours does not run. With FASTREASON_AUTOTUNE=1 the
kernels also print tuned entries for kernels/launch.toml.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..harness.environment import ROOT, new_run
from ..harness.machine_peaks import machine_peaks
from ..harness.questions import Settings
from ..harness.records import Record, write_run
from ..harness.results_table import format_run, table
from ..harness.run_suite import run_suite
from .operations import OPS

MODULES = ("triton", "liger_kernel", "flash_attn")


def run_tests() -> bool:
    """Whether tests/kernels pass on this machine."""
    return (
        subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/kernels"], cwd=ROOT, check=False).returncode == 0
    )


def time_operations(names: Sequence[str], out: Path) -> list[str]:
    """Times each beside its peers and returns those that failed; `out` holds what is done at any time."""
    peaks, failed = machine_peaks(), []
    records: list[Record] = []
    skipped: dict[str, str] = {}
    for name in names:
        found = run_suite("kernels", Settings(), peaks, only=name)
        records += found.records
        skipped |= found.skipped
        run = new_run(records, threads=1, peaks=peaks, skipped=skipped, modules=MODULES)
        write_run(out, run)
        print(found.failure or table(found.records), flush=True)
        failed += [name] if found.failure else []
    print(f"{format_run(run)}\n\nwritten to {out}")
    return failed


def main(
    arguments: Sequence[str] | None = None,
    *,
    has_gpu: Callable[[], bool] = torch.cuda.is_available,
    tests: Callable[[], bool] = run_tests,
) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", nargs="*", metavar="OPERATION", help=f"default: all of {', '.join(OPS)}")
    parser.add_argument("--no-tests", action="store_true", help="time only")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "gpu.json")
    options = parser.parse_args(arguments)
    if unknown := set(options.operations) - set(OPS):
        parser.error(f"no such operation: {', '.join(sorted(unknown))}; there are {', '.join(OPS)}")
    if not has_gpu():
        print(f"gpu-check needs an NVIDIA GPU and a CUDA build of torch; torch {torch.__version__} sees no GPU here")
        return 2
    passed = options.no_tests or tests()
    failed = time_operations(options.operations or list(OPS), options.out)
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
