"""What a run writes down while it goes: metrics.jsonl, other trackers by choice, a progress bar; and a way to stop."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from . import distributed
from .files import write_text
from .json_files import to_json
from .trackers import open_tracker


class MetricsLog:
    """Appends one JSON object a line to a file, and hands the numbers to trackers. Of several ranks only rank 0 does.

    Args:
        path: created if missing. None: nothing is written.
        trackers: any of `trackers.TRACKERS`, imported here and only here.
    Raises:
        ModuleNotFoundError: the package of a tracker is not installed; the message says how to install it.
    """

    def __init__(self, path: str | Path | None, trackers: Sequence[str] = (), run_name: str = "run") -> None:
        self.path = Path(path) if path is not None else Path(os.devnull)
        self.writes = distributed.is_main() and path is not None
        self.trackers = [open_tracker(name, self.path.parent, run_name) for name in trackers] if self.writes else []

    @classmethod
    def of(cls, log: MetricsLog | str | Path | None) -> MetricsLog:
        """A log as it is, or one that writes to this file, or one that writes nothing."""
        return log if isinstance(log, MetricsLog) else cls(log)

    def write(self, stage: str, **values: Any) -> None:
        if not self.writes:
            return
        line = to_json({"stage": stage, **{k: _short(v) for k, v in values.items()}})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        numbers = {f"{stage}/{k}": v for k, v in values.items() if isinstance(v, int | float) and k != "step"}
        for tracker in self.trackers:
            tracker.write(numbers, stage, int(values.get("step", 0)))

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()

    def forget_after(self, stage: str, step: int) -> None:
        """Drops this stage's lines behind `step`, and a half-written last line: a resumed run writes them again."""
        if not self.writes or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if entry.get("stage") != stage or entry.get("step", 0) <= step:
                kept.append(line + "\n")
        write_text(self.path, "".join(kept))

    def read(self) -> list[dict[str, Any]]:
        """The lines, with NaN where a number was none (null in the file)."""
        if not self.path.exists():
            return []
        lines = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number}: not whole ({error})") from None
        return [{name: math.nan if value is None else value for name, value in line.items()} for line in lines]


def without_times(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl without what the clock decides: what two runs of one recipe share to the bit."""
    return {k: v for k, v in line.items() if not k.endswith(("seconds", "_s", "_percent"))}


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


class Interrupted(Exception):
    """The user asked to stop; everything needed to go on is on disk."""


class Terminated(SystemExit):
    """SIGTERM asked to stop; everything needed to go on is on disk. A script that does not catch it exits with 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request that loops look at between steps.

    A second Ctrl-C interrupts at once; a scheduler may send SIGTERM as often as it likes.
    """

    def __init__(self) -> None:
        self.requested = False
        self.terminated = False
        self._raises = False

    def request(self) -> None:
        """Asks to stop, as Ctrl-C does."""
        self.requested = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it a signal raises KeyboardInterrupt, as without a watch: for work that may be left at any moment."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def on_any_rank(self) -> bool:
        """Whether a stop was asked for, here or on another rank; all ranks call it and get the same answer."""
        asked = torch.tensor([int(self.requested), int(self.terminated)])
        requested, terminated = distributed.sum_over_ranks(asked).tolist()
        if terminated:  # never set back: a signal may have come since
            self.terminated = True
        return bool(requested)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        self.terminated = self.terminated or signum == signal.SIGTERM
        if self._raises or (again and signum == signal.SIGINT):
            raise KeyboardInterrupt
        if signum == signal.SIGTERM:
            print("\nterminated: stopping at the next step", file=sys.stderr)
            return
        print("\nstopping at the next step; press Ctrl-C again to stop at once", file=sys.stderr)

    @classmethod
    @contextmanager
    def watch(cls) -> Iterator[StopRequest]:
        request = cls()
        try:
            before = {number: signal.signal(number, request._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: its owner handles signals
            yield request
            return
        try:
            yield request
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
