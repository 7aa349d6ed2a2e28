"""Everything that is measured of fastreason, beside its peers: `python -m bench`, the same as `fastreason bench`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from fastreason.cli.parser import Parser

from .harness.environment import ROOT, new_run
from .harness.machine_peaks import age, machine_peaks
from .harness.questions import Settings
from .harness.records import Record, write_run
from .harness.results_table import format_run
from .harness.run_suite import Collected, run_suite
from .kernels.count_suites import count_suite
from .suites.released_peer import check_reference

SUITES = {
    "tasks": "drawing problems and encoding text",
    "grade": "the step verifier",
    "grade_files": "verdicts of files of completions",
    "groups": "a group in its own layout",
    "train": "a step of pre-training",
    "rollout": "sampling",
    "rl": "a step of reinforcement learning",
    "kernels": "every operation, on the GPU where there is one",
    "traffic": "bytes that every kernel moves, no GPU needed",
    "audit": "registers and shared memory of every kernel, no GPU needed",
    "decode": "launches, waits and bytes of sampling on a GPU, and its time by a model, no GPU needed",
    "launches": "launches, host time, waits and bytes of a training step, no GPU needed",
}
# those that count instead of measuring time
COUNTS = ("traffic", "audit", "decode", "launches")
LATEST = ROOT / "runs" / "bench" / "latest.json"
# what is imported by a suite or its peers, for their versions
MODULES = ("tokenizers", "transformers", "accelerate", "trl", "datasets", "reasoning_gym", "liger_kernel", "triton")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs suites, prints the table, writes the JSON; returns 0, or 1 if our code failed or is slower.

    Raises:
        ValueError: a flag, a suite or a file that there is not, threads below 1, or a --reference that is no checkout.
        ModuleNotFoundError: pytest-benchmark is not installed.
    """
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(f"{name:12} {what}" for name, what in SUITES.items()))
        return 0
    if unknown := [name for name in options.names if name not in SUITES]:
        raise ValueError(f"no suite {', '.join(map(repr, unknown))}; there are {', '.join(SUITES)}")
    if options.threads < 1:
        raise ValueError(f"--threads must be at least 1, got {options.threads}")
    if isinstance(options.compare, Path) and not options.compare.is_file():
        raise ValueError(f"--compare: no file {str(options.compare)!r}; names of suites stand before it")
    if options.reference is not None:
        check_reference(options.reference)
    for module in ("pytest", "pytest_benchmark"):
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"{module} is not installed: pip install -r requirements-bench.txt")
    settings = Settings(options.threads, options.quick, options.reference and options.reference.resolve())
    path, failed = run(options.names or list(SUITES), settings, options.out, options.fresh_peaks, options.only)
    if options.compare is not False:
        from .regressions.compare import main as compare

        return max(failed, compare(path, against=options.compare))
    return failed


def _parser() -> Parser:
    parser = Parser(prog="fastreason bench", description="Ours beside its peers, on the same work.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"suites; default all: {', '.join(SUITES)}")
    parser.add_argument("--list", action="store_true", help="what each suite is about, and stop")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the JSON; default runs/bench/latest.json, or NAME.json for some"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of every contestant (default 1)")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="a checkout of the released generator and scorer")
    parser.add_argument("--fresh-peaks", action="store_true", help="measure the machine's peaks again")
    parser.add_argument("--quick", action="store_true", help="two turns of small work: whether it runs, not how fast")
    parser.add_argument("--only", default="", metavar="WHAT", help="questions about this, as 'training in bfloat16'")
    parser.add_argument(
        "--compare", nargs="?", type=Path, default=False, const=None, metavar="FILE",
        help="afterwards, what changed since FILE, or since the history of this class of machines; 1 if slower",
    )  # fmt: skip
    return parser


def run(
    names: Sequence[str], settings: Settings, out: Path | None, fresh_peaks: bool, only: str = ""
) -> tuple[Path, int]:
    """The path of the JSON of these suites, and 1 if our code failed, otherwise 0."""
    peaks = machine_peaks(fresh=fresh_peaks)
    peaks_age = f"{age()} ago"
    records: list[Record] = []
    skipped: dict[str, str] = {}
    failures = []
    for name in names:
        start = time.perf_counter()
        found = collect(name, settings, peaks, only)
        records += found.records
        skipped |= found.skipped
        if found.failure:
            failures.append(f"{name} failed:\n{found.failure}")
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    path = out or (LATEST if set(names) == set(SUITES) else LATEST.with_name("-".join(names) + ".json"))
    result = new_run(records, threads=settings.threads, peaks=peaks, skipped=skipped, modules=MODULES)
    write_run(path, result)
    print(format_run(result, peaks_age))
    print(f"\nwritten to {os.path.relpath(path)}")
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return path, int(bool(failures))


def collect(name: str, settings: Settings, peaks: Mapping[str, float], only: str = "") -> Collected:
    """One suite, timed or counted."""
    return count_suite(name, settings) if name in COUNTS else run_suite(name, settings, peaks, only=only)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, ModuleNotFoundError) as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
