"""Questions as a pytest-benchmark suite: one test per turn, in the order ours, peer, ours, peer, ...

The plugin that `python -m bench` gives to pytest. What else the machine does falls on all contestants alike, because
the contestant is the innermost parameter and tests run in order. pytest-benchmark times the calls and keeps every time.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from fastreason.runtime.json_files import to_json

from .questions import Contestant, Done, Question, Settings, Unavailable, Work
from .records import OURS

__all__ = ["Turn", "clock", "suite_module"]

CLOCKS: dict[str, Callable[[], float]] = {"cpu": time.process_time, "wall": time.perf_counter}
_STARTED = pytest.StashKey[dict[tuple[int, str], Work]]()
_SKIPPED = pytest.StashKey[dict[str, str]]()
# what `clock` reads: pytest-benchmark is given its timer before it is known whose turn it is
_current: list[Callable[[], float]] = [time.process_time]


def clock() -> float:
    """The seconds that count in the present turn."""
    return _current[0]()


def suite_module(name: str) -> str:
    """The module of a suite: bench/suites/NAME.py, or any module by its whole name."""
    return name if "." in name else f"bench.suites.{name}"


class Turn:
    """One contestant's turn at one question.

    Args:
        index: of the question in its suite.
        number: of the turn.
        last: whether nobody comes after it at this question.
    """

    def __init__(
        self, config: pytest.Config, question: Question, index: int, number: int, provider: str, last: bool
    ) -> None:
        self.question, self.index, self.number, self.provider, self.last = question, index, number, provider, last
        self.started, self.skipped = config.stash[_STARTED], config.stash[_SKIPPED]
        self.clock_name = question.clock or ("cpu" if _settings(config).threads == 1 else "wall")

    @property
    def contestant(self) -> Contestant:
        return self.question.contestants[self.provider]

    def take(self, benchmark: Any) -> None:
        """Times the work and notes what it did, for the record."""
        work = self._work()
        _current[0] = self.contestant.clock or CLOCKS[self.clock_name]
        try:
            if self.question.turn_s is None:
                done = benchmark.pedantic(work, rounds=1, warmup_rounds=int(self.question.warm and not self.number))
            else:
                done = benchmark(work)
        except Exception as error:
            self._leave(_first_line(error), error)
        benchmark.extra_info.update(self._info(done if isinstance(done, Done) else Done(float(done))))

    def _work(self) -> Work:
        """What is timed; built in the first turn."""
        if reason := self.skipped.get(self._label):
            pytest.skip(f"{self.provider}: {reason}")
        key = (self.index, self.provider)
        if key not in self.started:
            if missing := self.contestant.missing():
                self._leave(missing)
            try:
                self.started[key] = self.contestant.start()
            except Exception as error:
                self._leave(_first_line(error), error)
        return self.started[key]

    @property
    def _label(self) -> str:
        """What is skipped: a library that is not there, once for all; else the provider at this question."""
        return self.provider if self.contestant.missing() else f"{self.provider}, {self.question.name}"

    def _leave(self, reason: str, error: Exception | None = None) -> NoReturn:
        """Skips a single peer, by name. Our own code fails instead, unless this machine does not support it."""
        if self.provider == OURS and error is not None and not isinstance(error, Unavailable):
            raise error
        failed = error is not None and not isinstance(error, Unavailable)
        self.skipped[self._label] = f"failed, {type(error).__name__}: {reason}" if failed else reason
        pytest.skip(f"{self.provider}: {reason}")

    def _info(self, done: Done) -> dict[str, Any]:
        question = self.question
        return {
            "label": self._label, "question": self.index, "what": question.what, "shape": dict(question.shape),
            "unit": question.unit, "provider": self.provider, "turn": self.number, "clock": self.clock_name,
            "peak": question.peak, "gpu": question.gpu, "work": done.work, "flop": done.flop, "bytes": done.bytes,
            "parts": dict(done.parts),
        }  # fmt: skip

    def close(self) -> None:
        """After the last turn, what the contestants hold is let go."""
        if self.last:
            for provider, contestant in self.question.contestants.items():
                if self.started.pop((self.index, provider), None) is not None:
                    contestant.stop()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _settings(config: pytest.Config) -> Settings:
    reference = config.getoption("--reference")
    threads, quick = int(config.getoption("--threads")), bool(config.getoption("--quick"))
    return Settings(threads=threads, quick=quick, reference=Path(reference) if reference else None)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("side by side")
    group.addoption("--suite", required=True, help="NAME for bench/suites/NAME.py, or a module's whole name")
    group.addoption("--threads", default=1, type=int, help="of every contestant")
    group.addoption("--only", default="", help="what questions are about, up to their first comma")
    group.addoption("--quick", action="store_true", help="few turns of small work")
    group.addoption("--reference", help="a checkout of the released generator and scorer")
    group.addoption("--skipped", type=Path, required=True, help="where it is written who was skipped, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED], config.stash[_SKIPPED] = {}, {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every turn of every question as a parameter, in the order in which they are taken."""
    config = metafunc.config
    settings = _settings(config)
    module = importlib.import_module(suite_module(config.getoption("--suite")))
    cases = []
    for index, question in enumerate(module.questions(settings)):
        if config.getoption("--only") not in ("", question.what.split(",")[0]):
            continue
        options: dict[str, Any] = {"timer": clock, "min_rounds": 2, "warmup": False}
        if question.turn_s is not None:
            options["max_time"] = settings.size(question.turn_s, 1e-3)
        order = [(i, provider) for i in range(settings.size(question.turns, 2)) for provider in question.contestants]
        for number, provider in order:
            turn = Turn(config, question, index, number, provider, last=(number, provider) == order[-1])
            mark = pytest.mark.benchmark(group=question.name, **options)
            cases.append(pytest.param(turn, id=f"{index}-{number}-{provider}", marks=mark))
    metafunc.parametrize("turn", cases)


def pytest_sessionfinish(session: pytest.Session) -> None:
    skipped = session.config.stash[_SKIPPED]
    session.config.getoption("--skipped").write_text(to_json(skipped, indent=1), encoding="utf-8")
