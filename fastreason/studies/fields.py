"""Values of a recipe's file as plain tables: dotted names, merging, and settings classes built from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ..runtime.json_files import shown

T = TypeVar("T")
# fields of which a stage has one
_EITHER = ({"tokens", "steps", "budget"}, {"mixture", "phases"})
# errors that say the value themselves, and those about a name
_WITH_VALUE = {"value_error", "missing", "missing_argument", "unexpected_keyword_argument", "extra_forbidden"}


def nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables from dotted names.

    >>> nested({"rl.steps": 3, "rl.optim.lr": 0.1, "seed": 1})
    {'rl': {'steps': 3, 'optim': {'lr': 0.1}}, 'seed': 1}
    """
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        *sections, last = name.split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
        table[last] = value
    return values


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merges `changes` into `values`: tables by field, lists of named tables by name; everything else is replaced.

    A stage has one length and one kind of data: a new one replaces an existing one in another form.

    >>> merge({"rl": {"steps": 3, "prompts": 8}}, {"rl": {"budget": "1 samples"}})
    {'rl': {'prompts': 8, 'budget': '1 samples'}}
    """
    given = {name for name in changes if changes[name] is not None}
    replaced = {name for names in _EITHER if names & given for name in names - set(changes)}
    merged = {name: value for name, value in values.items() if name not in replaced}
    for name, change in changes.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(change, Mapping):
            merged[name] = merge(before, change)
        elif isinstance(before, list) and _are_named(before) and _are_named(change):
            merged[name] = _merge_named(before, change)
        else:
            merged[name] = change
    return merged


def _are_named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) and "name" in v for v in value)


def _merge_named(values: list[Any], changes: list[Any]) -> list[Any]:
    by_name = {value["name"]: value for value in values}
    for change in changes:
        by_name[change["name"]] = merge(by_name.get(change["name"], {}), change)
    return list(by_name.values())


def validated(kind: type[T], values: Mapping[str, Any], source: str) -> T:
    """Builds an object of a settings class; a ValueError names invalid fields."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ValueError(f"{source}: {_what(error)}") from None


def _what(error: ValidationError) -> str:
    return "; ".join(_line(item) for item in error.errors())


def _line(item: ErrorDetails) -> str:
    """The place of an invalid field, what is wrong, and its value."""
    place, message = [str(part) for part in item["loc"]], item["msg"].removeprefix("Value error, ")
    if place:  # our own messages begin with the table that they are about
        message = message.removeprefix(f"{place[-1]}: ")
    if item["type"] not in _WITH_VALUE:
        message += f", got {shown(item['input'])}"
    return ": ".join([".".join(place), message] if place else [message])


def without_none(value: Any) -> Any:
    """Removes fields that are None, which TOML cannot represent, and turns tuples into lists."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_none(item) for item in value]
    return value
