"""Themes: the words of a problem, from the TOML files in themes/ or from one of your own."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from importlib import resources
from itertools import chain, permutations
from pathlib import Path
from typing import Any

from . import _core

# words that tell the parts of a sentence or a step apart
_RESERVED = frozenset(
    [
        *("a", "and", "as", "does", "equals", "exists", "greater", "has", "have", "in", "is", "minus"),
        *("per", "plus", "so", "than", "the", "times", "x"),
    ]
)


@dataclass(frozen=True)
class Theme:
    """The words of a problem.

    Args:
        name: the `template` of rows.
        style: "published" (the word format of GSM-Infinite) or "symbolic" (one word a quantity).
        places, kinds: sub-lists of names; a problem takes its names from one of each.
        total, average, average_total: noun phrases in the published style, suffixes in the symbolic one.
    """

    name: str
    style: str
    places: tuple[tuple[str, ...], ...]
    kinds: tuple[tuple[str, ...], ...]
    total: str = ""
    average: str = ""
    average_total: str = ""

    def __post_init__(self) -> None:
        if self.style not in ("published", "symbolic"):
            raise ValueError(f"theme {self.name}: style must be published or symbolic, got {self.style!r}")
        for field in ("places", "kinds"):
            for name in chain.from_iterable(getattr(self, field)):
                self._check_words(field, name)
        self._check_distinct()
        if self.style == "published":
            for field, start in (("total", "total "), ("average", "average "), ("average_total", "total ")):
                phrase = getattr(self, field)
                self._check_words(field, phrase)
                if not phrase.startswith(start):
                    raise ValueError(f"theme {self.name}: {field} must begin with {start.strip()!r}, got {phrase!r}")

    def _check_words(self, field: str, name: object) -> None:
        """Words of letters and hyphens, one blank between them: what the grammar of problems and solutions can hold."""
        words = name.split(" ") if isinstance(name, str) else []
        if not words or not all(part.isalpha() for word in words for part in word.split("-")):
            raise ValueError(
                f"theme {self.name}: {field} must be words of letters and inner hyphens with one blank between, "
                f"got {name!r}"
            )
        reserved = sorted(_RESERVED.intersection(words)) if self.style == "published" else []
        if reserved:
            raise ValueError(
                f"theme {self.name}: {name!r} in {field} holds {reserved[0]!r}, which has a meaning in the grammar; "
                f"avoid {', '.join(sorted(_RESERVED))}"
            )

    def _check_distinct(self) -> None:
        """A name must not be another one, nor stand inside it: texts would have two readings."""
        places, kinds = (list(chain.from_iterable(lists)) for lists in (self.places, self.kinds))
        names = places + kinds
        if self.style == "symbolic":
            names = places + [place + kind for place in places for kind in kinds]
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise ValueError(f"theme {self.name}: {name!r} stands for two things")
            seen.add(name)
        for a, b in permutations(names, 2):
            if f" {a} " in f" {b} ":
                raise ValueError(f"theme {self.name}: the name {a!r} stands inside {b!r}")

    @classmethod
    def load(cls, name_or_path: str) -> Theme:
        """A theme that ships (`available_themes()`), or any TOML file of the same form."""
        if name_or_path.endswith(".toml"):
            path, name = Path(name_or_path), Path(name_or_path).stem
            if not path.is_file():
                raise ValueError(f"theme: no file {name_or_path!r}")
            text = path.read_text(encoding="utf-8")
        else:
            if name_or_path not in available_themes():
                raise ValueError(
                    f"theme: must be one of {', '.join(available_themes())} or a .toml file, got {name_or_path!r}"
                )
            name = name_or_path
            text = resources.files("fastreason").joinpath("themes", name + ".toml").read_text(encoding="utf-8")
        return cls._from_toml(name, tomllib.loads(text))

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
        lists = {key: tuple(tuple(part) for part in values[key]) for key in ("places", "kinds")}
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
        )


@lru_cache
def available_themes() -> tuple[str, ...]:
    """Names of the themes that ship."""
    folder = resources.files("fastreason").joinpath("themes")
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


@lru_cache
def load_theme(name_or_path: str) -> Theme:
    return Theme.load(name_or_path)
