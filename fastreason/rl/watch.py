"""Says once, by name, when a stage of reinforcement learning leaves what it began with: samples that no longer end,
lengths that run to the limit or fall away, an entropy near 0.

Each of RULES compares the mean of the last WINDOW steps that have a value with that of the first WINDOW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

WINDOW = 5
"""Steps of a mean."""


@dataclass(frozen=True)
class Rule:
    """What must not happen to a field of metrics.jsonl.

    Args:
        field: its name.
        broken: of (mean of the first steps, mean of the last steps, max_new_tokens).
        says: what has happened, in words.
    """

    field: str
    broken: Callable[[float, float, float], bool]
    says: str


RULES: Mapping[str, Rule] = {
    "finished": Rule("finished", lambda first, last, limit: last < first - 0.2, "fewer samples end by themselves"),
    "entropy": Rule(
        "entropy", lambda first, last, limit: last < 0.1 * first, "samples of a prompt are all but the same"
    ),
    "length at the limit": Rule(
        "mean_length",
        lambda first, last, limit: first < 0.75 * limit and last >= 0.9 * limit,
        "samples run to max_new_tokens",
    ),
    "length": Rule("mean_length", lambda first, last, limit: last < 0.5 * first, "samples stop early"),
}


class Watch:
    """Looks at every step of a stage.

    Args:
        max_new_tokens: of the stage.
        state: of an earlier part of the stage; JSON, part of the checkpoint.
    """

    def __init__(self, max_new_tokens: int, state: Mapping[str, Any] | None = None) -> None:
        self.limit = float(max_new_tokens)
        state = state or {}
        self.first: dict[str, list[float]] = {key: list(values) for key, values in state.get("first", {}).items()}
        self.last: dict[str, list[float]] = {key: list(values) for key, values in state.get("last", {}).items()}
        self.told: list[str] = list(state.get("told", []))

    def state(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last, "told": self.told}

    def look(self, line: Mapping[str, Any]) -> list[str]:
        """What is to be said of a step, as sentences; each rule speaks once a stage.

        Args:
            line: of metrics.jsonl; a step without an update has no entropy, and does not count for it.
        """
        for field in {rule.field for rule in RULES.values()} & line.keys():
            first, last = self.first.setdefault(field, []), self.last.setdefault(field, [])
            if len(first) < WINDOW:
                first.append(line[field])
            self.last[field] = [*last, line[field]][-WINDOW:]
        found = []
        for name, rule in RULES.items():
            if name in self.told or len(self.first.get(rule.field, [])) < WINDOW:
                continue
            first_mean, last_mean = (sum(values[rule.field]) / WINDOW for values in (self.first, self.last))
            if rule.broken(first_mean, last_mean, self.limit):
                self.told.append(name)
                went = f"{rule.field} went from {first_mean:.3g} to {last_mean:.3g}"
                found.append(f"{name}: {rule.says}; {went} (means of {WINDOW} steps)")
        return found
