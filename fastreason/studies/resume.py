"""What may change when a run or study is resumed: settings that do not affect results, and stages that have not begun.

Every accepted change is printed with its old and new value; the first that is not accepted is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..text.tokenizer import Tokenizer
from .recipe import STAGES, Recipe
from .study import Study

CHANGES_NO_RESULT = {"prefetch", "parallel", "save_every_s", "keep", "metrics"}
"""The last part of the names of settings that may change in any run."""
_EVALUATED = ("evaluate", "in_distribution", "edge")
_NOTHING = "nothing"


def check_run(folder: Path, before: Recipe, now: Recipe) -> None:
    """Checks that the run in `folder` can be resumed with the recipe `now`.

    Raises:
        ValueError: a stage that has begun, or something it depends on, would change.
    """
    begun = [stage for stage in STAGES if _has_begun(folder / "checkpoints" / stage)]
    if (folder / "results.json").exists():
        begun.append("evaluate")
    _check(folder, before.to_dict(), now.to_dict(), lambda name: _may_change(name, begun))
    if begun:
        _check_vocabulary(folder, Tokenizer.for_mixtures(before.mixtures()), Tokenizer.for_mixtures(now.mixtures()))


def check_study(folder: Path, before: Study, now: Study, begun: Mapping[str, list[str]]) -> None:
    """The same for a study; `begun`: the stages of each variant that have begun with any seed."""

    def may_change(name: str) -> bool:
        part, _, rest = name.partition(".")
        if part != "variants":
            return False
        # a name may contain dots
        variant = max((v for v in begun if rest.startswith(v + ".")), key=len, default=None)
        return variant is not None and _may_change(rest[len(variant) + 1 :], begun[variant])

    _check(folder, before.to_dict(), now.to_dict(), may_change)
    if any(begun.values()):
        _check_vocabulary(folder, Tokenizer.for_mixtures(before.mixtures()), Tokenizer.for_mixtures(now.mixtures()))


def _has_begun(checkpoint: Path) -> bool:
    return checkpoint.exists() or checkpoint.with_name(checkpoint.name + ".old").exists()


def _may_change(name: str, begun: list[str]) -> bool:
    """Whether a field of a recipe may change after these stages have begun."""
    first, last = name.split(".")[0], name.split(".")[-1]
    if last in CHANGES_NO_RESULT or not begun:
        return True
    if first in _EVALUATED:
        return "evaluate" not in begun
    # later stages depend on a stage
    return first in STAGES and not set(STAGES[STAGES.index(first) :]) & set(begun)


def _check(folder: Path, before: dict[str, Any], now: dict[str, Any], may_change: Callable[[str], bool]) -> None:
    changes = sorted(differences(before, now))
    for name, old, new in changes:
        if not may_change(name):
            raise ValueError(
                f"run: {folder} was started with another recipe; the first field that differs is {name}: it was "
                f"{old}, now it is {new}"
            )
    for name, old, new in changes:
        print(f"run: {name} was {old}, now it is {new}", file=sys.stderr)


def _check_vocabulary(folder: Path, before: Tokenizer, now: Tokenizer) -> None:
    if before.words != now.words:
        changed = sorted({*before.words} ^ {*now.words})
        raise ValueError(
            f"run: {folder} was started with another vocabulary: the mixtures differ in "
            f"{', '.join(map(repr, changed[:3])) or 'the order of words'}, and the model was trained with the old one"
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yields the dotted name, old value and new value of every field that differs.

    >>> list(differences({"rl": {"steps": 1}, "seed": 0}, {"rl": {"steps": 2, "prompts": 3}, "seed": 0}))
    [('rl.steps', '1', '2'), ('rl.prompts', 'nothing', '3')]
    """
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            yield from differences(old or {}, new or {}, f"{prefix}{name}.")
        elif old != new:
            yield prefix + name, _shown(old), _shown(new)


def _shown(value: Any) -> str:
    text = _NOTHING if value is None else repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
