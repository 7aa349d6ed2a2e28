"""A step is a list of items; each becomes a line of a JSON-lines file, written and flushed as the item ends.

An item that fails is a line too, and the next one follows. An error that leaves CUDA unusable, or an item that hangs,
costs its own line only: the process replaces itself and goes on behind it. Called again, a step does what is left.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fastreason.runtime.json_files import to_json

from ..harness.environment import commit, machine, versions

__all__ = ["Item", "Left", "Outcome", "Place", "Results", "Skipped", "run_items", "time_left"]

MODULES = ("triton", "transformers", "liger_kernel", "flash_attn")
STARTED = "FASTREASON_GPU_STARTED"  # when the step began, through replacements of its process
GRACE_S = 40.0  # steps begin no item after 540 s, and commands may have 600
DONE = ("ok", "rehearsed", "skipped")


class Skipped(Exception):
    """Raised by an item that has nothing to do here; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where a step runs.

    Args:
        device: of tensors: "cuda", or "cpu" in a rehearsal.
        arch: compute capability times ten of the GPU, or of the one that a rehearsal compiles for.
        rehearsed: there is no GPU: kernels are interpreted or only compiled, and no figure is kept.
    """

    device: str
    arch: int
    rehearsed: bool = False

    @classmethod
    def here(cls, rehearsed: bool) -> Place:
        if rehearsed:
            return cls("cpu", 90, True)
        major, minor = torch.cuda.get_device_capability()
        return cls("cuda", 10 * major + minor)

    def wait(self) -> None:
        """For all that was asked of the GPU."""
        if self.device == "cuda":
            torch.cuda.synchronize()


@dataclass(frozen=True)
class Outcome:
    """What an item found.

    Args:
        measured: figures. A rehearsal does not write them, so it cannot be taken for a measurement.
        notes: what is true with and without a GPU.
    """

    measured: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


Item = Callable[[Place], Outcome]


def time_left(place: Place) -> float | None:
    """Seconds that a process may take which an item starts; None, as long as it wants, in a rehearsal."""
    if place.rehearsed:
        return None
    return max(1.0, float(os.environ[STARTED]) + 540.0 + GRACE_S / 2 - time.time())


@functools.cache
def _facts() -> dict[str, Any]:
    here = machine()
    known = {"python": here["python"], "cuda": here["torch cuda"]} | versions(MODULES)
    return {"machine": here["class"], "gpu": here["gpu"], "versions": known, "commit": commit()}


class Results:
    """The lines of a step: `folder/STEP.jsonl`."""

    def __init__(self, folder: Path, step: str, place: Place) -> None:
        self.path, self.step, self.place = folder / f"{step}.jsonl", step, place
        self._lock = threading.Lock()

    def lines(self) -> list[dict[str, Any]]:
        """Those that are whole: the last one of a process that was killed may not be."""
        found = []
        for text in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                found.append(json.loads(text))
            except ValueError:
                continue
        return found

    def write(self, item: str, status: str, seconds: float, outcome: Outcome, error: str = "") -> None:
        line = {"step": self.step, "item": item, "status": status, "seconds": round(seconds, 3)}
        line |= {"date": datetime.now(UTC).isoformat(timespec="seconds"), "rehearsed": self.place.rehearsed}
        line |= _facts() | {"notes": dict(outcome.notes)}
        line |= {"measured": {} if self.place.rehearsed else dict(outcome.measured)}
        line |= {"error": error} if error else {}
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = not self.path.exists() or self.path.read_bytes()[-1:] in (b"", b"\n")
            with self.path.open("a", encoding="utf-8") as file:
                file.write(("" if whole else "\n") + to_json(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
            print(f"{self.step:10} {item:44} {status:9} {seconds:7.1f} s  {error.splitlines()[-1] if error else ''}")
            sys.stdout.flush()

    def finished(self, since: float) -> set[str]:
        """Items of this commit on this machine that need not be done again: done, or tried since a time."""
        here = _facts()
        return {
            line["item"]
            for line in self.lines()
            if all(line.get(name) == here[name] for name in ("machine", "gpu", "commit"))
            and line["rehearsed"] == self.place.rehearsed
            and (line["status"] in DONE or datetime.fromisoformat(line["date"]).timestamp() >= since)
        }


@dataclass(frozen=True)
class Left:
    """What a step did not get to, and what failed in it."""

    failed: list[str]
    left: list[str]

    @property
    def exit_code(self) -> int:
        """0: all is done; 1: an item failed; 3: the time was up before all were tried."""
        return 3 if self.left else 1 if self.failed else 0


def run_items(
    items: Iterable[tuple[str, Item]], results: Results, *, seconds: float, limit_s: float = 150.0, workers: int = 1
) -> Left:
    """Does the items that are not done yet.

    Args:
        seconds: since the step began, after which no item is started. One that runs `GRACE_S` longer is given up.
        limit_s: of one item; where there is one worker, an item that runs longer is given up. 0: none ever is.
        workers: how many items are done at a time.
    """
    began = float(os.environ.setdefault(STARTED, str(time.time())))
    done = results.finished(began - 1)  # dates in lines are whole seconds
    failed: list[str] = []
    left: list[str] = []

    def limit_of() -> float:
        return min(limit_s, began + seconds + GRACE_S - time.time()) if workers == 1 else 0.0

    def one(name: str, item: Item) -> None:
        if time.time() - began > seconds:
            left.append(name)
        elif not _work(name, item, results, limit_of()):
            failed.append(name)

    todo = [(name, item) for name, item in items if name not in done]
    if workers == 1:
        for name, item in todo:
            one(name, item)
    else:
        with ThreadPoolExecutor(workers) as pool:
            for future in [pool.submit(one, name, item) for name, item in todo]:
                future.result()
    return Left(failed, left)


def _work(name: str, item: Item, results: Results, limit_s: float) -> bool:
    """Whether it did not fail; its line is written."""
    start = time.perf_counter()

    def write(status: str, outcome: Outcome | None = None, error: str = "") -> None:
        results.write(name, status, time.perf_counter() - start, outcome or Outcome(), error)

    def give_up() -> None:
        write("failed", error=f"still running after {limit_s:.0f} s")
        _replace_process()

    guard = threading.Timer(limit_s, give_up)
    guard.daemon = True
    if limit_s:
        guard.start()
    try:
        outcome = item(results.place)
        guard.cancel()
        write("rehearsed" if results.place.rehearsed else "ok", outcome)
    except Skipped as reason:
        guard.cancel()
        write("skipped", Outcome(notes={"why": str(reason)}))
    except Exception as error:
        guard.cancel()
        write("failed", error="".join(traceback.format_exception(error)[-4:]).strip())
        if results.place.device == "cuda" and _cuda_is_lost():
            _replace_process()
        return False
    return True


def _cuda_is_lost() -> bool:
    """After an illegal access every later call fails, until the process ends."""
    try:
        torch.cuda.synchronize()
    except Exception:
        return True
    return False


def _replace_process() -> None:
    """By one that goes on behind the lines that are written."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
