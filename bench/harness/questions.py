"""The contents of a suite: questions, each answered by us and by peers on the same inputs.

A suite is a module bench/suites/NAME.py with `questions(settings)`, which yields them. That must cost nothing: models
and inputs are built when the first contestant starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

__all__ = ["Contestant", "Done", "Question", "Settings", "Unavailable", "Work"]

T = TypeVar("T")


class Unavailable(Exception):
    """Raised by the start of a contestant that cannot take part here; the message says why."""


@dataclass(frozen=True)
class Settings:
    """Of one run of suites.

    Args:
        threads: of every contestant. With one, time is CPU time of the process, which neighbours on the machine move
            less; with more it is the clock on the wall.
        quick: few turns of small work: whether everything runs, not how fast.
        reference: a checkout of the released generator and scorer.
    """

    threads: int = 1
    quick: bool = False
    reference: Path | None = None

    def size(self, full: T, quick: T) -> T:
        """`full`, or `quick` in a quick run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Done:
    """What one call did.

    Args:
        work: units of work.
        flop, bytes: operations and memory traffic that this work needs, where the contestant counts them.
        parts: seconds of its parts by name, which become records of their own.
    """

    work: float
    flop: float | None = None
    bytes: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)


Work = Callable[[], "float | Done"]


@dataclass(frozen=True)
class Contestant:
    """One answer to a question.

    Args:
        start: builds what is needed and returns the work, which says how many units it did. Called once, right before
            the first turn.
        needs: modules that have to be there; without them the contestant is skipped by name.
        clock: seconds that are counted, where those of this process are not: of a GPU, or of a process of its own.
            Where that sleeps between the calls, a turn has to be one call (`turn_s` of the question None).
        stop: what ends that process.
        variable: an environment variable that has to be set, "" for none: the Python of another environment.
    """

    start: Callable[[], Work]
    needs: tuple[str, ...] = ()
    clock: Callable[[], float] | None = None
    stop: Callable[[], None] = lambda: None
    variable: str = ""

    def missing(self) -> str:
        """Why the contestant cannot take part, as far as modules and other environments go; "" where it can."""
        if self.variable and self.variable not in os.environ:
            return f"{self.variable} is not set"
        absent = [name for name in self.needs if find_spec(name) is None]
        return f"{', '.join(absent)} is not installed" if absent else ""


@dataclass(frozen=True)
class Question:
    """One piece of work and who does it.

    Args:
        what: the question in words, stable over commits.
        shape: sizes of the work.
        unit: of the work.
        contestants: by name of the provider, ours ("fastreason") first. They take turns.
        turns: how many turns each takes.
        turn_s: seconds of a turn, in which the work is repeated; its median counts. None: a turn is one call.
        warm: where a turn is one call, whether one before the first turn is not counted.
        peak: which of the machine's peaks the time is compared with: "matmul", "copy" or None. What the work needs
            is what our contestant counts; it is the same for all.
        clock: "cpu", "wall", or None: as `Settings.threads` says.
        gpu: the work is done on a GPU, whose peaks count.
    """

    what: str
    shape: Mapping[str, int | float | str]
    unit: str
    contestants: Mapping[str, Contestant]
    turns: int = 7
    turn_s: float | None = 0.1
    warm: bool = True
    peak: str | None = None
    clock: str | None = None
    gpu: bool = False

    @property
    def name(self) -> str:
        """The question and its shape, for people."""
        sizes = ", ".join(f"{name} {value}" for name, value in self.shape.items())
        return f"{self.what} ({sizes})" if sizes else self.what
