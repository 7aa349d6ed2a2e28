"""FASTREASON_AUTOTUNE=1 for each operation in a process of its own: entries for kernels/launch.toml.

    python -m bench.gpu.tuning OPERATION DTYPE

is such a process. In a rehearsal two candidates of each kernel are compiled, none is timed, and no entry is made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

from ..harness.environment import ROOT
from ..kernels.operations import OPS, Shape
from .items import Item, Outcome, Place, time_left

__all__ = ["LIMIT_S", "items"]

LIMIT_S = 500.0  # dozens of candidates of attention are compiled

REHEARSED = "rehearse"


def items(place: Place) -> Iterator[tuple[str, Item]]:
    # what the two groups of attention launch is the same; a float32 entry has no candidates
    for name in OPS:
        yield name, partial(tuned, name)


def tuned(name: str, place: Place) -> Outcome:
    command = [sys.executable, "-m", "bench.gpu.tuning", name, *([REHEARSED] if place.rehearsed else [])]
    environment = os.environ | {"FASTREASON_AUTOTUNE": "1"}
    left = time_left(place)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=left)
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    return Outcome(measured={"entries": done.stdout.strip()}, notes={"kernels": done.stderr.strip().splitlines()[-1:]})


def main() -> None:
    import torch

    from fastreason.kernels import launch

    from ..kernels.compile_without_gpu import recorded
    from ..suites.kernels import QUICK

    name, *rest = sys.argv[1:]
    if rest == [REHEARSED]:
        every, sizes = launch.Entry.configs, dict[str, Any](QUICK)
        # a timer that has nothing to time, and the first two candidates of each
        timer = patch.object(launch, "_milliseconds", lambda work: 0.0 * (work() is None))
        candidates = patch.object(launch.Entry, "configs", lambda entry: every(entry)[:2])
        on_cpu = patch.object(launch, "_tunes", lambda x: True)
        with timer, candidates, on_cpu, recorded(90):
            both_passes(name, Shape(**sizes, dtype=torch.bfloat16))
        print(f"rehearsed: {', '.join(sorted({key[0] for key in launch._found}))}", file=sys.stderr)
        launch._found.clear()
    else:
        both_passes(name, Shape(**OPS[name].timed, dtype=torch.bfloat16, device="cuda"))
        print(", ".join(sorted({key[0] for key in launch._found})), file=sys.stderr)


def both_passes(name: str, shape: Shape) -> None:
    call = OPS[name].build(shape)
    outputs = call.forward()
    if call.learns:
        call.backward(outputs, call.upstream(outputs))


if __name__ == "__main__":
    main()
