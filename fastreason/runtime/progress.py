"""What a run shows while it goes: bars, and the seconds of a stage."""

from __future__ import annotations

import sys
import time

import torch
from tqdm import tqdm

from . import distributed


def progress_bar(name: str, total: float, initial: float = 0, unit: str = "tok") -> tqdm:
    """A bar on a terminal, a line every ten seconds elsewhere: what is done, the rate, and the time that is left.

    Of several ranks only rank 0 shows one.
    """
    return tqdm(
        total=total,
        initial=initial,
        desc=f"{name:9}",
        unit=unit,
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
        disable=not distributed.is_main(),
    )


def tell(text: str) -> None:
    """A line on stderr beside the progress bars; of several ranks only rank 0's."""
    if distributed.is_main():
        tqdm.write(text, file=sys.stderr)


def wait_for(device: torch.device | str) -> None:
    """Waits until a GPU has done what it was asked for; a CPU has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Seconds of a stage, counted on from an earlier part of it."""

    def __init__(self, before_s: float = 0.0) -> None:
        self._start = time.perf_counter() - before_s

    def seconds(self) -> float:
        return time.perf_counter() - self._start
