"""Every operation, forward and backward, beside torch, torch.compile, Liger-Kernel and flash-attn: median times.

In a rehearsal our kernels and Liger's are compiled for an H100 and launched by nobody, at small shapes; torch computes
on the CPU, and torch.compile is passed through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from fastreason.kernels.triton_support import triton

from ..harness.machine_peaks import measure_gpu
from ..harness.questions import Done, Work
from ..harness.records import OURS
from ..kernels.compile_without_gpu import recorded
from ..kernels.operations import OPS, Shape
from ..kernels.peers import FLASH, LIGER
from ..suites.kernels import QUICK, call_of, definition, has, ours, rival
from .items import Item, Outcome, Place, Skipped

__all__ = ["items"]

PROVIDERS: dict[str, Callable[[str, Shape], Work]] = {
    OURS: ours,
    "torch": partial(definition, False),
    "torch.compile": partial(definition, True),
    "Liger-Kernel": partial(rival, "Liger"),
    "flash-attn": partial(rival, "flash-attn"),
}
TRITON = (OURS, "Liger-Kernel")


def items(place: Place) -> Iterator[tuple[str, Item]]:
    yield "peaks", peaks
    # ours first: if the time is up, what is left are peers
    for provider in PROVIDERS:
        for name in OPS:
            if has(provider, name, shape_of(name, place)):
                yield f"{name}, {provider}", partial(operation, name, provider)


def shape_of(name: str, place: Place) -> Shape:
    sizes: dict[str, Any] = dict(QUICK if place.rehearsed else OPS[name].timed)
    return Shape(**sizes, dtype=torch.bfloat16, device=place.device)


def peaks(place: Place) -> Outcome:
    """Bytes/s of a copy and FLOP/s of a product of this GPU, which the report compares with."""
    return Outcome() if place.rehearsed else Outcome(measure_gpu())


def operation(name: str, provider: str, place: Place) -> Outcome:
    missing = {"Liger-Kernel": not LIGER, "flash-attn": not FLASH}
    if missing.get(provider):
        raise Skipped(f"{provider} is not installed")
    shape = shape_of(name, place)
    try:
        if place.rehearsed:
            return rehearsed(provider, name, shape, place)
        work = PROVIDERS[provider](name, shape)
        done = work()
        assert isinstance(done, Done)
        return Outcome(time_of(work) | {"bytes": done.bytes, "flop": done.flop}, {"tokens": int(done.work)})
    finally:
        call_of.cache_clear()


def rehearsed(provider: str, name: str, shape: Shape, place: Place) -> Outcome:
    """The same calls; the names of the kernels that were compiled."""
    torch.compiler.set_stance("force_eager")
    try:
        if provider not in TRITON:
            PROVIDERS[provider](name, shape)()
            return Outcome()
        with recorded(place.arch) as launches:
            PROVIDERS[provider](name, shape)()
        return Outcome(notes={"kernels compiled": sorted({launch.name for launch in launches})})
    finally:
        torch.compiler.set_stance("default")


def time_of(work: Work) -> dict[str, float]:
    """Seconds of a call, by events on the GPU, with its L2 cache emptied before each: the median and two quantiles."""
    median, low, high = triton.testing.do_bench(work, warmup=25, rep=150, quantiles=[0.5, 0.2, 0.8])
    return {"seconds": median / 1e3, "low": low / 1e3, "high": high / 1e3}
