"""The fields of a recipe as flags of `run`: `--rl.steps 100`, `--k 1 8`, `--no-rl`.

Values are those of TOML without quotes: a list is several values, or one with commas, and what begins with [ or { is
JSON. A flag without a value is true, `--no-FLAG` false or, of a stage, that it is left out.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..rl.self_settings import SelfSettings
from ..rl.settings import PolicySettings
from ..runtime.field_docs import sentences_of
from ..runtime.json_files import to_json
from ..studies.recipe import Recipe
from .parser import no_flag

_WORDS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class RecipeField:
    """A field by its dotted name."""

    name: str
    is_list: bool
    is_bool: bool
    sentence: str


def recipe_fields(cls: type[Any] = Recipe, prefix: str = "") -> Iterator[RecipeField]:
    """Every field that a flag can set; those of a stage or section follow it."""
    hints, sentences = get_type_hints(cls), sentences_of(cls)
    for field in fields(cls):
        options = _options(hints[field.name])
        section = next((option for option in options if is_dataclass(option)), None)
        if section is not None:
            yield from recipe_fields(section, f"{prefix}{field.name}.")  # type: ignore[arg-type]
            continue
        sentence = " ".join(sentences.get(field.name, "").removeprefix("* ").split())
        # parts of a mixture are JSON, or its name
        scalars = [get_args(option)[0] for option in options if get_origin(option) in (list, tuple)]
        is_list = any(not is_dataclass(kind) and get_origin(kind) is not dict for kind in scalars)
        yield RecipeField(prefix + field.name, is_list, bool in options, sentence)


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)


_SHORT_FORM = ("pretrain", "midtrain", "rl")
_OF_A_STAGE = [RecipeField(name, False, name == "evaluate", "") for name in ("mixture", "evaluate", "start_from")]


def parse_recipe_flags(flags: list[str], listed: Sequence[str] = ()) -> dict[str, Any]:
    """Values by dotted name; None for a stage that `--no-STAGE` leaves out.

    Args:
        listed: names of the recipe's stages, if it lists them: `--NAME.FIELD VALUE` changes one.
    Raises:
        ValueError: there is no such field, or it lacks a value or has too many.
    """
    known = {field.name: field for field in recipe_fields()}
    for stage in listed:
        fields_of = [*recipe_fields(SelfSettings), *recipe_fields(PolicySettings), *_OF_A_STAGE]
        known |= {f"{stage}.{field.name}": field for field in fields_of}
    values: dict[str, Any] = {}
    for flag, given in _grouped(flags):
        stage, dot, field_name = flag.removeprefix("--").partition(".")
        stage = stage if stage in listed else stage.replace("-", "_")
        name = stage + dot + field_name.replace("-", "_")
        if name.startswith("no_") and name[3:] in _SHORT_FORM:
            if given:
                raise ValueError(f"{flag} takes no value, got {given[0]!r}")
            values[name[3:]] = None
            continue
        last = name.rpartition(".")[2]
        if name not in known and last.startswith("no_"):
            name, given = name.removesuffix(last) + last[3:], ["false", *given]
        if name not in known:
            raise ValueError(no_flag(flag, [f"--{known_name}" for known_name in known]))
        values[name] = _value(flag, known[name], given)
    return values


def _grouped(flags: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields each flag with the values after it."""
    if flags and not flags[0].startswith("--"):
        raise ValueError(f"unexpected argument {flags[0]!r}")
    starts = [i for i, text in enumerate(flags) if text.startswith("--")]
    for begin, end in pairwise([*starts, len(flags)]):
        flag, equals, value = flags[begin].partition("=")
        yield flag, [*([value] if equals else []), *flags[begin + 1 : end]]


def _value(flag: str, field: RecipeField, given: list[str]) -> Any:
    if not given and field.is_bool:
        return True
    if not given:
        raise ValueError(f"{flag} needs a value")
    if field.is_list and (len(given) > 1 or given[0][:1] not in ("[", "{")):
        values = [part for text in given for part in text.split(",")]
        return None if values == ["None"] else values
    if len(given) > 1:
        raise ValueError(f"{flag} takes one value, got {' '.join(map(repr, given))}")
    return _parsed(flag, given[0])


def _parsed(flag: str, text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text[:1] not in ("[", "{"):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{flag} is no JSON ({error.msg} at character {error.pos}): {text!r}") from None


def flags_help(recipe: Recipe | None = None, most: int | None = None) -> str:
    """A line or more for each flag, with the value of a recipe."""
    values = {} if recipe is None else dict(_flat(recipe.to_dict()))
    shown = list(recipe_fields())
    lines = []
    for field in shown[:most]:
        value = values.get(field.name)
        default = "" if value is None else f" [{to_json(value):.60}]"
        name = f"  --{field.name}"
        text = textwrap.wrap(field.sentence + default, 74) or [""]
        lines += [f"{name:<42}{text[0]}"] if len(name) < 41 else [name, " " * 42 + text[0]]
        lines += [" " * 42 + line for line in text[1:]]
    if most is not None and most < len(shown):
        lines.append(f"  and {len(shown) - most} more: fastreason run RECIPE --help")
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        yield prefix + name, value
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
