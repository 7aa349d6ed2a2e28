"""Results of evaluations and edge searches: numbers with intervals, tables, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ..runtime.field_docs import explain_fields
from ..tasks.mixture import Mixture
from .find_edge import EdgeCell, Label, edge_mixture, edge_table
from .pass_table import failure_table, table
from .seen_unseen import PARTS


@explain_fields
@dataclass(frozen=True)
class Estimate:
    """An estimated share with its 95 % interval."""

    value: float
    """The estimate, in 0 .. 1 like its bounds."""
    low: float
    """Lower bound."""
    high: float
    """Upper bound."""

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} - {100 * self.high:.1f})"


class PassAtK:
    """pass@k of a group of problems, for each requested k."""

    def __init__(self, values: Mapping[str, float], intervals: Mapping[str, Sequence[float]]) -> None:
        self._values, self._intervals = values, intervals

    @property
    def ks(self) -> tuple[int, ...]:
        """The values of k, increasing."""
        return tuple(map(int, self._values))

    def at(self, k: int) -> Estimate:
        """pass@k with its interval.

        Raises:
            ValueError: this k was not requested.
        """
        if k not in self.ks:
            raise ValueError(f"Scores: k must be one of {', '.join(map(str, self.ks))}, got {k!r}")
        low, high = self._intervals[str(k)]
        return Estimate(self._values[str(k)], low, high)

    def __repr__(self) -> str:
        return f"PassAtK({', '.join(f'@{k} {self.at(k)}' for k in self.ks[:4])}{', ...' if len(self.ks) > 4 else ''})"


class Level(Mapping[int | str, PassAtK]):
    """pass@k by op (an int), and by the name of a range, theme or mode."""

    def __init__(self, entries: Mapping[int | str, Mapping[str, Any]], name: str) -> None:
        self._entries, self.name = entries, name

    def __getitem__(self, key: int | str) -> PassAtK:
        if key not in self._entries:
            raise KeyError(f"{key!r}; there are {', '.join(map(repr, self._entries))}")
        entry = self._entries[key]
        return PassAtK(entry[self.name], entry[f"{self.name}_interval"])

    def __iter__(self) -> Iterator[int | str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Level({self.name!r} of {', '.join(map(repr, self))})"


class Scores:
    """The result of `fr.evaluate`, which prints as a table.

        scores.verified[6].at(8).value      verified pass@8 at op 6; also .low and .high
        scores.process_accuracy["edge"]     for a range, theme or mode by name

    Args:
        result: the content of results.json, see docs/evaluation.md.
    """

    def __init__(self, result: Mapping[str, Any]) -> None:
        self.result = dict(result)
        self._entries: dict[int | str, Mapping[str, Any]] = {int(op): entry for op, entry in result["ops"].items()}
        for group in ("ranges", "themes", "modes"):
            self._entries.update(result[group])

    @property
    def verified(self) -> Level:
        """pass@k where a sample passes if its answer and every gold step are correct."""
        return Level(self._entries, "verified")

    @property
    def sound(self) -> Level:
        """pass@k where a sample passes if it is verified and nothing written is wrong."""
        return Level(self._entries, "sound")

    @property
    def answer(self) -> Level:
        """pass@k where a sample passes if its answer is right, whatever the steps."""
        return Level(self._entries, "answer")

    @property
    def process_accuracy(self) -> dict[int | str, Estimate]:
        """The mean share of gold steps that are correct."""
        return {
            key: Estimate(entry["process_accuracy"], *entry["process_accuracy_interval"])
            for key, entry in self._entries.items()
        }

    @property
    def failures(self) -> dict[int | str, dict[str, float]]:
        """Shares of samples by failure kind; NONE are the sound ones."""
        return {key: dict(entry["failures"]) for key, entry in self._entries.items()}

    @property
    def graphs(self) -> dict[str, dict[str, Level]]:
        """Verified pass@k of the problems whose graph is in a set of `seen`, and of the others, by op and range.

        scores.graphs["training"]["unseen"][9].at(8)      op 9, on graphs that training has not shown
        """
        return {
            name: {
                part: Level(
                    {int(op): both[part] for op, both in found["ops"].items() if part in both}
                    | {title: both[part] for title, both in found["ranges"].items() if part in both},
                    "verified",
                )
                for part in PARTS
            }
            for name, found in self.result.get("graphs", {}).items()
        }

    @property
    def ops(self) -> tuple[int, ...]:
        """The evaluated ops, increasing."""
        return tuple(map(int, self.result["ops"]))

    @property
    def samples(self) -> int:
        """Number of graded samples."""
        return int(self.result["samples"])

    @property
    def tokens(self) -> int:
        """Total number of sampled tokens."""
        return int(self.result["tokens"])

    @property
    def traces(self) -> list[dict[str, Any]]:
        """A few samples with the status of their steps."""
        return list(self.result["traces"])

    def failure_table(self) -> str:
        """A table of the percentage of samples per failure kind and op."""
        return failure_table(self.result)

    def to_dict(self) -> dict[str, Any]:
        """The content of results.json."""
        return self.result

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Loads the results.json written by `fastreason eval --out`."""
        return cls(json.loads(Path(path).read_text(encoding="utf-8")))

    def __str__(self) -> str:
        return table(self.result)

    def __repr__(self) -> str:
        op = self.ops[-1]
        return f"Scores({self.samples:,} samples of op {list(self.ops)}: op {op} verified @1 {self.verified[op].at(1)})"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


class Edge:
    """The result of `fr.find_edge`: a label for each cell. Prints as a table."""

    def __init__(self, cells: Sequence[EdgeCell], samples: int) -> None:
        self.cells, self.samples = tuple(cells), samples

    def labelled(self, label: Label) -> tuple[EdgeCell, ...]:
        """The cells with this label: "mastered", "edge" or "out of reach"."""
        return tuple(cell for cell in self.cells if cell.label == label)

    @property
    def mixture(self) -> Mixture | None:
        """The cells at the edge, with weight 1 each, as training data for reinforcement learning; None if there are
        none."""
        parts = edge_mixture(self.cells)
        return Mixture.from_dict(parts) if parts else None

    def to_dict(self) -> dict[str, Any]:
        """The content of the file written by `fastreason edge --out`."""
        return {"cells": [cell.to_dict(self.samples) for cell in self.cells], "edge": edge_mixture(self.cells)}

    def __str__(self) -> str:
        return edge_table(self.cells, self.samples)

    def __repr__(self) -> str:
        counts = {label: len(self.labelled(label)) for label in ("mastered", "edge", "out of reach")}
        return f"Edge({', '.join(f'{count} {label}' for label, count in counts.items())})"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
