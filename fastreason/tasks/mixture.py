"""Mixtures: which problems, with which weights; by name, from settings, or from a file like the released presets.json.

In such a file names are nested in two levels:

    {"composition-10B": {"op_level": {"id2-10_uniform": ENTRY, ...}, ...}, ...}

An ENTRY gives shares of ops, `{"id_op": [2, 3], "op_prob": [0.5, 0.5]}`, shares of templates, `{"id_context":
["crazy_zootopia"], "context_prob": [1.0]}`, or is a list of templates, each with its share and ops. Shares are
relative: some of the released lists do not sum to 1, and every list is rescaled so that it does.
"""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from ..runtime.arguments import integer, listed, number
from ..runtime.field_docs import explain_fields
from ..runtime.json_files import read_json, shown
from ..text.theme import load_theme

MODES: tuple[str, ...] = ("forward", "reverse")
DEPTHS: tuple[int, ...] = (2, 3)
MIN_OP, MAX_OP = 2, 40


@explain_fields
@dataclass(frozen=True)
class Cell:
    """One kind of problem: the settings that problems of a mixture's cell are drawn with."""

    op: int
    """Number of arithmetic operations, the exact difficulty."""
    theme: str = "zoo"
    """Name of a built-in theme, or path of a TOML file."""
    mode: str = "forward"
    """forward: asks for the last quantity; reverse: gives the last quantity and asks for an earlier one."""
    depth: int = 2
    """2: counts and their totals; 3: also averages per count, and totals over all counts."""
    number_range: int = 5
    """Constants are in 1 .. number_range - 1."""
    max_value: int = 1000
    """Largest value of any quantity that the answer depends on."""
    max_sentences: int = 50
    """Maximum number of sentences, not counting padding and the given value of reverse problems; 50: no limit."""
    circular_distractors: bool = True
    """Whether distractors may define each other in a circle, as they do in up to 20 % of the released problems."""
    context: int = 0
    """Tokens of padding: as many sentences about other places as fit. The maximum depends on the theme."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("op", MIN_OP, MAX_OP),
            ("depth", min(DEPTHS), max(DEPTHS)),
            ("number_range", 3, 100),
            ("max_value", 1, 1_000_000),
            ("max_sentences", 1, 50),
            ("context", 0, 10_000_000),
        ):
            # numpy integers become plain ints, so that equal cells are the same cell
            object.__setattr__(self, name, integer(f"mixture: {name}", getattr(self, name), low, high))
        if not isinstance(self.circular_distractors, bool):
            raise ValueError(f"mixture: circular_distractors must be True or False, got {self.circular_distractors!r}")
        if self.mode not in MODES:
            raise ValueError(f"mixture: mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if not isinstance(self.theme, str):
            raise ValueError(f"mixture: theme must be a name or a path, got {self.theme!r}")
        if load_theme(self.theme).style == "symbolic" and (self.mode, self.depth) != ("forward", 2):
            raise ValueError(
                f"mixture: theme {self.theme} has the symbolic style, which supports only mode 'forward' and depth 2, "
                f"got {self.mode!r} and {self.depth}"
            )


class Mixture:
    """Weighted cells. Mixtures can be added and scaled: `0.2 * a + 0.8 * b` draws from a one time in five.

    Args:
        weights: a weight >= 0 for each Cell; relative, at least one positive.
    Raises:
        ValueError: a key is not a Cell, a weight is negative or not finite, or none is positive.

    >>> mix = Mixture.uniform(op=range(2, 6), themes=["symbolic"])
    >>> sorted({cell.op for cell in mix.weights})
    [2, 3, 4, 5]
    """

    def __init__(self, weights: Mapping[Cell, float]) -> None:
        for cell, weight in weights.items():
            if not isinstance(cell, Cell):
                raise ValueError(f"mixture: weights must be numbers >= 0 by Cell, got {cell!r}: {weight!r}")
        numbers = {cell: number("mixture: a weight", weight, 0.0) for cell, weight in weights.items()}
        self.weights = {cell: weight for cell, weight in numbers.items() if weight > 0}
        if not self.weights:
            raise ValueError("mixture: must have at least one cell with a positive weight")

    @classmethod
    def uniform(
        cls,
        op: Iterable[int],
        themes: Sequence[str] = ("zoo",),
        modes: Sequence[str] = ("forward",),
        depths: Sequence[int] = (2,),
        **settings: Any,
    ) -> Mixture:
        """All combinations of op, theme, mode and depth, with equal weights that sum to 1.

        Args:
            op: integers in 2 .. 40.
            themes: names of built-in themes or paths of TOML files.
            modes: "forward", "reverse".
            depths: 2, 3.
            settings: other fields of `Cell`.
        """
        given = {"op": op, "themes": themes, "modes": modes, "depths": depths}
        combinations = product(*(listed(f"mixture: {name}", values) for name, values in given.items()))
        cells = [Cell(op=o, theme=theme, mode=mode, depth=depth, **settings) for o, theme, mode, depth in combinations]
        if not cells:
            raise ValueError("mixture: op, themes, modes and depths must not be empty")
        return cls({cell: 1.0 / len(cells) for cell in cells})

    @classmethod
    def from_dict(cls, parts: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Mixture:
        """A weighted sum of uniform mixtures, each as a mapping of the arguments of `uniform` and a `weight`.

        >>> mix = Mixture.from_dict([{"op": [2, 3], "weight": 0.9}, {"op": [6], "weight": 0.1}])
        >>> round(sum(mix.weights.values()), 6)
        1.0
        """
        total: Mixture | None = None
        for part in [parts] if isinstance(parts, Mapping) else listed("mixture: parts", parts):
            if not isinstance(part, Mapping):
                raise ValueError(f"mixture: parts must be dicts of the arguments of `uniform`, got {shown(part)}")
            arguments = dict(part)
            weight = arguments.pop("weight", 1.0)
            weight = number("mixture: weight", weight, 0.0, above_low=True)
            allowed = {"op", "themes", "modes", "depths", "number_range", "max_value", "max_sentences"}
            allowed |= {"circular_distractors", "context"}
            if unknown := set(arguments) - allowed:
                raise ValueError(
                    f"mixture: unknown field {sorted(unknown)[0]!r}; allowed are weight, {', '.join(sorted(allowed))}"
                )
            if "op" not in arguments:
                raise ValueError("mixture: op is missing")
            scaled = weight * cls.uniform(**arguments)
            total = scaled if total is None else total + scaled
        if total is None:
            raise ValueError("mixture: must have at least one part")
        return total

    @classmethod
    def preset(cls, name: str, themes: Sequence[str] = ("zoo", "school", "festival")) -> Mixture:
        """A mixture of the paper by name; see `available_mixtures()` and fastreason/tasks/mixtures.toml.

        Args:
            name: one of `available_mixtures()`.
            themes: for parts that do not name any.

        >>> Mixture.preset("rl-op11-14").ops
        (11, 12, 13, 14)
        """
        return cls.from_dict(cls.preset_parts(name, themes))

    @staticmethod
    def preset_parts(name: str, themes: Sequence[str] = ("zoo", "school", "festival")) -> list[dict[str, Any]]:
        """The parts that `preset` passes to `from_dict`."""
        presets = _presets()
        if name not in presets:
            raise ValueError(f"mixture: preset must be one of {', '.join(presets)}, got {name!r}")
        return [{"themes": listed("mixture: themes", themes), **part} for part in presets[name]["parts"]]

    @classmethod
    def from_presets(
        cls,
        path: str | Path,
        name: str,
        *,
        op: Iterable[int] = (),
        themes: Sequence[str] = ("zoo", "school", "festival"),
        templates: Mapping[str, str] | None = None,
    ) -> Mixture:
        """A mixture from a JSON file like the released presets.json: forward, depth 2, weights that sum to 1.

        Args:
            path: the file; its names are nested in two levels.
            name: `group/level/name`, or an unambiguous suffix of it.
            op: for an entry that lists no ops.
            themes: for an entry that lists no templates, with equal shares.
            templates: the theme for each template; by default the built-in theme of the same shape.
        Raises:
            ValueError: the file or entry does not exist or cannot be interpreted, or ops are not specified.
        """
        return mixture_from_presets(path, name, op, themes, TEMPLATES if templates is None else templates)

    def __add__(self, other: Mixture) -> Mixture:
        weights = dict(self.weights)
        for cell, weight in other.weights.items():
            weights[cell] = weights.get(cell, 0.0) + weight
        return Mixture(weights)

    def __rmul__(self, factor: float) -> Mixture:
        factor = number("mixture: the factor", factor, 0.0, above_low=True)
        return Mixture({cell: factor * weight for cell, weight in self.weights.items()})

    __mul__ = __rmul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mixture) and self.weights == other.weights

    __hash__ = None  # type: ignore[assignment]

    def to_parts(self) -> list[dict[str, Any]]:
        """The mixture as input of `from_dict` and of a recipe's `mixture`: one part per cell.

        >>> mix = 0.5 * Mixture.uniform(op=[2, 3]) + Mixture.uniform(op=[3], depths=[3])
        >>> Mixture.from_dict(mix.to_parts()) == mix
        True
        """
        lists = {"op": "op", "theme": "themes", "mode": "modes", "depth": "depths"}
        return [
            {lists.get(name, name): [value] if name in lists else value for name, value in asdict(cell).items()}
            | {"weight": weight}
            for cell, weight in self.weights.items()
        ]

    def replace(self, **settings: Any) -> Mixture:
        """The same weights with these fields of every cell replaced."""
        weights: dict[Cell, float] = {}
        for cell, weight in self.weights.items():
            changed = replace(cell, **settings)
            weights[changed] = weights.get(changed, 0.0) + weight
        return Mixture(weights)

    @property
    def themes(self) -> tuple[str, ...]:
        """The themes of all cells, without repetition."""
        return tuple(dict.fromkeys(cell.theme for cell in self.weights))

    @property
    def ops(self) -> tuple[int, ...]:
        """The ops of all cells, increasing."""
        return tuple(sorted({cell.op for cell in self.weights}))

    @property
    def max_value(self) -> int:
        """The largest `Cell.max_value`."""
        return max(cell.max_value for cell in self.weights)

    def __repr__(self) -> str:
        return f"Mixture({len(self.weights)} cells, op {list(self.ops)}, themes {list(self.themes)})"


@lru_cache
def _presets() -> dict[str, Any]:
    return tomllib.loads(resources.files("fastreason.tasks").joinpath("mixtures.toml").read_text(encoding="utf-8"))


def available_mixtures() -> tuple[str, ...]:
    """The names that `Mixture.preset` accepts."""
    return tuple(_presets())


# the released names of the templates that our themes correspond to
TEMPLATES = {"crazy_zootopia": "zoo", "teachers_in_school": "school", "movie_festival_awards": "festival"}


def read_presets(path: str | Path) -> dict[str, Any]:
    """The entries of a file by `group/level/name`.

    Raises:
        ValueError: the file is missing, is not JSON, or is not nested in this way.
    """
    try:
        groups = read_json(Path(path))
        entries = {
            f"{group}/{level}/{name}": entry
            for group, levels in groups.items()
            for level, names in levels.items()
            for name, entry in names.items()
        }
    except AttributeError:
        raise ValueError(f"presets: {path} is not of the form {{group: {{level: {{name: entry}}}}}}") from None
    except ValueError as error:
        raise ValueError(f"presets: {error}") from None
    if not entries:
        raise ValueError(f"presets: {path} has no entries")
    return entries


def mixture_from_presets(
    path: str | Path, name: str, op: Iterable[int], themes: Sequence[str], templates: Mapping[str, str]
) -> Mixture:
    """See `Mixture.from_presets`."""
    entries = read_presets(path)
    matches = [full for full in entries if full == name or full.endswith("/" + name)]
    if not matches:
        raise ValueError(f"presets: {path} has no entry {name!r}; there are {', '.join(entries)}")
    if len(matches) > 1:
        raise ValueError(f"presets: {name!r} is ambiguous: {' or '.join(matches)}")
    defaults = {"id_op": listed("presets: op", op), "id_context": listed("presets: themes", themes)}
    try:
        return Mixture(_weights(entries[matches[0]], defaults, {name: name for name in themes} | dict(templates)))
    except (ValueError, TypeError, KeyError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"presets: {matches[0]}: {reason}") from error


def _weights(entry: Any, defaults: Mapping[str, Any], theme_of: Mapping[str, str]) -> dict[Cell, float]:
    parts: list[tuple[float, Any]] = [(1.0, entry)]
    if isinstance(entry, list):
        # one template per part: its share is that of the part
        shares = _shares(range(len(entry)), [part["context_prob"] for part in entry])
        names = [{"id_context": [part["id_context"]], "context_prob": [1.0]} for part in entry]
        parts = [(shares[i], {**part, **names[i]}) for i, part in enumerate(entry)]
    weights: dict[Cell, float] = {}
    for part_share, part in parts:
        ops = _listed(part, "op", defaults)
        for template, theme_share in _listed(part, "context", defaults).items():
            if template not in theme_of:
                raise ValueError(f"no theme is known for {template!r}; name one with templates={{{template!r}: ...}}")
            for op, op_share in ops.items():
                cell = Cell(op=op, theme=theme_of[template])
                weights[cell] = weights.get(cell, 0.0) + part_share * theme_share * op_share
    return weights


def _listed(part: Mapping[str, Any], what: str, defaults: Mapping[str, Any]) -> dict[Any, float]:
    """The share of each op or template; equal shares of the defaults if the part lists none."""
    if f"id_{what}" in part:
        return _shares(part[f"id_{what}"], part[f"{what}_prob"])
    names = defaults[f"id_{what}"]
    if not names:
        raise ValueError(f"lists no {what}; give the argument {'op' if what == 'op' else 'themes'}")
    return _shares(names, [1.0 / len(names)] * len(names))


def _shares(names: Sequence[Any], shares: Sequence[float]) -> dict[Any, float]:
    """Rescales shares to sum to 1; a name listed twice gets the sum of its shares."""
    total = sum(shares)
    if len(names) != len(shares) or not all(share >= 0 for share in shares) or not total > 0:
        raise ValueError(f"shares must be numbers >= 0, one for each of {list(names)}, got {list(shares)}")
    if abs(total - 1) > 0.02:
        warnings.warn(f"presets: shares {list(shares)} sum to {total:.4g}; they are rescaled to 1", stacklevel=6)
    share_of: dict[Any, float] = {}
    for name, share in zip(names, shares, strict=True):
        share_of[name] = share_of.get(name, 0.0) + share / total
    return share_of
