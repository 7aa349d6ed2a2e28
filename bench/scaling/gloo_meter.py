"""The collectives that a process takes part in, by gloo: which ones, of what size, and the bytes that left for them.

Two counts that do not know of each other. torch's profiler sees what gloo was given, from wherever in torch it came
(DDP and DTensor call it from C++). The kernel counts what the process wrote, sockets included, headers included.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

__all__ = ["HEADER_BYTES", "CollectiveCounter"]

HEADER_BYTES = 700
"""More than gloo's messages of one collective between two ranks are larger than their payload; seen: 96 to 577."""

_SIZES = {"float": 4, "double": 8, "long int": 8, "int": 4, "unsigned char": 1, "long": 8}
_KINDS = {"gloo:all_reduce": "all_reduce", "gloo:all_gather": "all_gather", "gloo:broadcast": "broadcast"}


class CollectiveCounter:
    """Counts from `start` to `stop`.

    Attributes, after `stop`:
        seen: how often there was each (kind, bytes of the whole tensor), as in `bench.scaling.collectives_model`.
        written_bytes: what this process wrote, to sockets and files.
    """

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, int]] = Counter()
        self.written_bytes = 0
        self._profile: Any = profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True)

    def start(self) -> None:
        self._profile.start()
        self._before = _written_bytes()

    def stop(self) -> None:
        self.written_bytes = _written_bytes() - self._before
        self._profile.stop()
        scattered: Counter[int] = Counter()
        for event in self._profile.profiler.kineto_results.events():
            if event.name() in _KINDS:
                kind, whole = _KINDS[event.name()], _bytes(event)
                self.seen[kind, whole * dist.get_world_size() if kind == "all_gather" else whole] += 1
            elif event.name() == "c10d::_reduce_scatter_base_":
                scattered[_bytes(event, argument=1)] += 1
        for size, count in scattered.items():  # gloo reduces all of it, and keeps a part
            self.seen["reduce_scatter", size] += count
            self.seen["all_reduce", size] -= count
        self.seen = +self.seen


def _bytes(event: Any, argument: int = 0) -> int:
    dtype = event.dtypes()[argument]
    if dtype not in _SIZES:
        raise RuntimeError(f"bench.scaling.gloo_meter: {event.name()} of the unknown type {dtype!r}")
    return math.prod(event.shapes()[argument]) * _SIZES[dtype]


def _written_bytes() -> int:
    """By this process, as the Linux kernel counts."""
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise RuntimeError("bench.scaling.gloo_meter: /proc/self/io has no wchar line")
