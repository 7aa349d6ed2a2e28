"""What may change when a study is resumed: settings that do not affect results, and stages that have not begun.

Every accepted change is printed with its old and new value; the first that is not accepted is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..text.tokenizer import Tokenizer
from .recipe import Recipe
from .stages import SHORT_FORM
from .study import Study

CHANGES_NO_RESULT = {
    "prefetch", "parallel", "save_every_s", "keep", "metrics", "checkpoint_activations", "kv_memory_mb",
}  # fmt: skip
"""The last part of the names of settings that may change in any run."""
_EVALUATED = ("evaluate", "in_distribution", "edge")
_OF_ALL = {field.name for field in fields(Recipe)} - {*SHORT_FORM}
_NOTHING = "nothing"


def check_study(folder: Path, before: Study, now: Study, begun: Mapping[str, list[str]]) -> None:
    """Checks that the study in `folder` can be resumed as it is `now`.

    Args:
        begun: the stages of each variant that have begun with any seed, and "evaluate" if one was evaluated.
    Raises:
        ValueError: a stage that has begun, or something it depends on, would change.
    """
    # the fields of a single variant are named as in its recipe
    prefix = f"variants.{next(iter(before.variants))}." if len(before.variants) == 1 else ""
    found = differences(_by_name(before), _by_name(now))
    changes = [(name.removeprefix(prefix), name, old, new) for name, old, new in found]
    needs = {name: _needed(begun[name], before.variants.get(name), now.variants.get(name)) for name in begun}
    changes.sort(key=lambda change: (change[0] != "name", change[0]))
    for shown, name, old, new in changes:
        if any(begun.values()) and not _may_change(name, begun, needs):
            raise ValueError(
                f"run: {folder} was started with another recipe; the first field that differs is {shown}: it was "
                f"{old}, now it is {new}"
            )
    for shown, _, old, new in changes:
        print(f"run: {shown} was {old}, now it is {new}", file=sys.stderr)
    if any(begun.values()):
        _check_vocabulary(folder, Tokenizer.for_mixtures(before.mixtures()), Tokenizer.for_mixtures(now.mixtures()))


def _by_name(study: Study) -> dict[str, Any]:
    """The values of a study, with each stage under its name and with what it begins from."""
    values = study.to_dict()
    for variant, recipe in study.variants.items():
        for stage in recipe.stages:
            before = recipe.stage_before(stage)
            start_from = stage.start_from if before is None else before.name
            values["variants"][variant][stage.name] = {**stage.to_dict(), "start_from": start_from}
        values["variants"][variant].pop("stages", None)
    return values


def _needed(begun: list[str], *recipes: Recipe | None) -> set[str]:
    """The stages that a model of a stage that has begun has gone through, before or now."""
    needed = set()
    for recipe in recipes:
        for stage in recipe.plan if recipe is not None else ():
            if stage.name in begun:
                assert recipe is not None
                needed |= {stage.name, *(each.name for each in recipe.stages_before(stage))}
    return needed


def _may_change(name: str, begun: Mapping[str, list[str]], needs: Mapping[str, set[str]]) -> bool:
    """Whether a field of a study may change after these stages of its variants have begun."""
    part, _, rest = name.partition(".")
    if part == "ranges":
        return not any("evaluate" in stages for stages in begun.values())
    # a name may contain dots
    variant = max((v for v in begun if rest.startswith(v + ".")), key=len, default=None)
    if part != "variants" or variant is None:
        return False
    parts = rest[len(variant) + 1 :].split(".")
    first, last = parts[0], parts[-1]
    if last in CHANGES_NO_RESULT or not begun[variant]:
        return True
    if first in _EVALUATED:
        return "evaluate" not in begun[variant]
    return first not in needs[variant] and first not in _OF_ALL


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
