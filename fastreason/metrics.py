"""What a run writes down while it goes: metrics.jsonl, a progress bar, and a way to stop at a step boundary."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm


class MetricsLog:
    """Appends one JSON object a line to a file.

    Args:
        path: created if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, stage: str, **values: Any) -> None:
        line = json.dumps({"stage": stage, **{k: _short(v) for k, v in values.items()}})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def forget_after(self, stage: str, step: int) -> None:
        """Drops this stage's lines behind `step`, and a half-written last line: a resumed run writes them again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if entry.get("stage") != stage or entry.get("step", 0) <= step:
                kept.append(line + "\n")
        temporary = self.path.with_suffix(".new")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(self.path)

    def read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


class Interrupted(Exception):
    """The user asked to stop; everything needed to go on is on disk."""


class StopRequest:
    """Turns the first Ctrl-C into a request that loops look at between steps; a second one interrupts at once."""

    def __init__(self) -> None:
        self.requested = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("\nstopping at the next step; press Ctrl-C again to stop at once", file=sys.stderr)

    @classmethod
    @contextmanager
    def watch(cls) -> Iterator[StopRequest]:
        request = cls()
        try:
            before = signal.signal(signal.SIGINT, request._handle)
        except ValueError:  # not the main thread: its owner handles signals
            yield request
            return
        try:
            yield request
        finally:
            signal.signal(signal.SIGINT, before)


def progress_bar(name: str, total: int, initial: int = 0, unit: str = "tok") -> tqdm:
    """A bar on a terminal, a line every ten seconds elsewhere."""
    return tqdm(
        total=total,
        initial=initial,
        desc=f"{name:9}",
        unit=unit,
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
    )


class Clock:
    """Seconds of a stage, counted on from an earlier part of it."""

    def __init__(self, before_s: float = 0.0) -> None:
        self._start = time.perf_counter() - before_s

    def seconds(self) -> float:
        return time.perf_counter() - self._start
