"""`python -m bench.gpu STEP [--rehearse] [--only TEXT ...] [--seconds 540]`, which tools/gpu_day.sh calls.

Steps: smoke, tests, timings, end-to-end, autotune. Lines go to --results, runs/gpu, into a file a step. Exits 0 when
every item is done, 1 if one failed, 2 where there is no GPU, 3 when the time was up before the end: call it again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

STEPS = {
    "smoke": "smoke", "tests": "kernel_tests", "timings": "timings", "end-to-end": "end_to_end", "autotune": "tuning",
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--rehearse", action="store_true", help="without a GPU; writes no figure")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="items whose names begin so")
    parser.add_argument("--seconds", type=float, default=540.0, help="no item is started after them")
    parser.add_argument("--results", type=Path, default=Path("runs/gpu"))
    options = parser.parse_args(arguments)
    if options.rehearse and options.step == "smoke":
        os.environ["TRITON_INTERPRET"] = "1"  # before any kernel is imported
    import torch

    from .items import Place, Results, run_items

    if not options.rehearse and not torch.cuda.is_available():
        print(f"torch {torch.__version__} sees no GPU here; --rehearse goes through the step without one")
        return 2
    place = Place.here(options.rehearse)
    step = import_module(f".{STEPS[options.step]}", __package__)
    items = [
        (name, item) for name, item in step.items(place)
        if not options.only or name.startswith(tuple(options.only))
    ]  # fmt: skip
    if not items:
        parser.error(f"no item begins with {' or '.join(options.only)}")
    workers = step.workers(place) if hasattr(step, "workers") else 1
    limit = 0.0 if options.rehearse else getattr(step, "LIMIT_S", 150.0)
    results = Results(options.results, options.step, place)
    left = run_items(items, results, seconds=options.seconds, limit_s=limit, workers=workers)
    print(f"{results.path}: {len(left.failed)} failed, {len(left.left)} left{', call it again' * bool(left.left)}")
    return left.exit_code


if __name__ == "__main__":
    sys.exit(main())
