"""The released generator and scorer as contestants, from a checkout elsewhere: `--reference DIR`.

Nothing of them is part of this repository. DIR is a checkout of GSM-Infinite or of the Interplay paper's release, which
holds it. Problems need the file forward_generator.py in data/realistic, verdicts utils/solution_dependency_graph.py.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..harness.questions import Unavailable, Work

__all__ = ["check_reference", "generator", "scorer"]

GENERATORS = tuple(
    Path(folder, "data", "realistic", "forward_generator.py")
    for folder in ("gsm_infinite/gsm-infinite", "gsm-infinite", "")
)
SCORER = Path("utils", "solution_dependency_graph.py")
# the release draws with the smallest of these that reaches op
OP_MAX = (3, 4, 6, 10, 15, 20, 25, 30)
SETTINGS: dict[str, Any] = dict(
    ip_max=20, force=True, number_range=5, mod=-1, target_length="zero_context", template="crazy_zootopia", d=2,
    tokenizer=None,
)  # fmt: skip


def check_reference(folder: Path) -> None:
    """Refuses a folder that is no checkout.

    Raises:
        ValueError: it does not exist, or has neither generator nor scorer.
    """
    if not folder.is_dir():
        raise ValueError(f"--reference: no directory {str(folder)!r}")
    if _generator_file(folder) is None and not (folder / SCORER).is_file():
        wanted = ", ".join(str(path) for path in (GENERATORS[0], SCORER))
        raise ValueError(f"--reference: {str(folder)!r} is no checkout of the released code; it has none of {wanted}")


def generator(folder: Path, ops: Sequence[int], count: int = 10) -> Work:
    """Draws forward problems of each op in turn until it has `count` of them, with the settings of the release.

    Raises:
        Unavailable: the checkout has no generator, or a module that it imports is not installed.
    """
    file = _generator_file(folder)
    if file is None:
        raise Unavailable(f"{folder} has no {GENERATORS[0]}")
    draw_all = _load(file, "forward_generator").drawAll
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002

    def draw() -> float:
        with _silence():
            for _, op in zip(range(count), cycle(ops), strict=False):
                _one_problem(draw_all, op)
        return float(count)

    return draw


def _one_problem(draw_all: Any, op: int) -> str:
    """As the released loops do it: an exception is an attempt that failed."""
    op_max = next(most for most in OP_MAX if most >= op)
    for _ in range(100_000):
        try:
            problem, _, _, found, _ = draw_all(op_max=op_max, strictline=op_max, oplist=[op], **SETTINGS)
        except Exception:
            continue
        if found == op:
            return str(problem)
    raise RuntimeError(f"the released generator gave no problem of op {op} in 100,000 attempts")


def scorer(folder: Path, gold: Sequence[str], completions: Sequence[str]) -> Work:
    """Reads a completion and compares it with its gold solution, which is read anew as well.

    Raises:
        Unavailable: the checkout has no scorer, or a module that it imports is not installed.
    """
    file = folder / SCORER
    if not file.is_file():
        raise Unavailable(f"{folder} has no {SCORER}")
    parser = _load(file, "solution_dependency_graph").SolutionParser()

    def score() -> float:
        for solution, completion in zip(gold, completions, strict=True):
            wanted, found = (parser.build_graph(parser.parse(text)) for text in (solution, completion))
            wanted.compare(found)
        return float(len(completions))

    return score


def _generator_file(folder: Path) -> Path | None:
    return next((folder / path for path in GENERATORS if (folder / path).is_file()), None)


def _load(file: Path, name: str) -> ModuleType:
    """A module from its file, which may import what lies beside it."""
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        with _silence():
            spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{file.name} needs the module {error.name}, which is not installed") from error
    return module


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The released code reports on every attempt."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
