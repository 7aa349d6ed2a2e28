"""Extracts themes from data in the GSM-Infinite format, to generate more problems with the same words.

A problem takes its places from one sub-list and its kinds from one, so names that occur in the same problem belong to
the same sub-list: the sub-lists are connected components.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..runtime.files import check_folder, toml_text, write_text
from .theme import Theme

_COUNT = re.compile(r"The number of (.+) in (.+?)(?: equals .+| exists, and its number is greater than 0)")
_AVERAGE = re.compile(r"The (average number of .+?) per (.+) in (.+?)(?: equals .+| is greater than 0)")
_TOTAL = re.compile(r"\b(total number of .+?) in ")
_PRODUCT_STEP = re.compile(r"Define (total number of .+?) in [^;]+; [A-Za-z] = [A-Za-z] \* [A-Za-z] ")


class _Words:
    """The words found in the rows of one template."""

    def __init__(self) -> None:
        self.place_sets: list[set[str]] = []
        self.kind_sets: list[set[str]] = []
        self.totals: Counter[str] = Counter()
        self.product_totals: Counter[str] = Counter()
        self.averages: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        places, kinds = set(), set()
        for sentence in row["problem"].strip().removesuffix(".").split(". "):
            if match := _AVERAGE.fullmatch(sentence):
                self.averages[match[1]] += 1
                kinds.add(match[2])
                places.add(match[3])
            elif match := _COUNT.fullmatch(sentence):
                kinds.add(match[1])
                places.add(match[2])
        self.place_sets.append(places)
        self.kind_sets.append(kinds)
        self.totals.update(_TOTAL.findall(row["problem"]) + _TOTAL.findall(row["solution"]))
        self.product_totals.update(_PRODUCT_STEP.findall(row["solution"]))

    def theme(self, name: str) -> Theme:
        """The theme; ValueError if the rows do not contain enough of it."""
        counts = [total for total, _ in self.totals.most_common() if total not in self.product_totals]
        if not counts:
            raise ValueError(f"theme {name}: the rows name no total")
        # depth 2 has no averages; any words will do, since they are never used
        average = self.averages.most_common(1)[0][0] if self.averages else "average number of items"
        product = self.product_totals.most_common(1)
        average_total = product[0][0] if product else average.replace("average", "total", 1)
        return Theme(
            name,
            "published",
            _components(self.place_sets),
            _components(self.kind_sets),
            counts[0],
            average,
            average_total,
        )


def learn_themes(rows: Iterable[Mapping[str, Any]]) -> dict[str, Theme]:
    """Extracts one theme per `template` from rows in the published schema.

    Args:
        rows: mappings with problem, solution and template. A few hundred per template contain all of its names.
    Raises:
        ValueError: a key is missing, or a template has too few rows.
    """
    words: dict[str, _Words] = defaultdict(_Words)
    for i, row in enumerate(rows):
        if missing := {"problem", "solution", "template"} - set(row):
            raise ValueError(f"learn_themes: row {i} has no {sorted(missing)[0]!r}")
        for field in ("problem", "solution", "template"):
            if not isinstance(row[field], str):
                raise ValueError(f"learn_themes: row {i}: {field} must be a text, got {row[field]!r:.50}")
        words[row["template"]].add(row)
    themes = {name: rows.theme(name) for name, rows in words.items()}
    for theme in themes.values():
        theme.core  # noqa: B018 - the core has the last word on sizes
    return themes


def learn_file(path: str | Path, out: str | Path) -> list[Path]:
    """Extracts the themes of a JSONL file and writes each as OUT/TEMPLATE.toml."""
    rows = list(_rows(Path(path)))
    try:
        themes = learn_themes(rows)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    check_folder("learn_themes: out", Path(out))
    written = []
    for name, theme in sorted(themes.items()):
        target = Path(out) / f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}.toml"
        fields = ("style", "total", "average", "average_total", "places", "kinds")
        write_text(target, toml_text({field: getattr(theme, field) for field in fields}))
        written.append(target)
    return written


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file; ValueError with file and line for anything else."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: no JSON ({error})") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: must be an object, got {type(row).__name__}")
            yield row


def _components(sets: Iterable[set[str]]) -> tuple[tuple[str, ...], ...]:
    """Sorted names of each connected component, components sorted."""
    components: list[set[str]] = []
    for names in sets:
        touched = [component for component in components if component & names]
        merged = set(names).union(*touched)
        components = [component for component in components if component not in touched] + [merged]
    return tuple(sorted(tuple(sorted(component)) for component in components if component))
