"""Themes: the words of a problem, from the TOML files in themes/ or from custom ones."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from .. import _core
from ..runtime.arguments import instance
from ..runtime.files import read_toml
from ..runtime.plugins import THEMES, plugin_error, plugins

# words that separate the parts of a sentence or step
_RESERVED = frozenset(
    [
        *("a", "and", "as", "does", "equals", "exists", "greater", "has", "have", "in", "is", "minus"),
        *("per", "plus", "so", "than", "the", "times", "x"),
    ]
)


@dataclass(frozen=True, repr=False)
class Theme:
    """The words of a problem.

    Args:
        name: the `template` of rows.
        style: "published" (the text format of GSM-Infinite) or "symbolic" (one word per quantity).
        places, kinds: sub-lists of names; a problem takes its names from one sub-list of each.
        total, average, average_total: noun phrases in the published style, suffixes in the symbolic one.
        padding_places, padding_kinds: names for long contexts: a list of first words and a list of second words, which
            are combined freely. Optional.
    """

    name: str
    style: str
    places: tuple[tuple[str, ...], ...]
    kinds: tuple[tuple[str, ...], ...]
    total: str = ""
    average: str = ""
    average_total: str = ""
    padding_places: tuple[tuple[str, ...], ...] = ()
    padding_kinds: tuple[tuple[str, ...], ...] = ()

    def __repr__(self) -> str:
        places, kinds = (sum(map(len, lists)) for lists in (self.places, self.kinds))
        return f"Theme({self.name!r}, {self.style}: {places} places, {kinds} kinds)"

    def __post_init__(self) -> None:
        if self.style not in ("published", "symbolic"):
            raise ValueError(f"theme {self.name}: style must be published or symbolic, got {self.style!r}")
        for field in ("places", "kinds"):
            for name in chain.from_iterable(getattr(self, field)):
                self._check_words(field, name)
        self._check_padding()
        self._check_distinct()
        if self.style == "published":
            for field, start in (("total", "total "), ("average", "average "), ("average_total", "total ")):
                phrase = getattr(self, field)
                self._check_words(field, phrase)
                if not phrase.startswith(start):
                    raise ValueError(f"theme {self.name}: {field} must begin with {start.strip()!r}, got {phrase!r}")

    def _check_words(self, field: str, name: object) -> None:
        """Checks that names are words of letters and hyphens separated by single spaces, as the grammar requires."""
        words = name.split(" ") if isinstance(name, str) else []
        if not words or not all(part.isalpha() for word in words for part in word.split("-")):
            raise ValueError(
                f"theme {self.name}: {field} must be words of letters and inner hyphens separated by single spaces, "
                f"got {name!r}"
            )
        reserved = sorted(_RESERVED.intersection(words)) if self.style == "published" else []
        if reserved:
            raise ValueError(
                f"theme {self.name}: {name!r} in {field} contains {reserved[0]!r}, a word of the grammar; "
                f"avoid {', '.join(sorted(_RESERVED))}"
            )

    def _check_padding(self) -> None:
        for field, fewest in (("padding_places", 1), ("padding_kinds", 2)):
            words = getattr(self, field)
            if not words:
                continue
            if self.style == "symbolic":
                raise ValueError(
                    f"theme {self.name}: the symbolic style does not support padding, but {field} is given"
                )
            if len(words) != 2 or len(words[0]) < fewest or not 1 <= len(words[1]) <= 64:
                raise ValueError(
                    f"theme {self.name}: {field} must be two lists, {fewest} or more first words and 1 to 64 second "
                    f"words, got lists of {[len(part) for part in words]}"
                )
            for name in chain.from_iterable(words):
                self._check_words(field, name)

    def _padding(self, field: str) -> list[list[str]]:
        """Sub-lists of padding names, one for each first word."""
        words = getattr(self, field)
        return [[f"{first} {second}" for second in words[1]] for first in words[0]] if words else []

    def _check_distinct(self) -> None:
        """Names must be distinct and not contained in each other, otherwise texts would be ambiguous."""
        places, kinds = (list(chain.from_iterable(lists)) for lists in (self.places, self.kinds))
        names = places + kinds
        if self.style == "symbolic":
            names = places + [place + kind for place in places for kind in kinds]
        for field in ("padding_places", "padding_kinds"):
            names += chain.from_iterable(self._padding(field))
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise ValueError(f"theme {self.name}: {name!r} is used twice")
            seen.add(name)
        for name in names:
            words = name.split(" ")
            for first, last in combinations(range(len(words) + 1), 2):
                part = " ".join(words[first:last])
                if part != name and part in seen:
                    raise ValueError(f"theme {self.name}: the name {part!r} is contained in {name!r}")

    @classmethod
    def load(cls, name_or_path: str | Path) -> Theme:
        """Loads a theme by name (`available_themes()`) or from a TOML file of the same form.

        Raises:
            ValueError: there is no such theme or file, or a field is missing, unknown or invalid.
        """
        name_or_path = str(instance("Theme.load: name_or_path", name_or_path, str, Path))
        if name_or_path.endswith(".toml"):
            path, name = Path(name_or_path), Path(name_or_path).stem
            if not path.is_file():
                raise ValueError(f"theme: no file {name_or_path!r}")
            values = read_toml(path)
            try:
                return cls._from_toml(name, values)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}: {error}") from None
        if name_or_path not in available_themes():
            raise ValueError(
                f"theme: must be one of {', '.join(available_themes())} or a .toml file, got {name_or_path!r}"
            )
        return cls._from_toml(name_or_path, tomllib.loads(_file_of(name_or_path).read_text(encoding="utf-8")))

    @classmethod
    def _from_toml(cls, name: str, values: dict[str, Any]) -> Theme:
        known = {field.name for field in fields(cls)} - {"name"}
        if unknown := set(values) - known:
            raise ValueError(
                f"theme {name}: unknown field {sorted(unknown)[0]!r}; allowed are {', '.join(sorted(known))}"
            )
        for field in ("style", "places", "kinds"):
            if field not in values:
                raise ValueError(f"theme {name}: {field} is missing")
        keys = values.keys() & {"places", "kinds", "padding_places", "padding_kinds"}
        lists = {key: tuple(tuple(part) for part in values[key]) for key in keys}
        theme = cls(name, **(values | lists))
        theme.core  # noqa: B018 - the core has the last word on sizes
        return theme

    @cached_property
    def core(self) -> _core.Theme:
        return _core.Theme(
            self.name,
            self.style,
            [list(part) for part in self.places],
            [list(part) for part in self.kinds],
            self.total,
            self.average,
            self.average_total,
            self._padding("padding_places"),
            self._padding("padding_kinds"),
        )


@lru_cache
def available_themes() -> tuple[str, ...]:
    """The names of the themes that ship and of those of installed packages (entry points `fastreason.themes`)."""
    return tuple(sorted([*_shipped(), *plugins(THEMES, _shipped())]))


@lru_cache
def _shipped() -> dict[str, Traversable]:
    """The files of the built-in themes by name."""
    folder = resources.files("fastreason.text").joinpath("themes")
    return {file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")}


def _file_of(name: str) -> Traversable:
    """The file of an available theme; ValueError if a package names one that it does not have."""
    if name in _shipped():
        return _shipped()[name]
    point = plugins(THEMES, _shipped())[name]
    try:
        file = resources.files(point.module).joinpath(f"{name}.toml")
    except (ImportError, TypeError) as error:
        raise plugin_error(THEMES, point, error) from None
    if not file.is_file():
        raise plugin_error(THEMES, point, f"there is no file {name}.toml in it")
    return file


@lru_cache
def load_theme(name_or_path: str) -> Theme:
    return Theme.load(name_or_path)
