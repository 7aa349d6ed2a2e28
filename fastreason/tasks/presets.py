"""Mixtures from JSON files like the released presets.json, where names are nested by two levels:

    {"composition-10B": {"op_level": {"id2-10_uniform": ENTRY, ...}, ...}, ...}

An ENTRY gives shares of ops, `{"id_op": [2, 3], "op_prob": [0.5, 0.5]}`, shares of templates, `{"id_context":
["crazy_zootopia"], "context_prob": [1.0]}`, or is a list of templates with a share and ops of their own. Shares are
relative: some of the released lists do not sum to 1, and every list is scaled so that it does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runtime.arguments import listed
from ..runtime.json_files import read_json
from .stream import Cell, Mixture

# the released names of the templates that our themes are shaped like
TEMPLATES = {"crazy_zootopia": "zoo", "teachers_in_school": "school", "movie_festival_awards": "festival"}


def read_presets(path: str | Path) -> dict[str, Any]:
    """The entries of a file by `group/level/name`.

    Raises:
        ValueError: the file is missing, is no JSON, or is not nested so.
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
        raise ValueError(f"presets: {path} holds no entry")
    return entries


def mixture_from_presets(
    path: str | Path, name: str, op: Iterable[int], themes: Sequence[str], templates: Mapping[str, str]
) -> Mixture:
    """See `Mixture.from_presets`."""
    entries = read_presets(path)
    found = [full for full in entries if full == name or full.endswith("/" + name)]
    if not found:
        raise ValueError(f"presets: {path} has no entry {name!r}; there are {', '.join(entries)}")
    if len(found) > 1:
        raise ValueError(f"presets: {name!r} may be {' or '.join(found)}")
    defaults = {"id_op": listed("presets: op", op), "id_context": listed("presets: themes", themes)}
    try:
        return Mixture(_weights(entries[found[0]], defaults, {name: name for name in themes} | dict(templates)))
    except (ValueError, TypeError, KeyError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"presets: {found[0]}: {reason}") from error


def _weights(entry: Any, defaults: Mapping[str, Any], theme_of: Mapping[str, str]) -> dict[Cell, float]:
    parts: list[tuple[float, Any]] = [(1.0, entry)]
    if isinstance(entry, list):
        # one template a part: its share is that of the part
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
    """Share of each op or template; the defaults alike where the part lists none."""
    if f"id_{what}" in part:
        return _shares(part[f"id_{what}"], part[f"{what}_prob"])
    names = defaults[f"id_{what}"]
    if not names:
        raise ValueError(f"lists no {what}; give the argument {'op' if what == 'op' else 'themes'}")
    return _shares(names, [1.0 / len(names)] * len(names))


def _shares(names: Sequence[Any], shares: Sequence[float]) -> dict[Any, float]:
    """Scaled to a sum of 1; a name that is listed twice has both of its shares."""
    total = sum(shares)
    if len(names) != len(shares) or not all(share >= 0 for share in shares) or not total > 0:
        raise ValueError(f"shares must be numbers >= 0, one for each of {list(names)}, got {list(shares)}")
    if abs(total - 1) > 0.02:
        warnings.warn(f"presets: shares {list(shares)} sum to {total:.4g}; they are scaled to 1", stacklevel=6)
    found: dict[Any, float] = {}
    for name, share in zip(names, shares, strict=True):
        found[name] = found.get(name, 0.0) + share / total
    return found
