"""Contestants that are a process each: the bench's end of the pipe, and the worker's.

A worker says when it is ready, then does as many steps as a line asks for and answers with what they were; while
another contestant works it waits. So each has its own allocator, threads and compiled code, and all share the machine's
good hours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from .environment import ROOT
from .questions import Contestant, Done, Work

__all__ = ["Report", "contestant", "rounds_of", "serve"]


@dataclass
class Report:
    """What some steps of a worker were.

    Args:
        work: units of work.
        flop: that they needed; 0 where the worker does not count them.
        parts: seconds of their parts.
    """

    work: float = 0.0
    flop: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    def add(self, work: float, flop: float = 0.0, **parts: float) -> None:
        self.work, self.flop = self.work + work, self.flop + flop
        for name, seconds in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + seconds


def contestant(
    module: str,
    *arguments: str,
    steps: int = 1,
    threads: int = 1,
    needs: tuple[str, ...] = (),
    python_in: str = "",
    prepare: Callable[[Path], None] | None = None,
) -> Contestant:
    """`python -m module *arguments` as a contestant that does `steps` steps per turn.

    With one thread its seconds are the CPU time of that process, as with the others that of this one.

    Args:
        python_in: the environment variable that names the Python of another environment, which then runs the module's
            file; the contestant takes no part where it is not set.
        prepare: writes what the worker reads into a folder, which becomes the first argument.
    """
    worker = _Worker(module, arguments, steps, threads, python_in, prepare)
    return Contestant(worker.start, needs, worker.cpu_time if threads == 1 else None, worker.stop, python_in)


class _Worker:
    def __init__(
        self,
        module: str,
        arguments: tuple[str, ...],
        steps: int,
        threads: int,
        python_in: str,
        prepare: Callable[[Path], None] | None,
    ) -> None:
        self.module, self.arguments = module, (*arguments, str(threads))
        self.python_in, self.prepare = python_in, prepare
        self.folder: TemporaryDirectory[str] | None = None
        self.environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self.steps = steps
        self.process: subprocess.Popen[str] | None = None
        self.errors: Any = None

    def _command(self) -> list[str]:
        given = [self.folder.name] if self.folder else []
        if not self.python_in:
            return [sys.executable, "-m", self.module, *given, *self.arguments]
        # -P: its neighbours are not packages that the other environment has
        return [os.environ[self.python_in], "-P", self.module.replace(".", "/") + ".py", *given, *self.arguments]

    def start(self) -> Work:
        if self.prepare:
            self.folder = TemporaryDirectory()
            self.prepare(Path(self.folder.name))
        self.errors = TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        pipes: dict[str, Any] = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        self.process = subprocess.Popen(self._command(), cwd=ROOT, env=self.environment, text=True, **pipes)
        self._read()
        return self._round

    def _round(self) -> Done:
        assert self.process and self.process.stdin
        print(self.steps, file=self.process.stdin, flush=True)
        found = self._read()
        return Done(found["work"], found["flop"] or None, parts=found["parts"])

    def _read(self) -> Mapping[str, Any]:
        assert self.process and self.process.stdout
        for line in self.process.stdout:
            if line.startswith("RESULT "):
                found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
                return found
        status = self.process.wait()
        self.errors.seek(0)
        last = (self.errors.read().strip() or "it wrote nothing").splitlines()[-1]
        raise RuntimeError(f"{' '.join(self._command()[2:])} ended with status {status}: {last}")

    def cpu_time(self) -> float:
        """Seconds of CPU of the process, all its threads together (Linux: the clock of another process)."""
        assert self.process
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.errors.close()
        if self.folder:
            self.folder.cleanup()


def say(message: Mapping[str, Any]) -> None:
    """One line to the bench."""
    print("RESULT " + json.dumps(message), flush=True)


def answer(report: Report) -> None:
    """The worker's side: what the steps that were asked for were."""
    say({"work": report.work, "flop": report.flop, "parts": report.parts})


def orders() -> Iterator[int]:
    """The worker's side: the numbers of steps that it is asked for; the process ends with them."""
    for line in sys.stdin:
        yield int(line)
    os._exit(0)


def serve(step: Callable[[Report], None], warm_up: int) -> None:
    """The worker's side, where it owns the loop: steps that are not counted, then what is asked for."""
    for _ in range(warm_up):
        step(Report())
    say({"ready": True})
    for steps in orders():
        report = Report()
        for _ in range(steps):
            step(report)
        answer(report)


def rounds_of(base: type, report: Report, warm_up: int) -> Any:
    """The worker's side, where a trainer of transformers owns the loop: a callback that stops it between the rounds.

    Args:
        base: transformers.TrainerCallback.
        report: what the trainer adds its work to; emptied before every round.
        warm_up: steps that are not counted.
    """

    class Rounds(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left, self.asked = warm_up, orders()
            self.counts = False

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not self.left:
                self.left, self.counts = next(self.asked), True
                report.work, report.flop, report.parts = 0.0, 0.0, {}

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.left -= 1
            if not self.left and self.counts:
                answer(report)
            elif not self.left:
                say({"ready": True})

    return Rounds()
