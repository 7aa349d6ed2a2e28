"""Progress bars and the elapsed time of a stage."""

from __future__ import annotations

import sys
import time

import torch
from tqdm.auto import tqdm

from . import distributed


class _Bar(tqdm):  # type: ignore[misc]
    """A bar that a signal may interrupt as it is built: tqdm would complain of what it lacks when it is collected."""

    def __del__(self) -> None:
        if getattr(self, "disable", True) or hasattr(self, "start_t"):  # the last that is set
            super().__del__()


def progress_bar(name: str, total: float, initial: float = 0, unit: str = "tok") -> tqdm:
    """A progress bar on a terminal, or a line every ten seconds elsewhere, with rate and time remaining.

    Shown on rank 0 only.
    """
    return _Bar(
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
    """Prints a line to stderr without disturbing progress bars, on rank 0 only."""
    if distributed.is_main():
        tqdm.write(text, file=sys.stderr)


def wait_for(device: torch.device | str) -> None:
    """Waits until a GPU has finished its queued work; returns immediately for a CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Elapsed seconds of a stage, continued from an earlier part of it."""

    def __init__(self, before_s: float = 0.0) -> None:
        self._start = time.perf_counter() - before_s

    def seconds(self) -> float:
        return time.perf_counter() - self._start
