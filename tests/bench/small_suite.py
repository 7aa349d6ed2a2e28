"""A suite of cheap questions for test_suite.py: who was called when is left in the file FASTREASON_TEST_CALLS."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.harness.questions import Contestant, Done, Question, Settings, Unavailable, Work

PARTS = {"first half": 0.25, "second half": 0.75}


def note(what: str) -> None:
    with Path(os.environ["FASTREASON_TEST_CALLS"]).open("a", encoding="utf-8") as file:
        file.write(what + "\n")


def questions(settings: Settings) -> Iterator[Question]:
    note(f"threads {settings.threads}, reference {settings.reference}")
    yield Question(
        "sums", {"terms": 10, "kind": "int"}, "terms",
        {
            "fastreason": Contestant(partial(start, "ours"), stop=partial(note, "ours stops")),
            "peer": Contestant(partial(start, "peer"), stop=partial(note, "peer stops")),
            "absent": Contestant(partial(start, "absent"), needs=("no_such_module", "json")),
            "elsewhere": Contestant(unavailable),
            "broken": Contestant(partial(broken, 0)),
            "late": Contestant(partial(broken, 2)),
        },
        turns=5, turn_s=None, peak="matmul",
    )  # fmt: skip
    yield Question("repeated", {}, "calls", {"fastreason": Contestant(lambda: lambda: 1.0)}, turns=3, turn_s=0.001)
    yield Question("nobody", {}, "calls", {"fastreason": Contestant(unavailable)})
    if settings.threads == 3:
        yield Question("ours fails", {}, "calls", {"fastreason": Contestant(partial(broken, 0))})


def start(name: str) -> Work:
    note(f"{name} starts")
    calls = iter(range(10**9))

    def work() -> Done:
        """The call that is not counted does one unit; those of the turns 10, 20, 30, ... of two FLOP each."""
        n = 10 * next(calls) or 1
        note(name)
        begin = time.process_time()
        while time.process_time() - begin < 1e-4 * n:
            pass
        return Done(n, 2.0 * n, parts=PARTS) if name == "ours" else Done(n)

    return work


def unavailable() -> Work:
    raise Unavailable("it needs a GPU")


def broken(good_calls: int) -> Work:
    left = iter(range(good_calls))

    def work() -> float:
        if next(left, None) is None:
            raise RuntimeError("out of luck\nand more")
        return 1.0

    return work
