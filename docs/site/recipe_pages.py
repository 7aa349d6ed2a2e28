"""Pages of recipes: those that ship, and every field, from the settings classes."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import resources
from typing import Any

from fastreason.runtime.field_docs import sentences_of
from fastreason.studies.recipe import Recipe, available_recipes
from fastreason.studies.study import Claim, RangePart
from fastreason.tasks.mixture import Cell

_STUDY = """
A study adds to these: `about` (text), `seeds` (list of numbers), `k` (default of claims), `compute` (a budget that a
variant's `beta` splits between mid-training and RL), `[[variants]]` (a `name`, a `note`, fields to replace, and
`remove`, the stages to omit), `[ranges]` (lists of parts by name) and `[[claims]]`. See
[Reproducing the findings](../reproducing.md#writing-your-own-study).
"""


def recipes_page() -> str:
    """Every recipe that ships, with its file."""
    parts = [
        "# Recipes\n\n`fastreason run NAME` takes any of these names, or a TOML file of your own that may start from "
        'one with `base = "NAME"`. The [fields](recipe-fields.md) are flags of the command line, too.\n'
    ]
    for name in available_recipes():
        text = resources.files("fastreason.studies").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")
        comment = re.match(r"(?:#.*\n)*", text)
        about = " ".join(line.lstrip("# ") for line in comment[0].splitlines()) if comment else ""
        parts.append(f"## {name}\n\n{about}\n\n```toml\n{text[len(comment[0]) if comment else 0 :].strip()}\n```\n")
    return "\n".join(parts)


def fields_page() -> str:
    """Every field of a recipe by its dotted name."""
    parts = ["# Recipe fields\n\nA field that is omitted takes its default. Values out of range are errors.\n"]
    parts += [_table(prefix, cls) for prefix, cls in _tables("", Recipe)]
    parts.append(f"## Studies\n{_STUDY}")
    parts += [_table(prefix, cls) for prefix, cls in (("ranges.NAME[]", RangePart), ("claims[]", Claim))]
    parts.append(_table("mixture[] (a cell; op, themes, modes and depths may be lists)", Cell))
    return "\n".join(parts)


def _tables(prefix: str, cls: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    """The class and, below it, those of its fields; a class that several fields have is listed once."""
    seen: dict[type[Any], str] = {}
    waiting = [(prefix, cls)]
    while waiting:
        prefix, cls = waiting.pop(0)
        if cls in seen:
            continue
        seen[cls] = prefix
        yield prefix, cls
        hints = typing.get_type_hints(cls)
        for field in fields(cls):
            for kind in (hints[field.name], *typing.get_args(hints[field.name])):
                if is_dataclass(kind) and isinstance(kind, type):
                    many = "[]" if typing.get_origin(hints[field.name]) is list else ""
                    waiting.append((f"{prefix}.{field.name}".lstrip(".") + many, kind))


def _table(prefix: str, cls: type[Any]) -> str:
    sentences = sentences_of(cls)
    about = (cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    rows = [
        f"| `{field.name}` | {_code(field.type)} | {_default(field)} | {_cell(sentences.get(field.name, ''))} |"
        for field in fields(cls)
    ]
    head = "| field | type | default | |\n| --- | --- | --- | --- |\n"
    return f"## {prefix or 'Top level'}\n\n{about}\n\n{head}" + "\n".join(rows) + "\n"


def _code(text: object) -> str:
    return f"`{text}`"  # a pipe in code needs no escape


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return _code(repr(field.default))
    return _code(repr(field.default_factory())) if field.default_factory is not MISSING else "required"
