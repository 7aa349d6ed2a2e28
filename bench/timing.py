"""Medians of repeated timings, and the table they are shown in."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure of the table.

    Args:
        what: what was measured.
        rate: units of work a second, the median over repetitions.
        unit: of the rate.
        spread: (slowest, fastest) rate.
        peer: the name of what the same work was given to in the same run, and its rate.
    """

    what: str
    rate: float
    unit: str
    spread: tuple[float, float] | None = None
    peer: tuple[str, float] | None = None

    def __str__(self) -> str:
        spread = f"{short(self.spread[0])} - {short(self.spread[1])}" if self.spread else ""
        peer = f"{self.peer[0]}: {short(self.peer[1])}" if self.peer else ""
        ratio = f"{self.rate / self.peer[1]:.1f} x" if self.peer else ""
        return f"| {self.what} | {short(self.rate)} {self.unit} | {spread} | {peer} | {ratio} |"


def short(value: float) -> str:
    """Three significant digits, with thousands marked."""
    digits = f"{float(f'{value:.3g}'):,.10f}".rstrip("0").rstrip(".")
    return digits if value else "0"


def rates(work: Callable[[], float], *, seconds: float = 2.0, least: int = 5) -> list[float]:
    """Units a second of each of several calls, after one that is not counted.

    Args:
        work: does something and returns how many units it was.
        seconds: how long to go on.
        least: calls at least.
    """
    work()
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < least or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        units = work()
        found.append(units / (time.perf_counter() - start))
    return found


def measure(
    what: str,
    unit: str,
    work: Callable[[], float],
    *,
    peer: tuple[str, Callable[[], float]] | None = None,
    **how: float,
) -> Row:
    """A row from a timing of `work`, and of the peer's right behind it."""
    ours = rates(work, **how)  # type: ignore[arg-type]
    theirs = (peer[0], statistics.median(rates(peer[1], **how))) if peer else None  # type: ignore[arg-type]
    return Row(what, statistics.median(ours), unit, (min(ours), max(ours)), theirs)
